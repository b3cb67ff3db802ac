"""The contract of whoever splits traffic between the stable and the candidate slot.

What may be assumed: a route has a generation, and a lower one than the last is ignored, so that an
order delayed by a crash cannot undo a later one. A call returns once the data plane has the route
or raises `TrafficError`; it may be repeated without harm. With the `lease` capability the
candidate's weight falls to 0 by itself when nobody renews in time; without it, `renew` does
nothing and whoever drives the rollout has to know. An adapter never guesses: what it cannot read
back is None.
"""

from dataclasses import dataclass
from typing import Protocol

from retrain.rollout_messages import Slot


class TrafficError(Exception):
    """The data plane did not take the route or did not answer; trying again later may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """weights: shares other than 0 and 1. mirror: copies of requests. versions: several models by
    name. atomic_swap: `make_stable` is one step for every request. lease: see the module."""

    weights: bool
    mirror: bool
    versions: bool
    atomic_swap: bool
    lease: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Where a slot answers, and the version that its answers carry."""

    address: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Who gets what: `weight` is the candidate slot's share in [0, 1]."""

    generation: int
    stable: Slot
    weight: float


class Traffic(Protocol):
    """One data plane in front of two slots."""

    @property
    def capabilities(self) -> Capabilities: ...

    def place(self, slot: Slot, backend: Backend | None) -> None:
        """Say where a slot answers; takes effect with the next route. None: it is empty."""
        ...

    async def set_weights(self, *, generation: int, candidate_weight: float) -> Route:
        """Give the slot that is not stable this share. Returns the route in force.

        ValueError: a weight outside [0, 1], or one above 0 for an empty slot.
        """
        ...

    async def make_stable(self, *, generation: int, slot: Slot) -> Route:
        """All traffic to this slot, the stable one from now on. ValueError: it is empty."""
        ...

    async def renew(self) -> None:
        """Whoever watches the candidate is alive."""
        ...

    async def read_back(self) -> Route | None:
        """The route as the data plane has it."""
        ...
