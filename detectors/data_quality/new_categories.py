"""Categories that the reference never saw: is their share too large, and which are they?

How often an unseen category comes in an unchanged stream is known from the reference: about as
often as categories came once in it (Good 1953). The test is `excess` against an upper limit of
that. Names are kept of the most frequent ones only, in a table of 32 per feature (Metwally,
Agrawal, El Abbadi 2005): a storm of ever new keys cannot grow it, and what it counts too much is
taken off before a name is shown. Names of sensitive features are never kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.data_quality.excess import Excess
from detectors.drift.explain import shown
from detectors.reading import Change, Kind, Scope, State
from detectors.reference import NAMED_ROWS_MIN, FeatureProfile
from detectors.rows.binning import OUTSIDE, Binner, CategoryBins
from detectors.rows.columns import Column, digest_of, key_counts

NAMES_MAX: Final = 32
#: Rows of a tick that are searched for names, counted from its beginning.
NAMING_ROWS_MAX: Final = 1_000
#: New names that one tick can bring, the most frequent first.
TICK_NAMES_MAX: Final = 100
#: What is declared irrelevant, whatever the reference says.
TOLERANCE: Final = 0.001


class _Names:
    """The most frequent keys, each with its count and by how much that may be too large."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}
        self.rows = 0  # searched

    def add(self, key: str, count: int) -> None:
        entry = self.counts.get(key)
        if entry is not None:
            entry[0] += count
        elif len(self.counts) < NAMES_MAX:
            self.counts[key] = [count, 0]
        else:
            least = min(self.counts, key=lambda known: (self.counts[known][0], known))
            floor = self.counts.pop(least)[0]
            self.counts[key] = [floor + count, floor]

    def named(self) -> list[tuple[str, int]]:
        """Give keys seen in 20 rows or more for certain, with those rows, most frequent first."""
        sure = [(key, count - error) for key, (count, error) in self.counts.items()]
        kept = [(key, count) for key, count in sure if count >= NAMED_ROWS_MIN]
        return sorted(kept, key=lambda item: (-item[1], item[0]))


class NewCategories:
    """Watches the categorical features among `profiles` whose categories are all known.

    Raises ValueError for a senseless budget.
    """

    def __init__(
        self,
        profiles: Sequence[FeatureProfile],
        *,
        false_alarms_per_month: float,
        ticks_per_month: float,
    ) -> None:
        closed = [
            (j, profile)
            for j, profile in enumerate(profiles)
            if isinstance(profile.bins, CategoryBins) and not profile.bins.open
        ]
        self._places = np.array([j for j, _ in closed], dtype=np.int64)
        self._profiles = tuple(profile for _, profile in closed)
        self._binner = Binner([(profile.name, profile.bins) for profile in self._profiles])
        self._known = [_known(profile) for profile in self._profiles]
        self._excess = Excess(
            np.array([_ceiling(profile) for profile in self._profiles]),
            false_alarms_per_month=false_alarms_per_month,
            ticks_per_month=ticks_per_month,
            phi=np.array([profile.phi for profile in self._profiles]),
        )
        self._names = [_Names() for _ in self._profiles]

    def update(
        self,
        columns: Mapping[str, Column],
        rows: int,
        *,
        ticks: float,
        counts: NDArray[np.int64] | None = None,
    ) -> list[Change]:
        """Take one tick; `counts` [features, 18] of all profiles spare counting once more."""
        if not rows or not self._profiles:
            return []
        own = self._binner.count(columns, rows) if counts is None else counts[self._places]
        hits = own[:, OUTSIDE]
        for k in np.flatnonzero(hits > 0):
            self._learn(int(k), columns.get(self._profiles[k].name))
        alarmed, recovered = self._excess.update(hits, own.sum(axis=1), ticks)
        changes = [self._alarm(int(k)) for k in np.flatnonzero(alarmed)]
        changes += [self._recovered(int(k), rows) for k in np.flatnonzero(recovered)]
        for k in np.flatnonzero((self._excess.since[:, 1] == 0) & ~self._excess.latched):
            if self._names[k].counts:
                self._names[k] = _Names()
        return changes

    def standing(self) -> list[str]:
        """Give the features of which new categories are said to be too many."""
        return [self._profiles[k].name for k in np.flatnonzero(self._excess.latched).tolist()]

    def named(self) -> dict[str, list[tuple[str, int, float]]]:
        """Give the new categories of each feature that may be named: name, rows, share of the rows
        searched.
        """
        return {
            profile.name: [
                (shown(key), count, count / max(names.rows, 1)) for key, count in names.named()
            ]
            for profile, names in zip(self._profiles, self._names, strict=True)
            if names.counts
        }

    def _learn(self, k: int, column: Column | None) -> None:
        if column is None or self._profiles[k].sensitive:
            return
        part, names, known = column[:NAMING_ROWS_MAX], self._names[k], self._known[k]
        names.rows += len(part)
        fresh = [
            (key, count)
            for key, count in key_counts(part).items()
            if key is not None and digest_of(key) not in known
        ]
        for key, count in sorted(fresh, key=lambda item: -item[1])[:TICK_NAMES_MAX]:
            names.add(key, count)

    def _alarm(self, k: int) -> Change:
        profile = self._profiles[k]
        hits, rows = (int(v) for v in self._excess.since[k])
        explain = (
            f"{shown(profile.name)}: {hits / max(rows, 1):.1%} of {rows:,} rows have a category "
            "that the reference never saw"
        )
        named = self._names[k].named()
        if named:
            key, count = named[0]
            share = count / max(self._names[k].rows, 1)
            explain += f", {shown(key)!r} the most frequent of them ({share:.1%})"
        elif not profile.sensitive:
            explain += f", none of them in {NAMED_ROWS_MIN} rows so far"
        level = float(self._excess.log_r()[k])
        evidence = (level - math.log(self._excess.unit)) / math.log(10)
        return Change(
            kind=Kind.DATA_QUALITY,
            scope=Scope.FEATURE,
            subject=profile.name,
            detector="new_category",
            state=State.WARNING,
            statistic=evidence,
            threshold=-math.log10(self._excess.unit),
            evidence=evidence,
            rows=rows,
            explain=explain,
        )

    def _recovered(self, k: int, rows: int) -> Change:
        profile = self._profiles[k]
        return Change(
            kind=Kind.DATA_QUALITY,
            scope=Scope.FEATURE,
            subject=profile.name,
            detector="new_category",
            state=State.OK,
            statistic=0.0,
            threshold=-math.log10(self._excess.unit),
            evidence=0.0,
            rows=rows,
            explain=f"{shown(profile.name)}: unseen categories are as rare as in the reference",
        )

    def reset(self) -> None:
        """Forget evidence, names and latched states."""
        self._excess.reset()
        self._names = [_Names() for _ in self._profiles]

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep."""
        names = [{"counts": dict(n.counts), "rows": n.rows} for n in self._names]
        return {"excess": self._excess.state(), "names": names}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit."""
        given = state["names"]
        if len(given) != len(self._profiles):
            raise ValueError(f"names of {len(given)} features, expected {len(self._profiles)}")
        tables = []
        for tree in given:
            table = _Names()
            table.rows = int(tree["rows"])
            table.counts = {str(k): [int(c), int(e)] for k, (c, e) in tree["counts"].items()}
            if len(table.counts) > NAMES_MAX:
                raise ValueError(f"{len(table.counts)} names, at most {NAMES_MAX}")
            tables.append(table)
        self._excess.restore(state["excess"])
        self._names = tables


def _known(profile: FeatureProfile) -> frozenset[str]:
    assert isinstance(profile.bins, CategoryBins)
    return frozenset(profile.bins.top) | profile.bins.others


def _ceiling(profile: FeatureProfile) -> float:
    """Give the largest share of unseen categories that an unchanged stream may have.

    Three standard errors of the Good-Turing estimate, whose variance is about (seen once + 2 seen
    twice) / rows^2 and here taken for three times those seen once; and five rows that chance hid.
    """
    rows = max(profile.rows / max(profile.phi, 1.0), 1.0)
    p = float(profile.probabilities()[OUTSIDE])
    if profile.keys is not None:  # runs differ in length: those seen in a long one were seen once
        once = 2 * (profile.phi - 1)
        p = max(p, sum(n for n in profile.keys.counts.values() if n <= once) / max(profile.rows, 1))
    error = math.sqrt(3 * (p * rows + 1)) / rows
    return min(p + TOLERANCE + 3 * error + 5 / rows, 1.0)
