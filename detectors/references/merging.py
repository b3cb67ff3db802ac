"""Two references of parts of the same rows become one: counts add.

Parts with one layout (`reference build --like`: the same bins, derivation, hours, segments) add
exactly. Otherwise bins are chosen again from what each part keeps of its values, and what rests on
rows that are gone is dropped: `dropped` says what.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from detectors.performance.estimation import EstimationTable
from detectors.reference import LabelledBaseline, Reference, Segments
from detectors.references.bin_means import BinMeans
from detectors.references.feature_profile import FeatureProfile, Keys, ProfileError
from detectors.references.profiles import categorical_profile, numeric_profile
from detectors.rows.bins import (
    MISSING,
    OUTSIDE,
    CategoryBins,
    NumericBins,
    fit_numeric,
    numeric_counts,
)
from detectors.rows.sketch import Points, heaviest

_OUTPUTS = ("prediction", "score", "label")


def merge(a: Reference, b: Reference) -> Reference:
    """Merge two references; which comes first makes no difference within the sketch's error.

    Features whose bins are equal add exactly. For the others bins and counts come from the merged
    sketches: exact for features with at most 256 different values, else within a rank error of
    1/512 per part, which the evidence allows for. The calibration is the worse of the two parts. An
    empty part changes nothing. The result is not signed. Raises ProfileError if the parts have
    different features, outputs, kinds, tasks or seasons.
    """
    if not a.rows or not b.rows:
        return a if a.rows else b
    if a.task != b.task and a.task is not None and b.task is not None:
        raise ProfileError(f"references differ in their task: {a.task} and {b.task}")
    own, theirs = ({p.name: p for p in _kept(*pair)} for pair in ((a, b), (b, a)))
    odd = sorted(set(own) ^ set(theirs))
    odd += [
        f"the {name}"
        for name in _OUTPUTS
        if (getattr(a, name) is None) != (getattr(b, name) is None)
    ]
    if odd:
        raise ProfileError(f"references differ in their columns: {odd}")
    derived = _same_derivation(a, b)
    others = {p.name: p for p in b.projections}
    return Reference(
        features=tuple(_merge_feature(profile, theirs[name]) for name, profile in own.items()),
        prediction=_merge_output(a.prediction, b.prediction),
        score=_merge_output(a.score, b.score),
        label=_merge_output(a.label, b.label),
        projections=tuple(_merge_feature(p, others[p.name]) for p in a.projections)
        if derived
        else (),
        derivation=a.derivation if derived else None,
        columns=a.columns if a.columns == b.columns else (),
        segments=_merge_segments(a, b),
        rows=a.rows + b.rows,
        tick_rows=max(a.tick_rows, b.tick_rows),
        ordered=a.ordered and b.ordered,
        task=a.task or b.task,
        baseline=_merge_baselines(a.baseline, b.baseline),
        means=_merge_means(a, b),
        quality=_merge_quality(a.quality, b.quality),
        learnt=a.learnt or b.learnt,
        accepted=a.accepted and b.accepted,
    )


def dropped(a: Reference, b: Reference) -> list[str]:
    """Say in words what a merger of these two loses; nothing for parts with one layout."""
    if not a.rows or not b.rows:
        return []
    lost = []
    if not _same_derivation(a, b) and (a.derivation is not None or b.derivation is not None):
        lost.append("what is derived from several columns, text and vectors")
    if (a.segments is not None or b.segments is not None) and _merge_segments(a, b) is None:
        lost.append("segments")
    return lost


def same_bins(a: FeatureProfile, b: FeatureProfile) -> bool:
    """Say whether counts of the two mean the same, bin by bin."""
    if isinstance(a.bins, CategoryBins) and isinstance(b.bins, CategoryBins):
        return a.bins.top == b.bins.top
    return a.bins == b.bins


def _merge_means(a: Reference, b: Reference) -> BinMeans | None:
    """Sums by bin add where the bins of all features are the same."""
    if a.means is None or b.means is None or a.means.names != b.means.names:
        return None
    theirs = {profile.name: profile for profile in b.features}
    if not all(same_bins(profile, theirs[profile.name]) for profile in a.features):
        return None
    return a.means.merged(b.means)


def _same_derivation(a: Reference, b: Reference) -> bool:
    if a.derivation is None or b.derivation is None:
        return a.derivation is b.derivation
    names = [tuple(p.name for p in r.projections) for r in (a, b)]
    return a.derivation.tree() == b.derivation.tree() and names[0] == names[1]


def _kept(a: Reference, b: Reference) -> list[FeatureProfile]:
    """The features of `a`; without those derived in another way than in `b`."""
    if _same_derivation(a, b) or a.derivation is None:
        return list(a.features)
    derived = set(a.derivation.features)
    return [profile for profile in a.features if profile.name not in derived]


def _merge_output(a: FeatureProfile | None, b: FeatureProfile | None) -> FeatureProfile | None:
    return None if a is None or b is None else _merge_feature(a, b)


def _merge_feature(a: FeatureProfile, b: FeatureProfile) -> FeatureProfile:
    kinds = {profile.kind for profile in (a, b) if _has_values(profile)} or {a.kind}
    if len(kinds) > 1 and "categorical" in kinds:
        raise ProfileError(
            f"feature {a.name!r} is {a.kind} in one reference, {b.kind} in the other"
        )
    if "categorical" in kinds:
        merged = _merge_categories(a, b)
    elif isinstance(a.bins, NumericBins) and a.bins == b.bins and kinds == {a.kind}:
        merged = replace(_numeric(a, b, a.bins), kind=a.kind)
    elif a.phases or b.phases:
        # In bins of all hours together the season would be a drift, and how far the feature wanders
        # there was measured by nobody.
        raise ProfileError(
            f"feature {a.name!r} has seasons with other edges in the other reference: build the"
            " parts with one layout (--like)"
        )
    else:
        merged = replace(
            _numeric(a, b, None), kind="boolean" if kinds == {"boolean"} else "numeric"
        )
    types = {profile.type for profile in (a, b) if _has_values(profile)} or {a.type}
    numeric = types == {"integer", "number"}
    return replace(
        merged,
        type="number" if numeric else max(types),
        phi=max(a.phi, b.phi),
        tolerance=max(a.tolerance, b.tolerance),
        sensitive=a.sensitive or b.sensitive,
    )


def _numeric(a: FeatureProfile, b: FeatureProfile, bins: NumericBins | None) -> FeatureProfile:
    """Add what both know; in `bins`, which both have, or in bins chosen from their sketches."""
    nothing = Points(values=(), weights=(), exact=True)
    points = (a.points or nothing).merged(b.points or nothing)
    low, high = float(np.fmin(a.minimum, b.minimum)), float(np.fmax(a.maximum, b.maximum))
    lost = (a.counts[MISSING] + b.counts[MISSING], a.counts[OUTSIDE] + b.counts[OUTSIDE])
    if bins is not None:
        counts, exact = np.add(a.counts, b.counts), a.counts_exact and b.counts_exact
    else:
        bins = fit_numeric(points, low, high)
        counts, exact = numeric_counts(points, bins), points.exact
    return numeric_profile(
        name=a.name,
        kind=a.kind,
        points=points,
        bins=bins,
        counts=counts,
        range_=(low, high),
        lost=lost,
        exact=exact,
    )


def _merge_categories(a: FeatureProfile, b: FeatureProfile) -> FeatureProfile:
    missing = a.counts[MISSING] + b.counts[MISSING]
    present = sum(p.rows - p.counts[MISSING] for p in (a, b) if p.kind == "categorical")
    keys, phi = _merge_keys(a.keys, b.keys), max(a.phi, b.phi)
    if not (isinstance(a.bins, CategoryBins) and isinstance(b.bins, CategoryBins)):
        return categorical_profile(a.name, keys, present, missing, phi=phi)
    if a.bins.top != b.bins.top:
        return categorical_profile(a.name, keys, present, missing, phi=phi)
    both = CategoryBins(
        top=a.bins.top, others=a.bins.others | b.bins.others, open=a.bins.open or b.bins.open
    )
    added = None if keys.exact else np.add(a.counts, b.counts)
    return categorical_profile(a.name, keys, present, missing, like=both, top_counts=added, phi=phi)


def _has_values(profile: FeatureProfile) -> bool:
    return profile.rows > profile.counts[MISSING]


def _merge_keys(a: Keys | None, b: Keys | None) -> Keys:
    nothing = Keys(counts={}, names={}, exact=True)
    a, b = a or nothing, b or nothing
    counts = {
        digest: a.counts.get(digest, 0) + b.counts.get(digest, 0)
        for digest in sorted({*a.counts, *b.counts})
    }
    kept, whole = heaviest(counts)
    names = {**b.names, **a.names}
    return Keys(
        counts=kept,
        names={digest: name for digest, name in sorted(names.items()) if digest in kept},
        exact=whole and a.exact and b.exact,
    )


def _merge_segments(a: Reference, b: Reference) -> Segments | None:
    own, theirs = a.segments, b.segments
    if own is None or theirs is None or not _same_derivation(a, b):
        return None
    same = all(same_bins(p, q) for p, q in zip(a.features, b.features, strict=False))
    if own.column != theirs.column or a.feature_names != b.feature_names or not same:
        return None
    names = own.names if len(own.names) >= len(theirs.names) else theirs.names
    if not {*own.names, *theirs.names} <= {*names}:
        return None
    counts = np.zeros((len(names), *own.counts.shape[1:]), dtype=np.int64)
    for segments in (own, theirs):
        for name, part in zip(segments.names, segments.counts, strict=True):
            counts[names.index(name)] += part
    counts.setflags(write=False)
    return Segments(column=own.column, names=names, counts=counts)


def _merge_baselines(
    a: LabelledBaseline | None, b: LabelledBaseline | None
) -> LabelledBaseline | None:
    if a is None or b is None:
        return a or b
    estimation = a.estimation or b.estimation
    if a.estimation is not None and b.estimation is not None:
        try:
            table = EstimationTable.from_tree(a.estimation)
            estimation = table.merged(EstimationTable.from_tree(b.estimation)).tree()
        except ValueError:  # of other classes or edges: neither stands for both
            estimation = None
    return LabelledBaseline(
        rows=a.rows + b.rows,
        errors=a.errors + b.errors,
        phi=max(a.phi, b.phi),
        wander=max(a.wander, b.wander),
        estimation=estimation,
    )


def _merge_quality(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """Facts of both parts, by their number of blocks; the spread of the more spread one."""
    blocks = [max(part.get("duplicate_blocks", 0.0), 0.0) for part in (a, b)]
    if not all(blocks):
        return dict(a if blocks[0] else b)
    mean = np.average([part.get("duplicate_ratio", 0.0) for part in (a, b)], weights=blocks)
    return {
        "duplicate_ratio": float(f"{mean:.4g}"),
        "duplicate_spread": max(part.get("duplicate_spread", 0.0) for part in (a, b)),
        "duplicate_blocks": sum(blocks),
    }
