"""What analysis counts of calls on spliced HTTP/2 connections: sums by version, route, method.

The edge cannot read compressed headers, so unlike requests of HTTP/1.1 these are counted here, in
the same cells with the same bounds. They begin at zero with analysis. What must not break: labels
come from clients, so only what a server knows gets a name of its own, and only so many.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from agent.edge.channel import OUTCOME_NAMES
from agent.edge.counters import BOUNDS_S, CODES, Cell
from agent.edge.routing import Routes
from agent.sources.grpc_calls import CallEnded
from agent.sources.proxy import RouteCounters

GRPC_ROUTE: Final = "grpc"  # of calls that no configured pattern matches
OTHER: Final = "other"
METHODS_MAX: Final = 100
VERSIONS_MAX: Final = 64


class CallTotals:
    """Keeps the contract of `grpc_calls.CallTally`."""

    bounds_s = BOUNDS_S

    def __init__(self, routes: tuple[tuple[str, str], ...] = ()) -> None:
        self._routes = Routes(routes)
        self._cells: dict[tuple[str, str], Cell] = {}
        self._methods: set[str] = set()
        self.grpc: Counter[tuple[str, str, str]] = Counter()  # version, method, status

    def begun(self, version: str, path: str, *, is_grpc: bool) -> None:
        self._cell(version, path, is_grpc=is_grpc).in_flight += 1

    def lost(self, version: str, path: str, *, is_grpc: bool) -> None:
        self._cell(version, path, is_grpc=is_grpc).in_flight -= 1

    def ended(self, call: CallEnded) -> None:
        status = call.grpc_status
        cell = self._cell(call.version, call.path, is_grpc=status is not None)
        outcome = OUTCOME_NAMES.index(call.outcome)
        cell.finished(outcome, call.status, call.duration_s, call.first_byte_s)
        if status is not None:
            self.grpc[self._version(call.version), self._method(call.path, status), status] += 1

    def routes(self) -> Iterator[RouteCounters]:
        """The sums, in the form in which an edge tells its own."""
        for (version, route), cell in self._cells.items():
            cell.fold()
            yield RouteCounters(
                version=version,
                route=route,
                codes=dict(zip(CODES, cell.codes, strict=True)),
                in_flight=cell.in_flight,
                duration_counts=tuple(cell.duration),
                duration_sum_s=cell.duration_sum_s,
                first_byte_counts=tuple(cell.first_byte),
                first_byte_sum_s=cell.first_byte_sum_s,
            )

    def _cell(self, version: str, path: str, *, is_grpc: bool) -> Cell:
        route = self._routes.names[self._routes.index(path.encode("utf-8", "replace"))]
        if is_grpc and route == OTHER:
            route = GRPC_ROUTE
        key = (self._version(version), route)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell()
        return cell

    def _version(self, version: str) -> str:
        """Promotions come for months; a table of them must not grow for as long."""
        known = {found for found, _ in self._cells}
        return version if version in known or len(known) < VERSIONS_MAX else OTHER

    def _method(self, path: str, status: str) -> str:
        """A method that the server does not know is one that a stranger has made up."""
        method = path.removeprefix("/")
        if method in self._methods:
            return method
        if status == "UNIMPLEMENTED" or len(self._methods) >= METHODS_MAX:
            return OTHER
        self._methods.add(method)
        return method
