"""The reference: what every later row is compared with. Immutable, content-hashed, small, and one
file.

The digest is over the content and nothing else: counts with different digests never merge, and
evidence kept under one digest means nothing under another. Accepting a learnt reference changes
what people think of it, not what it says, and so does signing it: `accepted` and `signature` stand
outside the digest.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from detectors.references.bin_means import BinMeans
from detectors.references.feature_profile import (
    NAME_CHARACTERS_MAX,
    NAMED_ROWS_MIN,
    FeatureKind,
    FeatureProfile,
    Keys,
    ProfileError,
    ValueType,
)
from detectors.references.feature_tree import feature_from, feature_tree
from detectors.relations.derivation import Derivation
from detectors.rows.bins import BINS, OUTSIDE, WIDTH, CategoryBins
from detectors.rows.columns import Column, Table

__all__ = [
    "FORMAT", "KEY_BYTES_MIN", "NAMED_ROWS_MIN", "NAME_CHARACTERS_MAX", "SEGMENTS_MAX",
    "SEGMENT_OTHER", "FeatureKind", "FeatureProfile", "Keys", "LabelledBaseline", "ProfileError",
    "Reference", "Segments", "Task", "ValueType",
]  # fmt: skip

FORMAT: Final = 2
SEGMENTS_MAX: Final = 20
SEGMENT_OTHER: Final = "other"
KEY_BYTES_MIN: Final = 16

Task = Literal["classification", "regression"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBaseline:
    """What concept drift is compared with: how many labelled rows, and how many of them the model
    got wrong.

    `phi` and `wander` say how much successive errors resemble each other, and how far their rate
    strays beyond that (see `references.calibration`). `estimation` is the table that estimates
    performance without labels, as JSON values; None where the rows had no score.
    """

    rows: int
    errors: int
    phi: float = 1.0
    wander: float = 0.0
    estimation: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segments:
    """Counts of the reference rows by the value of one column.

    `names` are at most 20, the most frequent first, then `other` for all rows of other values, if
    there were any. `counts` [segments, features, 18] are in the bins of the whole reference; a
    feature whose bins could not be kept while it was read has none.
    """

    column: str
    names: tuple[str, ...]
    counts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)  # no slots: the digest is computed once and kept
class Reference:
    """Profiles of all features, of what the model said and of what came true, as one value.

    `prediction` is the model's output, `score` its score where the class is the prediction,
    `label` the distribution of labels. `columns` are the features' columns in their
    order as they come, text and vectors too; empty where nobody knows. `derivation` says how
    columns are derived from rows; those that are plain features stand among `features`, the
    multivariate ones are `projections`.
    `means` say what the model said and how wrong it was by bin of each feature, where it is known.
    `quality` holds facts of the rows themselves: `duplicate_ratio`, the share of rows that repeat
    an earlier one of their tick.
    """

    features: tuple[FeatureProfile, ...]
    prediction: FeatureProfile | None = None
    score: FeatureProfile | None = None
    label: FeatureProfile | None = None
    projections: tuple[FeatureProfile, ...] = ()
    derivation: Derivation | None = None
    columns: tuple[str, ...] = ()
    segments: Segments | None = None
    rows: int
    tick_rows: int
    ordered: bool = True
    task: Task | None = None
    baseline: LabelledBaseline | None = None
    means: BinMeans | None = None
    quality: Mapping[str, float] = field(default_factory=dict)
    learnt: bool = False
    accepted: bool = True
    signature: str | None = None

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

    def profiles(self) -> tuple[FeatureProfile, ...]:
        """Give every profile: features, projections, then prediction, score and label."""
        outputs = (self.prediction, self.score, self.label)
        return (*self.features, *self.projections, *(p for p in outputs if p is not None))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(_canonical(_content(self))).hexdigest()

    @property
    def hash8(self) -> str:
        """The first 8 characters of the digest: the metric label `reference`."""
        return self.digest[:8]

    def segment(self, name: str) -> tuple[FeatureProfile, ...]:
        """Give the profiles of one segment's rows: features without counts there are left out.

        The bins, and how far a feature wanders by itself, are those of all rows. Raises KeyError
        for a name that is not in `segments.names`.
        """
        if self.segments is None or name not in self.segments.names:
            raise KeyError(name)
        counts = self.segments.counts[self.segments.names.index(name)]
        return tuple(
            replace(profile, counts=_with_unseen(profile, row), points=None)
            for profile, row in zip(self.features, counts.astype(float).tolist(), strict=True)
            if any(row)
        )

    def derive(self, table: Table) -> dict[str, Column]:
        """Give the derived columns of some rows; none without a derivation."""
        return {} if self.derivation is None else self.derivation.derive(table)

    def accept(self) -> Reference:
        """Say that a person has confirmed this reference. Its digest stays the same."""
        return replace(self, accepted=True)

    def sign(self, key: bytes) -> Reference:
        """Sign the content with a secret key: HMAC-SHA256 (RFC 2104). The digest stays the same.

        Raises ValueError for a key of fewer than 16 bytes.
        """
        return replace(self, signature=_signature(self, key))

    def signed_with(self, key: bytes) -> bool:
        """Say whether the signature was made with this key over this very content.

        Raises ValueError for a key of fewer than 16 bytes.
        """
        return hmac.compare_digest(_signature(self, key), self.signature or "")

    def to_bytes(self) -> bytes:
        """Write the one file: canonical JSON, floats exact, always the same bytes for the same
        reference.
        """
        outside = {
            "accepted": self.accepted,
            "digest": self.digest,
            "signature": self.signature,
        }
        return _canonical({**_content(self), **outside}) + b"\n"

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


def _with_unseen(profile: FeatureProfile, counts: list[float]) -> tuple[float, ...]:
    """Of the categories without a bin of their own, as many are yet to come as in all rows."""
    others, unseen = profile.counts[BINS - 1], profile.counts[OUTSIDE]
    if isinstance(profile.bins, CategoryBins) and unseen and not counts[OUTSIDE]:
        new = counts[BINS - 1] * unseen / (others + unseen)
        counts[BINS - 1], counts[OUTSIDE] = counts[BINS - 1] - new, new
    return tuple(counts)


def _signature(reference: Reference, key: bytes) -> str:
    if len(key) < KEY_BYTES_MIN:
        raise ValueError(f"a key of {len(key)} bytes, at least {KEY_BYTES_MIN} are needed")
    return hmac.new(key, _canonical(_content(reference)), hashlib.sha256).hexdigest()


def _canonical(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _content(reference: Reference) -> dict[str, Any]:
    baseline, segments = reference.baseline, reference.segments
    return {
        "kind": "remora-reference",
        "format": FORMAT,
        "rows": reference.rows,
        "tick_rows": reference.tick_rows,
        "ordered": reference.ordered,
        "task": reference.task,
        "baseline": None
        if baseline is None
        else {
            "rows": baseline.rows,
            "errors": baseline.errors,
            "phi": baseline.phi,
            "wander": baseline.wander,
            "estimation": baseline.estimation,
        },
        "means": None if reference.means is None else reference.means.tree(),
        "quality": dict(reference.quality),
        "learnt": reference.learnt,
        "features": [feature_tree(feature) for feature in reference.features],
        "projections": [feature_tree(feature) for feature in reference.projections],
        "columns": list(reference.columns),
        "derivation": None if reference.derivation is None else reference.derivation.tree(),
        "segments": None
        if segments is None
        else {
            "column": segments.column,
            "names": list(segments.names),
            "counts": segments.counts.tolist(),
        },
        **{name: _optional_tree(getattr(reference, name)) for name in _OUTPUTS},
    }


_OUTPUTS: Final = ("prediction", "score", "label")


def _optional_tree(profile: FeatureProfile | None) -> dict[str, Any] | None:
    return None if profile is None else feature_tree(profile)


def _reference_from(tree: Mapping[str, Any]) -> Reference:
    baseline = tree["baseline"]
    if tree["task"] not in (None, "classification", "regression"):
        raise ValueError(f"task {tree['task']!r}")
    quality = {str(name): float(value) for name, value in tree["quality"].items()}
    if not all(map(math.isfinite, quality.values())):
        raise ValueError("facts about quality must be finite numbers")
    features = tuple(feature_from(feature) for feature in tree["features"])
    outputs = {name: None if tree[name] is None else feature_from(tree[name]) for name in _OUTPUTS}
    return Reference(
        features=features,
        prediction=outputs["prediction"],
        score=outputs["score"],
        label=outputs["label"],
        projections=tuple(feature_from(feature) for feature in tree["projections"]),
        columns=tuple(str(name) for name in tree["columns"]),
        derivation=None if tree["derivation"] is None else Derivation.from_tree(tree["derivation"]),
        segments=_segments_from(tree["segments"], len(features)),
        rows=int(tree["rows"]),
        tick_rows=int(tree["tick_rows"]),
        ordered=bool(tree["ordered"]),
        task=cast("Task | None", tree["task"]),
        baseline=None
        if baseline is None
        else LabelledBaseline(
            rows=int(baseline["rows"]),
            errors=int(baseline["errors"]),
            phi=float(baseline["phi"]),
            wander=float(baseline["wander"]),
            estimation=baseline["estimation"],
        ),
        means=None if tree["means"] is None else BinMeans.from_tree(tree["means"]),
        quality=quality,
        learnt=bool(tree["learnt"]),
        accepted=bool(tree["accepted"]),
        signature=None if tree["signature"] is None else str(tree["signature"]),
    )


def _segments_from(tree: Mapping[str, Any] | None, features: int) -> Segments | None:
    if tree is None:
        return None
    names = tuple(str(name) for name in tree["names"])
    counts = np.array(tree["counts"], dtype=np.int64).reshape(-1, features, WIDTH)
    if len(names) > SEGMENTS_MAX + 1 or len(set(names)) < len(names) or len(counts) != len(names):
        raise ValueError(f"{len(names)} names of segments for {len(counts)} of them")
    if (counts < 0).any():
        raise ValueError("counts of segments must not be negative")
    counts.setflags(write=False)
    return Segments(column=str(tree["column"]), names=names, counts=counts)
