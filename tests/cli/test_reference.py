"""`remora reference` on real files: what is built, what is said of it, who signed it."""

import csv
import gzip
import json
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from detectors import Reference

Remora: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
Refusal: TypeAlias = Callable[..., str]
Columns: TypeAlias = dict[str, list[Any]]

STREAM = Path(__file__).resolve().parent.parent / "data" / "credit_drift_quarter.csv.gz"


def scored(rows: int) -> Columns:
    """Real rows, and a score that is right as often as it says."""
    rng = np.random.default_rng(3)
    with gzip.open(STREAM, "rt", encoding="utf-8") as stream:
        read = list(islice(csv.DictReader(stream), rows))
    columns: Columns = {name: [row[name] for row in read] for name in ("income", "age", "channel")}
    columns["income"] = [float(value) for value in columns["income"]]
    columns["age"] = [float(value) for value in columns["age"]]
    score = rng.beta(1, 3, rows)
    columns["p"] = score.round(6).tolist()
    columns["default"] = (rng.random(rows) < score).astype(float).tolist()
    columns["seen"] = [float(3_600 * i) for i in range(rows)]
    return columns


def write_csv(path: Path, columns: Columns) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return path


def write_json_lines(path: Path, columns: Columns) -> Path:
    rows = zip(*columns.values(), strict=True)
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write_parquet(path: Path, columns: Columns) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table(columns), path)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_json_lines, "parquet": write_parquet}
ROLES = ("--target", "default", "--score", "p", "--ignore", "seen")


def read(path: Path) -> Reference:
    return Reference.from_bytes(path.read_bytes())


@pytest.fixture(scope="module")
def logistic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rows") / "part.csv", scored(3_000))


def test_target_and_score_make_everything_that_a_classifier_needs(
    remora: Remora, logistic: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reference.json"
    done = remora("reference", "build", logistic, *ROLES, "--segment", "channel", "--out", out)
    assert done.returncode == 0, done.stderr
    reference = read(out)
    rows = scored(3_000)
    assert reference.prediction is not None
    assert (reference.prediction.name, reference.prediction.kind) == ("p", "numeric")
    assert reference.label is not None
    assert reference.label.name == "default"
    assert reference.baseline is not None
    wrong = (np.array(rows["p"]) >= 0.5) != (np.array(rows["default"]) == 1)
    assert (reference.baseline.rows, reference.baseline.errors) == (3_000, wrong.sum())
    assert reference.baseline.estimation is not None
    assert reference.feature_names == ("income", "age", "channel")
    assert reference.segments is not None
    assert set(reference.segments.names) == {"web", "app", "branch"}
    for line in (
        "visible: prediction drift: by p",
        f"visible: concept drift: against {wrong.mean():.1%} errors, when labels come",
        "visible: whether the score still means what it says (calibration)",
        "visible: label drift: by default",
        "visible: quality before labels come (an estimate)",
        "visible: drift within each channel: ",
    ):
        assert any(said.startswith(line) for said in done.stdout.splitlines()), line


def test_what_is_not_visible_names_the_flag_that_is_missing(
    remora: Remora, logistic: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reference.json"
    done = remora("reference", "build", logistic, "--json", "--out", out)
    unseen = json.loads(done.stdout)["not_visible"]
    for start, flag in (
        ("prediction drift", "--prediction or --score"),
        ("concept drift", "--target"),
        ("whether the score", "--score"),
        ("label drift", "--target"),
        ("quality before labels", "--score"),
        ("drift within one group", "--segment"),
    ):
        (line,) = [line for line in unseen if line.startswith(start)]
        assert flag in line


def test_every_kind_of_file_gives_the_same_reference(remora: Remora, tmp_path: Path) -> None:
    rows = scored(1_500)
    digests = set()
    for ending, write in WRITERS.items():
        path, out = write(tmp_path / f"rows.{ending}", rows), tmp_path / f"{ending}.json"
        done = remora("reference", "build", path, *ROLES, "--out", out)
        assert done.returncode == 0, done.stderr
        digests.add(read(out).digest)
    assert len(digests) == 1


def test_hours_of_the_day_are_used_where_they_help(remora: Remora, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 7 * 24 * 100
    times = np.arange(rows) * 36.0
    wave = 2 * np.sin(2 * np.pi * times / 86_400)
    columns = {
        "at": times.tolist(),
        "load": (wave + rng.normal(size=rows)).round(4).tolist(),
        "steady": rng.normal(size=rows).round(4).tolist(),
    }
    path, out = write_csv(tmp_path / "rows.csv", columns), tmp_path / "reference.json"
    done = remora("reference", "build", path, "--timestamp", "at", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "visible: shifts against the same hour, and no alarm for the season: load" in done.stdout
    facts = json.loads(remora("reference", "show", out, "--json").stdout)
    seasons = {feature["name"]: feature["season"] for feature in facts["features"]}
    assert seasons == {"load": "hour of the day", "steady": None}
    none = tmp_path / "none.json"
    flags = ("--timestamp", "at", "--seasonality", "none", "--out", none)
    assert remora("reference", "build", path, *flags).returncode == 0
    assert not any(profile.phases for profile in read(none).features)


def test_seasons_need_times(remora: Remora, refusal: Refusal, logistic: Path) -> None:
    line = refusal("reference", "build", logistic, "--seasonality", "day", "--out", "x")
    assert "needs --timestamp COL" in line


def test_parts_with_one_layout_merge_exactly_and_others_say_what_is_lost(
    remora: Remora, logistic: Path, tmp_path: Path
) -> None:
    rows = scored(3_000)
    halves = [
        write_csv(tmp_path / f"{i}.csv", {n: c[i * 1_500 :][:1_500] for n, c in rows.items()})
        for i in range(2)
    ]
    segment = ("--segment", "channel")
    layout, merged, whole = (tmp_path / f"{name}.json" for name in ("layout", "merged", "whole"))
    assert remora("reference", "build", logistic, *ROLES, *segment, "--out", layout).returncode == 0
    for path in halves:
        flags = (*ROLES, "--like", layout, "--out", path.with_suffix(".json"))
        assert remora("reference", "build", path, *flags).returncode == 0
    parts = [path.with_suffix(".json") for path in halves]
    done = remora("reference", "merge", *parts, "--out", merged)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    flags = (*ROLES, "--like", layout, "--out", whole)
    assert remora("reference", "build", logistic, *flags).returncode == 0
    for mine, theirs in zip(read(merged).profiles(), read(whole).profiles(), strict=True):
        assert (mine.counts, mine.bins) == (theirs.counts, theirs.bins)
    assert read(merged).segments is not None
    alone = tmp_path / "alone.json"
    assert remora("reference", "build", halves[0], *ROLES, "--out", alone).returncode == 0
    done = remora("reference", "merge", alone, layout, "--out", merged)
    assert done.returncode == 0, done.stderr
    assert "not in the merged profile: segments" in done.stderr
    assert "--like" in done.stderr


def test_a_signature_is_verified_by_its_key_only(
    remora: Remora, refusal: Refusal, logistic: Path, tmp_path: Path
) -> None:
    key, other, out = tmp_path / "key", tmp_path / "other", tmp_path / "reference.json"
    key.write_text("0123456789abcdef0123\n")
    other.write_text("fedcba98765432100000\n")
    assert remora("reference", "build", logistic, "--out", out).returncode == 0
    done = remora("reference", "verify", out, "--key-file", key)
    assert (done.returncode, "is not signed" in done.stdout) == (1, True)
    digest = read(out).digest
    assert remora("reference", "sign", out, "--key-file", key).returncode == 0
    assert read(out).digest == digest
    assert remora("reference", "verify", out, "--key-file", key).returncode == 0
    done = remora("reference", "verify", out, "--key-file", other)
    assert (done.returncode, "another key" in done.stdout) == (1, True)
    assert remora("reference", "build", logistic, "--sign-key", key, "--out", out).returncode == 0
    assert json.loads(remora("reference", "show", out, "--json").stdout)["signed"] is True
    assert remora("reference", "verify", out, "--key-file", key, "--json").returncode == 0
    key.write_text("short")
    assert "holds a key of 5 bytes" in refusal("reference", "sign", out, "--key-file", key)
    assert "cannot be read" in refusal("reference", "verify", out, "--key-file", tmp_path / "none")


def test_a_reference_of_the_format_before_is_to_be_built_again(
    refusal: Refusal, tmp_path: Path
) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"kind": "remora-reference", "format": 1}))
    assert "format 1, not 2; build it again" in refusal("reference", "show", old)


def test_text_and_lists_of_numbers_are_described(remora: Remora, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = ["loan", "house", "because", "quickly", "seven", "blue", "rather"]
    columns: Columns = {
        "review": [" ".join(rng.choice(words, 9)) for _ in range(800)],
        "embedding": rng.normal(size=(800, 4)).round(3).tolist(),
        "x": rng.normal(size=800).round(3).tolist(),
    }
    path, out = write_json_lines(tmp_path / "rows.jsonl", columns), tmp_path / "reference.json"
    done = remora("reference", "build", path, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "visible: what embedding, review holds, by figures derived from it" in done.stdout
    reference = read(out)
    assert reference.columns == ("review", "x", "embedding")
    assert {"review", "embedding"}.isdisjoint(reference.feature_names)


def test_a_sagemaker_baseline_is_taken_as_far_as_it_goes(
    remora: Remora, refusal: Refusal, tmp_path: Path
) -> None:
    buckets = [{"value": "web", "count": 300}, {"value": "app", "count": 100}]
    words = {
        "common": {"num_present": 400, "num_missing": 0},
        "distribution": {"categorical": {"buckets": buckets}},
    }
    features = [
        {"name": "channel", "inferred_type": "String", "string_statistics": words},
        {"name": "odd", "inferred_type": "Unknown"},
    ]
    given, out = tmp_path / "statistics.json", tmp_path / "reference.json"
    given.write_text(json.dumps({"dataset": {"item_count": 400}, "features": features}))
    done = remora("reference", "import", given, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "odd: cannot be taken" in done.stderr
    assert read(out).feature_names == ("channel",)
    given.write_text("{}")
    assert "no SageMaker statistics.json" in refusal("reference", "import", given, "--out", out)
