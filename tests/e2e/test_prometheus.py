"""Prometheus itself: the shipped rules are right, and a fleet's PSI comes out of two real scrapes.

Two replicas are real uvicorns that serve the families of model monitors fed with rows; Prometheus
scrapes them once a second with the shipped rules, and answers the PSI of their summed bins.
"""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from agent.families import ScrapeInput, families
from agent.inference import Inference
from agent.monitor import ModelMonitor, MonitorSettings
from agent.schema import SchemaSettings
from detectors import Reference, build_reference
from detectors.drift.distances import psi, shares
from exporters.prometheus import Family
from tests.admin.house import House
from tests.admin.stand_in import StandIn
from tests.exporters.full_scrape import scrape_input

pytestmark = pytest.mark.real

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
FEATURES = ("age", "hours", "income")
START_S_MAX = 60.0
ANSWER_S_MAX = 90.0
TOLERANCE = 0.01
DUST = 1e-4


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "remora.rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "remora.rules.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_has_nothing_to_say_against_the_rules(
    arguments: tuple[str, ...], program: Callable[[str], Path]
) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=RULES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Replica(StandIn):
    """A view whose scrape is that of a real monitor."""

    def __init__(self, reference: Reference, seed: int, shift: float) -> None:
        super().__init__()
        self._random = np.random.default_rng(seed)
        self.shift = shift
        self._taken = 0
        self.monitor = ModelMonitor(
            MonitorSettings(tick_rows=500), SchemaSettings(features=FEATURES), stable="v1"
        )
        self.monitor.install("v1", reference)

    def take(self, rows: int) -> None:
        """Rows of a population that has moved away from the reference."""
        values = self._random.normal(self.shift, 1.0, size=(rows, len(FEATURES)))
        values[:, 0] = self._random.normal(0.0, 1.0, rows)
        self._taken += rows
        self.monitor.take(
            Inference(
                id=f"r{self._taken}",
                aliases=(),
                at=float(self._taken),
                version="v1",
                slot="stable",
                weight=1.0,
                uniform=True,
                latency_s=0.001,
                names=FEATURES,
                rows=values,
                outputs={},
            ),
            float(self._taken),
        )
        self.monitor.flush(float(self._taken))

    def families(self) -> Sequence[Family]:
        watch = self.monitor.watch("v1")
        assert watch is not None
        seen: ScrapeInput = scrape_input(
            model="fleet", watches={"v1": watch}, rows_total=self.monitor.rows_since_start
        )
        return families(seen)

    def counts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Rows by feature and exported bin."""
        watch = self.monitor.watch("v1")
        assert watch is not None
        return np.array([list(watch.bins()[name].values()) for name in FEATURES])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def prometheus(
    binary: Path,
    folder: Path,
    targets: Sequence[str],
    *,
    rules: Callable[[str], str] = str,
) -> AsyncIterator[httpx.AsyncClient]:
    """A Prometheus of its own, with the shipped configuration but for targets and pace."""
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    config["scrape_configs"][0]["static_configs"][0]["targets"] = list(targets)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shipped = (RULES / "remora.rules.yml").read_text()
    (folder / "remora.rules.yml").write_text(rules(shipped))
    port = free_port()
    with (folder / "log.txt").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            binary,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert await until_ready(client, process), "prometheus ended, see log.txt"
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until_ready(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> bool:
    """True when it answers, False when it has ended."""
    async with asyncio.timeout(START_S_MAX):
        while process.returncode is None:
            try:
                if (await client.get("/-/ready")).status_code == 200:
                    return True
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)
    return False


async def ask(client: httpx.AsyncClient, query: str, label: str) -> dict[str, float]:
    """An instant query's values by one of their labels."""
    answer = await client.get("/api/v1/query", params={"query": query})
    assert answer.status_code == 200, answer.text
    found = answer.json()["data"]["result"]
    return {one["metric"].get(label, ""): float(one["value"][1]) for one in found}


async def until(
    client: httpx.AsyncClient, query: str, label: str, enough: Callable[[dict[str, float]], bool]
) -> dict[str, float]:
    """The answer, as soon as it is enough."""
    found: dict[str, float] = {}
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            while not enough(found):
                await asyncio.sleep(0.5)
                found = await ask(client, query, label)
    except TimeoutError:
        pytest.fail(f"{query} is still {found}")
    return found


@pytest.mark.timeout(400)
async def test_prometheus_answers_the_psi_of_a_fleet(
    tmp_path: Path, program: Callable[[str], Path]
) -> None:
    normal = np.random.default_rng(1).normal(0.0, 1.0, size=(20_000, len(FEATURES)))
    reference = build_reference(dict(zip(FEATURES, normal.T, strict=True)))
    replicas = [Replica(reference, 2, 0.9), Replica(reference, 3, 0.3)]
    folders = [tmp_path / name for name in ("one", "two", "prometheus")]
    for folder in folders:
        folder.mkdir()
    async with House(folders[0]) as one, House(folders[1]) as two:
        for house, replica in zip((one, two), replicas, strict=True):
            house.view = replica
            await house.stop_backend()
            await house.start_backend()
        targets = [f"127.0.0.1:{house.port}" for house in (one, two)]
        async with prometheus(program("prometheus"), folders[2], targets) as client:
            await until(client, 'up{job="remora"}', "instance", lambda up: sum(up.values()) == 2)
            await until(
                client,
                "count by (instance) (remora_feature_bin_total)",
                "instance",
                lambda found: list(found.values()) == [24.0, 24.0],
            )
            for _ in range(6):  # counts grow while they are scraped
                for replica in replicas:
                    replica.take(1_500)
                await asyncio.sleep(1.0)
            grown = np.asarray(sum(replica.counts() for replica in replicas))
            total = float(grown[0].sum())
            await until(
                client,
                'sum by (model) (remora_feature_bin_total{feature="age"})',
                "model",
                lambda found: found.get("fleet", 0.0) >= total,
            )
            wanted = expected_psi(reference, replicas[0], grown)
            answered = await until(
                client,
                "remora:feature_psi:1h",
                "feature",
                lambda found: settled(found, wanted),
            )
            for name, value in wanted.items():
                print(f"{name}: PSI {answered[name]:.6f} by Prometheus, {value:.6f} by detectors")
            states = await ask(
                client, 'max by (feature) (remora_drift_state{scope="feature"})', "feature"
            )
            assert states["hours"] == 2.0
            alerts = await ask(client, 'ALERTS{alertname="RemoraFeatureDrift"}', "feature")
            assert {"hours", "income"} <= set(alerts)
            assert await ask(client, "min(remora_analysis_up)", "x") == {"": 1.0}
            await two.stop_backend()
            down = await until(
                client, "remora_analysis_up", "instance", lambda found: 0.0 in found.values()
            )
            assert sorted(down.values()) == [0.0, 1.0]


def expected_psi(
    reference: Reference, replica: Replica, counts: np.ndarray[Any, np.dtype[np.int64]]
) -> dict[str, float]:
    """What `detectors` makes of the same summed bins."""
    watch = replica.monitor.watch("v1")
    assert watch is not None
    assert watch.reference.digest == reference.digest
    expected = watch.data.export_reference()
    p = np.array([list(expected[name].values()) for name in FEATURES])
    return dict(zip(FEATURES, psi(p, shares(counts)).tolist(), strict=True))


def settled(found: dict[str, float], expected: dict[str, float]) -> bool:
    """Whether every feature's PSI is within one per cent, and within chance's dust near zero."""
    return found.keys() == expected.keys() and all(
        abs(found[name] - value) <= max(TOLERANCE * value, DUST) for name, value in expected.items()
    )
