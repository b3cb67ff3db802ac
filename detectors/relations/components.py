"""Which projections of the rows are worth watching: chosen once, on the reference's first rows.

What must not be broken: a component is judged by its variance on rows that it was not fitted on.
Fitted and judged on the same rows, pure noise looks like structure, and the first live rows, which
do not have it, would be called a drift.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from detectors.references.calibration import TOLERANCE
from detectors.relations.multivariate import (
    COLUMNS_MAX,
    STEP,
    WEIGHT,
    Floats,
    Projection,
    Singles,
    Standard,
)
from detectors.rows.columns import Column, digest_of

ROWS_MIN: Final = 200
#: More projections cost time and share the budget: 32 cost ln 2 more evidence each than 16.
COMPONENTS_MAX: Final = 24
PAIRS_MAX: Final = 8
FOURIER_MAX: Final = 256
PRESENT_SHARE_MIN: Final = 0.5

_FOLDS: Final = 5
_OPTIMISM_ERRORS: Final = 2.0
#: Nats per row, and in all rows: what the best of many components of noise seems to tell.
_INFORMATION_MIN: Final = 0.006
_INFORMATION_ROWS: Final = 10.0
_VARIANCE_MIN: Final = 1e-4
#: Products of pairs that are hardly correlated are noise that shares the budget.
_CORRELATION_MIN: Final = 0.2
_CORRELATION_ERRORS: Final = 6.0
_PAIRS_PER_INPUT: Final = 2
_WINSOR_SHARE: Final = 0.001
_BANDWIDTH_ROWS: Final = 256


def fit_projection(
    columns: Mapping[str, Column],
    *,
    prefix: str = "",
    components_max: int = COMPONENTS_MAX,
    pairs_max: int = PAIRS_MAX,
    trailing: bool = True,
    fourier: int = 0,
) -> Projection | None:
    """Fit principal components, and `fourier` random features, to numeric columns of equal length.

    Columns that are half missing or (but for one value in a thousand) constant are left out, and
    all beyond the first 512 by name. A component is kept if it would tell something should its
    relation vanish, and if its variance on rows it was not fitted on is what it is on those it was:
    a component of pure noise has less, and would raise a false alarm. `trailing` false keeps those
    above the average variance only. None if nothing is worth watching, or below 200 rows.
    """
    if not 0 <= fourier <= FOURIER_MAX:
        raise ValueError(f"fourier must be 0 to {FOURIER_MAX}, not {fourier}")
    standards = {}
    for name in sorted(columns):
        found = _standard_of(columns[name])
        if found is not None:
            standards[name] = found
        if len(standards) == COLUMNS_MAX:
            break
    rows = min((len(columns[name]) for name in standards), default=0)
    if rows < ROWS_MIN or len(standards) < 2:
        return None
    means, deviations = zip(*standards.values(), strict=True)
    values = np.empty((len(standards), rows), dtype=np.float32)
    Standard(means, deviations).fill([columns[name] for name in standards], values)
    moments = [_moments(part) for part in np.array_split(values, _FOLDS, axis=1)]
    ranks, weights = _components(moments, components_max, trailing=trailing)
    outputs = [f"{prefix}pc{rank}" for rank in ranks]
    inputs = tuple(standards)
    pairs = _pairs(_correlation(np.sum(moments, axis=0)), rows, pairs_max)
    outputs += [f"{inputs[one]}~{inputs[other]}" for one, other, _ in pairs]
    phases: tuple[float, ...] = ()
    if fourier:
        drawn, phases = _frequencies(values, inputs, fourier)
        weights = np.concatenate([weights, drawn])
        outputs += [f"{prefix}rff{i + 1}" for i in range(fourier)]
    if not outputs:
        return None
    return Projection(
        inputs=inputs,
        outputs=tuple(outputs),
        means=means,
        deviations=deviations,
        weights=weights,
        pairs=pairs,
        phases=phases,
    )


def _standard_of(column: Column) -> tuple[float, float] | None:
    """Mean and deviation of the values between the 1st and the 999th thousandth: one outlier of
    1e308 must not make all others equal. Rounded, so that the last bit of a sum is not in them.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        values = column.astype(np.float64)
    values = values[np.isfinite(values)]
    if len(values) < max(2.0, PRESENT_SHARE_MIN * len(column)):
        return None
    values.sort()
    cut = int(_WINSOR_SHARE * len(values))
    inner = values[cut : len(values) - cut]
    peak = max(abs(float(inner[0])), abs(float(inner[-1])))
    if not inner[0] < inner[-1] or not 1e-290 < peak < 1e308:
        return None
    inner = inner / peak
    deviation = float(f"{float(inner.std()) * peak:.6g}")
    if not 1e-9 * peak < deviation:
        return None
    # a mean may be a million deviations from zero: it is rounded in deviations, not in digits
    grid = deviation / 1_024
    return round(float(inner.mean()) * (peak / grid)) * grid, deviation


def _components(
    moments: Sequence[Floats], most: int, *, trailing: bool
) -> tuple[list[int], Singles]:
    """Ranks (1 is the largest variance) and whole-numbered weights [k, columns] of those kept."""
    total: Floats = np.sum(moments, axis=0)
    rows = total[-1, -1]
    scale = 1 / np.maximum(np.sqrt(np.diag(_covariance(total))), 1e-3)
    variances, vectors = _eigen(total, scale)
    unseen = np.zeros(len(variances))
    for part in moments:
        _, fitted = _eigen(total - part, scale)
        held = _covariance(part) * np.outer(scale, scale)
        unseen += np.einsum("ji,ji->i", fitted, held @ fitted) / len(moments)
    optimism = np.abs((unseen + _VARIANCE_MIN) / (variances + _VARIANCE_MIN) - 1) / math.sqrt(2)
    level = np.maximum(unseen, _VARIANCE_MIN)
    # nats per row if the relation vanished: a gaussian of this variance against one of variance 1
    information = (1 / level - 1 + np.log(level)) / 2
    good = (information >= _INFORMATION_MIN + _INFORMATION_ROWS / rows) & (
        optimism <= TOLERANCE + _OPTIMISM_ERRORS / math.sqrt(rows)
    )
    if not trailing:
        good &= level > 1
    order = [int(i) for i in np.argsort(-information, kind="stable") if good[i]]
    # exact relations always tell more than common factors do: a third is kept for the factors
    factors = [i for i in order if level[i] > 1]
    relations = [i for i in order if level[i] <= 1]
    kept = relations[: max(most - len(factors), most - most // 3)]
    chosen = sorted([*kept, *factors[: most - len(kept)]], reverse=True)  # eigenvalues rise
    weights = np.zeros((len(chosen), len(variances)), dtype=np.float32)
    for place, i in enumerate(chosen):
        weights[place] = _whole(vectors[:, i] * scale)
    return [len(variances) - i for i in chosen], weights


def _pairs(correlation: Floats, rows: int, most: int) -> tuple[tuple[int, int, int], ...]:
    """The most correlated pairs of inputs and half their correlation in 64ths; no input in more
    than two, so that one strong group does not take all places.
    """
    first, second = np.triu_indices(len(correlation), 1)
    size = np.round(np.abs(correlation[first, second]), 6)
    order = np.argsort(-size, kind="stable")
    least = max(_CORRELATION_MIN, _CORRELATION_ERRORS / math.sqrt(rows))
    chosen: list[tuple[int, int, int]] = []
    used: Counter[int] = Counter()
    for place in order[: most * len(correlation)].tolist():
        pair = int(first[place]), int(second[place])
        if size[place] < least or len(chosen) == most:
            break
        if max(used[pair[0]], used[pair[1]]) < _PAIRS_PER_INPUT:
            chosen.append((*pair, round(float(correlation[pair]) * STEP / 2)))
            used.update(pair)
    return tuple(chosen)


def _moments(values: Singles) -> Floats:
    """Sums of products, with a last row and column of sums: whole numbers, so exact."""
    wide = np.concatenate([values, np.ones((1, values.shape[1]), np.float32)]).astype(np.float64)
    moments: Floats = wide @ wide.T
    return moments


def _covariance(moments: Floats) -> Floats:
    rows = max(moments[-1, -1], 1.0)
    means = moments[-1, :-1] / rows
    covariance: Floats = (moments[:-1, :-1] / rows - np.outer(means, means)) / STEP**2
    return covariance


def _correlation(moments: Floats) -> Floats:
    covariance = _covariance(moments)
    scale = 1 / np.maximum(np.sqrt(np.diag(covariance)), 1e-3)
    correlation: Floats = covariance * np.outer(scale, scale)
    return correlation


def _eigen(moments: Floats, scale: Floats) -> tuple[Floats, Floats]:
    matrix = _covariance(moments) * np.outer(scale, scale)
    # equal variances would leave their vectors to chance: a slope of one in a million orders them
    matrix += np.diag(np.linspace(0, 1e-6, len(matrix)))
    variances, vectors = np.linalg.eigh(matrix)
    return variances, vectors


def _whole(vector: Floats) -> Floats:
    """Length one, in whole 2048ths; the largest entry is positive (the first of equal ones)."""
    unit: Floats = vector / np.linalg.norm(vector)
    largest = float(unit[int(np.argmax(np.round(np.abs(unit), 6)))])
    whole: Floats = np.rint(np.round(unit, 9) * (math.copysign(1.0, largest) * WEIGHT))
    return whole


def _frequencies(
    values: Singles, names: tuple[str, ...], count: int
) -> tuple[Singles, tuple[float, ...]]:
    """Draw frequencies of a gaussian kernel whose bandwidth is the median distance of two rows
    (Rahimi and Recht 2007), in turns; seeded by the names, so that the same columns draw the same.
    """
    places = np.linspace(0, values.shape[1] - 1, _BANDWIDTH_ROWS).astype(np.int64)
    some = values[:, places].astype(np.float64) / STEP
    squares = (some**2).sum(axis=0)
    apart = squares[:, None] + squares[None, :] - 2 * (some.T @ some)
    distances = np.sqrt(np.maximum(apart[np.triu_indices(len(places), 1)], 0))
    median = float(np.median(distances))
    bandwidth = max(float(f"{median:.3g}"), 0.1)
    draw = random.Random(digest_of("\n".join(names)))  # noqa: S311 (chance, no secret)
    width = len(names)
    rows = np.array([[draw.gauss(0, 1) for _ in range(width)] for _ in range(count)])
    rows /= 2 * math.pi * bandwidth
    longest = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)
    phases = tuple(round(draw.random(), 4) for _ in range(count))
    return np.rint(rows / longest * WEIGHT).astype(np.float32), phases
