"""One decoded exchange: what the model was asked and what it said, as rows and outputs.

Do not let a decoder alter a value: an inference says what crossed the wire. Naming positional
features, choosing the prediction among the outputs and converting kinds belong to `schema`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.exchange import Exchange
from agent.generation import Generation

Value: TypeAlias = float | int | bool | str | None
Rows: TypeAlias = NDArray[np.float64] | Sequence[Sequence[Value]]
Outputs: TypeAlias = Mapping[str, Sequence[Value | Sequence[Value]]]

# What a request id may look like. Anything else would end up in URLs, logs and SQL as it came.
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """The n rows of one request and the n answers to them.

    `rows` is an n x d float64 matrix when every cell is a number or null (null is NaN then),
    otherwise n sequences of d values as they came (missing is None, or NaN). `outputs` gives
    each output n entries: a scalar, or a list of scores; it is empty when the answer is nothing
    that fits in columns (boxes around objects, say): the features are still worth watching.
    """

    id: str  # the id that labels are joined by
    aliases: tuple[str, ...]  # the other ids that the exchange is known by
    at: float  # unix seconds, when the request came
    version: str
    slot: Literal["stable", "candidate"]
    weight: float  # 1 / probability of having been kept
    uniform: bool  # kept by the uniform stratum: only such rows are evidence
    latency_s: float
    names: tuple[str, ...] | None  # feature names the protocol carried, None when positional
    rows: Rows
    outputs: Outputs
    # n x d each: what is a point in a space and no d columns, embeddings above all.
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    generation: Generation | None = None  # of a language model
    # n each, and only when `capture.text` asks for them: nothing else may hold what people wrote.
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def row_count(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """How many features each row has; never 0."""
        return len(self.rows[0])


def acceptable_id(text: object) -> bool:
    """Whether this may serve as a request id: 1 to 128 of `A-Z a-z 0-9 . _ : -`."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def identify(exchange: Exchange, *body_ids: object) -> tuple[str, tuple[str, ...]]:
    """The id labels are joined by, and the others this exchange is known by.

    `body_ids` are the ids found in the request's and the response's body, in that order;
    what is no acceptable id is passed over. The first of them wins over a trace's id and a
    minted one, never over `x-request-id` or `ce-id`, which somebody chose for this purpose.
    """
    found = [text for text in body_ids if isinstance(text, str) and acceptable_id(text)]
    if exchange.id_from in ("x-request-id", "ce-id"):
        ranked = [exchange.id, *found]
    else:
        ranked = [*found, exchange.id]
    first, *others = dict.fromkeys(ranked)
    return first, tuple(others)
