"""Counts of blocks of rows: all that self-calibration needs to know of their order.

`Blocks` keeps all rows, in ever longer blocks; `SampledBlocks` keeps blocks of one length, some of
them. Without the second a long reference would hide every cycle shorter than a block.
"""

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.bins import WIDTH

BLOCKS_MAX: Final = 128


class Blocks:
    """Counts of successive blocks of rows, [blocks, features, 18], at most 128 of them.

    When 128 are full neighbours merge, and a block holds twice as many rows from then on.
    """

    def __init__(self, features: int, block_rows: int) -> None:
        self.block_rows = block_rows
        self._counts = np.zeros((BLOCKS_MAX, features, WIDTH), dtype=np.uint32)
        self._used = 0
        self._filled = 0  # rows in the block being filled

    def room(self) -> int:
        """Give how many rows the current block still takes."""
        return self.block_rows - self._filled

    def add(self, counts: NDArray[np.int64], rows: int) -> None:
        """Add counts [features, 18] of `rows` rows to the current block."""
        self._counts[self._used] += counts.astype(np.uint32)
        self._filled += rows
        if self._filled < self.block_rows:
            return
        self._used, self._filled = self._used + 1, 0
        if self._used == BLOCKS_MAX:
            half = BLOCKS_MAX // 2
            self._counts[:half] = self._counts[0::2] + self._counts[1::2]
            self._counts[half:] = 0
            self._used, self.block_rows = half, self.block_rows * 2

    def full(self) -> NDArray[np.uint32]:
        """Give the blocks that are full, [blocks, features, 18]."""
        return self._counts[: self._used]

    def total(self) -> NDArray[np.float64]:
        """Give all rows' counts, [features, 18]."""
        total: NDArray[np.float64] = self._counts.sum(axis=0, dtype=np.float64)
        return total

    def total_of(self, feature: int) -> NDArray[np.float64]:
        """Give all rows' counts of one feature, [18]."""
        total: NDArray[np.float64] = self._counts[:, feature].sum(axis=0, dtype=np.float64)
        return total


class SampledBlocks:
    """Counts of at most 128 blocks of `block_rows` successive rows, a uniform sample of all such
    blocks.

    Which are kept is a hash of their number (bottom-k sampling): a stride would see the same hour
    of every day. A block that is not kept need not be counted: ask `wanted` first.
    """

    def __init__(self, features: int, block_rows: int) -> None:
        self.block_rows = block_rows
        self._counts = np.zeros((BLOCKS_MAX, features, WIDTH), dtype=np.uint32)
        self._ranks: list[int] = []  # of the kept blocks; the current one is not among them
        self._current = np.zeros((features, WIDTH), dtype=np.uint32)
        self._index = 0
        self._filled = 0

    @property
    def wanted(self) -> bool:
        """Whether the current block is to be kept."""
        return len(self._ranks) < BLOCKS_MAX or self._rank() < max(self._ranks)

    def room(self) -> int:
        """Give how many rows the current block still takes."""
        return self.block_rows - self._filled

    def add(self, counts: NDArray[np.int64] | None, rows: int) -> None:
        """Add `rows` rows, at most `room()`: their counts, or None if the block is not wanted."""
        if counts is not None:
            self._current += counts.astype(np.uint32)
        self._filled += rows
        if self._filled < self.block_rows:
            return
        if self.wanted:
            place = len(self._ranks)
            if place == BLOCKS_MAX:
                place = self._ranks.index(max(self._ranks))
                self._ranks[place] = self._rank()
            else:
                self._ranks.append(self._rank())
            self._counts[place] = self._current
        self._current[:] = 0
        self._index, self._filled = self._index + 1, 0

    def full(self) -> NDArray[np.uint32]:
        """Give the kept blocks in no order, [blocks, features, 18]."""
        return self._counts[: len(self._ranks)]

    def _rank(self) -> int:
        digest = hashlib.blake2b(self._index.to_bytes(8, "little"), digest_size=8).digest()
        return int.from_bytes(digest, "little")
