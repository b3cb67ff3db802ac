"""Fairness figures against their definitions, their intervals, and what is said about bounds."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.groups.fairness import GROUPS_MAX, METRICS, Fairness
from detectors.reading import Change, Kind, State

Column = NDArray[Any]


def objects(values: Any) -> Column:
    column = np.empty(len(values), dtype=object)
    column[:] = list(values)
    return column


def stream(
    rng: np.random.Generator, n: int, rates: dict[str, tuple[float, float]]
) -> tuple[Column, Column, Column]:
    """Groups with rates of selection among the labels no and yes."""
    group = rng.choice(np.array(list(rates), dtype=object), n)
    truth = rng.random(n) < 0.4
    share = np.array([rates[g][int(y)] for g, y in zip(group, truth, strict=True)])
    return group, (rng.random(n) < share).astype(int), truth.astype(int)


def by_definition(group: Column, said: Column, truth: Column, w: Column) -> dict[str, float]:
    def rates(of: Column) -> list[float]:
        return [
            float((w * (said == 1))[of & (group == g)].sum() / w[of & (group == g)].sum())
            for g in np.unique(group.astype(str))
            if (of & (group == g)).any()
        ]

    selected = rates(np.ones(len(group), dtype=bool))
    positive, negative = rates(truth == 1), rates(truth == 0)
    gaps = [max(r) - min(r) for r in (selected, positive, negative)]
    return {
        "demographic_parity": gaps[0],
        "disparate_impact": min(selected) / max(selected),
        "equal_opportunity": gaps[1],
        "equalised_odds": max(gaps[1:]),
    }


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
def test_figures_are_those_of_the_definitions(seed: int, groups: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    shares = {f"g{k}": (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9)) for k in range(groups)}
    group, said, truth = stream(rng, 3_000, shares)
    weight = rng.choice([1.0, 2.0, 4.0], 3_000) if weighted else np.ones(3_000)
    fairness = Fairness("g")
    for part in np.array_split(np.arange(3_000), 7):
        fairness.update(group[part], said[part], truth[part], weight[part])
    expected = by_definition(group, said, truth, weight)
    metrics = fairness.metrics()
    assert set(metrics) == set(METRICS)
    for name, value in expected.items():
        assert metrics[name].value == pytest.approx(value)
        assert metrics[name].lower <= value <= metrics[name].upper


def test_intervals_hold_the_truth_in_at_least_nine_of_ten_streams() -> None:
    rates = {"a": (0.3, 0.6), "b": (0.2, 0.5), "c": (0.25, 0.6)}
    selected = {g: 0.6 * no + 0.4 * yes for g, (no, yes) in rates.items()}
    true = {
        "demographic_parity": max(selected.values()) - min(selected.values()),
        "disparate_impact": min(selected.values()) / max(selected.values()),
        "equal_opportunity": 0.1,
        "equalised_odds": 0.1,
    }
    held = dict.fromkeys(METRICS, 0)
    for seed in range(200):
        fairness = Fairness("g")
        fairness.update(*stream(np.random.default_rng(seed), 2_000, rates))
        for name, estimate in fairness.metrics().items():
            held[name] += estimate.lower <= true[name] <= estimate.upper
    assert min(held.values()) >= 186  # of 200; the level is 95 % at least
    fairness = Fairness("g")
    fairness.update(*stream(np.random.default_rng(0), 10_000, rates))
    spans = [e.upper - e.lower for e in fairness.metrics().values()]
    assert max(spans) < 0.25  # an interval that holds everything would pass the rest


def test_rows_without_a_label_count_for_selection_alone() -> None:
    rng = np.random.default_rng(1)
    group, said, truth = stream(rng, 4_000, {"a": (0.2, 0.8), "b": (0.4, 0.9)})
    late = objects([None if k % 2 else y for k, y in enumerate(truth.tolist())])
    some, half = Fairness("g"), Fairness("g")
    some.update(group, said, late)
    half.update(group[::2], said[::2], truth[::2])
    for name in ("equal_opportunity", "equalised_odds"):
        assert some.metrics()[name] == half.metrics()[name]
    fairness = Fairness("g")
    fairness.update(group, said)
    assert set(fairness.metrics()) == {"demographic_parity", "disparate_impact"}


def test_a_weight_of_two_is_two_rows_of_value_but_not_of_certainty() -> None:
    rng = np.random.default_rng(2)
    group, said, truth = stream(rng, 2_000, {"a": (0.2, 0.8), "b": (0.4, 0.9)})
    once, twice = Fairness("g"), Fairness("g")
    once.update(group, said, truth, np.full(2_000, 1.0))
    twice.update(group, said, truth, np.full(2_000, 2.0))
    for name, estimate in once.metrics().items():
        other = twice.metrics()[name]
        assert other.value == pytest.approx(estimate.value)
        assert other.lower == pytest.approx(estimate.lower)
        assert other.upper == pytest.approx(estimate.upper)


def test_the_window_forgets() -> None:
    rng = np.random.default_rng(3)
    fairness = Fairness("g", window_rows=2_000)
    fairness.update(*stream(rng, 2_000, {"a": (0.1, 0.1), "b": (0.9, 0.9)}))
    assert fairness.metrics()["demographic_parity"].value > 0.7
    for _ in range(5):
        fairness.update(*stream(rng, 500, {"a": (0.5, 0.5), "b": (0.5, 0.5)}))
    assert fairness.metrics()["demographic_parity"].value < 0.1


def test_groups_beyond_the_twentieth_are_one_and_compared_with_nobody() -> None:
    rng = np.random.default_rng(4)
    fairness = Fairness("g", window_rows=10_000)
    names = objects([f"g{k % 20}" for k in range(4_000)])
    fairness.update(names, np.ones(4_000))
    fairness.update(objects([f"late {k}" for k in range(5_000)]), np.zeros(5_000))
    assert fairness.metrics()["demographic_parity"].value == 0.0
    assert len(fairness.rates()) == GROUPS_MAX + 1
    assert fairness.rates()["(other)"]["selection"] == 0.0
    assert len(json.dumps(fairness.state()["groups"])) < 1_000
    fairness.update(objects(rng.random(100_000)), np.zeros(100_000))
    assert fairness.metrics() == {}


def test_a_bound_surely_broken_is_said_once_and_marked_as_outside_the_budget() -> None:
    rng = np.random.default_rng(5)
    fairness = Fairness("sex", bounds={"demographic_parity": 0.1, "disparate_impact": 0.8})
    fair, unfair = {"f": (0.5, 0.5), "m": (0.5, 0.5)}, {"f": (0.3, 0.3), "m": (0.6, 0.6)}

    def feed(rates: dict[str, tuple[float, float]], ticks: int) -> list[Change]:
        return [c for _ in range(ticks) for c in fairness.update(*stream(rng, 500, rates)[:2])]

    assert feed(fair, 40) == []
    heard = feed(unfair, 40)
    assert [(change.subject, change.state) for change in heard] == [
        ("sex:demographic_parity", State.WARNING),
        ("sex:disparate_impact", State.WARNING),
    ]
    assert all("outside the false-alarm budget" in change.explain for change in heard)
    assert {change.kind for change in heard} == {Kind.QUALITY}
    assert [change.state for change in feed(fair, 60)] == [State.OK, State.OK]


def test_a_restart_changes_nothing() -> None:
    rng = np.random.default_rng(6)
    bounds = {"demographic_parity": 0.1, "equal_opportunity": 0.1}
    straight, halved = Fairness("g", bounds=bounds), Fairness("g", bounds=bounds)
    for tick in range(40):
        part = stream(rng, 333, {"a": (0.3, 0.5), "b": (0.3 + tick / 100, 0.5 + tick / 100)})
        if tick == 17:
            state = halved.state()
            halved = Fairness("g", bounds=bounds)
            halved.restore(state)
        assert straight.update(*part) == halved.update(*part)
    assert straight.metrics() == halved.metrics()
    with pytest.raises(ValueError, match="expected 'h'"):
        Fairness("h").restore(straight.state())


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, float("nan"), "a", "b", 1, b"x", [1], float("inf")]),
            st.sampled_from([None, 0, 1, 1.0, "1", "yes", float("nan"), [2]]),
            st.sampled_from([None, 0, 1, "no", float("nan")]),
            st.floats(),
        ),
        max_size=60,
    )
)
def test_nothing_that_stands_in_a_row_raises(cells: list[tuple[Any, Any, Any, float]]) -> None:
    fairness = Fairness("g", bounds={"disparate_impact": 0.8})
    group, said, truth = (objects([row[k] for row in cells]) for k in range(3))
    fairness.update(group, said, truth, np.array([row[3] for row in cells]))
    assert fairness.rows + fairness.unknown_total == len(cells)
    fairness.metrics(), fairness.rates()


def test_senseless_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="bounds"):
        Fairness("g", bounds={"justice": 1.0})
    with pytest.raises(ValueError, match="window_rows"):
        Fairness("g", window_rows=3)
    with pytest.raises(ValueError, match="2 entries for 1 rows"):
        Fairness("g").update(objects(["a"]), objects([1, 0]))
