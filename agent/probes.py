"""What `/healthz` and `/readyz` say, from what the supervisor knows of its children.

Analysis being down shows in both and makes neither fail where traffic is relayed: restarting the
edge for it would cost requests. Where nothing is relayed analysis is all there is, and an agent
without it is live, but not ready.
"""

from collections.abc import Callable, Sequence

from agent.addresses import accepts_connection
from agent.children import Child

Answer = tuple[bool, dict[str, object]]


class Probes:
    """The two answers. `upstream` gives the stable model's address, None when nobody relays."""

    def __init__(
        self,
        *,
        edges: Sequence[Child],
        tap: Child | None,
        analysis: Child,
        upstream: Callable[[], str | None],
    ) -> None:
        self._edges = edges
        self._tap = tap
        self._analysis = analysis
        self._upstream = upstream

    async def healthz(self) -> Answer:
        """Live: whoever answers this, and an edge where there is to be one."""
        up = sum(edge.answers for edge in self._edges)
        body: dict[str, object] = {}
        if self._edges:
            body["edge"] = "up" if up else "down"
        return bool(up) or not self._edges, body | self._about(up)

    async def readyz(self) -> Answer:
        """Ready: what there is serves."""
        address = self._upstream()
        if not self._edges or address is None:
            return self._analysis_up() and self._tap_serves_if_alone(), self._about(0)
        serving = sum(edge.ready and edge.answers for edge in self._edges)
        reachable = await accepts_connection(address)
        body: dict[str, object] = {
            "edge": "listening" if serving else "not listening",
            "upstream": "reachable" if reachable else "unreachable",
        }
        return bool(serving) and reachable, body | self._about(serving)

    def _about(self, edges: int) -> dict[str, object]:
        """Shown in both probes, and never what makes them fail where traffic is relayed."""
        facts: dict[str, object] = {"analysis": "up" if self._analysis_up() else "down"}
        if len(self._edges) > 1:
            facts["edges"] = f"{edges} of {len(self._edges)}"
        if self._analysis.refused is not None:
            facts["analysis_error"] = self._analysis.refused
        if self._tap is not None:
            facts["tap"] = "up" if self._tap_up() else "down"
            if self._tap.refused is not None:
                facts["tap_error"] = self._tap.refused
        return facts

    def _analysis_up(self) -> bool:
        return self._analysis.ready and self._analysis.answers

    def _tap_up(self) -> bool:
        return self._tap is not None and self._tap.ready and self._tap.answers

    def _tap_serves_if_alone(self) -> bool:
        return self._tap is None or self._tap_up()
