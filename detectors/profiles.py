"""One feature's profile from what was counted of it: the same for rows just read and for merged
parts.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detectors.binning import BINS, MISSING, OUTSIDE, WIDTH, CategoryBins, NumericBins
from detectors.calibration import TOLERANCE
from detectors.reference import FeatureKind, FeatureProfile, Keys
from detectors.sketch import Points


def numeric_profile(
    *,
    name: str,
    kind: FeatureKind,
    points: Points,
    bins: NumericBins,
    counts: NDArray[np.float64],
    range_: tuple[float, float],
    lost: tuple[float, float],
    exact: bool,
) -> FeatureProfile:
    """Put a profile together; `lost` are the missing rows and those that were no finite number."""
    counts = counts.copy()
    counts[MISSING], counts[OUTSIDE] = lost
    return FeatureProfile(
        name=name,
        kind=kind,
        bins=bins,
        counts=tuple(counts.tolist()),
        counts_exact=exact,
        minimum=range_[0],
        maximum=range_[1],
        median=points.quantile(0.5),
        phi=1.0,
        tolerance=TOLERANCE,
        points=points,
        keys=None,
    )


def categorical_profile(name: str, keys: Keys, present: float, missing: float) -> FeatureProfile:
    """Put a profile together from counted keys and the number of rows that were not missing.

    How often an unseen category will come is estimated by the number of categories seen once
    (Good 1953): identifiers are then known to be always new.
    """
    order = by_count(keys.counts)
    top = tuple(order[: BINS - 1])
    counts = np.zeros(WIDTH)
    counts[: len(top)] = [keys.counts[digest] for digest in top]
    rest = max(present - counts.sum(), 0.0)
    singles = sum(1 for count in keys.counts.values() if count == 1) if keys.exact else 0
    from_rest = min(rest, float(singles))
    counts[BINS - 1] = rest - from_rest
    if singles > from_rest:  # so few categories that those seen once have bins of their own
        counts[: len(top)] *= 1 - (singles - from_rest) / counts[: len(top)].sum()
    counts[OUTSIDE], counts[MISSING] = singles, missing
    others = frozenset(order[BINS - 1 :]) if keys.exact else frozenset()
    return FeatureProfile(
        name=name,
        kind="categorical",
        bins=CategoryBins(top=top, others=others, open=not keys.exact),
        counts=tuple(counts.tolist()),
        counts_exact=keys.exact,
        minimum=math.nan,
        maximum=math.nan,
        median=math.nan,
        phi=1.0,
        tolerance=TOLERANCE,
        points=None,
        keys=keys,
    )


def by_count(counts: Mapping[str, int]) -> list[str]:
    """Order category digests by falling count, equal ones by digest."""
    return sorted(counts, key=lambda digest: (-counts[digest], digest))
