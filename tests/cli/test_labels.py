"""Labels in bulk: a file's rows reach the join once, whatever the file, and a bad one costs one."""

import csv
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from agent.cli import labels as labels_module
from agent.cli.main import run_command
from agent.label_parsing import parse_labels
from agent.labels import LabelStore
from tests.agent.ticks import tick

NOW = 1_000.0
COUNT = 25


class Agent:
    """A label store behind the two endpoints, as an agent has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bodies: list[int] = []
        ids = [f"r{n}" for n in range(COUNT)]
        self.scores = np.linspace(0.0, 1.0, COUNT)
        store = self.store()
        store.remember(tick(ids, score=self.scores), NOW)
        store.close()

    def store(self) -> LabelStore:
        return LabelStore(self.path, ttl_s=1e9, pending_s=1e9, rows_max=1_000)

    def take(self, body: bytes) -> dict[str, Any]:
        labels, rejected = parse_labels(body, "application/json")
        self.bodies.append(len(labels) + len(rejected))
        store = self.store()
        counts, _ = store.take(labels, NOW)
        store.close()
        listed = [{"index": one.index, "reason": one.reason.value} for one in rejected]
        return {**counts, "rejected": listed, "rejected_total": len(rejected)}

    def wanted(self, limit: int) -> dict[str, Any]:
        store = self.store()
        rows = store.wanted(limit)
        store.close()
        return {"rows": rows}


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path / "labels.db")


@pytest.fixture
def url(agent: Agent) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(agent.take(self.rfile.read(int(self.headers["content-length"]))))

        def do_GET(self) -> None:
            self._answer(agent.wanted(int(self.path.rpartition("=")[2])))

        def _answer(self, answer: dict[str, Any]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def rows(count: int = COUNT) -> list[dict[str, Any]]:
    return [{"request_id": f"r{n}", "label": n % 2, "at": 900.0 + n} for n in range(count)]


def written(path: Path, listed: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in listed))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            made = csv.DictWriter(file, list(listed[0]))
            made.writeheader()
            made.writerows(listed)
    else:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(listed), path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_is_joined_in_bounded_batches_and_again_has_no_effect(
    suffix: str,
    tmp_path: Path,
    url: str,
    agent: Agent,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labels_module, "BATCH_ROWS", 10)
    data = written(tmp_path / f"june.{suffix}", rows())
    command = ["labels", "import", str(data), "--admin", url, "--json"]
    assert run_command(command) == 0
    assert json.loads(capsys.readouterr().out)["joined"] == COUNT
    assert agent.bodies == [10, 10, 5]
    assert run_command(command) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == COUNT
    store = agent.store()
    with store.reader() as labels_of:
        assert labels_of(["r3", "r4"]) == {("r3", 0): 1, ("r4", 0): 0}
    store.close()


def test_columns_may_have_other_names(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = [
        {"loan": "r1", "part": 0, "defaulted": "yes"},
        {"loan": "r2", "part": 7, "defaulted": "no"},
    ]
    data = written(tmp_path / "june.csv", listed)
    flags = ["--id", "loan", "--row", "part", "--label", "defaulted"]
    assert run_command(["labels", "import", str(data), "--admin", url, *flags]) == 0
    said = capsys.readouterr().out.split()
    assert said[said.index("joined") + 1] == "1"
    assert said[said.index("unmatched") + 1] == "1"


def test_what_is_rejected_is_said_and_costs_nothing_else(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed: list[dict[str, Any]] = [*rows(3), {"request_id": "not an id", "label": 1, "at": None}]
    listed[2]["label"] = None
    data = written(tmp_path / "june.jsonl", listed)
    assert run_command(["labels", "import", str(data), "--admin", url, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["joined"], found["empty"], found["rejected"]) == (2, 1, 1)
    assert found["reasons"] == {"bad_request_id": 1}


def test_what_cannot_be_imported_is_said_in_one_line(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path / "june.jsonl", [{"request_ids": "r1", "label": 1}])
    assert run_command(["labels", "import", str(data), "--admin", url]) == 2
    assert "did you mean 'request_ids'?" in capsys.readouterr().err
    data = written(tmp_path / "june.csv", rows(1))
    unreachable = ["labels", "import", str(data), "--admin", "http://127.0.0.1:9"]
    assert run_command(unreachable) == 3
    assert "no agent answers" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_is_worth_labelling_is_half_uncertain_half_at_random(
    suffix: str, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"todo.{suffix}"
    assert (
        run_command(["labels", "export", "--out", str(out), "--limit", "10", "--admin", url]) == 0
    )
    assert capsys.readouterr().out.startswith("10 rows to ")
    text = out.read_text()
    found = (
        [json.loads(line) for line in text.splitlines()]
        if suffix == "jsonl"
        else list(csv.DictReader(text.splitlines()))
    )
    assert len({row["request_id"] for row in found}) == 10
    unsure = [float(row["score"]) for row in found if row["why"] == "uncertain"]
    assert len(unsure) == 5
    assert all(abs(score - 0.5) <= 0.1 for score in unsure)
    # Filled in, it is what `import` reads.
    filled = written(tmp_path / f"done.{suffix}", [{**row, "label": "yes"} for row in found])
    assert run_command(["labels", "import", str(filled), "--admin", url]) == 0
    assert capsys.readouterr().out.split()[-2:] == ["joined", "10"]
