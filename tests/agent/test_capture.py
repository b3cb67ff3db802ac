"""Captured rows: what is written, what never is, and where it ends."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.capture import CaptureWriter, read_segment, segments
from agent.schema import objects
from tests.agent.ticks import tick

DAY_S = 86_400.0


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Write = Callable[..., CaptureWriter]


@pytest.fixture
def writer_of(tmp_path: Path, clock: Clock) -> Write:
    def make(**changes: Any) -> CaptureWriter:
        limits: dict[str, Any] = {"bytes_max": 2**30, "retention_s": 30 * DAY_S, "redact": ()}
        return CaptureWriter(tmp_path / "captures", clock=clock, **(limits | changes))

    return make


def written(tmp_path: Path) -> list[dict[str, Any]]:
    return [row for path in segments(tmp_path / "captures") for row in read_segment(path)]


def used_bytes(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in segments(tmp_path / "captures"))


def test_a_line_says_everything_about_a_row(writer_of: Write, tmp_path: Path) -> None:
    cells = {"age": np.array([41.5, np.nan]), "job": objects(["nurse", None])}
    writer = writer_of()
    writer.write(tick(["a", "a"], columns=cells, score=np.array([0.25, np.inf]), at=7.5))
    first, second = written(tmp_path)
    assert first == {
        "age": 41.5, "job": "nurse", "prediction": "yes", "score": 0.25,
        "request_id": "a", "row": 0, "at": 7.5, "version": "v1", "tick": first["tick"],
        "tick_at": 160.0, "tick_share": 1.0, "tick_evidence": True, "sampling_weight": 1.0,
    }  # fmt: skip
    assert (second["age"], second["job"], second["score"], second["row"]) == (None, None, None, 1)
    assert writer.rows == 2


def test_a_reservoir_keeps_a_few_of_each_class_and_says_for_how_many_they_stand(
    writer_of: Write, tmp_path: Path
) -> None:
    said = ["no"] * 8 + ["yes", "yes"]
    writer = writer_of(reservoir=2, salt=b"s")
    writer.write(tick([f"r-{n}" for n in range(10)], predictions=said, weight=np.full(10, 5.0)))
    found = [(row["prediction"], row["sampling_weight"]) for row in written(tmp_path)]
    assert found == [("no", 20.0), ("no", 20.0), ("yes", 5.0), ("yes", 5.0)]
    writer.limit(bytes_max=1 << 20, retention_s=1e6)
    writer.write(tick(["s-0", "s-1", "s-2"]))
    assert len(written(tmp_path)) == 7


def test_ticks_are_told_apart_and_rise_over_restarts(
    writer_of: Write, tmp_path: Path, clock: Clock
) -> None:
    writer = writer_of()
    writer.write(tick(["a", "b"]))
    writer.write(tick(["c"]))
    writer.close()
    clock.now += 10
    writer_of().write(tick(["d"]))
    ticks = [row["tick"] for row in written(tmp_path)]
    assert ticks[0] == ticks[1] < ticks[2] < ticks[3]


def test_redacted_features_are_never_written(writer_of: Write, tmp_path: Path) -> None:
    writer_of(redact=("job",)).write(tick(["a"]))
    [row] = written(tmp_path)
    assert "job" not in row
    assert "age" in row
    [path] = segments(tmp_path / "captures")
    assert b"nurse" not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_a_feature_with_a_name_of_ours_is_left_out_and_said_so(
    writer_of: Write, tmp_path: Path
) -> None:
    cells = {"score": np.array([700.0, 650.0]), "label": objects(["x", "y"]), "age": np.ones(2)}
    writer = writer_of()
    writer.write(tick(["a", "b"], columns=cells, score=np.array([0.5, 0.5])))
    assert [row["score"] for row in written(tmp_path)] == [0.5, 0.5]
    assert all("label" not in row for row in written(tmp_path))
    assert writer.left_out == ("score", "label")
    assert writer.dropped == {"capture_reserved_name": 4}


def test_a_row_that_no_json_can_say_is_dropped_alone(writer_of: Write, tmp_path: Path) -> None:
    cells = {"age": np.ones(3), "job": objects(["nurse", "\ud800", "smith"])}
    writer = writer_of()
    writer.write(tick(["a", "b", "c"], columns=cells))
    assert [row["request_id"] for row in written(tmp_path)] == ["a", "c"]
    assert writer.dropped == {"capture_unwritable": 1}


def test_the_room_is_never_exceeded_and_the_oldest_go(writer_of: Write, tmp_path: Path) -> None:
    writer = writer_of(bytes_max=20_000)
    for number in range(60):
        writer.write(tick([f"{number}-{row}" for row in range(8)]))
        assert used_bytes(tmp_path) <= 20_000
    kept = [row["request_id"] for row in written(tmp_path)]
    assert kept[-1] == "59-7"
    assert 0 < len(kept) < 480
    assert kept == [f"{n}-{r}" for n in range(60) for r in range(8)][-len(kept) :]
    assert writer.dropped["capture_evicted"] > 0


def test_a_tick_larger_than_the_room_is_dropped(writer_of: Write, tmp_path: Path) -> None:
    writer = writer_of(bytes_max=2_000)
    writer.write(tick([f"id-{n}" for n in range(100)]))
    assert written(tmp_path) == []
    assert writer.dropped == {"capture_disk": 100}
    writer.limit(bytes_max=200_000, retention_s=DAY_S)
    writer.write(tick(["a"]))
    assert len(written(tmp_path)) == 1


def test_rows_go_when_their_time_is_up_with_traffic_or_without(
    writer_of: Write, tmp_path: Path, clock: Clock
) -> None:
    writer = writer_of(retention_s=10 * DAY_S)
    for day in range(20):
        writer.write(tick([f"day-{day}"]))
        clock.now += DAY_S
    ages = [int(row["request_id"].removeprefix("day-")) for row in written(tmp_path)]
    assert ages == list(range(10, 20))
    clock.now += 30 * DAY_S
    writer.expire()
    assert written(tmp_path) == []
    assert "capture_evicted" not in writer.dropped  # nobody wanted them any longer
    writer.write(tick(["again"]))
    assert [row["request_id"] for row in written(tmp_path)] == ["again"]


def test_a_line_that_a_crash_has_cut_is_passed_by(writer_of: Write, tmp_path: Path) -> None:
    writer = writer_of()
    writer.write(tick(["a", "b", "c"]))
    writer.close()
    [path] = segments(tmp_path / "captures")
    path.write_bytes(path.read_bytes()[:-15])
    writer_of().write(tick(["d"]))
    assert [row["request_id"] for row in written(tmp_path)] == ["a", "b", "d"]


def test_files_of_others_are_left_alone(writer_of: Write, tmp_path: Path) -> None:
    directory = tmp_path / "captures"
    directory.mkdir()
    (directory / "rows-mine.jsonl").write_text('{"request_id": "x", "row": 0, "at": 1}\n')
    (directory / "rows-00000000000000000001.jsonl").write_text('[1]\n{"a": 1}\n')
    writer = writer_of(bytes_max=8_000, retention_s=1e12)
    for number in range(20):
        writer.write(tick([f"{number}"]))
    assert (directory / "rows-mine.jsonl").exists()
    assert len(written(tmp_path)) > 0


def test_a_full_disk_costs_rows_and_not_the_rows_after(
    writer_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of()
    writer.write(tick(["a"]))
    real = os.write

    def full(file: int, data: Any) -> int:
        if len(data) > 20:
            return real(file, bytes(data)[:20])
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        writer.write(tick(["lost", "too"]))
    writer.write(tick(["b"]))
    assert [row["request_id"] for row in written(tmp_path)] == ["a", "b"]
    assert writer.dropped == {"capture_disk": 2}
    assert writer.rows == 2


def test_a_directory_that_cannot_be_made_costs_rows(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = CaptureWriter(tmp_path / "file" / "x", bytes_max=1_000_000, retention_s=1, redact=())
    writer.write(tick(["a"]))
    writer.expire()
    assert writer.dropped == {"capture_disk": 1}


def test_columns_may_come_and_go(writer_of: Write, tmp_path: Path) -> None:
    writer = writer_of()
    writer.write(tick(["a"], columns={"age": np.ones(1)}))
    writer.write(tick(["b"], columns={"size": np.ones(1)}, prediction=None))
    first, second = written(tmp_path)
    assert ("age" in first, "size" in first) == (True, False)
    assert ("age" in second, "size" in second, second["prediction"]) == (False, True, None)
