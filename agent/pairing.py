"""Two answers to one request: the stable model's, and the candidate's to its copy.

Everything is bounded: an answer waits for the other for a while and among so many, then it is
given up and counted. Pairs say how often the models differ, never which of them is right.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from agent.inference import Inference
from agent.schema import Column, Schema, outcome

WAITING_MAX = 10_000
WAIT_S = 120.0
Unpaired: TypeAlias = Literal["expired", "overflow", "shape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    shadow: bool
    prediction: Column
    at: float


class Pairs:
    """The pairs of one rollout, compared as they become whole."""

    def __init__(self, *, tolerance: float) -> None:
        self._tolerance = tolerance
        self._waiting: OrderedDict[str, _Answer] = OrderedDict()
        self.compared = 0
        self.disagreeing = 0
        self.invalid = 0  # answers to copies that hold NaN or infinity
        self.unpaired: Counter[Unpaired] = Counter()

    @property
    def disagreement(self) -> float | None:
        """The share of pairs in which the answers differ; None before the first."""
        return self.disagreeing / self.compared if self.compared else None

    def by_agreement(self) -> dict[str, int]:
        """Pairs whose answers agree, and those whose answers differ."""
        return {"agree": self.compared - self.disagreeing, "differ": self.disagreeing}

    def as_json(self) -> dict[str, Any]:
        """What is shown of them."""
        return {
            "compared": self.compared,
            "disagreeing": self.disagreeing,
            "disagreement": self.disagreement,
            "unpaired": dict(self.unpaired),
        }

    def take(self, inference: Inference, schema: Schema, *, shadow: bool, now: float) -> None:
        """One model's answer.

        A pair counts once, whatever its rows: rows of one request are no independent witnesses.
        Before it is known what the prediction is, there is nothing to compare.
        """
        self._expire(now)
        prediction, _ = outcome(schema, inference.outputs)
        if prediction is None:
            return
        if shadow and prediction.dtype.kind == "f" and not np.isfinite(prediction).all():
            self.invalid += 1
        other = self._waiting.get(inference.id)
        if other is None or other.shadow == shadow:
            self._wait(inference.id, _Answer(shadow=shadow, prediction=prediction, at=now))
            return
        del self._waiting[inference.id]
        if other.prediction.shape != prediction.shape:
            self.unpaired["shape"] += 1
            return
        self.compared += 1
        self.disagreeing += not _agree(other.prediction, prediction, self._tolerance)

    def _wait(self, id: str, answer: _Answer) -> None:
        self._waiting[id] = answer
        self._waiting.move_to_end(id)
        if len(self._waiting) > WAITING_MAX:
            _, oldest = self._waiting.popitem(last=False)
            self.unpaired["overflow"] += oldest.shadow

    def _expire(self, now: float) -> None:
        while self._waiting:
            id, oldest = next(iter(self._waiting.items()))
            if now - oldest.at <= WAIT_S:
                return
            del self._waiting[id]
            # A stable answer alone is no loss: not every request is copied.
            self.unpaired["expired"] += oldest.shadow


def _agree(one: Column, two: Column, tolerance: float) -> bool:
    """Classes by name; numbers relative to the larger, and a missing one with a missing one."""
    if one.dtype.kind == "f" and two.dtype.kind == "f":
        larger = np.maximum(np.abs(one), np.abs(two))
        with np.errstate(invalid="ignore"):  # infinity less infinity
            near = np.isfinite(larger) & (np.abs(one - two) <= tolerance * larger)
        return bool(np.all((one == two) | near | (np.isnan(one) & np.isnan(two))))
    return bool(np.all(one == two))
