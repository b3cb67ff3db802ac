"""Prometheus itself adds up the evidence of a fleet, as `detectors.drift.fleet` does it in Python.

Two replicas are real uvicorns over model monitors fed with rows. A real Prometheus scrapes them
with the shipped rules; only the pace is another: what is a minute there is six seconds here, in
every duration of the group alike. Rows come right after an evaluation, so that the scrapes of all
replicas are in before the next one (that is what aligned means), one replica restarts in between,
and one is not to be scraped for a while.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from detectors import Reference, State, build_reference
from detectors.drift.fleet import LEVEL_MAX, EvidenceCusum, Scores
from tests.admin.house import House
from tests.e2e.test_prometheus import FEATURES, Replica, ask, prometheus, until

pytestmark = pytest.mark.real

MINUTE_S = 6
TOLERANCE = 0.01
DUST_NATS = 1e-6
ANSWER_S_MAX = 60.0
Levels = dict[tuple[str, str], float]


def at_a_quicker_pace(rules: str) -> str:
    """The shipped rules; in the group of the evidence a minute takes MINUTE_S."""
    head, mark, rest = rules.partition("  - name: remora-fleet-evidence\n")
    group, next_mark, tail = rest.partition("  - name: remora-drift\n")
    assert mark
    assert next_mark
    milliseconds = {"s": MINUTE_S * 1_000 // 60, "m": MINUTE_S * 1_000, "h": MINUTE_S * 60_000}

    def shorter(found: re.Match[str]) -> str:
        return f"{int(found[1]) * milliseconds[found[2]]}ms"

    lines = [
        line if line.lstrip().startswith("#") else re.sub(r"\b(\d+)([smh])\b", shorter, line)
        for line in group.splitlines(keepends=True)
    ]
    return head + mark + "".join(lines) + next_mark + tail


def test_every_duration_of_the_group_is_made_shorter_by_the_same() -> None:
    before = "  - name: remora-fleet-evidence\n    interval: 1m\n x[10m] offset 20s or y[1h]\n"
    after = at_a_quicker_pace(before + "  - name: remora-drift\n")
    assert "interval: 6000ms\n x[60000ms] offset 2000ms or y[360000ms]" in after


class Fleet:
    """Replicas behind their houses, and what Python makes of the counters they export."""

    def __init__(self, reference: Reference, houses: list[House]) -> None:
        self._reference = reference
        self._houses = houses
        self.replicas = [Replica(reference, 2 + i, 0.0) for i in range(len(houses))]
        self._away: set[int] = set()
        self.cusum = EvidenceCusum()
        self.warned: list[str] = []

    async def serve(self, i: int) -> None:
        self._houses[i].view = self.replicas[i]
        await self._houses[i].stop_backend()
        await self._houses[i].start_backend()
        self._away.discard(i)

    async def leave(self, i: int) -> None:
        await self._houses[i].stop_backend()
        self._away.add(i)

    async def restart(self, i: int) -> None:
        """A new process: it counts from zero, and what the old one counted is gone."""
        self.replicas[i] = Replica(self._reference, 20 + i, 0.0)
        await self.serve(i)

    def take(self, rows: int, shift: float) -> None:
        for replica in self.replicas:
            replica.shift = shift
            replica.take(rows)

    def exported(self, i: int) -> Scores:
        watch = self.replicas[i].monitor.watch("v1")
        assert watch is not None
        return watch.scores()

    def evaluate(self) -> Levels:
        """What Python says at the moment at which Prometheus evaluates."""
        seen = {str(i): self.exported(i) for i in range(len(self.replicas)) if i not in self._away}
        self.warned += [
            change.subject for change in self.cusum.update(seen) if change.state is State.WARNING
        ]
        return {
            (name, score): level
            for name, scores in self.cusum.levels().items()
            for score, level in scores.items()
        }


@asynccontextmanager
async def fleet(reference: Reference, folder: Path) -> AsyncIterator[tuple[Fleet, list[str]]]:
    async with AsyncExitStack() as stack:
        houses = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            houses.append(await stack.enter_async_context(House(folder / name)))
        made = Fleet(reference, houses)
        made.take(200, 0.0)  # no scrape sees a replica that has counted nothing yet
        for i in range(len(houses)):
            await made.serve(i)
        yield made, [f"127.0.0.1:{house.port}" for house in houses]


async def evaluated(client: httpx.AsyncClient, after: float) -> float:
    """Wait for the first evaluation of the group after that time; give when it was."""
    query = "max(timestamp(remora:evidence:cusum))"
    async with asyncio.timeout(ANSWER_S_MAX):
        while True:
            at = (await ask(client, query, "x")).get("", 0.0)
            if at > after:
                return at
            await asyncio.sleep(0.1)


async def levels(client: httpx.AsyncClient) -> Levels:
    answer = await client.get("/api/v1/query", params={"query": "remora:evidence:cusum"})
    return {
        (one["metric"]["feature"], one["metric"]["score"]): float(one["value"][1])
        for one in answer.json()["data"]["result"]
    }


def agree(found: Levels, expected: Levels) -> bool:
    return found.keys() == expected.keys() and all(
        abs(found[key] - level) <= max(TOLERANCE * level, DUST_NATS)
        for key, level in expected.items()
    )


@pytest.mark.timeout(400)
async def test_prometheus_answers_the_evidence_of_a_fleet(
    tmp_path: Path, program: Callable[[str], Path]
) -> None:
    normal = np.random.default_rng(1).normal(0.0, 1.0, size=(20_000, len(FEATURES)))
    reference = build_reference(dict(zip(FEATURES, normal.T, strict=True)))
    home = tmp_path / "prometheus"
    home.mkdir()
    async with (
        fleet(reference, tmp_path) as (watched, targets),
        prometheus(program("prometheus"), home, targets, rules=at_a_quicker_pace) as client,
    ):
        await until(client, "remora:evidence:cusum", "feature", lambda found: len(found) == 3)
        at = await evaluated(client, 0.0)
        at = await evaluated(client, at)  # every replica has been seen twice by now
        watched.evaluate()
        seen_most = 0.0
        for step in range(10):
            if step == 4:
                await watched.restart(1)
            if step == 6:
                await watched.leave(0)
            if step == 8:
                await watched.serve(0)
            watched.take(100, 0.0 if step < 2 else 0.22)
            at = await evaluated(client, at)
            expected, found = watched.evaluate(), await levels(client)
            strongest = max(expected, key=lambda key: expected[key])
            print(step, strongest, f"{found.get(strongest)} and {expected[strongest]:.6f} nats")
            assert agree(found, expected), (step, found, expected)
            seen_most = max(seen_most, expected[strongest])
        threshold = (await ask(client, "remora:evidence:threshold", "model"))["fleet"]
        assert threshold == pytest.approx(watched.cusum.threshold)
        assert threshold == pytest.approx(math.log(43_200 * 3 * 8))
        assert threshold < seen_most <= LEVEL_MAX
        alerts = await ask(client, 'ALERTS{alertname="RemoraFleetEvidence"}', "feature")
        assert set(alerts) == set(watched.warned)
        assert "age" not in alerts
