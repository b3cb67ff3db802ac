"""Raw columns to the float32 matrix that a model's graph takes, and its answer back to labels.

The server, training and the gates all encode through `encode_rows`: a second implementation
anywhere would be the classic skew between training and serving. Only text becomes numbers here.
Imputing, scaling and one-hot are nodes of the graph, so that there is one copy of them.

This module runs in the agent and in the model server: numpy and the standard library only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

PREPROCESS_SCHEMA = "remora.preprocess/1"
# What people write for "no value". Adult's is "?", CSV's is empty; NaN and None count as well.
MISSING_TEXT = frozenset({"", "?", "NA", "N/A", "NaN", "nan", "None", "null"})

Matrix = NDArray[np.float32]
Column = Sequence[Any] | NDArray[Any]


class Kind(StrEnum):
    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


class Task(StrEnum):
    CLASSIFICATION = "classification"
    REGRESSION = "regression"


class EncodeError(ValueError):
    """Columns that are not rows of this model: one is absent, or their lengths differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column of the matrix. `categories[i]` has code i; only categorical features have any."""

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()

    @property
    def unknown_code(self) -> int:
        """The code of every category that training had not seen, or saw too rarely."""
        return len(self.categories)

    @property
    def missing_code(self) -> int:
        """The bucket that the graph gives a missing category; on the wire it is NaN."""
        return len(self.categories) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """`preprocess.json`: order and kinds of the features, and the classes of the answer.

    `classes[k]` names output column k of a classifier; a regression has none.
    """

    task: Task
    target: str
    features: tuple[Feature, ...]
    classes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": PREPROCESS_SCHEMA,
            "task": self.task.value,
            "target": self.target,
            "classes": list(self.classes),
            "features": [
                {
                    "name": feature.name,
                    "kind": feature.kind.value,
                    "categories": list(feature.categories),
                    "unknown_code": feature.unknown_code,
                    "missing": "nan",
                }
                for feature in self.features
            ],
        }

    @classmethod
    def from_json(cls, value: object) -> "Preprocess":
        """Raises ValueError naming what is wrong."""
        if not isinstance(value, Mapping) or value.get("schema") != PREPROCESS_SCHEMA:
            raise ValueError(f"preprocess.json: schema is not {PREPROCESS_SCHEMA}")
        try:
            features = tuple(
                Feature(
                    name=str(entry["name"]),
                    kind=Kind(entry["kind"]),
                    categories=tuple(str(category) for category in entry["categories"]),
                )
                for entry in value["features"]
            )
            read = cls(
                task=Task(value["task"]),
                target=str(value["target"]),
                features=features,
                classes=tuple(str(name) for name in value["classes"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"preprocess.json: {error!r} is absent or of the wrong type"
            ) from error
        names = [feature.name for feature in features]
        if not names or len(set(names)) != len(names):
            raise ValueError("preprocess.json: no features, or one named twice")
        if read.task is Task.CLASSIFICATION and len(read.classes) < 2:
            raise ValueError("preprocess.json: a classification needs at least two classes")
        return read


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What the model said, one entry per row.

    `prediction`: [n] class names, or [n] float64 in the target's unit for a regression.
    `score`: [n] float64, probability of the last class for two classes, of the predicted one
    for more, and None for a regression.
    """

    prediction: NDArray[Any]
    score: NDArray[np.float64] | None


def is_missing(value: object) -> bool:
    """Whether a cell holds no value. Infinity does not: it is a wrong value, see `encode_rows`."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return math.isnan(float(value))
    return isinstance(value, str) and value.strip() in MISSING_TEXT


def encode_rows(columns: Mapping[str, Column], preprocess: Preprocess) -> Matrix:
    """Named raw columns to the graph's input.

    columns: feature name to [n] or [n, 1] values; further columns are ignored. Numeric cells are
    numbers or text that reads as one; categorical cells are text, bytes (UTF-8) or numbers.
    Returns [n, d] float32 in the order of `preprocess.features`: numbers as they are (NaN where
    missing, unreadable or infinite), categories as codes, NaN where missing.
    Raises EncodeError if a feature is absent or the lengths differ.
    """
    absent = [feature.name for feature in preprocess.features if feature.name not in columns]
    if absent:
        raise EncodeError(f"columns are absent: {', '.join(absent[:5])}")
    flat = {feature.name: _flat(columns[feature.name]) for feature in preprocess.features}
    lengths = {len(values) for values in flat.values()}
    if len(lengths) > 1:
        raise EncodeError(f"columns have different lengths: {sorted(lengths)}")
    matrix = np.empty((lengths.pop(), len(preprocess.features)), dtype=np.float32)
    for index, feature in enumerate(preprocess.features):
        values = flat[feature.name]
        if feature.kind is Kind.NUMERIC:
            matrix[:, index] = _numbers(values)
        else:
            matrix[:, index] = _codes(values, feature)
    return matrix


def decode_output(output: NDArray[np.float32], preprocess: Preprocess) -> Predictions:
    """The graph's output `y` to predictions.

    output: [n, k] probabilities for a classifier of k classes, [n, 1] for a regression.
    Raises EncodeError if the shape does not fit.
    """
    width = len(preprocess.classes) if preprocess.task is Task.CLASSIFICATION else 1
    if output.ndim != 2 or output.shape[1] != width:
        raise EncodeError(f"output has shape {output.shape}, expected [n, {width}]")
    if preprocess.task is Task.REGRESSION:
        return Predictions(prediction=output[:, 0].astype(np.float64), score=None)
    index = output.argmax(axis=1)
    names = np.asarray(preprocess.classes, dtype=object)
    score = output[:, 1] if width == 2 else output.max(axis=1)
    return Predictions(prediction=names[index], score=score.astype(np.float64))


def category_text(value: object) -> str:
    """How a cell is spelled as a category: 3, 3.0 and "3" are one, whoever wrote the file."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").strip()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = str(value).strip()
    # JSON writes true where Python writes True, into CSV as well.
    return text.lower() if text in ("True", "False") else text


def _flat(values: Column) -> NDArray[Any]:
    array = values if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise EncodeError(f"a column has shape {array.shape}, expected [n] or [n, 1]")
    return array


def _numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    if values.dtype.kind in "fiub":
        numbers = values.astype(np.float64)
    else:
        numbers = np.asarray([_number(value) for value in values], dtype=np.float64)
    # Also what float32 cannot hold: the graph must never see an infinity.
    numbers[~(np.abs(numbers) <= np.finfo(np.float32).max)] = np.nan
    return numbers


def _number(value: object) -> float:
    if value is None:
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]  # whatever it is, the except answers for it
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _codes(values: NDArray[Any], feature: Feature) -> NDArray[np.float32]:
    table = {category: code for code, category in enumerate(feature.categories)}
    # Columns repeat few values, so each distinct spelling is looked up once.
    known: dict[Any, float] = {}
    codes = np.empty(len(values), dtype=np.float32)
    for index, value in enumerate(values.tolist()):
        # True and 1 are one key to a dictionary, and two categories.
        key = (str(value),) if isinstance(value, bool | np.bool_) else value
        try:
            code = known.get(key)
        except TypeError:  # unhashable, a list in a cell: certainly no category
            codes[index] = feature.unknown_code
            continue
        if code is None:
            text = category_text(value) if value is not None else ""
            missing = is_missing(value) or text in MISSING_TEXT
            code = math.nan if missing else float(table.get(text, feature.unknown_code))
            if len(known) < 100_000:  # a column of ids must not grow without limit
                known[key] = code
        codes[index] = code
    return codes
