"""Ticks of made-up rows, for the tests of whatever takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.batch import Batch
from agent.schema import Feature, Schema, objects

SCHEMA = Schema(
    features=(
        Feature(name="age", kind="numeric"),
        Feature(name="job", kind="categorical"),
    ),
    prediction="y",
    target="class",
)


def tick(ids: Sequence[str], **changes: Any) -> Batch:
    """One row per id; an id that comes again right after itself is the next row of its request.

    `changes` replaces fields of the batch; `predictions` gives the prediction as a list.
    """
    count = len(ids)
    numbers: list[int] = []
    for place, id in enumerate(ids):
        again = place > 0 and ids[place - 1] == id
        numbers.append(numbers[-1] + 1 if again else 0)
    predictions = changes.pop("predictions", ["yes"] * count)
    at = changes.pop("at", 100.0)
    fields: dict[str, Any] = {
        "version": "v1",
        "slot": "stable",
        "rows": count,
        "opened_at": 100.0,
        "closed_at": 160.0,
        "ids": tuple(ids),
        "row_numbers": np.array(numbers),
        "aliases": {},
        "at": np.broadcast_to(np.asarray(at, dtype=float), count),
        "weight": np.ones(count),
        "uniform": np.ones(count, dtype=bool),
        "columns": columns(count),
        "prediction": column(predictions),
        "score": None,
        "scores": None,
        "schema": SCHEMA,
        "type_changes": {},
        "unexpected": {},
    }
    return Batch(**(fields | changes))


def column(values: Sequence[Any] | None) -> Any:
    """A column as batches have them: float64, or objects."""
    if values is None:
        return None
    if all(isinstance(value, int | float) for value in values):
        return np.array(values, dtype=float)
    return objects(values)


def columns(count: int, seed: int = 1, shift: float = 0.0) -> Mapping[str, Any]:
    """Rows of SCHEMA."""
    rng = np.random.default_rng(seed)
    jobs = rng.choice(["clerk", "nurse", "smith"], count, p=[0.5, 0.3, 0.2])
    return {"age": rng.normal(40 + shift, 9, count), "job": objects(jobs.tolist())}
