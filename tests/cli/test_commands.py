"""`python -m agent ...` as people run it: exit statuses, one-line mistakes, what is printed."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from agent.cli.main import build_parser
from agent.cli.parser import Parser

Remora: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
Refusal: TypeAlias = Callable[..., str]
ROOT = Path(__file__).resolve().parent.parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def every_parser(parser: Parser) -> list[Parser]:
    found = [parser]
    for action in parser._subparsers._group_actions if parser._subparsers else ():
        children = action.choices
        assert isinstance(children, dict)
        for child in children.values():
            found += every_parser(child)
    return found


def test_every_command_has_help_with_an_example() -> None:
    for parser in every_parser(build_parser()):
        text = parser.format_help()
        assert f"example:\n  {parser.prog.split()[0]} " in text, parser.prog


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from agent.cli.main import build_parser; build_parser().format_help();"
        "print(*sorted({'numpy', 'pydantic', 'httpx', 'rich', 'structlog', 'yaml', 'orjson',"
        " 'apscheduler', 'starlette', 'pyarrow', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_version_and_help_are_results(remora: Remora) -> None:
    assert remora("--version").stdout.startswith("remora ")
    helped = remora("run", "--help")
    assert helped.returncode == 0
    assert "--upstream" in helped.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no command given"),
        (["stauts"], "did you mean status?"),
        (["run", "--rol", "all"], "unrecognized arguments"),
        (["run", "--role", "boss"], "known are all, sidecar, controller"),
        (["run"], "start with --upstream URL"),
        (["run", "--upstream", "model:8000"], "sources.0.upstream"),
        (["run", "--config", "absent.yaml"], "absent.yaml: cannot be read"),
        (["status", "--admin", "nowhere"], "--admin nowhere is no address"),
        (["status", "--token-file", "absent"], "--token-file absent: cannot be read"),
        (["rollback"], "add --yes"),
        (["rollout", "promote", "3"], "add --yes"),
        (["rollout", "abort", "3"], "add --yes"),
        (["rollout", "start", "7"], "add --yes"),
        (["quarantine", "release", "7"], "add --yes"),
        (["ledger", "verify", "--state", "absent"], "--state: absent/decisions.db"),
        (["reference", "show", "README.md"], "README.md: reference: not JSON"),
        (["reference", "build", "absent.csv", "--out", "x"], "absent.csv: cannot be read"),
        (["replay", "a.csv", "--reference", "absent.json"], "remora reference build"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(
    arguments: list[str], said: str, refusal: Refusal
) -> None:
    assert said in refusal(*arguments)


def test_wrong_configuration_is_a_line_for_each_mistake(tmp_path: Path, remora: Remora) -> None:
    path = tmp_path / "remora.yaml"
    path.write_text("sampling:\n  rat: 1\nmodel: {name: 'a b'}\n")
    done = remora("check", "--config", path, REMORA_DETECT__TICK_ROWS="0")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"remora: {path}:2: sampling.rat: is no known key: did you mean sampling.rate?",
        f"remora: {path}:3: model.name: may hold only letters, digits and . _ : - (1 to 64 of"
        " them) (given 'a b')",
        "remora: environment REMORA_DETECT__TICK_ROWS: detect.tick_rows: must be at least 1"
        " (given 0)",
    ]


def test_replicas_need_a_controller(refusal: Refusal) -> None:
    flags = ("--upstream", "http://127.0.0.1:1")
    assert "detect.replicas" in refusal("run", *flags, REMORA_DETECT__REPLICAS="2")


def test_what_is_unreachable_exits_3(refusal: Refusal) -> None:
    port = free_port()
    line = refusal("status", "--admin", f"http://127.0.0.1:{port}", status=3)
    assert "no agent answers" in line
    line = refusal("check", "--upstream", f"http://127.0.0.1:{port}", status=3)
    assert "accepts no connection" in line


def test_check_says_what_would_run_and_shows_no_secret(
    tmp_path: Path, refusal: Refusal, remora: Remora
) -> None:
    (tmp_path / "token").write_text("hunter2")
    (tmp_path / "token").chmod(0o644)
    path = tmp_path / "remora.yaml"
    path.write_text("admin: {token_file: token}\n")
    flags = ("--config", path, "--upstream", "http://127.0.0.1:1", "--offline")
    done = remora("check", *flags)
    assert done.returncode == 0
    assert "0.0.0.0:9000 to http://127.0.0.1:1" in done.stdout
    assert "has mode 0644: others may read it, chmod 600" in done.stderr
    machine = json.loads(remora("check", *flags, "--json").stdout)
    assert machine["would_run"]["role"] == "all"
    assert "hunter2" not in done.stdout + done.stderr + json.dumps(machine)
    (tmp_path / "token").unlink()
    assert "admin.token_file" in refusal("check", *flags)


def test_what_is_wrong_with_files_names_the_line(
    tmp_path: Path, remora: Remora, refusal: Refusal
) -> None:
    path = tmp_path / "remora.yaml"
    path.write_text("model: {name: a}\nreference:\n  path: absent.json\n")
    flags = ("--config", path, "--upstream", "http://127.0.0.1:1")
    said = f"remora: {path}:3: reference.path: {tmp_path}/absent.json is no file"
    assert said in refusal("check", *flags, "--offline")
    assert said in refusal("run", *flags)
    given = refusal("check", *flags, "--offline", REMORA_REFERENCE__PATH="absent")
    assert "environment REMORA_REFERENCE__PATH: reference.path" in given
    path.write_text("reference:\n  path: remora.yaml\nadmin:\n  token_file: remora.yaml\n")
    lines = remora("check", *flags, "--offline").stderr.splitlines()
    assert any(f"{path}:2: reference.path" in line for line in lines)
    path.write_text("admin:\n  tokens:\n    - {name: ann, roles: [read], token_file: empty}\n")
    (tmp_path / "empty").write_text("")
    assert f"{path}:2: admin.tokens (ann) token_file" in refusal("check", *flags, "--offline")


def test_check_reads_the_reference(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "r.json").write_text("{}")
    flags = ("--upstream", "http://127.0.0.1:1", "--offline")
    line = refusal("check", *flags, "--reference", tmp_path / "r.json")
    assert "reference.path" in line
    assert "not a Remora reference profile" in line


def test_the_annotated_configuration_checks(remora: Remora) -> None:
    assert remora("check", "--config", "deploy/remora.yaml", "--offline").returncode == 0


def test_the_schema_is_json(remora: Remora) -> None:
    schema = json.loads(remora("config", "schema").stdout)
    assert schema["additionalProperties"] is False
    assert "triggers" in schema["properties"]


def test_a_reader_that_goes_away_is_no_failure() -> None:
    command = f"{sys.executable} -m agent config schema | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_defect_is_neither_an_answer_nor_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent.cli import main

    def broken() -> Parser:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(main, "build_parser", broken)
    assert main.run_command(["status"]) == 70
    assert "defect of Remora" in capsys.readouterr().err


def test_the_version_of_the_model_is_not_the_version_of_remora(remora: Remora) -> None:
    flags = ("--upstream", "http://127.0.0.1:1", "--version", "7", "--offline")
    assert "default version 7" in remora("check", *flags).stdout


@pytest.mark.real
@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(remora: Remora, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ("--upstream", "http://127.0.0.1:1", "--listen", listen)
        done = remora("run", *flags, STATE_DIRECTORY=str(tmp_path))
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert f"cannot listen on {listen}" in last
    assert "defect" not in last


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.cli import main

    def interrupted() -> Parser:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "build_parser", interrupted)
    assert main.run_command(["status"]) == 130
