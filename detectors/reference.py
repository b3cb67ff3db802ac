"""The reference: what every later row is compared with. Immutable, content-hashed, small, and one
file.

The digest is over the content and nothing else: counts with different digests never merge, and
evidence kept under one digest means nothing under another. Accepting a learnt reference changes
what people think of it, not what it says, so `accepted` stands outside the digest.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from detectors.binning import BINS, MISSING, OUTSIDE, WIDTH, Bins, CategoryBins, NumericBins
from detectors.sketch import Points

FORMAT: Final = 1
NAME_CHARACTERS_MAX: Final = 64
NAMED_ROWS_MIN: Final = 20

FeatureKind = Literal["numeric", "categorical", "boolean"]
Task = Literal["classification", "regression"]


class ProfileError(ValueError):
    """A reference profile that cannot be read, merged or used; the message names what is wrong with
    it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Counts of category keys by hash, with the names of those seen often enough to be shown."""

    counts: Mapping[str, int]
    names: Mapping[str, str]
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureProfile:
    """One feature of the reference.

    `counts` are the reference rows in each of the 18 bins (see `binning`); the count of unseen
    categories is the Good-Turing estimate, the number of categories seen once. `phi` is the design
    effect of autocorrelation (rows per independent row), `tolerance` the wander declared
    irrelevant, in units of a standardised score. `counts_exact` is false where counts come from a
    merged sketch. `minimum`, `maximum`, `median` are NaN for a feature without numbers.
    """

    name: str
    kind: FeatureKind
    bins: Bins
    counts: tuple[float, ...]
    counts_exact: bool
    minimum: float
    maximum: float
    median: float
    phi: float
    tolerance: float
    points: Points | None
    keys: Keys | None
    sensitive: bool = False

    @property
    def rows(self) -> float:
        """Rows the counts stand for, missing ones included."""
        return math.fsum(self.counts)

    @property
    def ordered(self) -> bool:
        """Whether the value bins have an order."""
        return self.kind != "categorical"

    def live(self) -> NDArray[np.bool_]:
        """Say which of the 18 bins a row can fall into."""
        mask = np.zeros(WIDTH, dtype=bool)
        mask[[MISSING, OUTSIDE]] = True
        if isinstance(self.bins, NumericBins):
            mask[: len(self.bins.edges) + 1] = True
        else:
            mask[: len(self.bins.top)] = True
            mask[BINS - 1] = self.bins.open or bool(self.bins.others)
            mask[OUTSIDE] = not self.bins.open
        return mask

    def probabilities(self) -> NDArray[np.float64]:
        """Give (count + .5) / (rows + .5 bins) for each live bin, 0 for the others; the 18 values
        sum to one.
        """
        live = self.live()
        weights: NDArray[np.float64] = np.where(live, np.array(self.counts) + 0.5, 0.0)
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def limits(self) -> tuple[float, ...]:
        """Give the outer limits and edges of the ordered bins: minimum, edges, maximum (empty
        without an order).
        """
        if not isinstance(self.bins, NumericBins) or not math.isfinite(self.minimum):
            return ()
        return (self.minimum, *self.bins.edges, max(self.maximum, *self.bins.edges, self.minimum))

    def labels(self) -> tuple[str, ...]:
        """Name the 18 bins for people. Rare categories and those of sensitive features are
        numbered, not named.
        """
        names = [""] * BINS + ["missing", "outside"]
        if isinstance(self.bins, NumericBins):
            limits = self.limits()
            for b in range(len(limits) - 1):
                names[b] = f"{limits[b]:.6g}..{limits[b + 1]:.6g}"
            if self.kind == "boolean" and len(self.bins.edges) == 1:
                names[:2] = ["false", "true"]
        else:
            shown = self.keys.names if self.keys is not None and not self.sensitive else {}
            for b, digest in enumerate(self.bins.top):
                names[b] = shown.get(digest, f"category {b + 1}")
            names[BINS - 1], names[OUTSIDE] = "other", "unseen"
        return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBaseline:
    """What concept drift is compared with: how many labelled rows, and how many of them the model
    got wrong.
    """

    rows: int
    errors: int


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the digest is computed once and kept
class Reference:
    """Profiles of all features and of the prediction, as one immutable value."""

    features: tuple[FeatureProfile, ...]
    prediction: FeatureProfile | None = None
    rows: int
    tick_rows: int
    ordered: bool = True
    task: Task | None = None
    baseline: LabelledBaseline | None = None
    learnt: bool = False
    accepted: bool = True

    def __eq__(self, other: object) -> bool:
        """Equal content is equal, NaN included, which field by field would not be."""
        if not isinstance(other, Reference):
            return NotImplemented
        return (self.digest, self.accepted) == (other.digest, other.accepted)

    def __hash__(self) -> int:
        """Hash what `__eq__` compares."""
        return hash((self.digest, self.accepted))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the schema."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(_canonical(_content(self))).hexdigest()

    @property
    def hash8(self) -> str:
        """The first 8 characters of the digest: the metric label `reference`."""
        return self.digest[:8]

    def accept(self) -> Reference:
        """Say that a person has confirmed this reference. Its digest stays the same."""
        return replace(self, accepted=True)

    def to_bytes(self) -> bytes:
        """Write the one file: canonical JSON, floats exact, always the same bytes for the same
        reference.
        """
        return (
            _canonical({**_content(self), "accepted": self.accepted, "digest": self.digest}) + b"\n"
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Reference:
        """Read the file back. Raises ProfileError naming what is wrong: not JSON, another version,
        altered content.
        """
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ProfileError(f"reference: not JSON ({error})") from None
        if not isinstance(tree, dict) or tree.get("kind") != "remora-reference":
            raise ProfileError(
                "reference: not a Remora reference profile (no kind 'remora-reference')"
            )
        if tree.get("format") != FORMAT:
            raise ProfileError(
                f"reference: format {tree.get('format')!r}, not {FORMAT}; build it again"
            )
        try:
            reference = _reference_from(tree)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProfileError(f"reference: malformed ({error!r})") from None
        if reference.digest != tree.get("digest"):
            raise ProfileError(
                "reference: digest does not match the content; the file was altered or cut"
            )
        return reference


def _content(reference: Reference) -> dict[str, Any]:
    return {
        "kind": "remora-reference",
        "format": FORMAT,
        "rows": reference.rows,
        "tick_rows": reference.tick_rows,
        "ordered": reference.ordered,
        "task": reference.task,
        "baseline": None if reference.baseline is None else asdict(reference.baseline),
        "learnt": reference.learnt,
        "features": [_feature_tree(feature) for feature in reference.features],
        "prediction": None if reference.prediction is None else _feature_tree(reference.prediction),
    }


def _canonical(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _feature_tree(feature: FeatureProfile) -> dict[str, Any]:
    bins = feature.bins
    if isinstance(bins, NumericBins):
        layout: dict[str, Any] = {"edges": list(bins.edges), "low": bins.low, "high": bins.high}
        layout |= {"lines": list(bins.lines), "scale": bins.scale, "offset": bins.offset}
    else:
        layout = {"top": list(bins.top), "others": sorted(bins.others), "open": bins.open}
    return {
        "name": feature.name,
        "kind": feature.kind,
        "bins": layout,
        "counts": list(feature.counts),
        "counts_exact": feature.counts_exact,
        "minimum": _none_if_nan(feature.minimum),
        "maximum": _none_if_nan(feature.maximum),
        "median": _none_if_nan(feature.median),
        "phi": feature.phi,
        "tolerance": feature.tolerance,
        "points": None
        if feature.points is None
        else {
            "values": feature.points.values,
            "weights": feature.points.weights,
            "exact": feature.points.exact,
        },
        "keys": None
        if feature.keys is None
        else {
            "counts": dict(feature.keys.counts),
            "names": dict(feature.keys.names),
            "exact": feature.keys.exact,
        },
        "sensitive": feature.sensitive,
    }


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _reference_from(tree: Mapping[str, Any]) -> Reference:
    baseline, prediction = tree["baseline"], tree["prediction"]
    if tree["task"] not in (None, "classification", "regression"):
        raise ValueError(f"task {tree['task']!r}")
    return Reference(
        features=tuple(_feature_from(feature) for feature in tree["features"]),
        prediction=None if prediction is None else _feature_from(prediction),
        rows=int(tree["rows"]),
        tick_rows=int(tree["tick_rows"]),
        ordered=bool(tree["ordered"]),
        task=cast("Task | None", tree["task"]),
        baseline=None
        if baseline is None
        else LabelledBaseline(rows=int(baseline["rows"]), errors=int(baseline["errors"])),
        learnt=bool(tree["learnt"]),
        accepted=bool(tree["accepted"]),
    )


def _feature_from(tree: Mapping[str, Any]) -> FeatureProfile:
    points, keys = tree["points"], tree["keys"]
    counts = tuple(float(count) for count in tree["counts"])
    if tree["kind"] not in ("numeric", "categorical", "boolean"):
        raise ValueError(f"feature {tree['name']!r}: kind {tree['kind']!r}")
    if len(counts) != WIDTH or not all(math.isfinite(count) and count >= 0 for count in counts):
        raise ValueError(f"feature {tree['name']!r}: counts must be {WIDTH} numbers, none negative")
    return FeatureProfile(
        name=str(tree["name"]),
        kind=cast("FeatureKind", tree["kind"]),
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


def _bins_from(tree: Mapping[str, Any], *, categorical: bool) -> Bins:
    if categorical:
        top = tuple(str(digest) for digest in tree["top"])
        if len(top) >= BINS:
            raise ValueError(f"{len(top)} categories with a bin of their own, {BINS - 1} at most")
        return CategoryBins(
            top=top, others=frozenset(str(d) for d in tree["others"]), open=bool(tree["open"])
        )
    edges = tuple(float(edge) for edge in tree["edges"])
    lines = tuple(int(line) for line in tree["lines"])
    if (
        len(edges) >= BINS
        or list(edges) != sorted(edges)
        or (lines and edges and len(lines) != len(edges))
    ):
        raise ValueError(f"edges must rise and be at most {BINS - 1}, each with its grid line")
    return NumericBins(
        edges=edges,
        low=float(tree["low"]),
        high=float(tree["high"]),
        lines=lines,
        scale=float(tree["scale"]),
        offset=float(tree["offset"]),
    )
