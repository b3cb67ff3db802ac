"""A stream with known change points, read as its user would: each event is said, and nothing else.

A logistic model is trained on rows 0 to 5,999 and makes the predictions; rows 6,000 to 11,999 are
the reference, the rest is replayed.
"""

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

Remora: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

WHOLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "credit_drift_stream.csv.gz"
NUMBERS = ("income", "age", "utilisation", "late_payments", "tenure_years", "loan_amount")
CATEGORIES = ("channel", "region")
TRAINED, REFERENCE = 6_000, 12_000
FLAGS = ("--target", "default", "--score", "p", "--ignore", "t", "--ignore", "segment")


def features(rows: list[dict[str, str]]) -> Any:
    """Standardised numbers (missing: the mean), one column per category, and a one."""
    columns = [np.ones(len(rows))]
    for name in NUMBERS:
        x = np.array([float(row[name] or "nan") for row in rows])
        mean, spread = np.nanmean(x[:TRAINED]), np.nanstd(x[:TRAINED])
        columns.append(np.nan_to_num((x - mean) / spread))
    for name in CATEGORIES:
        x = np.array([row[name] for row in rows])
        columns += [(x == value).astype(float) for value in sorted(set(x[:TRAINED]))[1:]]
    return np.stack(columns, axis=1)


def scores(rows: list[dict[str, str]]) -> Any:
    """Logistic regression by Newton's method, on the first rows only."""
    x, y = features(rows), np.array([float(row["default"]) for row in rows])
    weights = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x[:TRAINED] @ weights))
        slope = x[:TRAINED].T @ (y[:TRAINED] - p) - 1e-3 * weights
        curve = (x[:TRAINED] * (p * (1 - p))[:, None]).T @ x[:TRAINED]
        weights += np.linalg.solve(curve + 1e-3 * np.eye(len(weights)), slope)
    return 1 / (1 + np.exp(-x @ weights))


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The reference's rows and the rest, each with the model's score."""
    with gzip.open(WHOLE, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    scored = [f"{line},{p:.6f}" for line, p in zip(lines[1:], scores(rows), strict=True)]
    directory = tmp_path_factory.mktemp("stream")
    paths = directory / "reference.csv", directory / "rest.csv"
    for path, part in zip(paths, (scored[TRAINED:REFERENCE], scored[REFERENCE:]), strict=True):
        path.write_text("\n".join([f"{lines[0]},p", *part]) + "\n", encoding="utf-8")
    return paths


@pytest.mark.slow
@pytest.mark.skipif(not WHOLE.exists(), reason="the whole stream lies beside the repository only")
@pytest.mark.parametrize("tick_rows", [250, 500, 1_000])
def test_every_event_is_said_and_nothing_else(
    remora: Remora, stream: tuple[Path, Path], tmp_path: Path, tick_rows: int
) -> None:
    reference, rest = stream
    profile, events = tmp_path / "reference.json", tmp_path / "events.jsonl"
    ticks = ("--tick-rows", str(tick_rows))
    built = remora("reference", "build", reference, *FLAGS, *ticks, "--out", profile)
    assert built.returncode == 0, built.stderr
    done = remora("replay", rest, "--reference", profile, *FLAGS, *ticks, "--events", events)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    found = {
        (e["kind"], e["subject"], e["state"], REFERENCE + e["row"])
        for e in said
        if e["kind"] not in ("prediction_drift", "quality")  # they follow from these
    }

    def rows(kinds: set[str], subject: str | None, states: set[str]) -> list[int]:
        return sorted(
            row
            for kind, about, state, row in found
            if kind in kinds and subject in (None, about) and state in states
        )

    concept = rows({"concept_drift"}, None, {"drift"})
    assert rows({"data_drift"}, "income", {"drift"})[0] <= 13_000
    assert 20_000 < concept[0] <= 23_000
    assert 31_000 < rows({"data_drift"}, "tenure_years", {"drift"})[0] <= 32_000
    assert 34_000 < rows({"data_drift"}, "tenure_years", {"ok"})[0] <= 36_000
    assert any(40_000 < row <= 43_000 for row in concept)
    between = [row for *_, row in found if 23_500 < row < 31_000 or row > 43_500 or row <= 12_000]
    assert between == []
    assert {(kind, subject) for kind, subject, *_ in found} == {
        ("data_drift", "income"),
        ("data_drift", "tenure_years"),
        ("concept_drift", "error_rate"),
        ("concept_drift", "calibration"),
    }
