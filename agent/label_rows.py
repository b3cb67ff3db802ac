"""What the join of labels is about: a label, a prediction that has one, and their form on disk."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from agent.batch import Batch
from agent.label_database import key_of, select_in
from detectors.rows.columns import category_keys

LabelValue: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What turned out true for one row of one request; `at` in unix seconds when it was known."""

    request_id: str
    row: int = 0
    label: LabelValue
    at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A prediction and its label. `old_label` is set when a label was corrected."""

    id: str
    row: int
    prediction: LabelValue | None
    score: float | None
    label: LabelValue
    old_label: LabelValue | None = None
    version: str
    slot: str
    weight: float
    uniform: bool
    predicted_at: float
    labelled_at: float
    # Of the attributes that fairness is asked about; empty where the row had none.
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def delay_s(self) -> float:
        """How long the truth took, in seconds; 0 for clocks that disagree."""
        return max(0.0, self.labelled_at - self.predicted_at)


# The columns that a joined row is made of.
ROW: Final = (
    "id, row, prediction, score, version, slot, weight, uniform, at, groups, label, labelled_at"
)


def joined_row(values: Sequence[Any], old_label: str | None) -> Joined:
    """A row of the table as `ROW` lists it; `old_label` as JSON text."""
    id, row, said, score, version, slot, weight, uniform, at, groups, label, labelled_at = values
    return Joined(
        id=id,
        row=row,
        prediction=None if said is None else label_value(said),
        score=score,
        label=label_value(label),
        old_label=None if old_label is None else label_value(old_label),
        version=version,
        slot=slot,
        weight=weight,
        uniform=bool(uniform),
        predicted_at=at,
        labelled_at=labelled_at,
        groups={} if groups is None else json.loads(groups),
    )


def label_text(value: LabelValue) -> str:
    """A label as JSON text, the same for 1 and 1.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return json.dumps(value)


def prediction_records(
    batch: Batch, keys: dict[str, int], attributes: Sequence[str] = ()
) -> Iterator[tuple[Any, ...]]:
    """Rows of the table `predictions`, from `key` to `uniform`, and the groups of each."""
    assert batch.prediction is not None
    scores = [None] * batch.rows if batch.score is None else batch.score.tolist()
    version, slot = batch.version, batch.slot
    rows = zip(
        batch.ids,
        batch.row_numbers.tolist(),
        batch.at.tolist(),
        batch.prediction.tolist(),
        scores,
        batch.weight.tolist(),
        batch.uniform.tolist(),
        _group_texts(batch, attributes),
        strict=True,
    )
    texts: dict[Any, str | None] = {}
    for id, row, at, said, score, weight, uniform, groups in rows:
        text = texts.get(said, "")
        if text == "":
            text = texts[said] = _prediction_text(said)
        score = None if score is None or score != score else score
        yield keys[id], row, id, at, version, slot, text, score, weight, uniform, groups


def _group_texts(batch: Batch, attributes: Sequence[str]) -> list[str | None]:
    """The groups of each row as JSON text; None where it has none."""
    named = [name for name in attributes if name in batch.columns]
    if not named:
        return [None] * batch.rows
    known: dict[tuple[str | None, ...], str | None] = {}
    texts = []
    for groups in zip(
        *(category_keys(batch.columns[name]).tolist() for name in named), strict=True
    ):
        if groups not in known:
            found = {n: group for n, group in zip(named, groups, strict=True) if group is not None}
            known[groups] = json.dumps(found) if found else None
        texts.append(known[groups])
    return texts


def _prediction_text(value: object) -> str | None:
    """A prediction as JSON text; None when there is none."""
    if value is None or value != value:
        return None
    return json.dumps(value)


def label_value(text: str) -> LabelValue:
    """What `label_text` was given, or nearly."""
    value = json.loads(text)
    assert isinstance(value, str | int | float | bool)
    return value


def labels_of(
    connection: sqlite3.Connection, ids: Sequence[str]
) -> dict[tuple[str, int], LabelValue]:
    """Request ids to the labels of their rows."""
    found = select_in(
        connection,
        "SELECT id, row, label, duplicate FROM predictions",
        [key_of(id) for id in dict.fromkeys(ids)],
    )
    return {
        (str(id), int(str(row))): label_value(str(label))
        for id, row, label, twice in found
        if label is not None and not twice
    }
