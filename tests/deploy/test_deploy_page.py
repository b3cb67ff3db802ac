"""docs/deploy.md can be followed: its configuration loads, its commands and files are there."""

import re
import shlex
from pathlib import Path

import pytest

from agent.cli.main import build_parser
from agent.config import check_role, load_config

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)


def commands() -> list[str]:
    """Every command line of the console blocks, continuation lines joined."""
    lines = "".join(blocks("console")).replace("\\\n", " ").splitlines()
    return [line[2:] for line in lines if line.startswith(("$ ", "# "))]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_its_configurations_load(text: str, tmp_path: Path) -> None:
    path = tmp_path / "remora.yaml"
    path.write_text(text)
    config = load_config(path, environ={"REMORA_WEBHOOKS__TARGETS__0__SECRET": "whsec_c2VjcmV0"})
    assert list(check_role(config, "all")) == []


def test_its_commands_are_commands() -> None:
    """What follows `remora`; a container of that name is followed by the program."""
    lines = [*commands(), *re.findall(r"`(remora [^`]+)`", PAGE)]
    found = re.findall(r"(?:^|[ /])remora ((?!remora )[a-z][^&\n]*)", "\n".join(lines), flags=re.M)
    assert len(found) >= 6
    parser = build_parser()
    for line in found:
        parser.parse_args(shlex.split(line))


def test_the_files_it_installs_are_there() -> None:
    named = {word for line in commands() for word in line.split() if word.startswith("deploy/")}
    assert len(named) == 5
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []


def test_it_installs_where_the_unit_looks() -> None:
    unit = (ROOT / "deploy" / "systemd" / "remora.service").read_text()
    assert "ExecStart=/opt/remora/bin/remora run --config /etc/remora/remora.yaml" in unit
    assert "install -m 0644 deploy/remora.yaml /etc/remora/" in commands()
    assert "install -m 0600 deploy/systemd/remora.env /etc/remora/" in commands()
