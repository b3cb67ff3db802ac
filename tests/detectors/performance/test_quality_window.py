"""Which rows figures rest on: the ring, its epochs, corrections, and a restart in the middle."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.performance.quality import Quality

ROWS = 60
SAID = ["a" if row % 3 else "b" for row in range(ROWS)]
TRUE = [None if row % 11 == 5 else "b" if row % 4 == 1 else "a" for row in range(ROWS)]
SCORE = np.arange(ROWS) / ROWS
WEIGHT = np.asarray(1.0 + np.arange(ROWS) % 5, dtype=np.float64)


def fed(quality: Quality, start: int, stop: int, *, keyed: bool = True) -> Quality:
    part = slice(start, stop)
    keys = np.arange(start, stop) if keyed else None
    quality.update(SAID[part], TRUE[part], score=SCORE[part], weight=WEIGHT[part], keys=keys)
    return quality


def window(rows: int, **options: Any) -> Quality:
    return Quality(task="classification", window_rows=rows, **options)


def as_json(state: dict[str, Any]) -> Any:
    return json.loads(json.dumps(state, default=np.ndarray.tolist))


@given(cuts=st.lists(st.integers(0, ROWS), max_size=6), rows=st.integers(2, 70))
@settings(max_examples=60)
def test_how_rows_were_cut_into_chunks_does_not_matter(cuts: list[int], rows: int) -> None:
    ends = [0, *sorted(cuts), ROWS]
    single, chunks = (window(rows, classes=("a", "b")) for _ in range(2))
    for row in range(ROWS):
        fed(single, row, row + 1)
    for start, stop in pairwise(ends):
        fed(chunks, start, stop)
    assert as_json(chunks.state()) == as_json(single.state())
    assert repr(chunks.metrics()) == repr(single.metrics())  # NaN is not NaN


@pytest.mark.parametrize("rows", [2, 7, 8, 20])
def test_the_rows_shown_begin_with_an_epoch_that_is_whole(rows: int) -> None:
    quality = window(rows)
    step = rows // 2
    for row in range(ROWS):
        quality.update(["a"], ["a" if row % 7 else "b"])
        begin = min(b for b in range(0, ROWS + step, step) if row + 1 - b <= rows)
        shown = [one % 7 != 0 for one in range(begin, row + 1)]
        assert quality.rows == len(shown) == quality.metrics()["accuracy"].rows
        assert quality.metrics()["accuracy"].value == pytest.approx(np.mean(shown))


def test_rows_that_came_without_a_key_are_not_found_by_one() -> None:
    quality = fed(window(40), 0, 20, keyed=False)
    before = as_json(quality.state())
    assert not quality.correct("a", "a", "b", key=0)
    assert as_json(quality.state()) == before


def test_a_key_finds_its_newest_row_after_the_ring_went_round() -> None:
    quality = window(4)
    for row in range(6):  # places 0 to 3, then 0 and 1 again
        quality.update(["a"], ["a"], keys=[7], weight=row + 1.0)
    assert quality.correct("a", "a", "b", key=7)
    assert quality.state()["true"].tolist() == [0, 0, 0, 1]


def test_without_a_key_the_newest_such_row_is_corrected_after_the_ring_went_round() -> None:
    quality = window(4)
    quality.update(["a"] * 6, ["a"] * 6)
    assert quality.correct("a", "a", "b")
    assert quality.state()["true"].tolist() == [0, 0, 0, 1]


def test_a_row_that_left_the_window_is_not_corrected() -> None:
    quality = fed(window(10), 0, 40)
    assert not quality.correct("a", "a", "b", key=3)
    assert quality.correct("a", "a", "b", key=39)


def test_what_was_never_a_row_or_is_none_any_more_is_not_corrected() -> None:
    quality = window(10, classes=("a", "b"))
    assert not quality.correct("a", "a", "b")  # nothing came yet
    quality.update(["a", "a"], ["a", "b"], keys=[1, 2])
    no_label: Any = None
    assert quality.correct("a", "a", no_label, key=1)
    assert not quality.correct("a", "a", "b", key=1)
    assert not quality.correct("a", "a", "b")
    assert quality.metrics()["accuracy"].value == 0.0


def test_a_row_taken_back_counts_nowhere() -> None:
    no_label: Any = None
    for weight in (1.0, 3.0):
        quality, without = window(10), window(10)
        quality.update(["a", "b", "c", "b"], ["a", "b", "c", "a"], keys=[1, 2, 3, 4], weight=weight)
        assert len(quality.metrics_by_class()) == 3
        assert quality.metrics()["accuracy"].value == 0.75
        assert quality.correct("c", "c", no_label, key=3)
        without.update(["a", "b", "b"], ["a", "b", "a"], weight=weight)
        assert quality.rows == 3
        assert repr(quality.metrics()) == repr(without.metrics())
        assert repr(quality.metrics_by_class()) == repr(without.metrics_by_class())


def test_figures_asked_for_before_a_correction_are_not_those_after_it() -> None:
    quality = fed(window(40), 0, 30)
    before = quality.metrics()["accuracy"]
    assert quality.correct(SAID[2], "a", "b" if SAID[2] == "a" else "a", key=2)
    assert quality.metrics()["accuracy"] != before


@pytest.mark.parametrize("rows", [8, 25, 80])
@pytest.mark.parametrize("cut", [1, 13, 30, 59])
def test_a_restart_keeps_what_later_corrections_need(rows: int, cut: int) -> None:
    def labels(quality: Quality, start: int, stop: int) -> list[bool]:
        found = []
        for row in range(start, stop):
            fed(quality, row, row + 1, keyed=row % 6 != 0)
            found.append(quality.correct(SAID[row], "a", "b", key=row - 4))
            if row % 5 == 0:
                found.append(quality.correct("a", "b", "a"))
        return found

    through, before, after = window(rows), window(rows), window(rows)
    wanted = labels(through, 0, ROWS)
    found = labels(before, 0, cut)
    after.restore(as_json(before.state()))
    found += labels(after, cut, ROWS)
    assert found == wanted
    assert any(wanted)
    assert not all(wanted)
    assert repr(after.metrics()) == repr(through.metrics())
    assert as_json(after.state()) == as_json(through.state())
    assert (after.left_out, after.rows_total, after.rows) == (5, 55, through.rows)
