"""Two references of parts of the same rows become one: counts add, bins are chosen again."""

from dataclasses import replace

import numpy as np

from detectors.binning import MISSING, OUTSIDE, fit_numeric, numeric_counts
from detectors.profiles import categorical_profile, numeric_profile
from detectors.reference import (
    FeatureProfile,
    Keys,
    LabelledBaseline,
    ProfileError,
    Reference,
)
from detectors.sketch import Points, heaviest


def merge(a: Reference, b: Reference) -> Reference:
    """Merge two references; which comes first makes no difference within the sketch's error.

    Bins and counts come from the merged sketches: exact for features with at most 256 different
    values, else within a rank error of 1/512 per part, which the evidence allows for. The
    calibration is the worse of the two parts. An empty part changes nothing. Raises ProfileError if
    the parts have different features or kinds.
    """
    if not a.rows or not b.rows:
        return a if a.rows else b
    theirs = {feature.name: feature for feature in b.features}
    odd = sorted(set(a.feature_names) ^ set(theirs))
    if odd or (a.prediction is None) != (b.prediction is None):
        raise ProfileError(f"references differ in their columns: {odd or ['the prediction']}")
    prediction = None
    if a.prediction is not None and b.prediction is not None:
        prediction = _merge_feature(a.prediction, b.prediction)
    baseline = a.baseline or b.baseline
    if a.baseline is not None and b.baseline is not None:
        baseline = LabelledBaseline(
            rows=a.baseline.rows + b.baseline.rows, errors=a.baseline.errors + b.baseline.errors
        )
    if a.task != b.task and a.task is not None and b.task is not None:
        raise ProfileError(f"references differ in their task: {a.task} and {b.task}")
    return Reference(
        features=tuple(_merge_feature(own, theirs[own.name]) for own in a.features),
        prediction=prediction,
        rows=a.rows + b.rows,
        tick_rows=max(a.tick_rows, b.tick_rows),
        ordered=a.ordered and b.ordered,
        task=a.task or b.task,
        baseline=baseline,
        learnt=a.learnt or b.learnt,
        accepted=a.accepted and b.accepted,
    )


def _merge_feature(a: FeatureProfile, b: FeatureProfile) -> FeatureProfile:
    kinds = {profile.kind for profile in (a, b) if _has_values(profile)} or {a.kind}
    if len(kinds) > 1 and "categorical" in kinds:
        raise ProfileError(
            f"feature {a.name!r} is {a.kind} in one reference, {b.kind} in the other"
        )
    missing = a.counts[MISSING] + b.counts[MISSING]
    if "categorical" in kinds:
        present = sum(p.rows - p.counts[MISSING] for p in (a, b) if p.kind == "categorical")
        merged = categorical_profile(a.name, _merge_keys(a.keys, b.keys), present, missing)
    else:
        nothing = Points(values=(), weights=(), exact=True)
        points = (a.points or nothing).merged(b.points or nothing)
        low = float(np.fmin(a.minimum, b.minimum))
        high = float(np.fmax(a.maximum, b.maximum))
        bins = fit_numeric(points, low, high)
        merged = numeric_profile(
            name=a.name,
            kind="boolean" if kinds == {"boolean"} else "numeric",
            points=points,
            bins=bins,
            counts=numeric_counts(points, bins),
            range_=(low, high),
            lost=(missing, a.counts[OUTSIDE] + b.counts[OUTSIDE]),
            exact=points.exact,
        )
    return replace(
        merged,
        phi=max(a.phi, b.phi),
        tolerance=max(a.tolerance, b.tolerance),
        sensitive=a.sensitive or b.sensitive,
    )


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
