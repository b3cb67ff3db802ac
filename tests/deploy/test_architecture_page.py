"""docs/architecture.md names what there is, and everything that there is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
# In backquotes, with a folder of ours in front; a star stands for any name.
PATH = re.compile(r"`((?:agent|detectors|retrain|exporters|tests|docs|deploy)/[\w./*-]*)`")
PACKAGES = ("agent", "detectors", "retrain", "exporters")
NOT_WORTH_A_WORD = {"__init__.py", "__pycache__", "py.typed"}


def test_every_path_it_names_exists() -> None:
    named = set(PATH.findall(PAGE))
    assert len(named) > 100
    assert [path for path in sorted(named) if not list(ROOT.glob(path))] == []


def test_every_module_is_named() -> None:
    there = {
        f"{package}/{entry.name}{'/' if entry.is_dir() else ''}"
        for package in PACKAGES
        for entry in (ROOT / package).iterdir()
        if entry.name not in NOT_WORTH_A_WORD
        and (entry.suffix == ".py" or (entry / "__init__.py").exists())
    }
    assert sorted(there - set(PATH.findall(PAGE))) == []


def test_every_control_message_is_named() -> None:
    said = set()
    for name in ("supervisor.py", "children.py", "analysis.py", "release.py"):
        said |= set(re.findall(r'"type": "(\w+)"', (ROOT / "agent" / name).read_text()))
    said |= set(re.findall(r'"type": "(\w+)"', (ROOT / "agent/edge/__main__.py").read_text()))
    assert len(said) > 6
    assert {name for name in said if f"`{name}`" not in PAGE} == set()


def test_every_file_of_the_state_directory_is_named() -> None:
    code = "".join(path.read_text() for path in (ROOT / "agent").glob("*.py"))
    made = set(re.findall(r'state_dir / "([\w.]+)"', code))
    assert {"decisions.db", "labels.db", "artifacts"} <= made
    assert {name for name in made if f"`{name}" not in PAGE} == set()
