"""Derived columns of any table: cut, permuted, broken or renamed, they are the same or missing."""

import json
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.relations.derivation import Derivation
from detectors.rows.columns import Table, as_table

KINDS = {
    "age": "numeric",
    "income": "numeric",
    "debt": "numeric",
    "member": "boolean",
    "review": "text",
    "town": "categorical",
}


def columns(rows: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(seed)
    income = rng.normal(40, 9, rows)
    words = ["late", "Order", "please", "send", "42", "card!", "été"]
    review = np.empty(rows, dtype=object)
    review[:] = [" ".join(rng.choice(words, 8)) for _ in range(rows)]
    return {
        "age": rng.integers(18, 90, rows),
        "income": income,
        "debt": 0.5 * income + rng.normal(0, 3, rows),
        "member": rng.random(rows) < 0.3,
        "review": review,
        "town": rng.choice(["Ulm", "Bonn"], rows).astype(object),
        "vector": rng.normal(size=(rows, 6)) + rng.normal(size=(rows, 1)),
    }


@pytest.fixture(scope="module")
def derivation() -> Derivation:
    found = Derivation.fit([as_table(columns(1_500)), as_table(columns(1_500, 1))], KINDS)
    assert found is not None
    return found


@cache
def small() -> Derivation:
    found = Derivation.fit([as_table(columns(600))], KINDS, fourier=4)
    assert found is not None
    return found


def part(table: dict[str, NDArray[np.generic]], start: int, stop: int) -> Table:
    return as_table({name: column[start:stop] for name, column in table.items()})


def test_each_kind_of_column_gives_its_own(derivation: Derivation) -> None:
    assert derivation.features[:3] == ("review.length", "review.words", "review.word_length")
    assert derivation.features[-2:] == ("vector.norm", "vector.cosine")
    assert "vector.pc1" in derivation.projections
    assert "debt~income" in derivation.projections
    assert set(derivation.derive(as_table(columns(10)))) == {
        *derivation.features,
        *derivation.projections,
    }
    assert list(derivation.shares()["debt~income"])[:2] == ["debt", "income"]


def test_derived_columns_are_single_precision_of_all_rows(derivation: Derivation) -> None:
    for column in derivation.derive(as_table(columns(70))).values():
        assert column.dtype == np.float32
        assert column.shape == (70,)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 120), st.permutations(list(columns(1))))
def test_cutting_rows_and_permuting_columns_change_no_bit(cut: int, names: list[str]) -> None:
    found = small()
    table = columns(120, 7)
    whole = found.derive(as_table(table))
    mixed = {name: table[name] for name in names}
    first, second = found.derive(part(mixed, 0, cut)), found.derive(part(mixed, cut, 120))
    for name, column in whole.items():
        halves = [d[name] for d in (first, second) if name in d]
        assert np.array_equal(np.concatenate(halves), column), name


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_nothing_in_a_column_raises(data: st.DataObject) -> None:
    values = st.one_of(
        st.none(), st.floats(), st.text(max_size=4), st.booleans(), st.just(10**400), st.just(1e308)
    )
    table = {
        name: data.draw(st.lists(values, min_size=5, max_size=5)) for name in ("age", "review")
    }
    found = small()
    derived = found.derive(as_table(columns(5) | table))
    for name in found.projections:
        assert np.isfinite(derived[name]).all()
    Derivation.fit([as_table({n: c * 60 for n, c in table.items()})], KINDS)


def test_what_rests_on_an_absent_column_is_left_out(derivation: Derivation) -> None:
    table = columns(20)
    del table["debt"], table["review"], table["vector"]
    assert derivation.derive(as_table(table)) == {}


def test_zero_rows_give_empty_columns(derivation: Derivation) -> None:
    derived = derivation.derive(as_table(columns(0)))
    assert all(len(column) == 0 for column in derived.values())


def test_vectors_of_another_width_are_missing(derivation: Derivation) -> None:
    table = columns(30) | {"vector": np.ones((30, 4))}
    derived = derivation.derive(as_table(table))
    assert np.isnan(derived["vector.norm"]).all()
    assert np.isnan(derived["vector.pc1"]).all()


def test_a_tree_is_exact_through_json(derivation: Derivation) -> None:
    back = Derivation.from_tree(json.loads(json.dumps(derivation.tree(), allow_nan=False)))
    table = as_table(columns(80, 3))
    assert back.tree() == derivation.tree()
    ours, theirs = derivation.derive(table), back.derive(table)
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)


def test_the_same_rows_in_other_chunks_give_the_same_derivation() -> None:
    table = columns(900)
    one = Derivation.fit([as_table(table)], KINDS)
    two = Derivation.fit([part(table, 0, 100), part(table, 100, 900)], KINDS)
    assert one is not None
    assert two is not None
    assert json.dumps(one.tree()) == json.dumps(two.tree())


def test_a_column_that_has_the_name_of_a_derived_one_keeps_it() -> None:
    table = columns(900)
    table |= {"pc1": table["age"], "review.length": table["age"], "vector.norm": table["age"]}
    kinds = KINDS | {"pc1": "numeric"}
    found = Derivation.fit([as_table(table)], kinds)
    assert found is not None
    derived = set(found.derive(as_table(table)))
    assert not derived & set(table)
    assert {"review'.length", "vector'.norm"} <= derived
    assert any(name.startswith("row.pc") for name in derived)


def test_prose_is_described_and_categories_are_not() -> None:
    rng = np.random.default_rng(0)
    prose = [" ".join(str(n) for n in rng.integers(0, 99, 6)) for _ in range(100)]
    table = as_table({"note": prose, "town": ["Ulm am See im Tal"] * 100})
    found = Derivation.fit([table], {"note": "categorical", "town": "categorical"})
    assert found is not None
    assert set(found.texts) == {"note"}


@pytest.mark.parametrize("tables", [[], [as_table({})], [as_table({"age": []})]])
def test_nothing_to_derive_is_none(tables: list[Table]) -> None:
    assert Derivation.fit(tables, KINDS) is None


def test_a_table_that_lacks_a_column_has_it_missing() -> None:
    full, lacking = columns(900), columns(300)
    del lacking["debt"]
    found = Derivation.fit([as_table(lacking), as_table(full)], KINDS)
    assert found is not None
    assert "debt~income" in found.projections


@pytest.mark.parametrize(
    "tree", [{}, {"format": 2}, {"format": 1, "texts": 3, "vectors": {}, "rows": None}]
)
def test_a_tree_that_is_none_is_refused(tree: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="derivation"):
        Derivation.from_tree(tree)


def test_a_column_that_is_missing_altogether_leaves_finite_projections(
    derivation: Derivation,
) -> None:
    table = columns(50) | {"debt": np.full(50, math.nan)}
    derived = derivation.derive(as_table(table))
    assert np.isfinite(derived["debt~income"]).all()
