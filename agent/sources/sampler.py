"""Which ids a source keeps, for sources that no edge has sampled before.

The decision is the one the edge makes, by the same hash: a row and its label, or the two halves of
an exchange, are kept together or not at all. Ask it once for each exchange.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.exchange import Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """`keeps` says whether an id is kept now, `weight` for how many a kept one stands."""

    keeps: Callable[[str], bool]
    weight: Callable[[], float]

    def weigh(self, exchange: Exchange) -> Exchange:
        """The exchange with the weight of one that was kept now."""
        weight = self.weight()
        known = math.isfinite(weight) and weight >= 1.0
        return replace(exchange, weight=weight if known else 1.0, uniform=known)


def keep_all() -> Sampler:
    """For whom nothing was configured: everything is kept, and counts once."""
    return Sampler(keeps=lambda id: True, weight=lambda: 1.0)
