"""Blocks of counts: nothing is lost when they merge, and the sample of ticks is a fair one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.references.blocks import BLOCKS_MAX, Blocks, SampledBlocks
from detectors.references.counted_rows import CountedRows
from detectors.rows.bins import WIDTH, NumericBins


@given(sizes=st.lists(st.integers(1, 700), max_size=60), block_rows=st.integers(1, 50))
def test_no_row_is_lost_when_blocks_merge(sizes: list[int], block_rows: int) -> None:
    blocks, rows = Blocks(1, block_rows), 0
    for size in sizes:
        while size:
            take = min(size, blocks.room())
            counts = np.zeros((1, WIDTH), dtype=np.int64)
            counts[0, rows % 3] = take
            blocks.add(counts, take)
            rows, size = rows + take, size - take
    assert blocks.total().sum() == rows
    assert blocks.total_of(0).sum() == rows
    assert (blocks.full().sum(axis=(1, 2)) == blocks.block_rows).all()
    assert len(blocks.full()) < BLOCKS_MAX


def test_sampled_blocks_come_from_all_over_and_from_no_fixed_hour() -> None:
    sampled = SampledBlocks(1, 10)
    for block in range(6_400):
        if not sampled.wanted:
            sampled.add(None, 10)
            continue
        counts = np.zeros((1, WIDTH), dtype=np.int64)
        counts[0, block % 16] = 4
        counts[0, 17] = block * 10 // 6_400
        sampled.add(counts, 10)
    kept = sampled.full()
    assert len(kept) == BLOCKS_MAX
    hours = kept[:, 0, :16].argmax(axis=1)
    assert np.bincount(hours, minlength=16).max() < 20  # of 128, 8 each are expected
    tenths = np.bincount(kept[:, 0, 17], minlength=10)
    assert tenths.min() > 3


def test_a_cycle_shorter_than_a_block_is_still_a_wander() -> None:
    """Two days of a million rows: blocks of 16,000 rows, and the feature swings within each."""
    rng = np.random.default_rng(0)
    bins = NumericBins(edges=(-1.0, 0.0, 1.0), low=-1e30, high=1e30)
    swinging, still = (CountedRows([("x", bins)], tick_rows=1_000) for _ in range(2))
    for tick in range(1_000):
        noise = rng.normal(size=1_000)
        swinging.add({"x": noise + np.sin(2 * np.pi * tick / 8)}, 1_000)
        still.add({"x": noise}, 1_000)
    assert still.calibration("x")[1] < 0.04
    assert swinging.calibration("x")[1] > 0.5
