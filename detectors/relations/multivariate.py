"""Rows of many columns to a few projections, which are then watched like any other feature.

Two correlated features that stop being correlated keep their marginals: no detector of single
features sees that. A projection of the row on a principal component does (its variance moves), and
so does the relation of the two, how much likelier the pair is if they are correlated (its mean
moves, which is seen in half the rows). Leading components are common factors, trailing ones
relations that hold nearly exactly; those in between say nothing that single features do not.

What must not be broken is exactness. A row's standardised values are whole multiples of 1/64, at
most 4 in size, weights whole multiples of 1/2048 of a vector of length one, half correlations of
1/64: every partial sum is then a whole number of at most 2^24, which float32 holds exactly. So the
order of summation, threads, the library behind `@` and how rows were cut into batches change no bit
of a projection.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.columns import Column

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

#: Standardised values are whole multiples of 1/STEP, weights of 1/WEIGHT.
STEP: Final = 64.0
WEIGHT: Final = 2_048.0
#: Beyond it sums would pass 2^24: |weights| * |values| <= 2048 * 256 * sqrt(columns).
COLUMNS_MAX: Final = 512

_CLIP: Final = 4.0
_UNIT: Final = np.float32(1 / (STEP * WEIGHT))
_SLICE_VALUES: Final = 131_072
#: Multiplications in one product: OpenBLAS wakes its threads beyond that, and they spin.
_PRODUCT_MAX: Final = 262_144
_PHASES: Final = 1_024
_COSINES: Final[Singles] = np.round(
    np.cos(2 * np.pi * (np.arange(_PHASES) + 0.5) / _PHASES), 4
).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """Principal components of standardised columns, relations of pairs, random Fourier features.

    `means`, `deviations` [inputs] standardise. `weights` are whole numbers in units of 1/2048: a
    row for each component, then one for each of `phases`, whose sum is in turns and gives a cosine.
    `pairs` are places of two inputs and half their correlation rho in 64ths; their relation is
    x y - rho / 2 (x^2 + y^2), for normal columns the log-likelihood ratio of correlated against
    independent, up to scale. Outputs are components, then pairs, then cosines.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: Singles
    pairs: tuple[tuple[int, int, int], ...] = ()
    phases: tuple[float, ...] = ()

    def apply(self, arrays: Sequence[Column]) -> Singles:
        """Give the projections [outputs, rows] of one numeric array per input, all equally long.

        Missing values count as the mean; what is beyond four deviations, infinities included, as
        four deviations.
        """
        rows = len(arrays[0])
        projected = np.empty((len(self.outputs), rows), dtype=np.float32)
        components = len(self.weights) - len(self.phases)
        sums, relations = projected[:components], projected[components:]
        turns = projected[len(projected) - len(self.phases) :]
        standard = Standard(self.means, self.deviations)
        step = min(max(256, _SLICE_VALUES // len(arrays)), max(rows, 1))
        buffer = np.empty((len(arrays), step), dtype=np.float32)
        width = min(max(_PRODUCT_MAX // max(self.weights.size, 1), 16), 256)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            values = standard.fill([a[start:stop] for a in arrays], buffer[:, : stop - start])
            for first in range(0, stop - start if len(self.weights) else 0, width):
                part = self.weights @ values[:, first : first + width]
                at = slice(start + first, start + first + part.shape[1])
                sums[:, at], turns[:, at] = part[:components], part[components:]
            for place, (one, other, half) in enumerate(self.pairs):
                relations[place, start:stop] = _relation(values[one], values[other], half)
        sums *= _UNIT
        relations[: len(self.pairs)] *= np.float32(1 / STEP**3)
        _cosines(turns, self.phases)
        return projected

    def prefixed(self, prefix: str) -> Projection:
        """Give the same projection with longer names of its outputs."""
        return replace(self, outputs=tuple(prefix + name for name in self.outputs))

    def shares(self) -> dict[str, dict[str, float]]:
        """Give, for each output, how much of it each input is: shares that sum to one."""
        components = len(self.weights) - len(self.phases)
        squares = np.zeros((len(self.outputs), len(self.inputs)))
        squares[:components] = self.weights[:components].astype(np.float64) ** 2
        squares[len(squares) - len(self.phases) :] = self.weights[components:].astype(float) ** 2
        for place, pair in enumerate(self.pairs):
            squares[components + place, list(pair[:2])] = 1.0
        squares /= np.maximum(squares.sum(axis=1, keepdims=True), 1.0)
        return {
            name: {self.inputs[j]: float(row[j]) for j in np.argsort(-row, kind="stable")}
            for name, row in zip(self.outputs, squares, strict=True)
        }

    def tree(self) -> dict[str, Any]:
        """Give the projection as JSON values, exactly."""
        return {
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "means": list(self.means),
            "deviations": list(self.deviations),
            "weights": [[int(w) for w in row] for row in self.weights],
            "pairs": [list(pair) for pair in self.pairs],
            "phases": list(self.phases),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Projection:
        """Take back what `tree` gave. Raises ValueError if it is no projection."""
        inputs = tuple(str(name) for name in tree["inputs"])
        outputs = tuple(str(name) for name in tree["outputs"])
        means = tuple(float(v) for v in tree["means"])
        deviations = tuple(float(v) for v in tree["deviations"])
        phases = tuple(float(v) for v in tree["phases"])
        pairs = tuple((int(one), int(other), int(half)) for one, other, half in tree["pairs"])
        weights = np.array(tree["weights"], dtype=np.float32).reshape(-1, max(len(inputs), 1))
        if not 0 < len(inputs) <= COLUMNS_MAX:
            raise ValueError(f"projection: {len(inputs)} inputs, not 1 to {COLUMNS_MAX}")
        if len(weights) + len(pairs) != len(outputs) or not outputs:
            raise ValueError(f"projection: {len(outputs)} outputs of {len(weights)} weights")
        if any(not 0 <= p < len(inputs) for pair in pairs for p in pair[:2]) or any(
            abs(half) > STEP / 2 for _, _, half in pairs
        ):
            raise ValueError("projection: pairs must be places of inputs and half a correlation")
        if not (len(means) == len(deviations) == len(inputs)) or len(phases) > len(weights):
            raise ValueError("projection: means, deviations or phases do not fit the inputs")
        figures = [*means, *deviations, *phases]
        if not all(map(math.isfinite, figures)) or min(deviations) <= 0:
            raise ValueError("projection: deviations must be above 0, everything finite")
        if not np.isfinite(weights).all() or (np.linalg.norm(weights, axis=1) > 2 * WEIGHT).any():
            raise ValueError("projection: weights must be those of vectors of length one")
        return cls(
            inputs=inputs,
            outputs=outputs,
            means=means,
            deviations=deviations,
            weights=weights,
            pairs=pairs,
            phases=phases,
        )


def _relation(one: Singles, other: Singles, half: int) -> Singles:
    squares = (one * one + other * other) * np.float32(half)
    relation: Singles = one * other * np.float32(STEP) - squares
    return relation


def _cosines(turns: Singles, phases: Sequence[float]) -> None:
    """Turns to their cosines by table, in place: the library's cosine differs by processor."""
    if len(phases):
        turns *= _UNIT
        turns += np.array(phases, dtype=np.float32)[:, None]
        turns -= np.floor(turns)
        places = (turns * np.float32(_PHASES)).astype(np.int32)
        np.take(_COSINES, places, out=turns, mode="clip")


class Standard:
    """Standardises columns into one float32 buffer [columns, rows] of whole numbers of 1/64."""

    def __init__(self, means: Sequence[float], deviations: Sequence[float]) -> None:
        scale = STEP / np.array(deviations)
        offset = -np.array(means) * scale
        # What float32 cannot tell apart, or hold, is standardised in double precision first.
        with np.errstate(over="ignore"):
            single = (np.abs(offset) < 1e3 * STEP) & (scale > 1e-30) & (scale < 1e30)
        self._doubles = [int(j) for j in np.flatnonzero(~single)]
        self._means, self._deviations = means, deviations
        self._scale = np.where(single, scale, 1.0).astype(np.float32)[:, None]
        self._offset = np.where(single, offset, 0.0).astype(np.float32)[:, None]

    def fill(self, arrays: Sequence[Column], out: Singles) -> Singles:
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            for j, array in enumerate(arrays):
                out[j] = array
            for j in self._doubles:
                wide = arrays[j].astype(np.float64)
                out[j] = (wide - self._means[j]) / self._deviations[j] * STEP
            np.multiply(out, self._scale, out=out)
            np.add(out, self._offset, out=out)
            np.clip(out, np.float32(-_CLIP * STEP), np.float32(_CLIP * STEP), out=out)
            np.rint(out, out=out)
            if np.isnan(out.sum()):  # one pass instead of two where nothing is missing
                np.copyto(out, np.float32(0), where=np.isnan(out))
        return out
