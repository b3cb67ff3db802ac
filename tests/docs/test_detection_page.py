"""docs/detection.md says what the code does, as far as a test can tell: the budget, the constants,
the pictures, the places of the measured tables."""

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.page.canvas import Axis, Panel, picture
from benchmarks.page.scenes import SCENES, smallest_shift
from benchmarks.page.tables import MAKERS, TABLES, fill
from detectors.budget import SHARES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "detection.md"
PICTURES = ROOT / "docs" / "detection"


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def table_under(heading: str) -> dict[str, str]:
    """First and second cells of the first table below a heading."""
    _, _, rest = page().partition(f"\n## {heading}\n")
    [body] = re.findall(r"\n\| --- .*?\n(.*?)\n\n", rest + "\n\n", re.S)[:1]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in body.splitlines()]
    return {name.strip("`"): value for name, value in rows}


def written(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {written(one)}" for name, one in value.items())
    if isinstance(value, tuple):
        return ", ".join(written(one) for one in value)
    if value == 1 / 3:
        return "1/3"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_the_split_of_the_budget_is_the_one_in_force() -> None:
    told = table_under("The budget")
    assert {name: float(part) for name, part in told.items()} == dict(SHARES)


def test_the_figures_in_one_place_are_those_of_the_code() -> None:
    told = table_under("The figures in one place")
    assert len(told) > 20
    found = {}
    for path in told:
        module, _, name = path.rpartition(".")
        found[path] = written(getattr(importlib.import_module(module), name))
    assert found == told


def test_the_formula_of_the_toll_is_the_one_in_the_code() -> None:
    from detectors.references.calibration import REFERENCE_ERRORS, TOLERANCE, slack

    evidence = importlib.import_module("detectors.drift.evidence")
    assert f"{evidence._BERNSTEIN:.3g} · (max f − 1) / m" in page()
    assert f"wander + √({TOLERANCE:g}² + ({REFERENCE_ERRORS:g} / √m)²)" in page()
    assert slack(TOLERANCE, 5_000) == pytest.approx(np.sqrt(0.02**2 + 9 / 5_000))


def test_every_picture_is_on_the_page_and_none_is_missing() -> None:
    shown = set(re.findall(r"\(detection/([a-z-]+)\.svg\)", page()))
    there = {path.stem for path in PICTURES.glob("*.svg")}
    assert shown == there == set(SCENES)


@pytest.mark.parametrize("name", sorted(SCENES))
def test_a_picture_is_small_and_follows_light_and_dark_pages(name: str) -> None:
    text = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    assert len(text.encode()) < 60_000
    root = ElementTree.fromstring(text)
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "@media(prefers-color-scheme:dark)" in text
    drawn = text.split("</style>")[1]
    assert "#" not in drawn  # a colour outside the style would not follow the page
    assert not re.search(r"nan|inf\b", drawn)


@pytest.mark.slow
def test_a_picture_made_again_is_the_same() -> None:
    assert smallest_shift() == (PICTURES / "smallest-shift.svg").read_text(encoding="utf-8")


def test_a_long_line_keeps_its_peak_and_loses_its_points() -> None:
    axis = Axis(low=0, high=10_000, title="rows", ticks=[(0, "0")])
    tall = Axis(low=0, high=1, title="share", ticks=[(0, "0"), (1, "1")])
    values = np.zeros(10_000)
    values[4_321] = 1.0
    panel = Panel(axis, tall, (50, 10, 600, 200))
    panel.line(np.arange(10_000.0), values, "ours")
    text = picture([panel], title="a peak")
    assert len(text) < 12_000
    assert " 10.0L" in text  # the top of the panel


def test_every_table_has_its_place_and_every_place_its_table() -> None:
    places = re.findall(r"<!-- table: ([a-z-]+) -->\n(?:.*?\n)??<!-- end -->", page(), re.S)
    assert sorted(places) == sorted(TABLES)
    assert set(MAKERS) <= set(TABLES)


def test_the_peers_and_streams_are_named_with_the_versions_that_are_installed() -> None:
    text = " ".join(page().split())
    names = {"alibi-detect": "Alibi Detect", "nannyml": "NannyML", "evidently": "Evidently"}
    pinned = [
        re.findall(rf"^({path.stem}[a-z-]*)==([\d.]+)$", path.read_text(), re.M)
        for path in sorted((ROOT / "benchmarks" / "peers").glob("*.txt"))
    ]
    pinned.append(
        re.findall(r"^(river)==([\d.]+)", (ROOT / "requirements-dev.lock").read_text(), re.M)
    )
    assert len(pinned) >= 7
    for [(package, version)] in pinned:
        name = names.get(package, package)
        assert re.search(rf"{re.escape(name)}(?:'s)?[ (]+{re.escape(version)}", text, re.I), package
    sources = (ROOT / "benchmarks" / "peers" / "real_streams.py").read_text(encoding="utf-8")
    streams = re.findall(r'^        name="(\w+)",$', sources, re.M)
    assert len(streams) > 5
    assert [name for name in streams if f"`{name}`" not in text] == []


def test_a_table_is_filled_from_its_file_and_the_others_stay(tmp_path: Path) -> None:
    months = [
        {"reference": "known", "seed": wrong, "alarms": {"remora": wrong, "always": 1_000}}
        for wrong in (0, 1)
    ]
    tree = {"ticks": 10, "budget": 0.5, "months": months}
    (tmp_path / "detection_month.json").write_text(json.dumps(tree))
    month = "<!-- table: month -->\nold\n<!-- end -->\n"
    delay = "<!-- table: delay -->\nkept\n<!-- end -->\n"
    before = f"x\n{month}y\n{delay}"
    after, notes, good = fill(before, tmp_path)
    assert good
    assert "| remora | 0.5 (0 to 1) |" in after
    assert "mean 0.50, worst month 1" in after
    assert "old" not in after
    assert after.endswith(f"y\n{delay}")
    assert notes == [
        "month: from detection_month.json",
        "delay: detection_delay.json is not there; left as it is",
    ]
    assert fill(after, tmp_path)[0] == after


def test_a_file_that_is_no_table_is_told_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "detection_delay.json").write_text('{"remora": 3}')
    before = "<!-- table: delay -->\nkept\n<!-- end -->\n"
    after, notes, good = fill(before, tmp_path)
    assert (after, good) == (before, False)
    assert "cannot be read" in notes[0]


def test_links_lead_to_headings_and_files_that_exist() -> None:
    text = page()
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for name in ("detection", "python"):
        source = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)]+)\)", source):
            path, _, anchor = target.partition("#")
            aim = PAGE if path in ("", "detection.md") else ROOT / "docs" / path
            assert aim.exists(), target
            if anchor:
                assert aim == PAGE, target
                assert anchor in headings, target


def test_a_delay_that_never_came_is_missed_and_stands_beside_its_false_alarms() -> None:
    ours = {".1 sigma": {"median": 5_000.0, "p90": float("inf")}, "false": 0}
    delays = {".1 sigma": [1_000, None, None]}
    peers = {
        "KS .05": {"delays": delays, "false": 300, "month": 720.0},
        "never": {"delays": delays, "false": 0, "month": 720.0},
    }
    lines = MAKERS["delay"](json.loads(json.dumps({"remora": ours, "peers": peers})))
    assert "| **Remora** | 5,000 (missed) | budget .5 |" in lines
    assert "| KS .05 | missed | 216,000 |" in lines
    assert "| never | missed | none (720) |" in lines


def test_a_delay_among_many_false_alarms_stands_in_brackets() -> None:
    def one(who: str, alarms: int, delay: int | None) -> dict[str, Any]:
        shared = {"stream": "elec", "kind": "blocks", "ticks": 100}
        return shared | {"who": who, "alarms": alarms, "delay": delay}

    figures = [one("Remora", 1, 900), one("Remora", 0, None), one("KS .05", 99, 48)]
    total = {"ticks": 200, "alarm": 0.005, "standing": 0.0, "most": 0.03}
    lines = MAKERS["real-rows"]({"figures": figures, "totals": {"blocks": total}})
    assert "| elec | 0.5%, 900 | 99.0% [48] |" in lines
    assert lines[-1].startswith("Remora: an alarm on 0.500% of 200 ticks")


def test_figures_told_of_a_picture_are_drawn_in_it() -> None:
    [told] = re.findall(r"!\[([^\]]*)\]\(detection/false-alarms\.svg\)", page())
    drawn = (PICTURES / "false-alarms.svg").read_text(encoding="utf-8")
    figures = re.findall(r"\d{1,3}(?:,\d{3})+", told)
    assert len(figures) == 2
    assert all(f": {figure}<" in drawn for figure in figures)
    assert "Remora: 0<" in drawn
