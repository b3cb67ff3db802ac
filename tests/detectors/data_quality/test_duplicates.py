"""Copies of rows: counted as they are, judged against a reference, and how seldom in error."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.data_quality.duplicates import CopyCounter, Duplicates, copies
from detectors.reading import Change, State

Columns = dict[str, NDArray[Any]]


def rows(n: int, rng: np.random.Generator, levels: int = 30) -> Columns:
    """Few enough different rows that copies happen by chance."""
    return {
        "a": rng.integers(0, levels, n),
        "b": rng.choice(np.array(["x", "y", None], dtype=object), n),
        "c": np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, levels, n)),
    }


def watch(known: Columns, **options: float) -> Duplicates:
    counter = CopyCounter()
    counter.update(list(known.values()), len(known["a"]))
    budget = {"false_alarms_per_month": 0.025, "ticks_per_month": 43_200.0} | options
    return Duplicates(tuple(known), counter.facts(), **budget)


def feed(watching: Duplicates, columns: Columns) -> list[Change]:
    return watching.update(columns, len(columns["a"]), ticks=1.0)


CELLS = st.sampled_from([0.0, -0.0, 1.0, float("nan"), float("inf")])
KEYS = st.sampled_from(["a", "b", None, 1, 1.0, (1,)])


@given(st.lists(st.tuples(CELLS, KEYS, CELLS), max_size=40))
def test_copies_are_counted_as_a_set_of_rows_would(cells: list[tuple[Any, Any, Any]]) -> None:
    n = len(cells)
    keys = np.empty(n, dtype=object)
    keys[:] = [row[1] for row in cells]
    columns = [np.array([row[0] for row in cells]), keys, np.array([row[2] for row in cells])]
    plain = {tuple(str(v + 0.0 if isinstance(v, float) else v) for v in row) for row in cells}
    same = {tuple("1" if v == "1.0" else v for v in row) for row in plain}
    assert copies(columns, n) == n - len(same)


def test_an_unchanged_share_of_copies_says_nothing() -> None:
    rng = np.random.default_rng(1)
    watching = watch(rows(50_000, rng))
    assert watching.ratio > 0.05
    assert [feed(watching, rows(1_000, rng)) for _ in range(200)] == [[]] * 200


@pytest.mark.parametrize("n", [100, 1_000, 10_000])
def test_repeated_rows_are_said_with_their_share_and_taken_back(n: int) -> None:
    rng = np.random.default_rng(2)
    watching = watch(rows(50_000, rng, levels=10_000))
    for _ in range(5):
        assert feed(watching, rows(n, rng, levels=10_000)) == []
    heard: list[Change] = []
    taken = 0
    while not heard:
        again = rows(n, rng, levels=10_000)
        twice = {name: np.repeat(column, 2)[:n] for name, column in again.items()}
        heard = feed(watching, twice)
        taken += n
        assert taken <= 10_000
    assert "are exact copies of one shortly before; in the reference 0.0%" in heard[0].explain
    assert heard[0].effect is not None
    assert heard[0].effect.value > 0.4
    back = [change for _ in range(20) for change in feed(watching, rows(n, rng, levels=10_000))]
    assert [change.state for change in back] == [State.OK]


def test_clustered_copies_stay_within_the_budget() -> None:
    # One request in 100 is a retry of a whole block: the mean is known, the clustering is not.
    # The budget is spent in 500 ticks, so that 40 streams are granted one alarm together.
    def tick(rng: np.random.Generator) -> Columns:
        columns = rows(512, rng, levels=100_000)
        if rng.random() < 0.05:
            columns = {name: np.repeat(column[:16], 32) for name, column in columns.items()}
        return columns

    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        counter = CopyCounter()
        for _ in range(60):
            counter.update(list(tick(rng).values()), 512)
        watching = Duplicates(
            ("a", "b", "c"), counter.facts(), false_alarms_per_month=0.025, ticks_per_month=500
        )
        for _ in range(500):
            alarms += sum(change.state is State.WARNING for change in feed(watching, tick(rng)))
    assert alarms <= 3


def test_without_facts_nothing_is_watched() -> None:
    rng = np.random.default_rng(3)
    watching = Duplicates(("a",), {}, false_alarms_per_month=0.1, ticks_per_month=43_200)
    assert [feed(watching, {"a": np.zeros(1_000)}) for _ in range(50)] == [[]] * 50
    assert feed(watch(rows(5_000, rng)), {"a": np.zeros(1_000)}) == []


def test_a_restart_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    known = rows(50_000, rng, levels=10_000)
    straight, halved = watch(known), watch(known)
    for tick in range(60):
        columns = rows(700, rng, levels=10_000)
        if tick > 20:
            columns = {name: column[np.arange(700) // 3] for name, column in columns.items()}
        if tick == 24:
            state = halved.state()
            halved = watch(known)
            halved.restore(state)
        assert feed(straight, columns) == feed(halved, columns)
    with pytest.raises(ValueError, match="expected"):
        halved.restore(halved.state() | {"wealth": [1.0]})
