"""A few rows of each class: how many, which, and for how many they stand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.reservoir import all_rows, choose
from tests.agent.ticks import tick


@given(
    said=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60),
    rows_max=st.integers(1, 20),
)
def test_each_class_keeps_its_few_and_stands_for_all(said: list[str | None], rows_max: int) -> None:
    batch = tick([f"r-{n}" for n in range(len(said))], predictions=[*said])
    chosen = choose(batch, rows_max=rows_max, salt=b"s")
    places = chosen.places.tolist()
    assert places == sorted(set(places))
    for name in set(said):
        kept = [place for place in places if said[place] == name]
        assert len(kept) == min(rows_max, said.count(name))
        weights = [w for p, w in zip(places, chosen.weight, strict=True) if said[p] == name]
        assert sum(weights) == pytest.approx(said.count(name))


def test_a_weight_of_before_is_multiplied() -> None:
    batch = tick([f"r-{n}" for n in range(10)], weight=np.full(10, 4.0))
    assert choose(batch, rows_max=5, salt=b"s").weight.tolist() == [8.0] * 5
    assert all_rows(batch).weight.tolist() == [4.0] * 10
    assert choose(batch, rows_max=10, salt=b"s").weight.tolist() == [4.0] * 10


def test_every_row_has_the_same_chance_whatever_it_says_and_where_it_stands() -> None:
    batch = tick([f"r-{n}" for n in range(30)])
    counts = np.zeros(30)
    for salt in range(600):
        counts[choose(batch, rows_max=6, salt=b"%d" % salt).places] += 1
    assert abs(counts - 120).max() < 5 * (600 * 0.2 * 0.8) ** 0.5


def test_rows_of_one_request_are_chosen_apart_and_always_the_same() -> None:
    batch = tick(["one"] * 40)
    first = choose(batch, rows_max=10, salt=b"s")
    assert len(first.places) == 10
    assert first.places.tolist() != list(range(10))
    assert choose(batch, rows_max=10, salt=b"s").places.tolist() == first.places.tolist()


def test_numbers_are_one_class() -> None:
    batch = tick(["a", "b", "c"], predictions=[1.0, 2.0, 3.0])
    assert len(choose(batch, rows_max=2, salt=b"s").places) == 2
    batch = tick(["a", "b", "c"], predictions=None)
    assert len(choose(batch, rows_max=2, salt=b"s").places) == 2
