"""Rows that are exact copies of another: a retry that is counted twice, a source that repeats.

Of every 2,048 rows the first 512 are compared with each other, all features together, at most
eight times a tick; the share that copies an earlier one among them is one figure between 0 and 1.
Its mean in the reference is known, so the evidence is a bet on a bounded mean, valid however copies
cluster: R <- (R + w a) (1 + bet (share - ceiling)). While there is suspicion all rows are looked
at. Rows of a shorter tick have fewer partners, which only makes copies look rarer than they are.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024).
The one thing not to break: the reference is counted by the very same function.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.reading import Change, Effect, Kind, Scope, State
from detectors.rows.columns import Column, category_keys, is_masked

BLOCK_ROWS: Final = 512
#: Rows from the beginning of one block to that of the next.
STRIDE_ROWS: Final = 2_048
#: Blocks of one tick, so that a huge tick costs no more than so many.
BLOCKS_MAX: Final = 8
#: A block of fewer rows says nothing.
BLOCK_ROWS_MIN: Final = 32
#: Blocks of a reference that are taken one after the other.
DENSE_BLOCKS: Final = 64
#: Fewer blocks of reference are no reference.
REFERENCE_BLOCKS_MIN: Final = 4
#: A larger share by so much is declared irrelevant.
TOLERANCE: Final = 0.01
COPIES_MIN: Final = 20
CALM_BLOCKS: Final = 6
#: Bets, as parts of the largest that cannot lose everything.
BETS: Final = (0.9, 0.3, 0.1)
SUBJECT: Final = "(rows)"
_FLOOR_TICKS: Final = 10.0
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)


def copies(columns: Sequence[Column], rows: int) -> int:
    """Count the rows, of the first `rows`, that equal an earlier one in every column.

    Missing values are equal to each other. Columns are taken up one, two, four... at a time, and
    only rows that still have a twin are compared further: most rows are told apart by the first.
    """
    if not columns or rows < 2:
        return 0
    alike = np.arange(rows)  # rows that may have a twin
    groups = np.zeros(rows, dtype=np.uint64)
    start, step = 0, 1
    while start < len(columns) and len(alike):
        for column in columns[start : start + step]:
            bits = _bits(column[:rows])[alike]
            groups = (groups ^ bits) * _MIX
            groups ^= groups >> np.uint64(29)
        ordered = np.sort(groups)
        if not (ordered[1:] == ordered[:-1]).any():  # nearly always, and cheaper than finding who
            return 0
        _, place, count = np.unique(groups, return_inverse=True, return_counts=True)
        twins = count[place] > 1
        alike, groups = alike[twins], groups[twins]
        start, step = start + step, 2 * step
    return len(alike) - len(np.unique(groups))


def _bits(column: Column) -> NDArray[np.uint64]:
    """Give 64 bits for each value: equal values have equal bits."""
    if column.dtype.kind in "fiub" and not is_masked(column):
        values = column.astype(np.float64) + 0.0  # -0 is 0
        values[np.isnan(values)] = np.nan
        return values.view(np.uint64)
    keys = category_keys(column)
    hashes = np.fromiter((hash(key) for key in keys.tolist()), np.int64, len(keys))
    return hashes.view(np.uint64)


class CopyCounter:
    """Counts copies in a reference's rows, chunk by chunk; `facts` go into the reference."""

    def __init__(self) -> None:
        self._blocks = 0
        self._sum = 0.0
        self._squares = 0.0

    def update(self, columns: Sequence[Column], rows: int) -> None:
        """Take one chunk, whole blocks of 512 rows: all until there are 64, then the first of each
        2,048 rows.
        """
        step = BLOCK_ROWS if self._blocks < DENSE_BLOCKS else STRIDE_ROWS
        for start in range(0, rows - BLOCK_ROWS + 1, step):
            part = [column[start : start + BLOCK_ROWS] for column in columns]
            share = copies(part, BLOCK_ROWS) / BLOCK_ROWS
            self._blocks += 1
            self._sum += share
            self._squares += share * share

    def facts(self) -> dict[str, float]:
        """Give `duplicate_ratio` (mean share per block), `duplicate_spread` (its standard
        deviation) and `duplicate_blocks`; nothing if there was no block.
        """
        if not self._blocks:
            return {}
        mean = self._sum / self._blocks
        variance = max(self._squares / self._blocks - mean * mean, 0.0)
        return {
            "duplicate_ratio": mean,
            "duplicate_spread": math.sqrt(variance * self._blocks / max(self._blocks - 1, 1)),
            "duplicate_blocks": float(self._blocks),
        }


class Duplicates:
    """Watches the share of copies among the rows of `names`, against the facts of a reference.

    Without enough facts, or where a copy is no surprise at all, it watches nothing. Raises
    ValueError for a senseless budget.
    """

    def __init__(
        self,
        names: Sequence[str],
        facts: Mapping[str, float],
        *,
        false_alarms_per_month: float,
        ticks_per_month: float,
    ) -> None:
        if not (0 < false_alarms_per_month < math.inf and 0 < ticks_per_month < math.inf):
            raise ValueError("false_alarms_per_month and ticks_per_month must be above 0, finite")
        self._names = tuple(names)
        self.ratio = float(facts.get("duplicate_ratio", 0.0))
        self.ceiling = _ceiling(facts)
        self._unit = false_alarms_per_month / ticks_per_month
        self._wealth = np.zeros(len(BETS))
        self._pending = 0.0  # ticks whose budget no block has brought yet
        self._rest = 0  # rows until the next block begins
        self._since = [0, 0]  # copies, rows compared, since the evidence left its floor
        self._calm = 0  # blocks in a row at or below the ceiling
        self._latched = False
        self._log10 = -math.inf

    def update(self, columns: Mapping[str, Column], rows: int, *, ticks: float) -> list[Change]:
        """Take one tick's columns of `rows` rows each."""
        if self.ceiling >= 1 or not rows:
            return []
        self._pending = min(self._pending + min(max(ticks, 0.0), 1.0), STRIDE_ROWS)
        present = [columns[name] for name in self._names if name in columns]
        if len(present) < len(self._names):
            return []  # rows without a column look more alike than they are
        changes: list[Change] = []
        start = max(self._rest, 0)
        for _ in range(BLOCKS_MAX):
            taken = min(rows - start, BLOCK_ROWS)
            if taken < BLOCK_ROWS_MIN:
                break
            part = [column[start : start + taken] for column in present]
            changes += self._judge(copies(part, taken), taken)
            suspicious = self._latched or self._wealth.sum() > self._unit * _FLOOR_TICKS
            start += taken if suspicious else STRIDE_ROWS
        self._rest = max(start - rows, 0)
        return changes

    def standing(self) -> list[str]:
        """Give what is said to be wrong now: the rows, or nothing."""
        return [SUBJECT] if self._latched else []

    def _judge(self, found: int, rows: int) -> list[Change]:
        share = found / rows
        self._since = [self._since[0] + found, self._since[1] + rows]
        if self._latched:
            self._calm = self._calm + 1 if share <= self.ceiling else 0
            if self._calm < CALM_BLOCKS:
                return []
            self.reset()
            explain = f"exact copies are as rare as in the reference ({share:.1%} of rows)"
            return [self._change(State.OK, share, rows, explain)]
        bets = np.array(BETS) / self.ceiling
        gift = self._unit * self._pending / len(BETS)
        self._pending = 0.0
        self._wealth = (self._wealth + gift) * (1 + bets * (share - self.ceiling))
        self._wealth = np.minimum(self._wealth, 1e200)
        value = float(self._wealth.sum())
        self._log10 = math.log10(max(value / self._unit, 1e-300))
        if value >= 1 and self._since[0] >= COPIES_MIN:
            self._latched, self._calm = True, 0
            now = self._since[0] / self._since[1]
            explain = (
                f"{now:.1%} of {self._since[1]:,} rows compared are exact copies of one shortly "
                f"before; in the reference {self.ratio:.1%}"
            )
            return [self._change(State.WARNING, now, self._since[1], explain)]
        if value <= self._unit * _FLOOR_TICKS:
            self._since = [0, 0]
        return []

    def _change(self, state: State, share: float, rows: int, explain: str) -> Change:
        evidence = self._log10 if state is not State.OK else 0.0
        return Change(
            kind=Kind.DATA_QUALITY,
            scope=Scope.MODEL,
            subject=SUBJECT,
            detector="duplicates",
            state=state,
            statistic=evidence,
            threshold=-math.log10(self._unit),
            evidence=evidence,
            effect=Effect(name="duplicate_ratio", value=share),
            rows=rows,
            explain=explain,
        )

    def reset(self) -> None:
        """Forget evidence and the latched state."""
        self._wealth[:] = 0
        self._latched, self._calm, self._since = False, 0, [0, 0]
        self._log10, self._pending = -math.inf, 0.0

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as JSON values."""
        return {
            "wealth": self._wealth.tolist(),
            "pending": self._pending,
            "rest": self._rest,
            "since": list(self._since),
            "calm": self._calm,
            "latched": self._latched,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit."""
        wealth = np.array(state["wealth"], dtype=np.float64)
        if wealth.shape != (len(BETS),) or not np.isfinite(wealth).all() or (wealth < 0).any():
            raise ValueError(f"evidence of shape {wealth.shape}, expected ({len(BETS)},)")
        self._wealth = wealth
        self._pending, self._rest = float(state["pending"]), int(state["rest"])
        self._since = [int(state["since"][0]), int(state["since"][1])]
        self._calm, self._latched = int(state["calm"]), bool(state["latched"])


def _ceiling(facts: Mapping[str, float]) -> float:
    """Give the largest mean share that an unchanged stream may have; 1 if nothing is known.

    Three standard errors, what as few blocks may have hidden, and the tolerance.
    """
    blocks = float(facts.get("duplicate_blocks", 0.0))
    if not blocks >= REFERENCE_BLOCKS_MIN:
        return 1.0
    mean, spread = float(facts["duplicate_ratio"]), float(facts.get("duplicate_spread", 0.0))
    ceiling = mean + 3 * spread / math.sqrt(blocks) + 0.5 / (blocks + 1) + TOLERANCE
    return min(ceiling, 1.0) if math.isfinite(ceiling) else 1.0
