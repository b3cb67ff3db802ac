"""Objectives from the edges' counters: what is good, what is bad, and what counts as nothing."""

from collections import Counter

import pytest

from agent.config.objectives import ObjectiveConfig
from agent.edge.counters import BOUNDS_S
from agent.edge_totals import Cell
from agent.objectives import Objectives

NOW = 1_000_000.0


def cell(codes: dict[str, int], durations: dict[float, int]) -> Cell:
    """Requests by code, and by the bound of their bucket; infinity for above them all."""
    counts = [durations.get(bound, 0) for bound in BOUNDS_S] + [durations.get(float("inf"), 0)]
    return Cell(codes=Counter(codes), duration_counts=counts)


def burnt(objective: ObjectiveConfig, cells: dict[tuple[str, str], Cell]) -> float | None:
    """The share of bad requests over the objective's allowance, in the last hour."""
    objectives = Objectives([objective])
    nothing = {key: cell({}, {}) for key in cells}
    objectives.update(nothing, NOW - 60)
    objectives.update(cells, NOW)
    (standing,) = objectives.standings(NOW)
    return standing.burn["1h"]


CELLS = {
    ("v1", "predict"): cell(
        {"2xx": 90, "4xx": 5, "5xx": 3, "timeout": 2, "client_disconnect": 10},
        {0.1: 80, 0.25: 20, 0.5: 8, float("inf"): 2},
    ),
    ("v2", "other"): cell({"2xx": 100}, {0.001: 100}),
}


@pytest.mark.parametrize(
    ("route", "latency_s", "bad", "total"),
    [
        (None, None, 5, 200),  # what the server is to blame for; who left counts as nothing
        ("predict", None, 5, 100),
        ("other", None, 0, 100),
        ("predict", 0.25, 10, 100),
        ("predict", 0.2, 10, 100),  # judged by the next bound
        ("predict", 0.1, 30, 100),
        ("predict", 1_000.0, 0, 100),
    ],
)
def test_bad_requests_burn_the_budget(
    route: str | None, latency_s: float | None, bad: int, total: int
) -> None:
    objective = ObjectiveConfig(name="o", route=route, latency_s=latency_s, objective=0.9)
    assert burnt(objective, CELLS) == pytest.approx(bad / total / 0.1)


def test_a_restart_goes_on_and_a_changed_objective_begins_anew() -> None:
    configured = ObjectiveConfig(name="o", objective=0.9)
    before = Objectives([configured])
    before.update({key: cell({}, {}) for key in CELLS}, NOW - 60)
    before.update(CELLS, NOW)
    after = Objectives([configured])
    after.restore(before.state())
    assert after.standings(NOW) == before.standings(NOW)
    other = Objectives([ObjectiveConfig(name="o", objective=0.9, latency_s=0.1)])
    other.restore(before.state())
    assert other.standings(NOW)[0].remaining == 1.0
