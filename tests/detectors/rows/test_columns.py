"""What becomes of each kind of column: stated outcomes, no exception."""

import datetime as dt
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.rows.columns import (
    as_table,
    category_keys,
    guess_kind,
    key_counts,
    key_of,
    number_of,
    numbers,
)


class Hostile:
    """A value that refuses everything."""

    __hash__ = None  # type: ignore[assignment]

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")


def objects(*values: Any) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (None, math.nan),
        (math.nan, math.nan),
        ("", math.nan),
        ("  ", math.nan),
        (np.datetime64("NaT"), math.nan),
        ("12.5", 12.5),
        (b"3", 3.0),
        ("true", 1.0),
        (True, 1.0),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        ("twelve", math.inf),
        (1 + 2j, math.inf),
        ([1], math.inf),
        (Hostile(), math.inf),
        (Decimal("1.5"), 1.5),
        (Fraction(1, 2), 0.5),
        (dt.datetime(2024, 5, 1, 1, 0, 5), 3605.0),
        (dt.time(0, 1), 60.0),
    ],
)
def test_a_value_has_its_stated_number(value: Any, number: float) -> None:
    assert number_of(value) == number or (math.isnan(number) and math.isnan(number_of(value)))


def test_mixed_columns_become_numbers_value_by_value() -> None:
    mixed = objects(1, "2", None, 10**400, Hostile(), [1, 2])
    assert numbers(mixed)[:2].tolist() == [1.0, 2.0]
    assert np.isnan(numbers(mixed)[2])
    assert np.isinf(numbers(mixed)[3:]).all()


def test_dates_become_their_second_of_the_day() -> None:
    column = np.array(["2024-01-01T00:00:10", "1969-12-31T23:59:59", "NaT"], dtype="datetime64[s]")
    assert numbers(column)[:2].tolist() == [10.0, 86_399.0]
    assert np.isnan(numbers(column)[2])


def test_masked_values_are_missing() -> None:
    column = np.ma.MaskedArray([1, 2, 3], mask=[False, True, False])
    assert np.isnan(numbers(column)).tolist() == [False, True, False]
    assert key_counts(column) == {"1": 1, None: 1, "3": 1}


def test_equal_values_are_one_key_whatever_their_type() -> None:
    assert key_counts(objects(1, 1.0, True, np.int64(1), "1")) == {"1": 5}


def test_long_text_is_cut_and_stays_apart() -> None:
    first, second = key_of("a" * 300 + "x"), key_of("a" * 300 + "y")
    assert first is not None
    assert second is not None
    assert len(first) < 100
    assert first != second


def test_unhashable_and_hostile_values_are_keys_too() -> None:
    assert key_counts(objects([1], {"a": 2}, Hostile(), None)) == {
        "[1]": 1,
        "{'a': 2}": 1,
        "<Hostile>": 1,
        None: 1,
    }


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.datetimes(),
    st.complex_numbers(),
    st.lists(st.integers(), max_size=2),
    st.just(Hostile()),
)


@given(values=st.lists(ANYTHING, max_size=20))
def test_no_column_raises_and_no_row_is_lost(values: list[Any]) -> None:
    column = objects(*values)
    assert len(numbers(column)) == len(values)
    assert sum(key_counts(column).values()) == len(values)
    assert len(category_keys(column)) == len(values)
    assert guess_kind(column) in ("numeric", "boolean", "categorical")
    table = as_table({"x": values, "y": column})
    assert table.rows == len(values)


def test_columns_of_another_length_or_shape_are_left_out_and_named() -> None:
    table = as_table({"a": [1, 2], "b": [1, 2], "c": [1, 2, 3], "d": np.zeros((2, 2, 2)), "e": 5})
    assert set(table.columns) == {"a", "b"}
    assert table.malformed["c"] == "has 3 rows, not 2"
    assert table.malformed["d"] == "has 3 dimensions, not 1"
    assert "e" in table.malformed


def test_vectors_stand_beside_the_columns_and_never_raise() -> None:
    ragged = [[1.0, 2.0], None, [3.0], (4, 5), ["x"], np.array([6.0, np.inf])]
    table = as_table({"a": range(6), "matrix": np.ones((6, 3)), "lists": ragged})
    assert set(table.columns) == {"a"}
    assert table.vectors["matrix"].shape == (6, 3)
    lists = table.vectors["lists"]
    assert np.isnan(lists).all(axis=1).tolist() == [False, True, True, False, True, False]
    assert lists[3].tolist() == [4, 5]


def test_lists_of_words_and_empty_lists_are_categories_still() -> None:
    table = as_table({"words": objects(["a"], ["b"]), "none": objects([], None)})
    assert set(table.columns) == {"words", "none"}
    assert sum(key_counts(table.columns["words"]).values()) == 2


def test_vectors_of_another_length_than_the_columns_are_left_out() -> None:
    table = as_table({"a": [1, 2], "b": [1, 2], "v": np.ones((3, 2))})
    assert table.malformed == {"v": "has 3 rows, not 2"}


def test_tables_of_pandas_and_arrow_are_taken_by_shape_alone() -> None:
    class Series:
        def to_numpy(self) -> Any:
            return np.arange(3)

    class Frame:
        columns = ("a", "b")

        def __getitem__(self, name: str) -> Series:
            return Series()

    class Arrow:
        column_names = ("a",)
        columns = (Series(),)  # an Arrow table has its columns without names here

        def __getitem__(self, name: str) -> Series:
            return Series()

    assert set(as_table(Frame()).columns) == {"a", "b"}
    assert set(as_table(Arrow()).columns) == {"a"}


def test_something_that_is_no_table_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a mapping"):
        as_table([1, 2, 3])


def test_kinds_are_guessed_from_types_and_values() -> None:
    assert guess_kind(np.array([True])) == "boolean"
    assert guess_kind(objects(True, None)) == "boolean"
    assert guess_kind(objects(1, 2.5, None)) == "numeric"
    assert guess_kind(objects(1, "a")) == "categorical"
    assert guess_kind(np.array(["1", "2"])) == "categorical"
