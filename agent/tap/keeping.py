"""Which of the exchanges that pass are kept, by the edge's own draw and the edge's own rates.

Do not decide in another way here: analysis asks `agent/sampling.py` what was decided about an id,
wherever it was seen.

Sampling of connections comes before this, in the kernel. An exchange then was kept with the product
of both probabilities, and its weight says so; over all salts that is exact. But rows of one
connection come from one client, and are in or out together: a sample of connections is one of
clusters, and on few busy connections all or nothing. So such rows count in estimates, by their
weight, and are never evidence of drift, which supposes rows that were drawn one by one. While all
connections are seen only the draw decides, and the uniform stratum is as good as the edge's.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from agent.edge.capture import Rates
from agent.edge.draw import hasher, number

if TYPE_CHECKING:
    from agent.wire.pair import Pair


class Keeping:
    """Draws, compares, weighs."""

    def __init__(self, *, rate: float, salt: bytes, flow_weight: float) -> None:
        self._flow_weight = flow_weight
        self.set_sampling(rate=rate, salt=salt)

    def set_sampling(
        self,
        *,
        rate: float,
        salt: bytes,
        also: float = 0.0,
        errors: float = 0.0,
        error_codes: Collection[str] = (),
    ) -> None:
        """From the next exchange on. Raises ValueError on a rate that is none."""
        self._rates = Rates(uniform=rate, also=also, errors=errors, error_codes=error_codes)
        self._copy = hasher(salt).copy

    def decide(self, pair: "Pair") -> None:
        """Whether its bytes are held until its end is known."""
        rates = pair.rates = self._rates
        if rates.drawn:
            hash = self._copy()
            hash.update(pair.id)
            pair.draw = number(hash.digest())[0]
        pair.kept = pair.draw < rates.below

    def weight(self, pair: "Pair", code: int) -> float | None:
        """For how many exchanges a finished one stands, None when it is not kept after all.

        `code` is its position in agent.edge.counters.CODES.
        """
        rates: Rates = pair.rates
        is_error = rates.errors[code]
        if pair.draw >= rates.kept_below and not is_error:
            return None
        return (rates.error_weight if is_error else rates.weight) * self._flow_weight

    def uniform(self, pair: "Pair") -> bool:
        rates: Rates = pair.rates
        return self._flow_weight == 1.0 and pair.draw < rates.uniform_below
