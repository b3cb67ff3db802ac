"""Looking at what Remora did, through its own API: waiting, counting, reading its ledger."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from agent.demo.figures import canary_progress, canary_said
from agent.demo.timeline import Timeline

STEP_S_MAX = 75.0

Json = dict[str, Any]


class Looking:
    """Questions to one agent's admin API."""

    def __init__(self, client: httpx.AsyncClient, timeline: Timeline) -> None:
        self._client = client
        self._timeline = timeline

    async def failures(self, *, but_for: str) -> int:
        """Requests that were not answered 2xx, of every version but one, by Remora's metrics."""
        text = (await self._client.get("/metrics")).text
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "remora_requests_total"
            and sample.labels["code"] != "2xx"
            and sample.labels["version"] != but_for
        )

    async def until(
        self,
        reached: Callable[[Json], Any],
        *,
        bar: tuple[str, Callable[[Json], tuple[float, float]]] | None = None,
    ) -> Json | None:
        """The first status for which `reached` is true; None when that takes too long."""
        deadline = asyncio.get_running_loop().time() + STEP_S_MAX
        while asyncio.get_running_loop().time() < deadline:
            try:
                status: Json = (await self._client.get("/api/v1/status")).json()
                if bar is not None:
                    done, total = bar[1](status)
                    said = canary_said(status) if bar[1] is canary_progress else ""
                    self._timeline.bar(bar[0], min(done, total), total, said)
                if reached(status):
                    if bar is not None:
                        self._timeline.end_bar(bar[0])
                    return status
            except (httpx.HTTPError, ValueError):
                pass  # busy or restarting: ask again
            await asyncio.sleep(0.25)
        return None

    async def until_found(self, wanted: Callable[[list[Json]], list[Json]]) -> list[Json]:
        deadline = asyncio.get_running_loop().time() + STEP_S_MAX
        while asyncio.get_running_loop().time() < deadline:
            found = wanted(await self.findings())
            if found:
                return found
            await asyncio.sleep(0.2)
        return []

    async def findings(self) -> list[Json]:
        found: list[Json] = (await self._client.get("/api/v1/findings")).json()["findings"]
        return found

    async def ledger_entry(self, kind: str) -> Json | None:
        """The newest entry of a kind, once there is one."""
        for _ in range(int(STEP_S_MAX / 0.5)):
            entries = (await self._client.get("/api/v1/ledger", params={"limit": 1000})).json()
            found: list[Json] = [e for e in entries["entries"] if e["kind"] == kind]
            if found:
                return found[-1]
            await asyncio.sleep(0.5)
        return None

    async def rollout(self, candidate: str) -> Json | None:
        rollouts: list[Json] = (await self._client.get("/api/v1/rollouts")).json()["rollouts"]
        return next((r for r in rollouts if r["candidate"] == candidate), None)
