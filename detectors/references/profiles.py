"""One feature's profile from what was counted of it: the same for rows just read and for merged
parts.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detectors.references.calibration import TOLERANCE, significant
from detectors.references.feature_profile import (
    NAME_CHARACTERS_MAX,
    NAMED_ROWS_MIN,
    FeatureKind,
    FeatureProfile,
    Keys,
)
from detectors.references.feature_rows import FeatureRows
from detectors.rows.bins import (
    BINS,
    MISSING,
    OUTSIDE,
    WIDTH,
    Bins,
    CategoryBins,
    NumericBins,
    numeric_counts,
)
from detectors.rows.columns import digest_of
from detectors.rows.sketch import Points, by_count


def profile_of(
    name: str, seen: FeatureRows, counted: Bins, total: NDArray[np.float64]
) -> FeatureProfile:
    """Give the profile of a feature whose rows were counted in `counted`, [18].

    Those bins are kept if they still fit; else bins and counts come from the sketch.
    """
    if seen.kind == "categorical":
        return categorical_profile(name, keys_of(seen), seen.rows - seen.missing, seen.missing)
    points, best = seen.fit()
    assert isinstance(counted, NumericBins)
    bins = replace(counted, low=best.low, high=best.high)
    sketched = numeric_counts(points, best)
    crowded = total[:BINS].max() > 1.5 * sketched.max() + 2
    exact = not crowded and len(best.edges) <= 1.5 * len(bins.edges) + 1
    return numeric_profile(
        name=name,
        kind=seen.kind,
        points=points,
        bins=bins if exact else best,
        counts=total if exact else sketched,
        range_=(seen.minimum, seen.maximum),
        lost=(seen.missing, seen.outside),
        exact=exact or points.exact,
    )


def like_profile(
    like: FeatureProfile, seen: FeatureRows, total: NDArray[np.float64]
) -> FeatureProfile:
    """Give the profile of a feature whose rows were counted in the very bins of `like`."""
    if isinstance(like.bins, CategoryBins):
        present = seen.rows - seen.missing
        return categorical_profile(
            like.name, keys_of(seen), present, seen.missing, like=like.bins, top_counts=total
        )
    points, _ = seen.fit()
    return numeric_profile(
        name=like.name,
        kind=like.kind,
        points=points,
        bins=like.bins,
        counts=total,
        range_=(seen.minimum, seen.maximum),
        lost=(total[MISSING], total[OUTSIDE]),
        exact=True,
    )


def opened(bins: Bins) -> Bins:
    """Give the bins to count a reference's rows in: no category is unseen while it is built."""
    if isinstance(bins, CategoryBins):
        return CategoryBins(top=bins.top, others=frozenset(), open=True)
    return bins


def keys_of(seen: FeatureRows) -> Keys:
    """Give the counted keys by hash, named where they may be."""
    counts = {digest_of(key): count for key, count in seen.keys.counts.items()}
    names = {
        digest_of(key): key[:NAME_CHARACTERS_MAX]
        for key, count in seen.keys.counts.items()
        if count >= NAMED_ROWS_MIN
    }
    return Keys(counts=counts, names=names, exact=seen.keys.exact)


def without_names(profile: FeatureProfile) -> FeatureProfile:
    """Give the profile of a sensitive feature: its categories are named nowhere."""
    keys = profile.keys
    return replace(
        profile,
        sensitive=True,
        keys=None if keys is None else Keys(counts=keys.counts, names={}, exact=keys.exact),
    )


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


def categorical_profile(
    name: str,
    keys: Keys,
    present: float,
    missing: float,
    *,
    like: CategoryBins | None = None,
    top_counts: NDArray[np.float64] | None = None,
    phi: float = 1.0,
) -> FeatureProfile:
    """Put a profile together from counted keys and the number of rows that were not missing.

    How often an unseen category will come is estimated by the number of categories seen once
    (Good 1953): identifiers are then known to be always new. Where rows resemble their neighbours
    (`phi`) a category seen in one run of rows was seen once. `like` gives the categories with a bin
    of their own, `top_counts` their exact counts where keys are no longer exact.
    """
    order = by_count(keys.counts)
    top = tuple(order[: BINS - 1]) if like is None else like.top
    counts = np.zeros(WIDTH)
    counts[: len(top)] = [keys.counts.get(digest, 0) for digest in top]
    if top_counts is not None:
        counts[: len(top)] = top_counts[: len(top)]
    rest = max(present - counts.sum(), 0.0)
    once = max(phi - 1.0, 1.0)  # about twice the mean length of a run
    singles = sum(count for count in keys.counts.values() if count <= once) if keys.exact else 0
    from_rest = min(rest, float(singles))
    counts[BINS - 1] = rest - from_rest
    if singles > from_rest:  # so few categories that those seen once have bins of their own
        counts[: len(top)] *= 1 - min((singles - from_rest) / counts[: len(top)].sum(), 0.9)
        singles = present - counts[:BINS].sum()
    counts[OUTSIDE], counts[MISSING] = singles, missing
    others = frozenset(keys.counts) - frozenset(top) if keys.exact else frozenset()
    open_ = not keys.exact
    if like is not None:
        others, open_ = others | like.others, open_ or like.open
    return FeatureProfile(
        name=name,
        kind="categorical",
        bins=CategoryBins(top=top, others=frozenset() if open_ else others, open=open_),
        counts=tuple(counts.tolist()),
        counts_exact=keys.exact or top_counts is not None,
        minimum=math.nan,
        maximum=math.nan,
        median=math.nan,
        phi=1.0,
        tolerance=TOLERANCE,
        points=None,
        keys=keys,
    )


def chosen_by_luck(profile: FeatureProfile) -> float:
    """Give by how much the categories with a bin of their own seem more frequent than they are, in
    standard deviations of a row: of many that are about equally frequent those that chance favoured
    were chosen, and all rows together are no longer spread as in the reference.

    It is what choosing among counts with the error of as many independent rows would add to them,
    by the normal approximation: sum of s phi((c - n) / s) over counts n, c being the last chosen.
    """
    keys, rows = profile.keys, profile.rows
    if keys is None or not keys.exact or len(keys.counts) < BINS or not rows:
        return 0.0
    counts = np.sort(np.array(list(keys.counts.values()), dtype=np.float64))[::-1]
    errors = np.sqrt(counts * max(profile.phi, 1.0))
    last = (counts[BINS - 2] + counts[BINS - 1]) / 2
    density = np.exp(-(((last - counts) / errors) ** 2) / 2) / math.sqrt(2 * math.pi)
    share = float(counts[: BINS - 1].sum() / rows)
    spread = math.sqrt(max(share * (1 - share), 1e-12))
    return min(float((errors * density).sum()) / rows, share) / spread


def allowing_for_luck(profile: FeatureProfile) -> FeatureProfile:
    """Give the profile of a category with what its design effect means for rare categories, and for
    those that were chosen.
    """
    assert profile.keys is not None
    missing = profile.counts[MISSING]
    counted = categorical_profile(
        profile.name, profile.keys, profile.rows - missing, missing, phi=profile.phi
    )
    tolerance = significant(profile.tolerance + chosen_by_luck(profile))
    counts = counted.counts if profile.keys.exact else profile.counts
    return replace(profile, counts=counts, tolerance=tolerance)
