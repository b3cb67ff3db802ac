"""What preprocessing learns from training rows: categories, medians, scales.

The tables of categories go into `preprocess.json`, the numbers into the graph. A numeric feature
becomes two columns, standardised plain and on a logarithmic scale: money has long tails, and after
a change of unit the logarithm still fits between the clips. A categorical one becomes one column
for each category, one for the unknown and one for the missing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retrain.pipeline.data import Rows
from retrain.pipeline.recipe import Recipe
from retrain.pipeline.tables import DataError
from retrain.preprocess import (
    MISSING_TEXT,
    Feature,
    Kind,
    Matrix,
    Preprocess,
    Task,
    category_text,
    is_missing,
)

# Standardised values are clipped here: one wild cell must not drown the others, and int8 has only
# 256 steps for the range.
CLIP = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One numeric feature. Median in its own unit; the log scale is of sign(v) * log(1 + |v|)."""

    median: float
    mean: float
    std: float
    log_mean: float
    log_std: float
    has_missing: bool

    def centre_and_spread(self, part: str) -> tuple[float, float]:
        """Of the `plain` or the `log` column."""
        return (self.mean, self.std) if part == "plain" else (self.log_mean, self.log_std)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """preprocess: as the server needs it. scales: by numeric feature, in order of the features.

    target_mean, target_std: what a regression's target is standardised by; 0 and 1 for classes.
    """

    preprocess: Preprocess
    scales: tuple[Scale, ...]
    target_mean: float = 0.0
    target_std: float = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the network sees, in order: numbers, missing flags, classes."""
        numeric = self.numeric
        names = [f"{feature.name}:plain" for feature in numeric]
        names += [f"{feature.name}:log" for feature in numeric]
        names += [
            f"{feature.name}:missing"
            for feature, scale in zip(numeric, self.scales, strict=True)
            if scale.has_missing
        ]
        for feature in self.preprocess.features:
            if feature.kind is Kind.CATEGORICAL:
                names += [f"{feature.name}={category}" for category in feature.categories]
                names += [f"{feature.name}:unknown", f"{feature.name}:missing"]
        return tuple(names)

    @property
    def numeric(self) -> tuple[Feature, ...]:
        return tuple(f for f in self.preprocess.features if f.kind is Kind.NUMERIC)

    @property
    def outputs(self) -> int:
        return max(1, len(self.preprocess.classes))

    def as_json(self) -> dict[str, Any]:
        """For arch.json, beside preprocess.json."""
        return {
            "scales": [asdict(scale) for scale in self.scales],
            "target_mean": self.target_mean,
            "target_std": self.target_std,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], preprocess: Preprocess) -> Self:
        """Raises KeyError or TypeError."""
        return cls(
            preprocess=preprocess,
            scales=tuple(Scale(**entry) for entry in value["scales"]),
            target_mean=float(value["target_mean"]),
            target_std=float(value["target_std"]),
        )


def fit(recipe: Recipe, rows: Rows, *, stable: Preprocess | None = None) -> Fitted:
    """Learns from training rows only.

    stable: where given, its classes are kept (a label that nobody knew is no new class) and its
    categories come first, in their order; categories that became common are added behind them.
    Raises DataError if the rows hold fewer than two classes.
    """
    known = {f.name: f.categories for f in stable.features} if stable is not None else {}
    features = tuple(
        Feature(name=entry.name, kind=entry.kind)
        if entry.kind is Kind.NUMERIC
        else Feature(
            name=entry.name,
            kind=entry.kind,
            categories=_categories(recipe, rows.columns[entry.name], known.get(entry.name, ())),
        )
        for entry in recipe.features
    )
    classes = _classes(recipe, rows, stable)
    preprocess = Preprocess(
        task=recipe.task, target=recipe.target, features=features, classes=classes
    )
    scales = tuple(
        _scale(rows.columns[entry.name]) for entry in features if entry.kind is Kind.NUMERIC
    )
    if recipe.task is Task.CLASSIFICATION:
        return Fitted(preprocess=preprocess, scales=scales)
    target = rows.target.astype(np.float64)
    return Fitted(
        preprocess=preprocess,
        scales=scales,
        target_mean=float(target.mean()),
        target_std=float(target.std()) or 1.0,
    )


def class_codes(rows: Rows, preprocess: Preprocess) -> NDArray[np.int64]:
    """[n] code of each row's class, -1 for one that the model does not have."""
    table = {name: code for code, name in enumerate(preprocess.classes)}
    return np.asarray([table.get(str(name), -1) for name in rows.target], dtype=np.int64)


def with_unknowns(
    matrix: Matrix, preprocess: Preprocess, share: float, rng: np.random.Generator
) -> Matrix:
    """A copy of encoded rows in which `share` of the category cells became unknown.

    Training sees the unknown bucket so; else its weights would still be the random first ones on
    the day on which a new category appears.
    """
    copy = matrix.copy()
    for index, feature in enumerate(preprocess.features):
        if feature.kind is Kind.CATEGORICAL:
            copy[rng.random(len(copy)) < share, index] = feature.unknown_code
    return copy


def _classes(recipe: Recipe, rows: Rows, stable: Preprocess | None) -> tuple[str, ...]:
    if recipe.task is Task.REGRESSION:
        return ()
    if stable is not None and stable.task is Task.CLASSIFICATION:
        return stable.classes
    counts = Counter(str(name) for name in rows.target)
    # A handful of rows is a slip of whoever labels, not a class that can be learnt.
    classes = tuple(sorted(name for name, count in counts.items() if count >= 5))
    if len(classes) < 2:
        raise DataError(
            f"{recipe.target}: {len(classes)} classes with 5 rows or more, 2 are needed: "
            "correct the recipe's target or its data"
        )
    return classes


def _categories(recipe: Recipe, values: NDArray[Any], known: Sequence[str]) -> tuple[str, ...]:
    counts = Counter(category_text(value) for value in values if not is_missing(value))
    common = [
        name
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= recipe.data.category_rows_min and name not in MISSING_TEXT
    ]
    added = [name for name in common if name not in set(known)]
    room = max(0, recipe.data.categories_max - len(known))
    # In order of the alphabet: two runs over the same rows give the same codes.
    return (*known, *sorted(added[:room]))


def _scale(values: NDArray[Any]) -> Scale:
    from retrain.preprocess import encode_rows  # the one way from cells to numbers

    one = Preprocess(
        task=Task.REGRESSION, target="", features=(Feature(name="v", kind=Kind.NUMERIC),)
    )
    numbers = encode_rows({"v": values}, one)[:, 0].astype(np.float64)
    present = numbers[np.isfinite(numbers)]
    if len(present) == 0:
        return Scale(median=0, mean=0, std=1, log_mean=0, log_std=1, has_missing=True)
    logs = np.sign(present) * np.log1p(np.abs(present))
    return Scale(
        median=float(np.median(present)),
        mean=float(present.mean()),
        # Below this the feature is constant, and dividing by it would only magnify rounding.
        std=_spread(present),
        log_mean=float(logs.mean()),
        log_std=_spread(logs),
        has_missing=len(present) < len(numbers),
    )


def _spread(values: NDArray[np.float64]) -> float:
    spread = float(values.std())
    return spread if spread > 1e-6 * max(1.0, float(np.abs(values).max())) else 1.0
