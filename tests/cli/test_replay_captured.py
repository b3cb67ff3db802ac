"""Rows that the agent captured give, replayed, the very readings that the agent gave."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from agent.capture import CaptureWriter, segments
from agent.inference import Inference
from agent.monitor import ModelMonitor, MonitorSettings
from agent.schema import SchemaSettings
from detectors import Reading, Reference, build_reference

Remora: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


def rows(seed: int, count: int, shift: float) -> tuple[list[list[Any]], list[str]]:
    rng = np.random.default_rng(seed)
    age = rng.normal(40 + shift, 9, count)
    job = rng.choice(["clerk", "nurse", "smith"], count, p=[0.5, 0.3, 0.2])
    said = np.where(rng.random(count) < 0.3 + shift / 60, "yes", "no")
    return [list(row) for row in zip(age.tolist(), job.tolist(), strict=True)], said.tolist()


@pytest.fixture(scope="module")
def reference() -> Reference:
    cells, said = rows(1, 6_000, 0.0)
    columns = {"age": [row[0] for row in cells], "job": [row[1] for row in cells]}
    return build_reference({**columns, "prediction": said}, prediction="prediction")


def live(reference: Reference, captures: CaptureWriter) -> list[Reading]:
    """Requests of 7 to 90 rows, some of the candidate; ticks end by rows and by time."""
    settings = MonitorSettings(tick_rows=400, tick_s=30.0)
    schema = SchemaSettings(features=("age", "job"), kinds={"age": "numeric", "job": "categorical"})
    monitor = ModelMonitor(settings, schema, stable="v1")
    monitor.install("v1", reference)
    rng = np.random.default_rng(3)
    readings, now = [], 1_000.0
    for number in range(400):
        now += float(rng.exponential(2.0 if number % 50 else 40.0))
        drifted = 15.0 if number > 250 else 0.0
        cells, said = rows(100 + number, int(rng.integers(7, 90)), drifted)
        inference = Inference(
            id=f"r-{number}", aliases=(), at=now, version="v2" if number % 9 == 4 else "v1",
            slot="candidate" if number % 9 == 4 else "stable", weight=1.0,
            uniform=number % 13 != 0, latency_s=0.01, names=("age", "job"), rows=cells,
            outputs={"y": said},
        )  # fmt: skip
        for tick in (*monitor.advance(now), *monitor.take(inference, now)):
            captures.write(tick.batch, share=tick.share)
            readings += [reading for reading in tick.readings if reading.version == "v1"]
    for tick in monitor.flush(now):
        captures.write(tick.batch, share=tick.share)
        readings += [reading for reading in tick.readings if reading.version == "v1"]
    return readings


def test_a_replay_of_captured_rows_says_what_the_agent_said(
    remora: Remora, reference: Reference, tmp_path: Path
) -> None:
    captures = CaptureWriter(tmp_path / "captures", bytes_max=1 << 30, retention_s=1e9, redact=())
    expected = live(reference, captures)
    assert {reading.subject for reading in expected} >= {"age", "prediction"}
    data = tmp_path / "rows.jsonl"
    data.write_bytes(b"".join(path.read_bytes() for path in segments(tmp_path / "captures")))
    (tmp_path / "reference.json").write_bytes(reference.to_bytes())
    flags = ("--reference", tmp_path / "reference.json", "--model-version", "v1", "--json")
    done = remora("replay", data, *flags)
    assert done.returncode == 0, done.stderr
    replayed = json.loads(done.stdout)["readings"]
    for found, reading in zip(replayed, expected, strict=True):
        event = reading.to_json()
        # The agent counts the rows that were evidence, a replay all rows of the file.
        assert found.pop("row") >= event.pop("row")
        assert (found.pop("version"), event.pop("version")) == ("", "v1")
        assert found == event
