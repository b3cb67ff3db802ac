"""Parts of the stream, each by itself: drift of a segment against the reference's rows of that
segment.

At most 20 segments (and one for all others) and at most 1,000 pairs of segment and feature are
watched: with 100 features the ten most frequent segments. They stand outside the false-alarm budget
of the model, for they are asked for beside it; among themselves they share one of their own. Every
reading says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.detector import DriftDetector
from detectors.drift.explain import shown
from detectors.reading import Moment, Reading, Window
from detectors.reference import NAME_CHARACTERS_MAX, Reference
from detectors.rows.columns import Column, Table, category_keys

SEGMENTS_MAX: Final = 20
PAIRS_MAX: Final = 1_000
OTHER: Final = "other"
#: Between a detector's name and that of the segment it speaks of.
SEGMENT_MARK: Final = ":segment="
MISSING: Final = "missing"


def split(segment: Column, names: tuple[str, ...]) -> list[tuple[str, NDArray[np.intp]]]:
    """Give the rows of each segment of `names`; rows without a value are the segment `missing`.

    Rows of other values are `other`, and left out if that is not among the names.
    """
    keys = category_keys(segment).tolist()
    place = {name: code for code, name in enumerate(names)}
    rest = place.get(OTHER, len(names))
    codes = {
        key: place.get(MISSING if key is None else key[:NAME_CHARACTERS_MAX], rest)
        for key in set(keys)
    }
    coded = np.fromiter((codes[key] for key in keys), np.int64, len(keys))
    order = np.argsort(coded, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(coded, minlength=len(names)))[: len(names)])
    return [(name, rows) for name, rows in zip(names, parts, strict=False) if len(rows)]


class SegmentWatch:
    """Watches each segment of a reference with a `DriftDetector` of its own.

    `false_alarms_per_month` is what all segments together may raise, beside the model's budget. A
    reference without segments has nothing watched. Raises ValueError for a senseless budget.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        false_alarms_per_month: float = 1.0,
        ticks_per_month: float = 43_200,
        effect: Mapping[str, float] | None = None,
        version: str = "",
    ) -> None:
        if not (false_alarms_per_month > 0 and ticks_per_month > 0):
            raise ValueError("false_alarms_per_month and ticks_per_month must be above 0")
        segments, features = reference.segments, max(len(reference.features), 1)
        self.reference = reference
        self.column = segments.column if segments is not None else ""
        watched = max(1, min(SEGMENTS_MAX + 1, PAIRS_MAX // features))
        known = segments.names if segments is not None else ()
        self.names: tuple[str, ...] = known[:watched]
        self.left_out: tuple[str, ...] = known[watched:]
        self._options: dict[str, Any] = {
            "false_alarms_per_month": false_alarms_per_month / max(len(self.names), 1),
            "ticks_per_month": ticks_per_month,
            "effect": effect,
            "version": version,
        }
        self._detectors: dict[str, DriftDetector] = {}

    def update(
        self,
        table: Table,
        *,
        moment: Moment,
        ticks: float = 1.0,
        segment: Column | None = None,
        times: NDArray[np.float64] | None = None,
    ) -> list[Reading]:
        """Take one tick and give changes of state, per feature and segment.

        `segment` says of each row to which it belongs; without it that is the table's column of
        the reference's name. Rows of segments that are not watched are passed by.
        """
        if segment is None:
            segment = table.columns.get(self.column)
        if segment is None or not self.names or len(segment) != table.rows:
            return []
        wanted = {p.name for p in self.reference.features[:PAIRS_MAX]}
        readings = []
        for name, rows in split(segment, self.names):
            part = {n: c[rows] for n, c in table.columns.items() if n in wanted}
            at = None if times is None else times[rows]
            if part:
                found = self._detector(name).update(part, ticks=ticks, at=moment.at, times=at)
                readings += [self._placed(reading, name, moment) for reading in found]
        return readings

    def _detector(self, name: str) -> DriftDetector:
        """Give the segment's detector, made when its first row comes."""
        if name not in self._detectors:
            profiles = self.reference.segment(name)[:PAIRS_MAX]
            made = DriftDetector(self.reference, profiles=profiles, **self._options)
            self._detectors[name] = made
        return self._detectors[name]

    def _placed(self, reading: Reading, name: str, moment: Moment) -> Reading:
        """A segment counts its own rows; people count the model's."""
        start = max(moment.row - reading.window.rows, 0)
        where = f"segment {shown(self.column)}={shown(name)}, outside the budget"
        return replace(
            reading,
            row=moment.row,
            detector=f"{reading.detector}{SEGMENT_MARK}{shown(name)}",
            window=Window(rows=reading.window.rows, start=start, end=moment.row),
            explain=f"{reading.explain} ({where})",
        )

    def detectors(self) -> dict[str, DriftDetector]:
        """Give the detectors of the segments met so far, for effects and states."""
        return dict(self._detectors)

    def reset(self) -> None:
        """Forget evidence and latched states."""
        for detector in self._detectors.values():
            detector.reset()

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep, by segment."""
        return {name: detector.state() for name, detector in self._detectors.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it is of other segments."""
        strange = sorted(set(state) - set(self.names))
        if strange:
            raise ValueError(f"segments {strange} are not in the reference")
        self._detectors = {}
        for name, part in state.items():
            self._detector(name).resume(part)
