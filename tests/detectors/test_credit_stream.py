"""A stream with known change points is read right: what happened is said, and nothing else."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from detectors import DriftDetector, build_reference
from detectors.rows.columns import Column

QUARTER = Path(__file__).parent.parent / "data" / "credit_drift_quarter.csv.gz"
WHOLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "credit_drift_stream.csv.gz"
NOT_FEATURES = ("t", "segment", "default")


def read(path: Path) -> dict[str, Column]:
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, Column] = {}
    for name in rows[0]:
        values = [row[name] or None for row in rows]
        if name in ("channel", "region"):
            columns[name] = np.array(values, dtype=object)
        elif name not in NOT_FEATURES:
            columns[name] = np.array([np.nan if v is None else float(v) for v in values])
    return columns


def replay(
    columns: dict[str, Column], reference_rows: int, tick: int
) -> list[tuple[int, str, str]]:
    """Give (row in the stream, feature, state) of each reading after the reference rows."""
    head = {name: column[:reference_rows] for name, column in columns.items()}
    monitor = DriftDetector(build_reference(head, tick_rows=tick))
    said = []
    for start in range(reference_rows, len(columns["income"]), tick):
        batch = {name: column[start : start + tick] for name, column in columns.items()}
        for reading in monitor.update(batch):
            said.append((reference_rows + reading.row, reading.subject, reading.state.value))
    return said


@pytest.mark.parametrize("tick", [250, 500, 1_000])
def test_a_quarter_of_the_stream_gives_its_three_events_and_no_other(tick: int) -> None:
    said = replay(read(QUARTER), 2_500, tick)
    income = [row for row, subject, _ in said if subject == "income"]
    tenure = [(row, state) for row, subject, state in said if subject == "tenure_years"]
    assert {subject for _, subject, _ in said} == {"income", "tenure_years"}
    assert 3_000 < income[0] <= 3_500 + tick
    assert 7_750 < tenure[0][0] <= 8_000 + tick / 2
    assert tenure[-1][1] == "ok"


@pytest.mark.slow
@pytest.mark.skipif(not WHOLE.exists(), reason="the whole stream lies beside the repository only")
@pytest.mark.parametrize("reference_rows", [6_000, 10_000, 12_000])
def test_the_whole_stream_gives_its_three_events_and_no_other(reference_rows: int) -> None:
    assert replay(read(WHOLE), reference_rows, 1_000) == [
        (13_000, "income", "drift"),
        (32_000, "tenure_years", "drift"),
        (35_000, "tenure_years", "ok"),
    ]
