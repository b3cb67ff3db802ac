"""A feature's profile as JSON values and back: part of what the digest of a reference is over.

Whatever is added here changes the digest of every reference: count `reference.FORMAT` up with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, cast, get_args

from detectors.references.feature_profile import FeatureKind, FeatureProfile, Keys, ValueType
from detectors.rows.bins import BINS, WIDTH, Bins, CategoryBins, NumericBins
from detectors.rows.sketch import Points

#: Whole hours or quarters of a day or week; none.
PARTS: Final = (0, 24, 96, 168, 672)


def feature_tree(feature: FeatureProfile) -> dict[str, Any]:
    """Give a profile as JSON values."""
    points, keys = feature.points, feature.keys
    return {
        "name": feature.name,
        "kind": feature.kind,
        "type": feature.type,
        "bins": _bins_tree(feature.bins),
        "counts": list(feature.counts),
        "counts_exact": feature.counts_exact,
        "minimum": _none_if_nan(feature.minimum),
        "maximum": _none_if_nan(feature.maximum),
        "median": _none_if_nan(feature.median),
        "phi": feature.phi,
        "tolerance": feature.tolerance,
        "points": None
        if points is None
        else {"values": points.values, "weights": points.weights, "exact": points.exact},
        "keys": None
        if keys is None
        else {"counts": dict(keys.counts), "names": dict(keys.names), "exact": keys.exact},
        "sensitive": feature.sensitive,
    }


def feature_from(tree: Mapping[str, Any]) -> FeatureProfile:
    """Read a profile back. Raises KeyError, TypeError or ValueError for anything malformed."""
    points, keys = tree["points"], tree["keys"]
    counts = tuple(float(count) for count in tree["counts"])
    for field, allowed in (("kind", FeatureKind), ("type", ValueType)):
        if tree[field] not in get_args(allowed):
            raise ValueError(f"feature {tree['name']!r}: {field} {tree[field]!r}")
    if len(counts) != WIDTH or not all(math.isfinite(count) and count >= 0 for count in counts):
        raise ValueError(f"feature {tree['name']!r}: counts must be {WIDTH} numbers, none negative")
    return FeatureProfile(
        name=str(tree["name"]),
        kind=cast("FeatureKind", tree["kind"]),
        type=cast("ValueType", tree["type"]),
        bins=_bins_from(tree["bins"], categorical=tree["kind"] == "categorical"),
        counts=counts,
        counts_exact=bool(tree["counts_exact"]),
        minimum=_nan_if_none(tree["minimum"]),
        maximum=_nan_if_none(tree["maximum"]),
        median=_nan_if_none(tree["median"]),
        phi=float(tree["phi"]),
        tolerance=float(tree["tolerance"]),
        points=None
        if points is None
        else Points(
            values=tuple(float(v) for v in points["values"]),
            weights=tuple(float(w) for w in points["weights"]),
            exact=bool(points["exact"]),
        ),
        keys=None
        if keys is None
        else Keys(
            counts={str(k): int(v) for k, v in keys["counts"].items()},
            names={str(k): str(v) for k, v in keys["names"].items()},
            exact=bool(keys["exact"]),
        ),
        sensitive=bool(tree["sensitive"]),
    )


def _bins_tree(bins: Bins) -> dict[str, Any]:
    if isinstance(bins, CategoryBins):
        return {"top": list(bins.top), "others": sorted(bins.others), "open": bins.open}
    layout: dict[str, Any] = {"edges": list(bins.edges), "low": bins.low, "high": bins.high}
    layout |= {"lines": list(bins.lines), "scale": bins.scale, "offset": bins.offset}
    if bins.phases:
        layout["phases"] = [_bins_tree(phase) for phase in bins.phases]
    return layout


def _bins_from(tree: Mapping[str, Any], *, categorical: bool) -> Bins:
    if not categorical:
        return _numeric_from(tree)
    top = tuple(str(digest) for digest in tree["top"])
    if len(top) >= BINS:
        raise ValueError(f"{len(top)} categories with a bin of their own, {BINS - 1} at most")
    return CategoryBins(
        top=top, others=frozenset(str(d) for d in tree["others"]), open=bool(tree["open"])
    )


def _numeric_from(tree: Mapping[str, Any]) -> NumericBins:
    edges = tuple(float(edge) for edge in tree["edges"])
    lines = tuple(int(line) for line in tree["lines"])
    if (
        len(edges) >= BINS
        or list(edges) != sorted(edges)
        or (lines and edges and len(lines) != len(edges))
    ):
        raise ValueError(f"edges must rise and be at most {BINS - 1}, each with its grid line")
    phases = tuple(_numeric_from(phase) for phase in tree.get("phases", ()))
    if len(phases) not in PARTS:
        raise ValueError(f"{len(phases)} phases: they are hours or quarters of a day or week")
    if any(phase.phases or len(phase.edges) != len(edges) for phase in phases):
        raise ValueError("every phase has as many edges as all together, and no phases")
    return NumericBins(
        edges=edges,
        low=float(tree["low"]),
        high=float(tree["high"]),
        lines=lines,
        scale=float(tree["scale"]),
        offset=float(tree["offset"]),
        phases=phases,
    )


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else float(value)
