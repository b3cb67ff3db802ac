"""A reference out of a SageMaker Model Monitor baseline, `statistics.json`, as far as that goes.

The file has a quantile sketch (KLL) of each numeric column and counts of each text column. It says
nothing of the order of rows, of pairs of columns, of labels: no self-calibration, no projections,
no concept. A sketch's rank error is added to the tolerance: edges that are off are no drift.

Sources: the developer guide's "Schema for Statistics"; Karnin, Lang, Liberty, "Optimal quantile
approximation in streams" (2016), with the error that the DataSketches library states for it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from detectors.reference import Reference
from detectors.references.calibration import TOLERANCE, significant
from detectors.references.feature_profile import (
    NAME_CHARACTERS_MAX,
    NAMED_ROWS_MIN,
    FeatureProfile,
    Keys,
    ProfileError,
)
from detectors.references.profiles import categorical_profile, numeric_profile
from detectors.rows.bins import fit_numeric, numeric_counts
from detectors.rows.columns import digest_of, key_of
from detectors.rows.sketch import heaviest, points_of

#: A rank that is off by e moves a standardised uniform score by at most sqrt(12) e.
_SCORE_PER_RANK: Final = math.sqrt(12)
_LEVELS_MAX: Final = 60


def reference_of_statistics(
    tree: Any, *, tick_rows: int = 1_000
) -> tuple[Reference, dict[str, str]]:
    """Give a reference, and the columns that could not be taken, with why.

    `tree` are the JSON values of `statistics.json`. Raises ProfileError if it is no such file or no
    column can be taken.
    """
    try:
        rows = int(tree["dataset"]["item_count"])
        columns = [(str(column["name"]), column) for column in tree["features"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ProfileError(
            "no SageMaker statistics.json: dataset.item_count and features are not all there"
        ) from None
    taken: dict[str, FeatureProfile] = {}
    left_out: dict[str, str] = {}
    for name, column in columns:
        try:
            taken[name] = _profile(name, column)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            left_out[name] = f"cannot be taken ({error})"
    if not taken or rows <= 0:
        raise ProfileError(f"SageMaker baseline: nothing in it can be taken: {left_out}")
    reference = Reference(
        features=tuple(taken.values()),
        columns=tuple(taken),
        rows=rows,
        tick_rows=tick_rows,
        ordered=False,
    )
    return reference, left_out


def _profile(name: str, column: Mapping[str, Any]) -> FeatureProfile:
    if "numerical_statistics" in column:
        whole = column.get("inferred_type") == "Integral"
        return _numeric(name, column["numerical_statistics"], whole=whole)
    if "string_statistics" in column:
        return _categorical(name, column["string_statistics"])
    raise ValueError(f"inferred type {column.get('inferred_type')!r}")


def _numeric(name: str, statistics: Mapping[str, Any], *, whole: bool) -> FeatureProfile:
    present, missing = _common(statistics)
    low, high = float(statistics["min"]), float(statistics["max"])
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"minimum {low}, maximum {high}")
    sketch = statistics["distribution"]["kll"]["sketch"]
    levels = [np.array(level, dtype=np.float64) for level in sketch["data"]][:_LEVELS_MAX]
    values = np.concatenate([np.empty(0), *levels])
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("its sketch holds no finite values")
    weights = np.repeat([2.0**level for level in range(len(levels))], [len(v) for v in levels])
    # The sketch stands for about as many rows as there were; exactly as many is what counts say.
    points = points_of(values, weights * (present / weights.sum()))
    bins = fit_numeric(points, low, high)
    k = float(sketch["parameters"]["k"])
    if not k >= 8:
        raise ValueError(f"a sketch of k = {k}")
    profile = numeric_profile(
        name=name,
        kind="numeric",
        points=points,
        bins=bins,
        counts=numeric_counts(points, bins),
        range_=(low, high),
        lost=(missing, 0.0),
        exact=False,
    )
    rank_error = 2.296 / k**0.9021
    return replace(
        profile,
        type="integer" if whole else "number",
        tolerance=significant(TOLERANCE + _SCORE_PER_RANK * rank_error),
    )


def _categorical(name: str, statistics: Mapping[str, Any]) -> FeatureProfile:
    present, missing = _common(statistics)
    counts: dict[str, int] = {}
    names: dict[str, str] = {}
    for bucket in statistics["distribution"]["categorical"]["buckets"]:
        key, count = key_of(bucket["value"]), int(bucket["count"])
        if key is None or count <= 0:
            continue
        digest = digest_of(key)
        counts[digest] = counts.get(digest, 0) + count
        if counts[digest] >= NAMED_ROWS_MIN:
            names[digest] = key[:NAME_CHARACTERS_MAX]
    kept, whole = heaviest(counts)
    exact = whole and sum(kept.values()) == present  # else rare ones were not listed
    keys = Keys(counts=kept, names={d: n for d, n in names.items() if d in kept}, exact=exact)
    return replace(categorical_profile(name, keys, present, missing), type="text")


def _common(statistics: Mapping[str, Any]) -> tuple[float, float]:
    present = float(statistics["common"]["num_present"])
    missing = float(statistics["common"]["num_missing"])
    if not (0 < present < math.inf and 0 <= missing < math.inf):
        raise ValueError(f"{present:g} values present, {missing:g} missing")
    return present, missing
