"""The rates in force: measured for, told, remembered, shown; here with clocks that we turn."""

import os
from pathlib import Path
from typing import Any

import pytest

from agent.config.serving import SamplingConfig
from agent.edge.draw import DRAWS, draw
from agent.sampling import SamplingOrder
from agent.sampling_rates import ON_ITS_WAY_S, SamplingRates, memory_bytes
from agent.sources.proxy import EdgeCounters
from detectors import Reading

SALT = b"0123456789abcdef"


class House:
    """Rates with a clock, a CPU and a memory in our hands."""

    def __init__(self, **config: Any) -> None:
        self.now = 1_000.0
        self.cpu_s = 0.0
        self.memory: float | None = 0.0
        self.told: list[SamplingOrder] = []
        self.found: list[Reading] = []
        self.rates = SamplingRates(
            SamplingConfig.model_validate(config),
            salt=SALT,
            tick_s=60.0,
            memory=lambda: self.memory,
            cpu_s=lambda: self.cpu_s,
            clock=lambda: self.now,
        )
        self.rates.tell = self.told.append
        self.rates.found = self.found.append

    def run(self, seconds: int, *, cores: float) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.cpu_s += cores
            self.rates.step()


def counters(start_id: str, capture_s: float) -> EdgeCounters:
    return EdgeCounters(
        start_id=start_id, started_at=0.0, at=0.0, bounds_s=(), routes=(), drops={}, refused={},
        kept=0, retries=0, client_connections=0, upstream_connections=0, upstream_connects=0,
        generation=0, weight=0.0, capture_s=capture_s,
    )  # fmt: skip


def test_whoever_keeps_is_told_the_rate_that_the_budget_leaves() -> None:
    house = House(rate=0.5)
    house.run(30, cores=0.01)
    assert house.told == []
    house.run(60, cores=1.0)
    assert house.told
    assert house.told[-1] == house.rates.order
    assert house.told[-1].rate == house.rates.rate < 0.5
    status = house.rates.status()
    assert (status["sampling"]["rate"], status["sampling"]["asked"]) == (house.rates.rate, 0.5)
    assert status["governor"]["why"] == "cpu"


def test_what_edges_say_of_capturing_is_in_the_budget_whichever_of_them_started_again() -> None:
    house = House()
    house.rates.take_counters(counters("a", 100.0))  # ours is not the first analysis it has
    house.rates.take_counters(counters("b", 5.0))
    house.rates.take_counters(counters("a", 100.5))
    house.rates.take_counters(counters("b", 6.0))
    house.rates.take_counters(counters("c", 0.0))
    house.rates.take_counters(counters("c", 0.25))
    assert house.rates.cpu_s == {"analysis": 0.0, "capture": 1.75}
    for number in range(200):
        house.rates.take_counters(counters(f"x{number}", 1.0))
    assert len(house.rates._capture_of) <= 64


def test_a_request_of_a_moment_ago_is_judged_by_the_rate_of_then() -> None:
    house = House()
    house.run(40, cores=0.01)
    id = next(f"r{n}" for n in range(1_000) if draw(b"r%d" % n, SALT) / DRAWS > 0.9)
    house.run(40, cores=1.0)
    assert house.rates.rate < 0.2
    changed_at = house.now
    assert house.rates.was_kept(id)  # it may be on its way still, and its tick is open
    house.now = changed_at + 60.0 + ON_ITS_WAY_S + 1.0
    assert not house.rates.was_kept(id)


def test_sources_that_nobody_samples_before_us_are_told_what_to_read() -> None:
    house = House(rate=0.25)
    kept = [n for n in range(400) if house.rates.keeps(f"r{n}")]
    assert kept == [n for n in range(400) if draw(b"r%d" % n, SALT) / DRAWS < 0.25]
    assert house.rates.weight() == 4.0
    by_class = House(rate=0.25, classes=[{"prediction": "fraud", "rate": 1.0}])
    assert all(by_class.rates.keeps(f"r{n}") for n in range(50))
    assert by_class.rates.weight() == 1.0


def test_a_reload_is_told_and_an_equal_one_is_not() -> None:
    house = House(rate=0.5)
    house.rates.reconfigure(SamplingConfig(rate=0.5))
    assert house.told == []
    house.rates.reconfigure(SamplingConfig(rate=0.5, errors=1.0, error_codes=("5xx", "4xx")))
    assert house.told == [
        SamplingOrder(rate=0.5, salt=SALT, errors=1.0, error_codes=("4xx", "5xx"))
    ]
    house.rates.reconfigure(SamplingConfig(rate=0.5, errors=1.0, error_codes=()))
    assert house.told[-1].errors == 0.0


def test_a_budget_that_cannot_be_held_is_a_finding_and_so_is_its_end() -> None:
    house = House(rate_min=0.5)
    house.run(400, cores=0.5)
    assert house.rates.held == {"cpu": False, "memory": True}
    (finding,) = house.found
    assert (finding.state, finding.kind, finding.subject) == (
        "warning",
        "resource",
        "sampling.cpu_budget",
    )
    assert "cannot be held: 0.5 > 0.1 at the lowest rate, 0.5" in finding.explain
    house.run(300, cores=0.01)
    assert [found.state for found in house.found] == ["warning", "ok"]


def test_memory_is_looked_at_now_and_then() -> None:
    house = House(memory_bytes_max=1_000)
    house.memory = 2_000.0
    house.run(45, cores=0.01)
    assert house.rates.rate == 0.5
    assert house.rates.status()["governor"]["memory"]["used_bytes"] == 2_000.0


def test_a_restart_goes_on_at_the_rate_that_was_in_force() -> None:
    house = House()
    house.run(60, cores=1.0)
    again = House()
    again.rates.restore(house.rates.state())
    assert again.rates.rate == house.rates.rate < 1.0
    assert again.told[-1].rate == again.rates.rate


def test_memory_counts_shared_pages_once_and_opt_in_children_not_at_all() -> None:
    pid = float(os.getpid())
    named = {"supervisor": {"pid": pid, "memory_bytes": 1.0}}
    own = memory_bytes(named)
    assert own is not None
    assert own > 1_000_000
    rollup = Path("/proc/self/smaps_rollup").read_text()
    assert "Pss:" in rollup
    gone = {"edge-1": {"pid": 2.0**22 + 5, "memory_bytes": 7.0}, "analysis": {"restarts": 1.0}}
    assert memory_bytes(gone) == 7.0
    assert memory_bytes({"tap": {"pid": pid, "memory_bytes": 5.0}}) is None


@pytest.mark.parametrize("bad", [{"errors": 1.5}, {"errors": "all"}, {"cpu_budget": 0}])
def test_what_makes_no_sense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"errors|cpu_budget"):
        SamplingConfig.model_validate(bad)
