"""What the sampling that an exchange went through means for the rows that come out of it.

The edge alone decides what is kept, by a keyed hash of the request id. Do not decide again
here: two decisions with unrelated probabilities would make both weights wrong. `edge_keeps` only
says what it decided, for those who ask about an id that never arrived.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from agent.exchange import Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How one exchange counts: for how many it stands, and whether it may be evidence."""

    weight: float  # 1 / probability of having been kept, at least 1
    uniform: bool


def kept(exchange: Exchange) -> Kept:
    """The weight and the stratum of an exchange.

    A weight that no probability can have (below 1, not finite) comes from a
    source that does not know its own sampling: such rows are counted once and are no evidence.
    """
    if math.isfinite(exchange.weight) and exchange.weight >= 1.0:
        return Kept(weight=exchange.weight, uniform=exchange.uniform)
    return Kept(weight=1.0, uniform=False)


_HASHES: Final = 1 << 64


def edge_keeps(id: str, *, rate: float, salt: bytes) -> bool:
    """Whether the edge keeps a request of that id at that rate: its very hash, see edge/capture.py.

    >>> sum(edge_keeps(str(n), rate=0.25, salt=b"salt") for n in range(1_000))
    250
    """
    below = int(rate * _HASHES)
    if below >= _HASHES:
        return True
    digest = blake2b(id.encode(), digest_size=8, key=salt[:64], person=b"keep").digest()
    return int.from_bytes(digest, "little") < below


@dataclass(slots=True, kw_only=True)
class SamplingTally:
    """The sampling rate that was truly in force: rows seen over the rows they stand for."""

    rows: int = 0
    represented: float = 0.0

    def add(self, rows: int, weight: float) -> None:
        self.rows += rows
        self.represented += rows * weight

    @property
    def rate(self) -> float:
        """Between 0 and 1; 1 before anything was seen."""
        return self.rows / self.represented if self.rows else 1.0


def effective_rows(weights: Iterable[float]) -> float:
    """Kish's effective number of rows: how many equally weighted rows say as much.

    >>> effective_rows([1.0, 1.0, 1.0, 1.0])
    4.0
    >>> effective_rows([7.0, 1.0])
    1.28
    """
    total = squares = 0.0
    for weight in weights:
        total += weight
        squares += weight * weight
    return total * total / squares if squares else 0.0
