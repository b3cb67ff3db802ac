"""Many replicas as one: their counts add, and so does the log-evidence that they export.

Two ways to the same end. With the counts at hand, `merge_counts` adds them and a `DriftDetector`
observes the sum: the readings of the fleet are those of one replica that saw every row. With
nothing but the exported score counters (which is all that Prometheus has), `EvidenceCusum` runs
W <- max(0, W + what all replicas added): exp(W) never exceeds the Shiryaev-Roberts statistic of the
same steps, so the expected number of false alarms in a month is at most `false_alarms_per_month`.
The recording rules in deploy/prometheus compute this very recursion.

The one thing not to break: an increment that is not surely one (a replica that is new, began again
or was away for long) is left out. That loses power; a guess would lose validity.

Sources: Page, "Continuous inspection schemes" (1954); Shin, Ramdas, Rinaldo, "E-detectors" (2023).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.detector import DriftDetector
from detectors.reading import Change, Kind, Scope, State
from detectors.reference import ProfileError
from detectors.rows.binning import WIDTH

#: (up, down) log-evidence since the start by feature and score: `DriftDetector.score_counters()`.
Scores = Mapping[str, Mapping[str, tuple[float, float]]]

#: More evidence than this is not kept, so that the end of a drift is seen soon. In nats.
LEVEL_MAX: Final = 30.0
#: A replica that was away for more updates than this starts anew.
ABSENT_UPDATES_MAX: Final = 10
REPLICAS_MAX: Final = 10_000
#: Scores of features, all together.
SERIES_MAX: Final = 100_000
#: So that the threshold stays below LEVEL_MAX for any number of features.
TICKS_PER_ALARM_MAX: Final = 1e7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplicaCounts:
    """Rows of one replica, one window or a sum of such by bin: `bins` is [features, 18].

    `reference` is the digest of what the rows were binned by. Counts with different digests have
    different bins: they cannot be added.
    """

    reference: str
    names: tuple[str, ...]
    bins: NDArray[np.int64]
    rows: int

    @classmethod
    def of(cls, detector: DriftDetector) -> "ReplicaCounts":
        """Give what a detector has counted since its start."""
        counts = detector.bin_counts()
        bins = np.array([counts[name] for name in detector.names], dtype=np.int64)
        digest = detector.reference.digest
        return cls(reference=digest, names=detector.names, bins=bins, rows=detector.rows)

    def since(self, earlier: "ReplicaCounts") -> "ReplicaCounts":
        """Give what was counted after `earlier`, which is all of it if the replica began again.

        Raises ProfileError if the two are of different references.
        """
        _refuse_strangers(self, earlier)
        if self.rows < earlier.rows or (self.bins < earlier.bins).any():
            return self
        return ReplicaCounts(
            reference=self.reference,
            names=self.names,
            bins=self.bins - earlier.bins,
            rows=self.rows - earlier.rows,
        )


def merge_counts(parts: Iterable[ReplicaCounts]) -> ReplicaCounts:
    """Add counts of replicas or windows; in which order makes no difference.

    Raises ValueError without any part, ProfileError if two are of different references.
    """
    given = list(parts)
    if not given:
        raise ValueError("there are no counts to merge")
    first = given[0]
    bins, rows = np.zeros_like(first.bins), 0
    for part in given:
        _refuse_strangers(first, part)
        bins += part.bins
        rows += part.rows
    return ReplicaCounts(reference=first.reference, names=first.names, bins=bins, rows=rows)


def _refuse_strangers(one: ReplicaCounts, other: ReplicaCounts) -> None:
    if one.reference != other.reference:
        raise ProfileError(
            f"counts of reference {other.reference[:8]} do not add to those of {one.reference[:8]}"
        )
    if one.names != other.names or one.bins.shape != other.bins.shape:
        raise ProfileError("counts of the same reference, but of different columns")
    if one.bins.shape != (len(one.names), WIDTH):
        raise ProfileError(f"counts of shape {one.bins.shape}, not {(len(one.names), WIDTH)}")


class EvidenceCusum:
    """The evidence of a fleet from the score counters of its replicas, one update a tick.

    A feature is `warning` from when one of its scores is above `threshold` until all of them are
    back at zero. Give it the counters of all replicas of one reference, at most `ticks_per_month`
    times a month. Raises ValueError for a senseless budget.
    """

    def __init__(
        self, *, false_alarms_per_month: float = 1.0, ticks_per_month: float = 43_200
    ) -> None:
        if not (0 < false_alarms_per_month < math.inf and 0 < ticks_per_month < math.inf):
            raise ValueError(
                "false_alarms_per_month and ticks_per_month must be above 0 and finite"
            )
        self._ticks_per_alarm = ticks_per_month / false_alarms_per_month
        if self._ticks_per_alarm > TICKS_PER_ALARM_MAX:
            raise ValueError(f"more than {TICKS_PER_ALARM_MAX:g} ticks per false alarm")
        self._seen: dict[str, Scores] = {}
        self._absent: dict[str, int] = {}
        self._level: dict[str, dict[str, float]] = {}
        self._warned: set[str] = set()
        self.replicas_left_out = 0
        self.series_left_out = 0

    @property
    def threshold(self) -> float:
        """Give the level that alarms: ln(ticks per false alarm x features x scores), in nats."""
        series = sum(len(scores) for scores in self._level.values())
        return math.log(max(self._ticks_per_alarm * series, 1.0))

    def levels(self) -> dict[str, dict[str, float]]:
        """Give W of each score of each feature, in nats."""
        return {name: dict(scores) for name, scores in self._level.items()}

    def update(self, replicas: Mapping[str, Scores]) -> list[Change]:
        """Take the counters of the replicas that answered, by name; give the changes of state.

        The first sight of a replica, and of a replica that counts less than it did, adds nothing.
        """
        steps: dict[str, dict[str, float]] = {}
        for replica, scores in replicas.items():
            before = self._seen.get(replica, {})
            for name, score, step in _steps(before, scores):
                known = steps.setdefault(name, {})
                known[score] = known.get(score, 0.0) + step
            self._remember(replica, scores)
        self._forget(replicas)
        series = sum(len(scores) for scores in self._level.values())
        for name, score, step in [(n, s, step) for n in steps for s, step in steps[n].items()]:
            level = self._level.get(name, {})
            if score not in level and series >= SERIES_MAX:
                self.series_left_out += 1
                continue
            series += score not in level
            level[score] = min(max(level.get(score, 0.0) + step, 0.0), LEVEL_MAX)
            self._level[name] = level
        return self._changes([name for name in steps if name in self._level])

    def state(self) -> dict[str, Any]:
        """Give what a restart must not forget, as JSON values."""
        return {
            "seen": {replica: _plain(scores) for replica, scores in self._seen.items()},
            "absent": dict(self._absent),
            "level": self.levels(),
            "warned": sorted(self._warned),
            "left_out": [self.replicas_left_out, self.series_left_out],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it is no such thing."""
        try:
            seen = {str(replica): _plain(scores) for replica, scores in state["seen"].items()}
            absent = {str(replica): int(n) for replica, n in state["absent"].items()}
            level = {
                str(name): {str(score): float(value) for score, value in scores.items()}
                for name, scores in state["level"].items()
            }
            warned, (replicas, series) = set(map(str, state["warned"])), state["left_out"]
            left_out = int(replicas), int(series)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"fleet evidence: malformed state ({error!r})") from None
        values = [value for scores in level.values() for value in scores.values()]
        if not all(0 <= value <= LEVEL_MAX for value in values) or not warned <= set(level):
            raise ValueError("fleet evidence: a level out of bounds, or a warning about nothing")
        self._seen, self._absent, self._level = dict(seen), absent, level
        self._warned = warned
        self.replicas_left_out, self.series_left_out = left_out

    def _remember(self, replica: str, scores: Scores) -> None:
        if replica not in self._seen and len(self._seen) >= REPLICAS_MAX:
            self.replicas_left_out += 1
            return
        self._seen[replica] = scores
        self._absent.pop(replica, None)

    def _forget(self, present: Mapping[str, Scores]) -> None:
        for replica in [name for name in self._seen if name not in present]:
            self._absent[replica] = self._absent.get(replica, 0) + 1
            if self._absent[replica] >= ABSENT_UPDATES_MAX:
                del self._seen[replica], self._absent[replica]

    def _changes(self, moved: Iterable[str]) -> list[Change]:
        threshold = self.threshold
        changes = []
        for name in moved:
            score, level = max(self._level[name].items(), key=lambda item: item[1])
            if name not in self._warned and level > threshold:
                self._warned.add(name)
                changes.append(self._change(name, State.WARNING, score, level))
            elif name in self._warned and level <= 0:
                self._warned.remove(name)
                changes.append(self._change(name, State.OK, score, level))
        return changes

    def _change(self, name: str, state: State, score: str, level: float) -> Change:
        what = score.split("_")[0]
        explain = (
            f"{name}: its {what} moved, as the evidence of all replicas together says"
            if state is State.WARNING
            else f"{name}: the evidence of all replicas together is back at its floor"
        )
        return Change(
            kind=Kind.DATA_DRIFT,
            scope=Scope.FEATURE,
            subject=name,
            detector="fleet_cusum",
            state=state,
            statistic=level,
            threshold=self.threshold,
            evidence=level / math.log(10),
            rows=0,  # counters say how sure one may be, not how many rows made it so
            explain=explain,
        )


def _steps(before: Scores, now: Scores) -> Iterable[tuple[str, str, float]]:
    """Give what each score of each feature surely added."""
    for name, scores in now.items():
        known = before.get(name, {})
        for score, (up, down) in scores.items():
            if score in known:
                rise, fall = up - known[score][0], down - known[score][1]
                # Not so for NaN, nor for a counter that began again.
                if rise >= 0 and fall >= 0 and math.isfinite(rise - fall):
                    yield name, score, rise - fall


def _plain(scores: Scores) -> dict[str, dict[str, tuple[float, float]]]:
    return {
        str(name): {str(score): (float(up), float(down)) for score, (up, down) in found.items()}
        for name, found in scores.items()
    }
