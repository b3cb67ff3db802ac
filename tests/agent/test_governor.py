"""The governor as a control loop: simulated loads in, scales out. Time is a number here."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.governor import BURST_S, START_S, Budget, Governor, Measurement

Cores = Callable[[float, float], float]  # time and scale to cores in use


@dataclass
class Plant:
    """What is governed: its cost follows the scale."""

    governor: Governor
    cores: Cores
    rows: Callable[[float, float], float] = lambda at, scale: 0.0
    memory: Callable[[float, float], float] = lambda at, scale: 0.0
    step_s: float = 1.0
    at: float = 1_000.0
    cpu_s: float = 0.0
    rows_sum: float = 0.0
    history: list[tuple[float, float, float]] = field(default_factory=list)

    def run(self, seconds: float) -> "Plant":
        for _ in range(int(seconds / self.step_s)):
            scale = self.governor.scale
            cores = self.cores(self.at, scale)
            self.cpu_s += cores * self.step_s
            self.rows_sum += self.rows(self.at, scale) * self.step_s
            self.at += self.step_s
            seen = Measurement(
                at=self.at,
                cpu_s=self.cpu_s,
                rows=int(self.rows_sum),
                memory_bytes=self.memory(self.at, scale),
            )
            self.governor.step(seen)
            self.history.append((self.at, cores, self.governor.scale))
        return self

    def mean_cores(self, last_s: float) -> float:
        recent = [cores for at, cores, _ in self.history if at > self.at - last_s]
        return sum(recent) / len(recent)


def loop(cores: Cores, budget: Budget | None = None, **others: Any) -> Plant:
    return Plant(Governor(budget or Budget()), cores, **others)


def test_a_small_deployment_is_never_touched() -> None:
    plant = loop(lambda at, scale: 0.02 + 0.03 * scale).run(20_000)
    assert (plant.governor.scale, plant.governor.changes) == (1.0, 0)
    assert plant.governor.why == "none"


def test_what_a_start_costs_lowers_nothing() -> None:
    # A reference is built and everything imported: ten seconds of a whole core.
    plant = loop(lambda at, scale: 1.0 if at < 1_010 else 0.05).run(600)
    assert plant.governor.changes == 0


def test_a_burst_now_and_then_lowers_nothing() -> None:
    plant = loop(lambda at, scale: 1.0 if at % 60 < 2 else 0.04).run(3_600)
    assert plant.governor.changes == 0


@pytest.mark.parametrize("load", [0.15, 0.3, 1.0, 5.0, 50.0])
def test_a_load_beyond_the_budget_is_brought_under_it(load: float) -> None:
    plant = loop(lambda at, scale: 0.01 + load * scale).run(3_600)
    assert 0.05 <= plant.mean_cores(600) <= 0.1
    assert plant.governor.why == "cpu"
    changes = plant.governor.changes
    plant.run(7_200)
    assert plant.governor.changes - changes <= 1


def test_a_large_excess_is_answered_in_seconds() -> None:
    plant = loop(lambda at, scale: 0.02).run(600)
    plant.governor._debt_s = 0.0  # the allowance of the start is used up
    plant.cores = lambda at, scale: min(1.0, 4.0 * scale)
    plant.run(8)
    assert plant.governor.scale <= 0.1


def test_what_is_over_for_the_start_is_answered_once_the_allowance_is_used() -> None:
    plant = loop(lambda at, scale: 0.5 * scale)
    free_s = (START_S + BURST_S) * 0.1
    plant.run(free_s / 0.4 - 2)
    assert plant.governor.changes == 0
    plant.run(6)
    assert plant.governor.scale == pytest.approx(0.17, rel=0.05)


def test_the_rate_comes_back_when_the_load_goes_and_not_at_once() -> None:
    plant = loop(lambda at, scale: 2.0 * scale).run(1_200)
    low = plant.governor.scale
    assert low < 0.06
    plant.cores = lambda at, scale: 0.05 * scale
    plant.run(50)
    assert plant.governor.scale == low
    plant.run(1_200)
    assert (plant.governor.scale, plant.governor.why) == (1.0, "none")


def test_the_lowest_rate_is_a_floor_and_that_the_budget_is_not_held_is_said() -> None:
    plant = loop(lambda at, scale: 0.5, Budget(scale_min=0.01)).run(3_600)
    assert plant.governor.scale == 0.01
    assert plant.governor.unheld == {"cpu"}
    plant.cores = lambda at, scale: 0.01
    plant.run(120)
    assert plant.governor.unheld == set()
    plant.run(3_600)
    assert plant.governor.scale == 1.0


def test_noise_does_not_make_it_swing() -> None:
    for seed in range(4):
        random.seed(seed)
        plant = loop(lambda at, scale: 0.01 + 0.4 * scale * random.lognormvariate(-0.2, 0.6))
        plant.run(4 * 3_600)
        assert plant.governor.changes <= 12
        assert plant.mean_cores(3_600) <= 0.105


def test_a_cost_at_the_edge_of_the_budget_raises_later_each_time_it_was_wrong() -> None:
    # At a small scale it looks cheap, and is not in proportion: raising is always taken back.
    plant = loop(lambda at, scale: 0.03 if scale < 0.5 else 0.2).run(8 * 3_600)
    assert plant.governor.changes <= 40
    last = [scale for at, _, scale in plant.history if at > plant.at - 3_600]
    assert sum(a != b for a, b in itertools.pairwise(last)) <= 4


def test_a_ramp_is_followed_down_and_up() -> None:
    def load(at: float, scale: float) -> float:
        hour = (at - 1_000) / 3_600
        return 0.01 + scale * (1.0 - abs(hour - 2.0) / 2.0 if 0 < hour < 4 else 0.0)

    plant = loop(load).run(4 * 3_600)
    assert min(scale for _, _, scale in plant.history) == pytest.approx(0.08, rel=0.3)
    assert plant.run(1_200).governor.scale == 1.0
    over = sum(cores > 0.12 for _, cores, _ in plant.history)
    assert over < 0.15 * len(plant.history)


def test_a_raise_goes_to_where_the_budget_holds_and_no_further() -> None:
    plant = loop(lambda at, scale: 0.4 * scale).run(600)
    plant.cores = lambda at, scale: 0.28 * scale
    changes = plant.governor.changes
    plant.run(3_600)
    assert plant.governor.changes == changes + 1
    assert 0.08 < plant.mean_cores(600) <= 0.09


def test_what_was_used_before_a_change_is_not_held_against_what_came_after() -> None:
    plant = loop(lambda at, scale: 0.5 * scale)
    while plant.governor.scale == 1.0:
        plant.run(1)
    plant.run(3)
    assert plant.governor.used_cpu == pytest.approx(0.085)


def test_memory_lowers_it_too_and_says_so() -> None:
    budget = Budget(memory_bytes=100.0)
    plant = loop(lambda at, scale: 0.01, budget, memory=lambda at, scale: 60 + 80 * scale).run(300)
    assert (plant.governor.scale, plant.governor.why) == (0.5, "memory")
    plant.run(3_600)
    assert plant.governor.changes == 1  # at the room that is left it would be too much again
    plant.memory = lambda at, scale: 60 + 20 * scale
    plant.run(3_600)
    assert plant.governor.scale == 1.0


def test_memory_that_cannot_be_measured_lowers_nothing() -> None:
    governor = Governor(Budget(memory_bytes=1.0))
    for second in range(600):
        governor.step(Measurement(at=float(second), cpu_s=0.0, rows=0, memory_bytes=None))
    assert governor.changes == 0


def test_rows_are_limited_from_the_next_interval_on() -> None:
    budget = Budget(rows_per_s=100.0)
    plant = loop(lambda at, scale: 0.01, budget, rows=lambda at, scale: 1_000 * scale).run(12)
    assert plant.governor.scale == pytest.approx(0.1, rel=0.02)
    assert plant.governor.why == "rows"
    changes = plant.governor.changes
    plant.run(600)
    assert plant.governor.changes - changes <= 1
    plant.rows = lambda at, scale: 50 * scale
    plant.run(120)
    assert (plant.governor.scale, plant.governor.why) == (1.0, "none")


def test_rows_that_no_rate_can_lower_are_said() -> None:
    budget = Budget(rows_per_s=10.0, scale_min=0.01)
    plant = loop(lambda at, scale: 0.01, budget, rows=lambda at, scale: 500.0).run(600)
    assert plant.governor.scale == 0.01
    assert plant.governor.unheld == {"rows"}


def test_a_restart_goes_on_where_it_was() -> None:
    plant = loop(lambda at, scale: 1.0 * scale).run(1_200)
    again = Governor(Budget())
    again.restore(plant.governor.state())
    assert (again.scale, again.why) == (plant.governor.scale, "cpu")
    for bad in ({}, {"scale": 0.0, "why": "cpu"}, {"scale": "x", "why": "cpu"}, {"scale": 2}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            again.restore(bad)


def test_a_process_that_starts_again_and_a_clock_that_jumps_are_no_measurements() -> None:
    governor = Governor(Budget())
    seconds = [(0.0, 0.0), (1.0, 900.0), (2.0, 0.0), (2.0, 5.0), (90_000.0, 90_000.0)]
    governor._debt_s = 0.0
    governor.step(Measurement(at=0.0, cpu_s=900.0, rows=0))
    for at, cpu_s in seconds[2:]:
        governor.step(Measurement(at=at, cpu_s=cpu_s, rows=0))
    assert governor.changes == 0
    assert governor.used_cpu == 0.0


@settings(max_examples=60, deadline=None)
@given(
    loads=st.lists(st.floats(0.0, 20.0), min_size=1, max_size=12),
    scale_min=st.floats(1e-6, 1.0),
    memory=st.lists(st.floats(0.0, 1e9), min_size=1, max_size=5),
    rows=st.floats(1.0, 1e4),
)
def test_whatever_comes_the_scale_stays_between_its_limits(
    loads: list[float], scale_min: float, memory: list[float], rows: float
) -> None:
    plant = loop(
        lambda at, scale: loads[int(at / 100) % len(loads)] * scale,
        Budget(scale_min=scale_min, rows_per_s=rows),
        memory=lambda at, scale: memory[int(at / 70) % len(memory)],
        rows=lambda at, scale: 5_000 * scale,
        step_s=5.0,
    ).run(3_000)
    assert all(scale_min <= scale <= 1.0 for _, _, scale in plant.history)
