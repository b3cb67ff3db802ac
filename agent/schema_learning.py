"""Learns a schema from the first rows of traffic, within what configuration says.

Do not let a schema change after it settled: detectors and references are built on it. A model
whose columns change is a new version, and `reference accept` is where a person says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from agent.inference import Inference, Value
from agent.schema import (
    Feature,
    FeatureKind,
    Schema,
    SchemaSettings,
    TargetKind,
    choose_outputs,
    feature_names,
)

# A text is what people write: longer than a category's name, or more than a few words.
TEXT_CHARACTERS_MEAN = 64.0
TEXT_WORDS_MEAN = 6.0
# Class labels that are whole numbers are few and small; others are counts or amounts.
CLASS_NUMBER_MIN, CLASS_NUMBER_MAX = -1, 99
CLASSES_MAX = 50
OUTPUTS_MAX = 64

Said: TypeAlias = Value | Sequence[Value]


@dataclass(slots=True, kw_only=True)
class _CellVotes:
    """What the cells of one feature were."""

    numeric: int = 0
    boolean: int = 0
    strings: int = 0
    characters: int = 0
    words: int = 0

    def add(self, cells: Iterable[Value]) -> None:
        for cell in cells:
            if isinstance(cell, str):
                self.strings += 1
                self.characters += len(cell)
                self.words += cell.count(" ") + 1
            elif isinstance(cell, bool):
                self.boolean += 1
            elif cell is not None and cell == cell:
                self.numeric += 1

    def kind(self) -> FeatureKind:
        """The majority's; numeric when nothing but null was seen, because NaN fits there."""
        if self.strings > max(self.numeric, self.boolean):
            is_text = (
                self.characters / self.strings > TEXT_CHARACTERS_MEAN
                or self.words / self.strings > TEXT_WORDS_MEAN
            )
            return "text" if is_text else "categorical"
        return "boolean" if self.boolean > self.numeric else "numeric"


@dataclass(slots=True, kw_only=True)
class _OutputVotes:
    """What the entries of one output were."""

    names: int = 0  # strings and booleans
    whole: int = 0  # numbers that may be class labels
    amounts: int = 0  # other numbers
    probabilities: int = 0  # vectors that add up to one
    vectors: int = 0  # other vectors
    distinct: set[float] = field(default_factory=set)

    def add(self, entries: Iterable[Said]) -> None:
        for entry in entries:
            if isinstance(entry, str | bool):
                self.names += 1
            elif isinstance(entry, int | float):
                self._add_number(float(entry))
            elif isinstance(entry, Sequence):
                if _adds_up_to_one(entry):
                    self.probabilities += 1
                else:
                    self.vectors += 1

    def _add_number(self, number: float) -> None:
        if number.is_integer() and CLASS_NUMBER_MIN <= number <= CLASS_NUMBER_MAX:
            self.whole += 1
            self.distinct.add(number)  # bounded by the range
        elif number == number:
            self.amounts += 1

    def target(self) -> TargetKind | None:
        if self.vectors > self.names + self.whole + self.amounts + self.probabilities:
            return None  # several numbers at once, or logits: only a person knows
        classes = self.names + self.probabilities
        if not self.amounts and len(self.distinct) <= CLASSES_MAX:
            classes += self.whole
        if classes:
            return "class" if classes >= self.amounts else "number"
        return "number" if self.amounts + self.whole else None


def _adds_up_to_one(entry: Sequence[Value]) -> bool:
    if len(entry) < 2 or not all(isinstance(value, int | float) for value in entry):
        return False
    scores = np.array(entry, dtype=np.float64)
    return bool((scores >= 0).all() and abs(scores.sum() - 1.0) < 0.01)


class SchemaLearner:
    """The schema as far as it is known; it settles after `rows_max` rows.

    Before that each look may give a better one: kinds go by majority, new columns are added in
    the order of their first appearance. Whole numbers stay numeric however few they are: only
    strings make a category by themselves. What `settings` says is never overruled, and with
    `settings.features` no other feature is added.
    """

    def __init__(
        self,
        settings: SchemaSettings | None = None,
        *,
        rows_max: int = 1_000,
        columns_max: int = 5_000,
    ) -> None:
        self.settings = settings if settings is not None else SchemaSettings()
        self.rows_max = rows_max
        self.columns_max = columns_max
        self.rows = 0
        self._cells: dict[str, _CellVotes] = {
            name: _CellVotes() for name in self.settings.features or ()
        }
        self._outputs: dict[str, _OutputVotes] = {}
        self._schema: Schema | None = None

    @property
    def settled(self) -> bool:
        return self.rows >= self.rows_max

    @property
    def schema(self) -> Schema:
        if self._schema is None:
            self._schema = self._conclude()
        return self._schema

    def observe(self, inference: Inference) -> None:
        """Learns from one inference; without effect once settled."""
        if self.settled:
            return
        rows = inference.rows[: self.rows_max - self.rows]
        self.rows += len(rows)
        self._schema = None
        names = feature_names(inference, self.settings.features)
        if isinstance(rows, np.ndarray):
            numbers = np.count_nonzero(~np.isnan(rows), axis=0).tolist()
            for name, count in zip(names, numbers, strict=True):
                if (votes := self._votes(name)) is not None:
                    votes.numeric += count
        else:
            for name, cells in zip(names, zip(*rows, strict=True), strict=True):
                if (votes := self._votes(name)) is not None:
                    votes.add(cells)
        for name, entries in inference.outputs.items():
            if name in self._outputs or len(self._outputs) < OUTPUTS_MAX:
                self._outputs.setdefault(name, _OutputVotes()).add(entries[: len(rows)])

    def state(self) -> dict[str, Any]:
        """Plain JSON values: the conclusion when settled, nothing to go on from before that.

        A restart while learning begins to learn again: a thousand rows are quickly had.
        """
        return {"schema": self.schema.state() if self.settled else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        if state["schema"] is not None:
            self._schema = Schema.restore(state["schema"])
            self.rows = self.rows_max

    def _votes(self, name: str) -> _CellVotes | None:
        votes = self._cells.get(name)
        if votes is None and self.settings.features is None and len(self._cells) < self.columns_max:
            votes = self._cells[name] = _CellVotes()
        return votes

    def _conclude(self) -> Schema:
        said = self.settings
        prediction, score = choose_outputs(dict.fromkeys(self._outputs, ()), said)
        seen = self._outputs.get(prediction) if prediction is not None else None
        return Schema(
            features=tuple(
                Feature(
                    name=name,
                    kind=said.kinds.get(name) or votes.kind(),
                    sensitive=name in said.sensitive,
                )
                for name, votes in self._cells.items()
            ),
            prediction=prediction,
            score=score,
            target=said.target or (seen.target() if seen is not None else None),
            classes=said.classes,
            threshold=said.threshold,
        )
