"""Counts and profiles as others want to see them: 8 bins for Prometheus, labelled shares for a
page.

The eight labels are fixed, `1` to `6`, `missing` and `outside`, so that every feature has the same
number of series from the first scrape on; the grouping depends on the reference alone, so counts of
replicas with the same reference add.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.distances import shares
from detectors.reference import FeatureProfile
from detectors.rows.binning import BINS, MISSING, OUTSIDE, WIDTH

LABELS: Final = ("1", "2", "3", "4", "5", "6", "missing", "outside")
_GROUPS: Final = 6


def groups(profile: FeatureProfile) -> NDArray[np.int64]:
    """Give each of the 18 bins its exported bin, 0 to 7.

    Ordered bins are joined with their neighbours, two or three at a time; of categories the five
    most frequent stay apart and the rest join.
    """
    place = np.full(WIDTH, _GROUPS - 1, dtype=np.int64)
    place[MISSING], place[OUTSIDE] = 6, 7
    used = int(profile.live()[:BINS].sum())
    if not profile.ordered or used <= _GROUPS:
        place[:_GROUPS] = np.arange(_GROUPS)
    else:
        place[:used] = np.arange(used) * _GROUPS // used
    return place


def grouped_counts(
    profiles: Sequence[FeatureProfile], counts: NDArray[np.int64]
) -> dict[str, dict[str, int]]:
    """Give counts [features, 18] in the exported bins, by feature and label."""
    result = {}
    for profile, row in zip(profiles, counts, strict=True):
        sums = np.bincount(groups(profile), weights=row, minlength=len(LABELS))
        result[profile.name] = {
            label: int(value) for label, value in zip(LABELS, sums, strict=True)
        }
    return result


def grouped_shares(profiles: Sequence[FeatureProfile]) -> dict[str, dict[str, float]]:
    """Give the reference shares in the exported bins, by feature and label; they sum to one."""
    result = {}
    for profile in profiles:
        sums = np.bincount(groups(profile), profile.probabilities(), minlength=len(LABELS))
        result[profile.name] = dict(zip(LABELS, sums.tolist(), strict=True))
    return result


def distributions(
    profiles: Sequence[FeatureProfile], counts: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """Give labels, reference and current shares of the bins a feature uses, for people to see."""
    current = shares(counts)
    result: dict[str, dict[str, Any]] = {}
    for j, profile in enumerate(profiles):
        live = np.flatnonzero(profile.live())
        labels, p = profile.labels(), profile.probabilities()
        result[profile.name] = {
            "kind": profile.kind,
            "labels": [labels[b] for b in live],
            "reference": p[live].tolist(),
            "current": current[j, live].tolist(),
            "rows": int(counts[j].sum()),
        }
    return result


def limits(profiles: Sequence[FeatureProfile]) -> NDArray[np.float64]:
    """Give the limits of the ordered bins, [features, 19], NaN where a feature has no such bin."""
    table = np.full((len(profiles), WIDTH + 1), np.nan)
    for row, profile in zip(table, profiles, strict=True):
        found = profile.limits()
        row[: len(found)] = found
    return table
