"""Values of another type than in the reference: numbers that come as text, text among numbers,
fractions where there were only integers, numbers where there was text.

These are facts about values, not evidence, so they need no budget; but a fact about a few rows is
no news: 20 rows, and more than about one in 1,000, must be so before it is said, and more than a
reference of so few rows may never have met; it is taken back after 3,000 rows without one. Text
among which there always were numbers is no change either: only rows without any text count. Of each
tick at most 256 rows of a part of the features are
looked at, in turn, so that all were seen after 16 ticks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.data_quality.latches import Latches
from detectors.drift.explain import shown
from detectors.reading import Change, Kind, Scope, State
from detectors.reference import FeatureProfile
from detectors.rows.binning import OUTSIDE
from detectors.rows.columns import Column, number_of

ROWS_LOOKED_AT: Final = 256
TURNS: Final = 16
FEATURES_PER_TICK_MIN: Final = 16
HITS_MIN: Final = 20
#: Rows looked at, or counted by the caller, after which what was found counts half.
WINDOW_ROWS: Final = 10_000
CALM_ROWS: Final = 3_000
#: Rows of a reference that met none of a kind; their share is below 10 / rows but for 1 in 20,000.
UNMET: Final = 10.0
#: So many rows in a row must be numbers, where half of the reference's, and no more, may have been.
NUMBERS_MIN: Final = 50
_NUMERIC: Final = frozenset({"integer", "number", "boolean", "timestamp"})


class ValueTypes:
    """Compares the types of values with those of `profiles`."""

    def __init__(self, profiles: Sequence[FeatureProfile]) -> None:
        self._profiles = tuple(profiles)
        d = len(self._profiles)
        self._place = {profile.name: j for j, profile in enumerate(self._profiles)}
        self._types = [_type(profile) for profile in self._profiles]
        self._each = max(FEATURES_PER_TICK_MIN, -(-d // TURNS))
        self._turn = 0
        self._found: NDArray[np.float64] = np.zeros((d, 2))  # hits, rows; halved now and then
        self._unmet = np.array([_unmet(profile) for profile in self._profiles], dtype=np.float64)
        self._numbers = np.zeros(d, dtype=np.int64)  # rows in a row without text where it is usual
        self._clean = np.zeros(d, dtype=np.int64)  # rows of the stream since the last hit
        self._latches = Latches(patience_rows=0)

    def update(
        self, columns: Mapping[str, Column], rows: int, type_changes: Mapping[str, int]
    ) -> list[Change]:
        """Take one tick's columns; `type_changes` are cells that the caller could not read as their
        feature's type, by feature, and which are missing in the columns.
        """
        if not rows or not self._profiles:
            return []
        self._clean += rows
        what: dict[int, str] = {}
        for j in self._next():
            column = columns.get(self._profiles[j].name)
            if column is not None:
                hits, said = _trouble(self._types[j], column[:ROWS_LOOKED_AT])
                if self._types[j] == "text":
                    self._numbers[j] = min(self._numbers[j] + hits, WINDOW_ROWS) if hits else 0
                    hits = hits if self._numbers[j] >= NUMBERS_MIN else 0
                self._count(j, hits, min(len(column), ROWS_LOOKED_AT), said, what)
        for name, count in type_changes.items():
            if name in self._place:
                said = "values of another type, which are counted as missing"
                self._count(self._place[name], min(int(count), rows), rows, said, what)
        return self._step(rows, what)

    def standing(self) -> list[str]:
        """Give the features whose values are said to be of another type."""
        return self._latches.standing()

    def _next(self) -> range | list[int]:
        d = len(self._profiles)
        if d <= self._each:
            return range(d)
        chosen = [(self._turn + k) % d for k in range(self._each)]
        self._turn = (self._turn + self._each) % d
        return chosen

    def _count(self, j: int, hits: int, rows: int, said: str, what: dict[int, str]) -> None:
        self._found[j] += (hits, rows)
        if hits > 0:
            self._clean[j] = 0
            what[j] = said
        if self._found[j, 1] >= 2 * WINDOW_ROWS:
            self._found[j] /= 2

    def _step(self, rows: int, what: Mapping[int, str]) -> list[Change]:
        least = np.maximum(HITS_MIN, self._unmet * self._found[:, 1])
        troubled = {self._profiles[j].name for j in what if self._found[j, 0] >= least[j]}
        # one that is in trouble stays so until it was clean for long enough
        for j in np.flatnonzero((self._found[:, 0] > 0) & (self._clean < CALM_ROWS)):
            if self._latches.troubled(self._profiles[j].name):
                troubled.add(self._profiles[j].name)
        self._found[self._clean >= CALM_ROWS] = 0
        changes = []
        for name, state in self._latches.step(troubled, rows).items():
            place = self._place[name]
            hits, seen = self._found[place].tolist()
            if state is State.OK:
                explain = f"{shown(name)}: values have the type of the reference again"
            else:
                explain = f"{shown(name)}: {int(hits):,} of {int(seen):,} rows are {what[place]}"
            changes.append(
                Change(
                    kind=Kind.DATA_QUALITY,
                    scope=Scope.FEATURE,
                    subject=name,
                    detector="types",
                    state=state,
                    statistic=0.0 if state is State.OK else float(hits),
                    threshold=float(HITS_MIN),
                    rows=rows if state is State.OK else int(seen),
                    explain=explain,
                )
            )
        return changes

    def reset(self) -> None:
        """Forget what was found and said."""
        self._found[:], self._clean[:], self._numbers[:], self._turn = 0, 0, 0, 0
        self._latches = Latches(patience_rows=0)

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep."""
        return {
            "turn": self._turn,
            "found": self._found.copy(),
            "clean": self._clean.copy(),
            "numbers": self._numbers.copy(),
            "latches": self._latches.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit."""
        found = np.array(state["found"], dtype=np.float64).reshape(-1, 2)
        clean, running = (np.array(state[name], dtype=np.int64) for name in ("clean", "numbers"))
        shapes = (found.shape, clean.shape, running.shape)
        if shapes != (self._found.shape, self._clean.shape, self._numbers.shape):
            raise ValueError(f"types of {len(found)} features, expected {len(self._found)}")
        self._latches.restore(state["latches"])
        self._turn = int(state["turn"]) % max(len(self._profiles), 1)
        self._found, self._clean, self._numbers = found, clean, running


def _unmet(profile: FeatureProfile) -> float:
    """Give the share of values of a kind that an unchanged stream may have though the reference
    had none; of text nothing is asked, for there the reference may have had numbers.
    """
    if _type(profile) == "text":
        return 0.0
    return min(UNMET * max(profile.phi, 1.0) / max(profile.rows, 1.0), 0.5)


def _type(profile: FeatureProfile) -> str:
    """Give what is expected of the feature's values; "" if anything may come.

    A numeric feature whose reference already held what is no number expects nothing.
    """
    named = str(profile.type)
    if profile.kind == "categorical":
        return "text" if named == "text" else ""
    return named if named in _NUMERIC and not profile.counts[OUTSIDE] else ""


def _trouble(expected: str, column: Column) -> tuple[int, str]:
    """Count the values that are of another type, and say what they are."""
    kind = column.dtype.kind
    if expected == "":
        return 0, ""
    if expected == "text":
        numeric = kind in "fiub" or (kind == "O" and _all_numbers(column))
        return (len(column), "numbers where the reference has text") if numeric else (0, "")
    if kind in "US" or kind == "O":
        return _texts(column, expected)
    if kind == "c":
        return len(column), "complex numbers"
    if kind in "mM":
        if expected == "timestamp":
            return 0, ""
        return len(column), "times where the reference has numbers"
    if expected == "integer" and kind == "f":
        return _fractions(np.asarray(column, dtype=np.float64))
    return 0, ""


def _fractions(values: NDArray[np.float64]) -> tuple[int, str]:
    """Count finite values that are no integers."""
    with np.errstate(invalid="ignore"):
        broken = int(np.count_nonzero((values != np.floor(values)) & np.isfinite(values)))
    return broken, "fractions where the reference has only integers"


def _texts(column: Column, expected: str) -> tuple[int, str]:
    """Count texts among numbers, and fractions among integers."""
    cells = column.tolist()
    texts = [cell for cell in cells if isinstance(cell, str | bytes) and cell.strip()]
    if not texts:
        if expected != "integer":
            return 0, ""
        return _fractions(
            np.array([cell for cell in cells if isinstance(cell, float)], dtype=float)
        )
    if expected == "timestamp":
        return len(texts), "text where the reference has times"
    readable = sum(1 for text in texts if number_of(text) not in (np.inf, -np.inf))
    if readable == len(texts):
        return len(texts), "numbers that come as text"
    return len(texts), "text where the reference has numbers"


def _all_numbers(column: Column) -> bool:
    cells = [cell for cell in column.tolist() if cell is not None and cell == cell]
    return bool(cells) and all(
        isinstance(cell, int | float | np.number) and not isinstance(cell, bool) for cell in cells
    )
