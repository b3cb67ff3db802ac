"""Rings cover about the rows they are named for, whatever the size of a tick."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.rows.binning import WIDTH
from detectors.rows.windows import Ring


@given(ticks=st.lists(st.integers(1, 700), min_size=1, max_size=60))
def test_a_window_covers_about_the_rows_it_is_named_for(ticks: list[int]) -> None:
    ring = Ring(1, 1_000)
    for rows in ticks:
        ring.push(np.full((1, WIDTH), rows), rows)
    covered = int(ring.counts()[0, 0])
    assert covered >= min(sum(ticks), 750)
    assert covered <= 1_250 + max(ticks)


@pytest.mark.parametrize("rows", [1_000, 50_000])
def test_a_tick_as_long_as_the_window_is_the_window(rows: int) -> None:
    ring = Ring(1, 1_000)
    for _ in range(5):
        ring.push(np.full((1, WIDTH), rows), rows)
    assert ring.counts()[0, 0] == rows
