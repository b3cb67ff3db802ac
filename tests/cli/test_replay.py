"""`reference build|show|merge` and `replay` on a stream with known change points."""

import csv
import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

Remora: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
Refusal: TypeAlias = Callable[..., str]

STREAM = Path(__file__).resolve().parent.parent / "data" / "credit_drift_quarter.csv.gz"
QUIET_ROWS = 3_000  # the income rises here
LABELLED = ("--target", "default", "--prediction", "said")


def write_csv(path: Path, names: list[str], rows: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows before anything happens."""
    path = tmp_path_factory.mktemp("data") / "quiet.csv"
    with gzip.open(STREAM, "rt", encoding="utf-8") as stream:
        path.write_text("".join(next(stream) for _ in range(QUIET_ROWS)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reference(remora: Remora, quiet: Path) -> Path:
    out = quiet.parent / "reference.json"
    done = remora("reference", "build", quiet, "--out", out, "--tick-rows", "500")
    assert done.returncode == 0, done.stderr
    assert "not visible: prediction drift" in done.stdout
    return out


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A classifier that is wrong in 10 % of rows; in the second file in 35 % from row 6,000."""
    rng = np.random.default_rng(5)
    directory = tmp_path_factory.mktemp("labelled")
    paths = []
    for name, rate in (("before", 0.1), ("after", 0.35)):
        x, truth = rng.normal(size=12_000), rng.integers(0, 2, 12_000)
        wrong = rng.random(12_000) < np.where(np.arange(12_000) < 6_000, 0.1, rate)
        rows = zip(range(12_000), x.round(4), truth ^ wrong, truth, strict=True)
        paths.append(write_csv(directory / f"{name}.csv", ["t", "x", "said", "default"], rows))
    return paths[0], paths[1]


def test_the_reference_says_what_it_sees(remora: Remora, reference: Path) -> None:
    shown = json.loads(remora("reference", "show", reference, "--json").stdout)
    assert shown["rows"] == QUIET_ROWS - 1
    shifts = {feature["name"]: feature["detectable_shift"] for feature in shown["features"]}
    assert set(shifts) >= {"income", "region"}
    assert all(0 < shift < 0.5 for shift in shifts.values())


def test_replay_finds_what_happened_and_when(
    remora: Remora, reference: Path, tmp_path: Path
) -> None:
    events = tmp_path / "events.jsonl"
    flags = ("--reference", reference, "--events", events)
    done = remora("replay", STREAM, *flags, "--fail-on-drift")
    assert done.returncode == 1, done.stderr
    assert "rows/s" in done.stdout
    readings = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    drifts = [reading for reading in readings if reading["state"] == "drift"]
    assert {reading["subject"] for reading in drifts} == {"income", "tenure_years"}
    first = drifts[0]
    assert (first["subject"], first["kind"], first["at"]) == ("income", "data_drift", None)
    assert 3_000 < first["row"] <= 4_500
    assert first["effect"]["value"] >= 0.1
    assert first["reference"] == json.loads(reference.read_bytes())["digest"]


def test_replay_is_the_same_every_time_and_however_the_file_is_read(
    remora: Remora, reference: Path, tmp_path: Path
) -> None:
    with gzip.open(STREAM, "rt", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    kept = [
        {k: float(v) if k not in ("channel", "region") else v for k, v in row.items() if v}
        for row in rows
    ]
    lines = tmp_path / "stream.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    written = []
    for number, data in enumerate((STREAM, STREAM, lines)):
        events = tmp_path / f"{number}.jsonl"
        remora("replay", data, "--reference", reference, "--events", events)
        written.append(events.read_bytes())
    assert written[0]
    assert written[0] == written[1] == written[2]


def test_a_report_is_one_page_that_needs_nothing_else(
    remora: Remora, refusal: Refusal, reference: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    done = remora("replay", STREAM, "--reference", reference, "--report", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "income rose" in text
    assert text.count("<figure>") == 8
    for foreign in ("<script", "src=", "http://", "https://", "@import"):
        assert foreign not in text
    hostile = write_csv(
        tmp_path / "hostile.csv", ["<script>alert(1)</script>"], [(n % 50,) for n in range(3_000)]
    )
    out = tmp_path / "hostile.json"
    remora("reference", "build", hostile, "--out", out)
    remora("replay", hostile, "--reference", out, "--report", page)
    assert "&lt;script&gt;" in page.read_text(encoding="utf-8")
    assert "<script>" not in page.read_text(encoding="utf-8")
    nowhere = tmp_path / "absent" / "report.html"
    assert "cannot be written" in refusal(
        "replay", STREAM, "--reference", reference, "--report", nowhere
    )


def test_quiet_rows_pass(remora: Remora, reference: Path, quiet: Path) -> None:
    done = remora("replay", quiet, "--reference", reference, "--fail-on-drift", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["readings"] == []
    assert answer["not_watched"] == ["prediction drift", "concept drift"]


def test_labels_bring_concept_drift_after_their_delay(
    remora: Remora, labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    before, after = labelled
    out = tmp_path / "reference.json"
    built = remora("reference", "build", before, *LABELLED, "--timestamp", "t", "--out", out)
    assert "of 12000" in built.stdout, built.stderr
    found = {}
    for delay in (0, 3_000):
        flags = (*LABELLED, "--timestamp", "t", "--label-delay", str(delay), "--json")
        done = remora("replay", after, "--reference", out, *flags)
        answer = json.loads(done.stdout)
        drifts = [r for r in answer["readings"] if r["state"] == "drift"]
        assert [r["kind"] for r in drifts] == ["concept_drift"]
        assert answer["labelled_rows"] == 12_000 - delay
        assert answer["not_watched"] == []
        found[delay] = drifts[0]["row"]
        assert drifts[0]["at"] is not None
    assert 6_000 < found[0] <= 9_000
    assert found[3_000] == found[0] + 3_000


def test_a_score_stands_for_its_class(
    remora: Remora, labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    _, after = labelled
    out = tmp_path / "reference.json"
    flags = ("--target", "default", "--score", "said", "--ignore", "t", "--out", out, "--json")
    built = json.loads(remora("reference", "build", after, *flags).stdout)
    assert built["prediction"]["name"] == "said"
    wrong, rows = (int(n) for n in built["errors in labelled rows"].split(" of "))
    assert rows == 12_000
    assert 2_400 < wrong < 3_000


def test_parts_merge_to_the_whole(remora: Remora, quiet: Path, tmp_path: Path) -> None:
    lines = quiet.read_text(encoding="utf-8").splitlines(keepends=True)
    parts = []
    for number, rows in enumerate((lines[1:1_500], lines[1_500:])):
        part = tmp_path / f"{number}.csv"
        part.write_text("".join([lines[0], *rows]), encoding="utf-8")
        remora("reference", "build", part, "--out", tmp_path / f"{number}.json")
        parts.append(tmp_path / f"{number}.json")
    out = tmp_path / "both.json"
    merged = json.loads(remora("reference", "merge", *parts, "--out", out, "--json").stdout)
    assert merged["rows"] == len(lines) - 1


def test_rows_in_no_order_are_said(remora: Remora, tmp_path: Path) -> None:
    rows = [(t, t % 7) for t in (*range(500, 1_000), *range(500))]
    data = write_csv(tmp_path / "a.csv", ["t", "x"], rows)
    flags = ("--timestamp", "t", "--out", tmp_path / "r.json", "--json")
    done = remora("reference", "build", data, *flags)
    assert "not in the order of t" in done.stderr
    assert json.loads(done.stdout)["calibrated to order"] is False


def test_what_cannot_be_built_or_replayed_is_one_line(
    refusal: Refusal, reference: Path, quiet: Path, tmp_path: Path
) -> None:
    build = ("reference", "build", quiet, "--out", tmp_path / "r.json")
    assert "did you mean 'income'?" in refusal(*build, "--target", "incom")
    empty = write_csv(tmp_path / "empty.csv", ["x"], [])
    assert "holds no rows" in refusal("reference", "build", empty, "--out", tmp_path / "r")
    assert "cannot be written" in refusal(
        "reference", "build", quiet, "--out", tmp_path / "absent" / "r.json"
    )
    ragged = write_csv(tmp_path / "ragged.csv", ["x", "y"], [(1, 2), (1,)])
    line = refusal("replay", ragged, "--reference", reference)
    assert "ragged.csv:3: has 1 fields where the header has 2" in line
    assert "digest does not match" in refusal(
        "replay", quiet, "--reference", altered(reference, tmp_path)
    )
    assert not (tmp_path / "r.json").exists()


def altered(reference: Path, tmp_path: Path) -> Path:
    tree = json.loads(reference.read_bytes())
    tree["rows"] += 1
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def test_a_seasonal_feature_without_times_is_not_watched_and_that_is_said(
    remora: Remora, tmp_path: Path
) -> None:
    rng = np.random.default_rng(9)
    hours = np.arange(24 * 10 * 60) / 60
    heat = 10 * np.sin(hours / 24 * 2 * np.pi) + rng.normal(size=len(hours))
    at = [1_700_006_400 + 60 * n for n in range(len(hours))]
    rows = write_csv(tmp_path / "days.csv", ["at", "heat"], zip(at, heat, strict=True))
    out = tmp_path / "reference.json"
    built = remora("reference", "build", rows, "--timestamp", "at", "--out", out)
    assert built.returncode == 0, built.stderr
    with_times = remora("replay", rows, "--reference", out, "--timestamp", "at", "--json")
    without = remora("replay", rows, "--reference", out, "--ignore", "at", "--json")
    assert not any("heat" in word for word in json.loads(with_times.stdout)["not_watched"])
    assert any("heat" in word for word in json.loads(without.stdout)["not_watched"])


def test_segments_are_told_apart_also_where_their_column_is_no_feature(
    remora: Remora, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    names = ["tenant", "x"]
    quiet = [(("a", "b")[n % 2], rng.normal() + n % 2) for n in range(8_000)]
    moved = [("ab"[t == "a"], x) for t, x in quiet[:4_000]]  # all rows together are as before
    before = write_csv(tmp_path / "before.csv", names, quiet)
    after = write_csv(tmp_path / "after.csv", names, moved)
    out = tmp_path / "reference.json"
    flags = ("--segment", "tenant", "--ignore", "tenant")
    built = remora("reference", "build", before, *flags, "--out", out)
    assert built.returncode == 0, built.stderr
    done = remora("replay", after, "--reference", out, "--ignore", "tenant", "--json")
    said = [r for r in json.loads(done.stdout)["readings"] if r["state"] == "drift"]
    assert {r["detector"].partition(":segment=")[2] for r in said} == {"a", "b"}
    assert all("outside the budget" in reading["explain"] for reading in said)


def test_a_segment_that_drifts_as_all_rows_do_is_not_said_beside_them(
    remora: Remora, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    quiet = [(("a", "b")[n % 2], rng.normal()) for n in range(8_000)]
    moved = [(tenant, x + 1.5) for tenant, x in quiet[:4_000]]
    before = write_csv(tmp_path / "before.csv", ["tenant", "x"], quiet)
    after = write_csv(tmp_path / "after.csv", ["tenant", "x"], moved)
    out = tmp_path / "reference.json"
    flags = ("--segment", "tenant", "--ignore", "tenant")
    assert remora("reference", "build", before, *flags, "--out", out).returncode == 0
    done = remora("replay", after, "--reference", out, "--ignore", "tenant", "--json")
    readings = json.loads(done.stdout)["readings"]
    assert {r["subject"] for r in readings} == {"x"}
    assert not [r for r in readings if ":segment=" in r["detector"]]


def test_rows_of_another_model_and_attributes_that_are_not_there_are_refused(
    refusal: Refusal, reference: Path, tmp_path: Path
) -> None:
    other = write_csv(tmp_path / "other.csv", ["x", "y"], [(1, 2)] * 50)
    line = refusal("replay", other, "--reference", reference)
    assert "has none of the features of" in line
    assert "another model's?" in line
    line = refusal("replay", STREAM, "--reference", reference, "--fairness", "regio")
    assert "did you mean 'region'?" in line


def test_the_class_that_is_wished_for_is_named(remora: Remora, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [
        (rng.normal(), sex, "yes" if rng.random() < (0.7 if sex == "m" else 0.3) else "no")
        for sex in ["f", "m"] * 2_000
    ]
    data = write_csv(tmp_path / "a.csv", ["x", "sex", "said"], rows)
    out = tmp_path / "r.json"
    remora("reference", "build", data, "--prediction", "said", "--out", out)
    flags = ("--reference", out, "--fairness", "sex", "--positive", "yes", "--json")
    quality = json.loads(remora("replay", data, *flags).stdout)["quality"]
    [parity] = [row for row in quality if row["metric"] == "demographic_parity"]
    assert 0.35 < parity["value"] < 0.45


def test_a_column_without_a_value_is_said_to_be_unseen(remora: Remora, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "a.csv", ["x", "void"], [(n % 40, "") for n in range(2_000)])
    built = remora("reference", "build", data, "--out", tmp_path / "r.json", "--json")
    answer = json.loads(built.stdout)
    assert any("void: it has no value at all" in line for line in answer["not_visible"])
    [void] = [feature for feature in answer["features"] if feature["name"] == "void"]
    assert void["detectable_shift"] is None
