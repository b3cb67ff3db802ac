"""Vectors as a few numbers: their norm, their cosine to the reference's mean direction, and where
they lie along its leading principal components.

A vector with anything in it that is no finite number counts as missing, as does one of another
width than the reference's: half a vector has no norm. Vectors are never kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.relations.components import fit_projection
from detectors.relations.multivariate import Projection

COMPONENTS_MAX: Final = 16
COORDINATES_MAX: Final = 256
WIDTH_MAX: Final = 65_536
#: Vectors that centre and components are fitted on, and numbers in all of them.
ROWS_MAX: Final = 4_096
VALUES_MAX: Final = 4_194_304

_SLICE_VALUES: Final = 262_144
_LENGTH_MIN: Final = 1e-30

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorDescriptors:
    """The descriptors of one column of vectors of `width` numbers.

    `direction` has length one. `projection` rests on the coordinates `places`, at most 256: those
    that vary most.
    """

    width: int
    direction: tuple[float, ...]
    places: tuple[int, ...]
    projection: Projection | None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the descriptors of a single vector."""
        return ("norm", "cosine")

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of the components."""
        return () if self.projection is None else self.projection.outputs

    def describe(self, vectors: Vectors) -> NDArray[np.float32]:
        """Give norm, cosine and components, [2 + components, rows], of vectors [rows, width]."""
        rows = len(vectors)
        described = np.full((2 + len(self.projections), rows), np.nan, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            return described
        step = max(_SLICE_VALUES // self.width, 16)
        for start in range(0, rows, step):
            part = vectors[start : start + step]
            described[:, start : start + len(part)] = self._slice(part)
        return described

    def _slice(self, part: Vectors) -> NDArray[np.float32]:
        norms, units, whole = _units(part)
        described = np.empty((2 + len(self.projections), len(part)), dtype=np.float32)
        # double precision, then float32: the order of summation is not in what is left
        with np.errstate(over="ignore"):
            described[0] = norms
        described[1] = np.einsum("ij,j->i", units, np.array(self.direction))
        if self.projection is not None:
            columns = np.ascontiguousarray(part[:, self.places].T)
            described[2:] = self.projection.apply(list(columns))
        described[:, ~whole] = np.nan
        return described

    def tree(self) -> dict[str, Any]:
        """Give JSON values from which `from_tree` makes the very same descriptors."""
        return {
            "width": self.width,
            "direction": list(self.direction),
            "places": list(self.places),
            "projection": None if self.projection is None else self.projection.tree(),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> VectorDescriptors:
        """Take back what `tree` gave. Raises ValueError if it is malformed."""
        width = int(tree["width"])
        direction = tuple(float(v) for v in tree["direction"])
        places = tuple(int(place) for place in tree["places"])
        found = tree["projection"]
        projection = None if found is None else Projection.from_tree(found)
        if not 0 < width <= WIDTH_MAX or len(direction) != width:
            raise ValueError(f"vectors: width {width} with a direction of {len(direction)}")
        if not all(map(math.isfinite, direction)) or not all(0 <= p < width for p in places):
            raise ValueError("vectors: direction must be finite, places within the width")
        if projection is not None and len(projection.inputs) != len(places):
            raise ValueError("vectors: as many places as the projection has inputs")
        return cls(width=width, direction=direction, places=places, projection=projection)


def fit_vectors(vectors: Vectors, *, stem: str) -> VectorDescriptors | None:
    """Fit to the first vectors [rows, width]; None if none of them is whole. `stem` begins the
    names of the components.
    """
    if vectors.ndim != 2 or not 0 < vectors.shape[1] <= WIDTH_MAX:
        return None
    width = vectors.shape[1]
    held = vectors[: max(min(ROWS_MAX, VALUES_MAX // width), 1)]
    norms, units, whole = _units(held)
    if not (whole & (norms > 0)).any():
        return None
    mean = units[whole].mean(axis=0)
    length = float(np.linalg.norm(mean))
    # a mean of exactly nothing has no direction, and any will do
    mean = mean / length if length > _LENGTH_MIN else np.eye(1, width)[0]
    direction = tuple(float(f"{value:.5g}") for value in mean.tolist())
    kept = held[whole]
    spread = np.round(np.log2(kept.astype(np.float64).std(axis=0) + 1e-300), 3)
    most = np.sort(np.argsort(-spread, kind="stable")[:COORDINATES_MAX])
    columns = {f"{place:05d}": kept[:, place] for place in most.tolist()}
    projection = fit_projection(
        columns,
        prefix=f"{stem}.",
        components_max=COMPONENTS_MAX,
        pairs_max=0,
        trailing=False,
    )
    places = () if projection is None else tuple(int(name) for name in projection.inputs)
    return VectorDescriptors(width=width, direction=direction, places=places, projection=projection)


def _units(
    vectors: Vectors,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Norms, vectors of length one (of zeros where the norm is none), and which are all finite."""
    wide = vectors.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    whole = np.isfinite(norms)
    wide[~whole] = 0
    wide /= np.where(whole & (norms > 0), norms, 1.0)[:, None]
    return norms, wide, whole
