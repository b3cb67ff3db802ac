"""Which ids a source keeps, for sources that no edge has sampled before.

The decision is the one the edge makes, by the same hash: a row and its label, or the two halves of
an exchange, are kept together or not at all. Ask it once for each exchange.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """`keeps` says whether an id is kept now, `weight` for how many a kept one stands."""

    keeps: Callable[[str], bool]
    weight: Callable[[], float]


def keep_all() -> Sampler:
    """For whom nothing was configured: everything is kept, and counts once."""
    return Sampler(keeps=lambda id: True, weight=lambda: 1.0)
