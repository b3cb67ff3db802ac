"""Codes of whole columns against one class looked up after the other."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.performance.classes import CLASSES_MAX, FEW_ROWS_MIN, OTHER, UNKNOWN, ClassNames

CELLS: list[Any] = ["yes", "no", "1", "1.0", "true", 1, 1.0, True, 0, False, 2.5, "2.5", "", None]
CELLS += [math.nan, math.inf, -math.inf, 10**400, (1, 2), np.float64(3.0), np.bool_(True)]


def one_by_one(names: ClassNames, values: list[Any]) -> list[int]:
    """Each alone: too few to be compared all at once."""
    found = []
    for value in values:
        cell = np.empty(1, dtype=object)
        cell[0] = value
        found.append(int(names.codes(cell)[0]))
    return found


def column_of(values: list[Any]) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


@given(
    kinds=st.lists(st.sampled_from(CELLS), min_size=1, max_size=4),
    odd=st.lists(st.tuples(st.integers(0, 199), st.sampled_from(CELLS)), max_size=4),
    known=st.lists(st.sampled_from(["no", "yes", "1", "0"]), unique=True),
    seed=st.integers(0, 100),
)
@settings(max_examples=300)
def test_codes_of_a_column_are_those_of_its_cells_in_order_of_first_sight(
    kinds: list[Any], odd: list[tuple[int, Any]], known: list[str], seed: int
) -> None:
    picked = np.random.default_rng(seed).integers(0, len(kinds), 200)
    values = [kinds[place] for place in picked]
    for place, value in odd:
        values[place] = value
    whole, single = ClassNames(known), ClassNames(known)
    for _ in range(2):  # the second time all spellings are known
        assert whole.codes(column_of(values)).tolist() == one_by_one(single, values)
        assert whole.names == single.names


@pytest.mark.parametrize("at", [0, 1, FEW_ROWS_MIN, 99])
@pytest.mark.parametrize("strange", [[1], {}, {"a": 1}, np.array([1, 2])])
def test_what_is_no_key_names_no_class_wherever_it_stands(at: int, strange: Any) -> None:
    values: list[Any] = ["yes", "no"] * 50
    values[at] = strange
    codes = ClassNames(("no", "yes")).codes(column_of(values))
    assert codes[at] == UNKNOWN
    left = np.delete(codes, at)
    assert left.tolist() == [int(v == "yes") for i, v in enumerate(values) if i != at]


@pytest.mark.parametrize("first", [10**400, "yes", np.float64(3.0)])
def test_whole_numbers_beyond_floats_may_stand_beside_floats(first: Any) -> None:
    values = [first, *["yes", 10**400, np.float64(3.0), 2.5] * 20]
    whole, single = ClassNames(), ClassNames()
    assert whole.codes(column_of(values)).tolist() == one_by_one(single, values)
    values = [first, *[10**400, np.float64(3.0)] * 20]
    assert whole.codes(column_of(values)).tolist() == one_by_one(single, values)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float32, np.float64])
def test_numbers_have_the_codes_of_their_spellings(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 2 if dtype is bool else 5, 300).astype(dtype)
    for known in ((), ("1",), ("yes", "0", "3")):
        whole, single = ClassNames(known), ClassNames(known)
        codes = whole.codes(values)
        named = [whole.names[code] for code in codes.tolist()]
        assert named == [str(int(value)) for value in values.tolist()]
        single.codes(values)
        assert single.codes(values).tolist() == codes.tolist()


def test_numbers_that_are_not_finite_name_no_class_and_fractions_name_their_own() -> None:
    names = ClassNames(("0", "1"))
    codes = names.codes(np.array([0.0, 1.0, np.nan, np.inf, -np.inf, 0.5, -0.0]))
    assert codes.tolist() == [0, 1, UNKNOWN, UNKNOWN, UNKNOWN, 2, 0]
    assert names.names == ("0", "1", "0.5")


@pytest.mark.parametrize("as_objects", [False, True])
def test_more_classes_than_are_kept_share_one(as_objects: bool) -> None:
    values: Any = np.arange(300.0)
    names = ClassNames()
    codes = names.codes(values.astype(object) if as_objects else values)
    assert codes.max() == CLASSES_MAX
    assert len(names) == CLASSES_MAX + 1
    assert names.names[-1] == OTHER
    assert (codes[CLASSES_MAX:] == CLASSES_MAX).all()
    assert names.codes(values).tolist() == codes.tolist()
