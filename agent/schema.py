"""What the columns of a model are: names, kinds and order of features, prediction and score.

A schema is a value. Do not change one in place: batches, references and snapshots that were
made under it must keep their meaning; learning (`schema_learning`) makes a new one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from agent.inference import Inference, Outputs, Value

FeatureKind: TypeAlias = Literal["numeric", "categorical", "boolean", "text"]
TargetKind: TypeAlias = Literal["class", "number"]
Column: TypeAlias = NDArray[np.float64] | NDArray[np.object_]

CLASS_SCORES_MAX = 20  # scores of more classes are not kept apart

_PREDICTION_NAMES = (
    "prediction", "predictions", "predict", "predicted", "predicted_class", "predicted_label",
    "label", "labels", "output_label", "class", "class_label", "target", "result", "output", "y",
)  # fmt: skip
_SCORE_NAMES = (
    "score", "scores", "probability", "probabilities", "output_probability", "proba",
    "predict_proba", "confidence", "confidences", "logits",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    name: str
    kind: FeatureKind
    sensitive: bool = False  # its categories are never named anywhere


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSettings:
    """What an operator or a reference says about the columns; what is left out is learnt."""

    features: tuple[str, ...] | None = None  # all of them, in order; others are unexpected then
    kinds: Mapping[str, FeatureKind] = field(default_factory=dict)
    sensitive: frozenset[str] = frozenset()
    prediction: str | None = None  # name of an output
    score: str | None = None
    target: TargetKind | None = None
    classes: tuple[str, ...] | None = None  # what position 0, 1, ... of a score vector stands for
    threshold: float = 0.5  # a lone probability of the positive class is cut here


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The columns of one model."""

    features: tuple[Feature, ...]
    prediction: str | None = None  # name of the output, None when there is none to be found
    score: str | None = None
    target: TargetKind | None = None  # None until a prediction was seen or said
    classes: tuple[str, ...] | None = None
    threshold: float = 0.5

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def kinds(self) -> dict[str, FeatureKind]:
        return {feature.name: feature.kind for feature in self.features}

    def state(self) -> dict[str, Any]:
        """Plain JSON values, for snapshots."""
        return {
            "features": [[f.name, f.kind, f.sensitive] for f in self.features],
            "prediction": self.prediction,
            "score": self.score,
            "target": self.target,
            "classes": list(self.classes) if self.classes is not None else None,
            "threshold": self.threshold,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Schema":
        classes = state["classes"]
        return cls(
            features=tuple(
                Feature(name=name, kind=kind, sensitive=sensitive)
                for name, kind, sensitive in state["features"]
            ),
            prediction=state["prediction"],
            score=state["score"],
            target=state["target"],
            classes=tuple(classes) if classes is not None else None,
            threshold=state["threshold"],
        )


def feature_names(inference: Inference, known: Sequence[str] | None) -> tuple[str, ...]:
    """The d names of an inference's columns.

    Names that the protocol carried hold. Positional features take the known names when there
    are as many of them, and are called `f0`, `f1`, ... otherwise.
    """
    if inference.names is not None:
        return inference.names
    if known is not None and len(known) == inference.width:
        return tuple(known)
    return tuple(f"f{position}" for position in range(inference.width))


def category(value: Value) -> str | None:
    """A cell or label as the name of its category, the same for 1, 1.0 and "1".

    >>> category(1.0), category(True), category("1"), category(0.5), category(None)
    ('1', 'true', '1', '0.5', None)
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def choose_outputs(
    outputs: Outputs, settings: SchemaSettings | Schema
) -> tuple[str | None, str | None]:
    """Which output is the prediction and which the score; None where there is none.

    What is configured holds. Otherwise a lone output is the prediction; among several the
    usual names decide, and failing these the first that is not called like a score.
    """
    names = list(outputs)
    score = settings.score
    if score is None:
        score = _first_called(names, _SCORE_NAMES, except_for=settings.prediction)
    prediction = settings.prediction
    if prediction is None and len(names) == 1:
        return names[0], (None if score == names[0] else score)
    if prediction is None:
        prediction = _first_called(names, _PREDICTION_NAMES, except_for=score)
    if prediction is None:
        prediction = next((name for name in names if name != score), None)
    return prediction, score


def _first_called(
    names: Sequence[str], usual: Sequence[str], *, except_for: str | None
) -> str | None:
    """The output with the most usual name; `result.label` counts as `label`."""
    plain = {name.lower(): name for name in reversed(names) if name != except_for}
    last = {name.lower().rpartition(".")[2]: name for name in reversed(names) if name != except_for}
    for wanted in usual:
        if wanted in plain:
            return plain[wanted]
        if wanted in last:
            return last[wanted]
    return None


def outcome(schema: Schema, outputs: Outputs) -> tuple[Column | None, NDArray[np.float64] | None]:
    """The prediction and the score of each of n rows, None for what there is not.

    A prediction is an object array of category names (None where missing) when the target is
    a class, float64 otherwise. A vector of scores gives the class at its maximum, and as score
    that maximum, of two classes the second's. A score is between 0 and 1 when the model gives
    probabilities.
    """
    said = outputs.get(schema.prediction) if schema.prediction is not None else None
    scores = outputs.get(schema.score) if schema.score is not None else None
    score = _best(scores, None)[1] if scores is not None else None
    if said is None or schema.target is None:
        return None, score
    if any(isinstance(entry, list | tuple) for entry in said):
        if schema.target == "number":
            return None, score  # several numbers at once: which of them is a matter of settings
        classes, heights = _best(said, schema.classes)
        return classes, heights if score is None else score
    values = cast(Sequence[Value], said)
    if schema.target == "number":
        return numbers(values)[0], score
    if schema.score is None and _is_probability(values):
        probability = numbers(values)[0]
        return _cut(probability, schema), probability
    return objects([category(value) for value in values]), score


def class_scores(schema: Schema, outputs: Outputs) -> NDArray[np.float64] | None:
    """The scores of all classes, [n, classes], of a model of more than two; None for any other.

    NaN where a row has none, or as many as no other.
    """
    if schema.target == "number":
        return None
    for name in (schema.score, schema.prediction):
        entries = outputs.get(name) if name is not None else None
        lists = [e if isinstance(e, list | tuple) else () for e in entries or ()]
        width = max(map(len, lists), default=0)
        if 2 < width <= CLASS_SCORES_MAX:
            none: Sequence[Value] = (None,) * width
            cells = [cell for row in lists for cell in (row if len(row) == width else none)]
            return numbers(cells)[0].reshape(len(lists), width)
    return None


def numbers(values: Sequence[Value]) -> tuple[NDArray[np.float64], int]:
    """Values as float64, and how many were of another type: these are NaN, like null.

    >>> numbers([1, True, None, "12"])
    (array([ 1.,  1., nan, nan]), 1)
    """
    if set(map(type, values)) <= {int, float, bool, type(None)}:
        return np.array(values, dtype=np.float64), 0
    plain = [None if isinstance(value, str | list) else value for value in values]
    changed = sum(isinstance(value, str | list) for value in values)
    return np.array(plain, dtype=np.float64), changed


def objects(values: Sequence[object]) -> NDArray[np.object_]:
    """A one-dimensional object array, whatever the values are."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _is_probability(values: Sequence[Value]) -> bool:
    """Lone floats between 0 and 1, one of them neither: a sigmoid's, not a class number."""
    floats = [value for value in values if isinstance(value, float)]
    return (
        len(floats) == len(values)
        and all(0.0 <= value <= 1.0 for value in floats)
        and any(0.0 < value < 1.0 for value in floats)
    )


def _cut(probability: NDArray[np.float64], schema: Schema) -> NDArray[np.object_]:
    negative, positive = (schema.classes or ("0", "1"))[:2]
    return np.where(probability >= schema.threshold, positive, negative).astype(object)


def _best(
    entries: Sequence[Value | Sequence[Value]], classes: tuple[str, ...] | None
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """The class with the highest score of each row, and its score; None and NaN without one.

    Of two classes the score is the second's, the positive one's, whichever is higher: that is what
    estimates and calibration are about. A lone entry is a score of its own; as a class it is named
    by itself.
    """
    lists = [entry if isinstance(entry, list | tuple) else [entry] for entry in entries]
    width = max(map(len, lists), default=0)
    padded = [[*row, *[None] * (width - len(row))] for row in lists]
    scores = numbers([cell for row in padded for cell in row])[0].reshape(len(lists), width)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    if not width:
        return objects([None] * len(lists)), np.full(len(lists), np.nan)
    places = scores.argmax(axis=1)
    heights = scores[np.arange(len(lists)), places]
    known = len(classes) if classes is not None else 0
    labels: list[str | None] = [
        classes[place] if classes is not None and place < known else str(place)
        for place in places.tolist()
    ]
    for row, entry in enumerate(entries):
        if heights[row] == -np.inf:
            labels[row] = None
        elif not isinstance(entry, list | tuple):
            labels[row] = category(cast(Value, entry))
    if width == 2:
        pairs = np.array([len(row) == 2 for row in lists])
        heights = np.where(pairs, scores[:, 1], heights)
    return objects(labels), np.where(heights == -np.inf, np.nan, heights)
