"""Who answers a request: the stable upstream, or for a share of the traffic the candidate.

A hash of the client's key, else of the request id, decides, so a client that was moved to the
candidate stays there while the weight grows. The candidate's share is on a lease: when nobody
renews it in time it falls to 0, because nobody is watching the canary any more.
"""

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final

from agent.edge.counters import Cell, Counters
from agent.edge.pool import Pool
from agent.edge.settings import split_address

STABLE: Final = 0
CANDIDATE: Final = 1

_HASHES: Final = 1 << 64
# Paths come from clients: forget them all rather than keep them all.
_PATHS_MAX: Final = 4_096
# And their patterns see no more of a path than this: searching may take the square of it.
ROUTE_BYTES_MAX: Final = 512


class Slot:
    """One of the two places that can answer. Replaced, never changed, when its model is."""

    __slots__ = ("answer_head", "cells", "code", "outcomes", "pool", "version", "version_bytes")

    def __init__(self, code: int, version: str, pool: Pool, cells: list[Cell]) -> None:
        self.code = code
        self.version = version
        self.version_bytes = version.encode("utf-8", "replace")[:255]
        self.pool = pool
        self.cells = cells
        self.outcomes = bytearray()  # of requests that this slot answered, not shipped yet
        # A header value: anything but visible ASCII would let a version forge an answer.
        self.answer_head = b"\r\nx-remora-version: " + re.sub(rb"[^!-~]", b"_", self.version_bytes)


class Router:
    """The two slots, the weight between them, and the lease on it."""

    def __init__(self, *, new_pool: Callable[[str], Pool], counters: Counters, salt: bytes) -> None:
        self._new_pool = new_pool
        self._counters = counters
        self._pools: dict[str, Pool] = {}
        self._lease_until = 0.0
        self._weight = 0.0
        self._below = 0  # hashes below it go to the candidate
        self._copied_below = 0  # and of the others, those whose second hash is below it are copied
        self.salt = salt
        self.generation = -1
        self.stable: Slot
        self.candidate: Slot | None = None
        self.retired: list[Slot] = []  # replaced, but outcomes of theirs may still come

    def set_stable(self, *, address: str, version: str) -> None:
        """What the supervisor says; raises ValueError on an address that is none."""
        current = getattr(self, "stable", None)
        if current is None or (current.pool.address, current.version) != (address, version):
            self._retire(current)
            self.stable = self._slot(STABLE, address, version)
            self._close_unused()

    def route(self, message: Mapping[str, Any], now: float) -> None:
        """What analysis says. Nothing has changed if it raises KeyError, TypeError, ValueError."""
        generation = int(message["generation"])
        if generation < self.generation:
            return
        stable, candidate = message["stable"], message["candidate"]
        weight = min(1.0, max(0.0, float(message["weight"])))
        lease_s = float(message["lease_s"])
        for upstream in (stable, candidate):
            if upstream is not None:
                split_address(upstream["address"])
                str(upstream["version"])
        self.generation = generation
        self.set_stable(address=stable["address"], version=str(stable["version"]))
        current = self.candidate
        if candidate is None:
            self._retire(current)
            self.candidate = None
            weight = 0.0
        else:
            address, version = candidate["address"], str(candidate["version"])
            if current is None or (current.pool.address, current.version) != (address, version):
                self._retire(current)
                self.candidate = self._slot(CANDIDATE, address, version)
        self._weight = weight
        self._below = int(weight * _HASHES)
        self._copied_below = int(min(1.0, max(0.0, float(message.get("shadow", 0.0)))) * _HASHES)
        self._lease_until = now + lease_s
        self._close_unused()

    def weight(self, now: float) -> float:
        """The candidate's share that is truly in force."""
        return self._weight if self.candidate is not None and now <= self._lease_until else 0.0

    def watched(self, now: float) -> bool:
        """Whether somebody wants to know of every request: at weight 0 too, as in a bake."""
        return self.candidate is not None and now <= self._lease_until

    def pick(self, key: bytes, now: float) -> Slot:
        """For requests while there is a candidate; without one the stable slot is the answer."""
        candidate = self.candidate
        if candidate is None or now > self._lease_until:
            return self.stable
        return candidate if self.hash(key) < self._below else self.stable

    def copies(self, id: bytes) -> bool:
        """Whether the candidate is sent a copy, while its lease is known to hold."""
        if not self._copied_below:
            return False
        digest = blake2b(id, digest_size=8, key=self.salt, person=b"copy").digest()
        return int.from_bytes(digest, "little") < self._copied_below

    def hash(self, key: bytes) -> int:
        """64 bits that say nothing about the key, and nothing about being kept by sampling."""
        digest = blake2b(key, digest_size=8, key=self.salt, person=b"slot").digest()
        return int.from_bytes(digest, "little")

    def slots_with_outcomes(self) -> list[Slot]:
        slots = [*self.retired, self.stable]
        if self.candidate is not None:
            slots.append(self.candidate)
        return [slot for slot in slots if slot.outcomes]

    def expire(self, now: float) -> None:
        for pool in self._pools.values():
            pool.expire(now)
        self.retired = [
            slot
            for slot in self.retired
            if slot.outcomes or any(cell.in_flight for cell in slot.cells)
        ]

    def close_idle(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _slot(self, code: int, address: str, version: str) -> Slot:
        pool = self._pools.get(address)
        if pool is None:
            split_address(address)
            pool = self._pools[address] = self._new_pool(address)
        return Slot(code, version, pool, self._counters.cells(version))

    def _retire(self, slot: Slot | None) -> None:
        if slot is not None:
            self.retired.append(slot)

    def _close_unused(self) -> None:
        used = {slot.pool.address for slot in (self.stable, self.candidate) if slot is not None}
        for address in [address for address in self._pools if address not in used]:
            self._pools.pop(address).close()


class Routes:
    """Path to the name that its numbers are kept under. Position 0 is `other`.

    >>> routes = Routes((("predict", r"/v1/models/[^/]+:predict"),))
    >>> routes.names[routes.index(b"/v1/models/m:predict")], routes.names[routes.index(b"/x")]
    ('predict', 'other')
    """

    def __init__(self, patterns: tuple[tuple[str, str], ...]) -> None:
        names = ["other"]
        self._patterns: list[tuple[re.Pattern[bytes], int]] = []
        for name, pattern in patterns:
            if name not in names:
                names.append(name)
            self._patterns.append((re.compile(pattern.encode()), names.index(name)))
        self.names = tuple(names)
        self._known: dict[bytes, int] = {}

    def index(self, path: bytes) -> int:
        path = path[:ROUTE_BYTES_MAX]
        found = self._known.get(path)
        if found is None:
            found = self._match(path)
            if len(self._known) >= _PATHS_MAX:
                self._known.clear()
            self._known[path] = found
        return found

    def _match(self, path: bytes) -> int:
        for pattern, index in self._patterns:
            if pattern.search(path):
                return index
        return 0
