"""Do labels take longer, or less long, than they used to? Their delays are watched like a feature.

The first delays teach what is usual, in the order in which labels came, so that batches (which
share a fate) count for as few rows as they are worth. Outside the false-alarm budget all the same:
a day on which nobody ran the export is a change, and none that needs a new model.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from detectors import DriftDetector, ProfileError, Reference, build_reference
from detectors.reading import Change, Kind, Scope, State

NAME: Final = "label_delay"
#: Delays that teach what is usual, and that are taken at once.
LEARN_ROWS: Final = 5_000
TICK_ROWS: Final = 100


class DelayWatch:
    """Watches log delays; `saved` is what `saved()` gave before a restart.

    What cannot be read is learnt anew.
    """

    def __init__(self, saved: dict[str, Any] | None = None) -> None:
        self._first: list[float] = []
        self._rest: list[float] = []
        self._detector: DriftDetector | None = None
        if saved is not None:
            self._first = [float(value) for value in saved["first"]]
            self._rest = [float(value) for value in saved["rest"]]
            self._detector = _restored(saved)

    @property
    def state(self) -> State:
        """`insufficient_data` while delays are learnt."""
        detector = self._detector
        return State.INSUFFICIENT_DATA if detector is None else detector.states()[NAME]

    def take(self, delays: Sequence[float], ticks: float) -> list[Change]:
        """Delays of labels that came, in octaves of a second (log2(1 + seconds)), in order."""
        if self._detector is None:
            self._first += delays
            if len(self._first) >= LEARN_ROWS:
                learnt = build_reference(
                    {NAME: np.array(self._first)}, tick_rows=TICK_ROWS, derive=False
                )
                self._detector, self._first = _made(learnt), []
            return []
        self._rest += delays
        changes: list[Change] = []
        whole = len(self._rest) // TICK_ROWS
        for start in range(0, whole * TICK_ROWS, TICK_ROWS):
            few = np.array(self._rest[start : start + TICK_ROWS])
            readings = self._detector.update({NAME: few}, ticks=min(ticks, 1.0) / whole)
            changes += [
                Change(
                    kind=Kind.DATA_QUALITY,
                    scope=Scope.MODEL,
                    subject=NAME,
                    detector=reading.detector,
                    state=reading.state,
                    statistic=reading.statistic,
                    threshold=reading.threshold,
                    evidence=reading.evidence,
                    effect=reading.effect,
                    rows=reading.window.rows,
                    explain=f"{reading.explain} (log2 of seconds)",
                )
                for reading in readings
            ]
        self._rest = self._rest[whole * TICK_ROWS :]
        return changes

    def saved(self) -> dict[str, Any]:
        """JSON values."""
        detector = self._detector
        kept: dict[str, Any] = {"first": self._first, "rest": self._rest, "reference": None}
        if detector is not None:
            packed = io.BytesIO()
            np.savez_compressed(packed, allow_pickle=False, **detector.state())
            kept["reference"] = detector.reference.to_bytes().decode()
            kept["state"] = base64.b64encode(packed.getvalue()).decode()
        return kept


def _made(learnt: Reference) -> DriftDetector:
    return DriftDetector(
        learnt,
        false_alarms_per_month=1.0,
        kind=Kind.DATA_QUALITY.value,
        scope=Scope.MODEL,
        profiles=learnt.features,
    )


def _restored(saved: dict[str, Any]) -> DriftDetector | None:
    if saved["reference"] is None:
        return None
    try:
        detector = _made(Reference.from_bytes(saved["reference"].encode()))
        with np.load(io.BytesIO(base64.b64decode(saved["state"])), allow_pickle=False) as state:
            detector.resume(dict(state))
    except (ProfileError, ValueError, KeyError, OSError):
        return None  # of another version
    return detector
