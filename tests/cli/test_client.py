"""Commands against an admin API: a stand-in that records what it was asked."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agent.cli.output import print_tree
from agent.cli.status import _print_sources
from retrain.ledger import Ledger

Remora: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
Refusal: TypeAlias = Callable[..., str]
ROOT = Path(__file__).resolve().parent.parent.parent

ANSWERS: dict[str, Any] = {
    "/api/v1/status": {"model": "credit", "states": {"ok": 7, "drift": 1}, "run": None},
    "/api/v1/findings?limit=2": {
        "findings": [{"at": None, "state": "drift", "kind": "data_drift", "subject": "a\x1b[2Jb"}]
    },
    "/api/v1/findings?limit=50&kind=concept_drift&state=drift&subject=error+rate": {
        "findings": [{"state": "drift", "explain": "error rate rose"}]
    },
    "/api/v1/rollouts": {
        "rollouts": [
            {
                "id": "3",
                "candidate": "7c" * 32,
                "stable": "external:http://127.0.0.1:18743",
                "weight": 0.05,
                "reason": "route 8 confirmed",
                "because": "errors 18/49",
            }
        ]
    },
    "/api/v1/versions": {"versions": [{"version": "7", "digest": "3f9a" * 16, "stable": True}]},
    "/api/v1/quarantine": {"quarantine": []},
    "/api/v1/ledger?after=2&limit=5": {
        "entries": [{"id": 3, "at": 0.0, "kind": "decision", "reason": "drift (2) > 1"}],
        "head": "ab",
    },
    "/api/v1/ledger/verify": {"entries": 3, "ok": False, "broken_at": 2},
}


class Admin(ThreadingHTTPServer):
    """Answers from ANSWERS, refuses as told, remembers every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, Any, str | None]] = []
        self.refuse: tuple[int, str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Admin

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: Any) -> None:
        token = self.headers.get("authorization")
        self.server.asked.append((self.command, self.path, body, token))
        status, answer = 200, ANSWERS.get(self.path, {"run_id": "r1"})
        if self.server.refuse is not None:
            status, answer = self.server.refuse[0], {"error": self.server.refuse[1]}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def admin() -> Iterator[Admin]:
    server = Admin()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["status"], "ok 7, drift 1"),
        (["findings", "--limit", "2"], "a [2Jb"),
        (
            ["findings", "--kind", "concept_drift", "--state", "drift", "--subject", "error rate"],
            "error rate rose",
        ),
        (["rollouts"], "errors 18/49"),
        (["rollouts"], "external:http://127.0.0.1:18743"),
        (["model", "list"], "3f9a3f9a"),
        (["model", "show", "3f9a3f9a"], "stable"),
        (["quarantine", "list"], "Quarantine: none"),
        (["ledger", "--after", "2", "--limit", "5"], "drift (2) > 1"),
    ],
)
def test_what_is_known_is_shown_and_given_as_json(
    remora: Remora, admin: Admin, arguments: list[str], shown: str
) -> None:
    done = remora(*arguments, "--admin", admin.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout
    json.loads(remora(*arguments, "--admin", admin.url, "--json").stdout)


def test_the_status_is_written_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "errors 18/49 against 2/350: " + "more than chance allows, " * 9 + "rolled back"
    print_tree(
        {
            "uptime_s": 227.4,
            "run": None,
            "stable": {"address": "http://127.0.0.1:35221", "digest": "3f9a" * 16},
            "rollout": {"reason": reason, "started_at": 1e9, "assessment": {"words": ""}},
            "server": {"memory_bytes": 183_500_800.0, "pid": 16_639.0},
            "protocol": {"open_inference": 201},
            "decision": {"reason": "", "policy": "drift"},
        }
    )
    shown = capsys.readouterr().out
    assert "uptime:   3 min 47 s" in shown
    assert "memory 175 MiB, pid 16639" in shown
    assert reason in shown
    assert "3f9a" * 16 in shown
    assert "2001-09-0" in shown
    assert "decision: policy drift\n" in shown
    assert "protocol: open_inference 201" in shown
    assert "run" not in shown
    assert "assessment" not in shown


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (["trigger", "--policy", "drift"], "trigger", {"reason": "by hand", "policy": "drift"}),
        (["rollout", "start", "7", "--yes"], "rollouts", {"candidate": "7"}),
        (
            ["rollout", "promote", "3/..", "--yes"],
            "rollouts/3%2F../promote",
            {"reason": "by hand"},
        ),
        (["rollout", "pause", "3"], "rollouts/3/pause", {"reason": "by hand"}),
        (
            ["rollback", "--to", "6", "--yes", "--reason", "slow"],
            "rollback",
            {"to": "6", "reason": "slow"},
        ),
        (["reference", "accept"], "reference/accept", {}),
        (["quarantine", "release", "3f", "--yes"], "quarantine/3f/release", {}),
    ],
)
def test_what_is_asked_goes_with_the_token(
    remora: Remora, admin: Admin, tmp_path: Path, arguments: list[str], path: str, body: Any
) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    flags = ("--admin", admin.url, "--token-file", tmp_path / "token")
    done = remora(*arguments, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert admin.asked == [("POST", f"/api/v1/{path}", body, "Bearer hunter2")]
    remora("status", "--admin", admin.url, REMORA_ADMIN__TOKEN="from-environment")
    assert admin.asked[-1][3] == "Bearer from-environment"


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (401, 2, "asks for a token: too bad: give --token-file (admin.token"),
        (403, 2, "use one with the role for it"),
        (404, 1, "the agent says no: too bad"),
        (409, 1, "the agent says no: too bad"),
        (400, 2, "refuses the request (400): too bad"),
        (503, 3, "answers 503: too bad: see the agent's logs"),
    ],
)
def test_a_refusal_is_one_line(
    refusal: Refusal, admin: Admin, answer: int, status: int, said: str
) -> None:
    admin.refuse = (answer, "too bad")
    assert said in refusal("trigger", "--admin", admin.url, status=status)


def test_an_unknown_version_is_a_no(refusal: Refusal, admin: Admin) -> None:
    assert "it has 7" in refusal("model", "show", "8", "--admin", admin.url, status=1)


def test_a_broken_chain_is_a_no(remora: Remora, admin: Admin) -> None:
    done = remora("ledger", "verify", "--admin", admin.url)
    assert (done.returncode, done.stdout) == (1, "the chain is broken at entry 2\n")


@pytest.mark.parametrize(("typed", "status", "asked"), [("y\n", 0, 1), ("n\n", 2, 0), ("\n", 2, 0)])
def test_a_person_is_asked_first(admin: Admin, typed: str, status: int, asked: int) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    done = subprocess.run(
        [sys.executable, "-m", "agent", "rollback", "--admin", admin.url],
        cwd=ROOT,
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == status
    assert "Roll back to the version before? [y/N]" in done.stderr
    assert len(admin.asked) == asked


def test_the_ledger_of_a_state_directory_is_read_without_an_agent(
    remora: Remora, tmp_path: Path
) -> None:
    path = tmp_path / "decisions.db"
    ledger = Ledger(path)
    for number in range(3):
        with ledger.transaction():
            ledger.append(
                at=0.0,
                kind="decision",
                subject="run",
                actor="policy",
                reason=f"reason {number}",
                data={},
            )
    ledger.close()
    shown = remora("ledger", "--state", tmp_path, "--after", "1")
    assert "reason 2" in shown.stdout, shown.stderr
    assert "reason 0" not in shown.stdout
    verified = remora("ledger", "verify", "--state", tmp_path)
    assert (verified.returncode, verified.stdout) == (0, "the chain holds: 3 entries\n")
    # Somebody who may write the file takes its guards off and changes what was decided.
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER ledger_no_update")
    connection.execute("UPDATE ledger SET reason = 'another' WHERE id = 2")
    connection.commit()
    connection.close()
    verified = remora("ledger", "verify", "--state", tmp_path, "--json")
    assert verified.returncode == 1
    assert json.loads(verified.stdout)["broken_at"] == 2


def test_sources_are_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    proxy = {"kind": "proxy", "of": ":9000 to http://m:80", "state": "runs", "reason": None}
    tap = {"kind": "tap", "of": "lo", "state": "refused", "reason": "needs CAP_NET_RAW"}
    figures = {"completeness": 0.5, "dropped": {"channel_full": 2, "capture_failed": 1}}
    _print_sources([{**proxy, **figures}, {**tap, "completeness": None, "dropped": {}}])
    _print_sources(None)  # an agent of an earlier version
    shown = capsys.readouterr().out
    assert shown.count("Sources") == 1
    assert {"proxy", "runs", "3", "refused", "CAP_NET_RAW"} <= set(shown.split())
