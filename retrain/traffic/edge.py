"""Traffic through our own edge: every route goes over the channel to the edge process.

The edge holds the lease: without a renewal within `lease_s` it drops the candidate's weight by
itself. The adapter remembers the last route it was asked for, so that a renewal says it again.
"""

import math
from typing import Protocol

from retrain.rollout_messages import Slot
from retrain.traffic.traffic import Backend, Capabilities, Route, TrafficError


class EdgeChannel(Protocol):
    """The way to the edge process, which the agent owns."""

    async def send_route(
        self,
        generation: int,
        *,
        stable: tuple[str, str],
        candidate: tuple[str, str] | None,
        weight: float,
        lease_s: float,
    ) -> int:
        """Addresses with versions; returns the generation that the edge now has.

        Raises OSError or TimeoutError when the edge does not answer.
        """
        ...


class EdgeTraffic:
    """The built-in data plane: any share, changed for every request at once."""

    capabilities = Capabilities(
        weights=True, mirror=False, versions=False, atomic_swap=True, lease=True
    )

    def __init__(
        self, channel: EdgeChannel, *, stable: Slot, lease_s: float = 10.0, generation: int = -1
    ) -> None:
        self._channel = channel
        self._lease_s = lease_s
        self._backends: dict[Slot, Backend | None] = {"A": None, "B": None}
        self._route = Route(generation=generation, stable=stable, weight=0.0)
        self._confirmed: int | None = None

    def place(self, slot: Slot, backend: Backend | None) -> None:
        self._backends[slot] = backend

    async def set_weights(self, *, generation: int, candidate_weight: float) -> Route:
        if not (math.isfinite(candidate_weight) and 0 <= candidate_weight <= 1):
            raise ValueError(f"weight {candidate_weight} is not between 0 and 1")
        if generation < self._route.generation:
            return self._route
        stable = self._route.stable
        return await self._send(
            Route(generation=generation, stable=stable, weight=candidate_weight)
        )

    async def make_stable(self, *, generation: int, slot: Slot) -> Route:
        if generation < self._route.generation:
            return self._route
        return await self._send(Route(generation=generation, stable=slot, weight=0.0))

    async def renew(self) -> None:
        if self._route.weight > 0:
            await self._send(self._route)

    async def read_back(self) -> Route | None:
        return self._route if self._confirmed == self._route.generation else None

    async def _send(self, route: Route) -> Route:
        stable = self._backends[route.stable]
        candidate = self._backends["B" if route.stable == "A" else "A"]
        if stable is None:
            raise ValueError(f"slot {route.stable} is empty and cannot be stable")
        if candidate is None and route.weight > 0:
            raise ValueError(f"an empty slot cannot get {route.weight:.0%}")
        # Remembered before it is known to have arrived: a lost answer must not bring back an
        # earlier route with the next renewal.
        self._route, self._confirmed = route, None
        try:
            self._confirmed = await self._channel.send_route(
                route.generation,
                stable=(stable.address, stable.version),
                candidate=None if candidate is None else (candidate.address, candidate.version),
                weight=route.weight,
                lease_s=self._lease_s,
            )
        except (OSError, TimeoutError) as error:
            raise TrafficError(
                f"the edge did not take route {route.generation}: {error}"
            ) from error
        if self._confirmed != route.generation:
            raise TrafficError(f"the edge has route {self._confirmed}, not {route.generation}")
        return route
