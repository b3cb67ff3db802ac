"""Ticks of exactly so many rows or seconds, per version; columns whatever came and went."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.batch import (
    MATRICES_AT_ONCE,
    UNEXPECTED_MAX,
    VECTOR_WIDTH_MAX,
    VERSIONS_MAX,
    Batch,
    BatchBuilder,
)
from agent.inference import Inference
from agent.schema import SchemaSettings
from agent.schema_learning import SchemaLearner


def inference(
    identity: str,
    rows: Any,
    names: Sequence[str] | None = None,
    outputs: Any = None,
    **other: Any,
) -> Inference:
    fields: dict[str, Any] = {
        "id": identity, "aliases": (f"alias-{identity}",), "at": 5.0, "version": "v1",
        "slot": "stable", "weight": 2.0, "uniform": True, "latency_s": 0.01,
        "names": tuple(names) if names is not None else None, "rows": rows,
        "outputs": outputs or {},
    }  # fmt: skip
    return Inference(**(fields | other))


def matrix(first: int, count: int) -> Any:
    """Rows whose first cell tells them apart."""
    return np.array([[row, 2.0 * row] for row in range(first, first + count)], dtype=float)


def builder(tick_rows: int = 4, **settings: Any) -> BatchBuilder:
    return BatchBuilder(SchemaLearner(SchemaSettings(**settings)), tick_rows=tick_rows)


def test_a_tick_ends_at_its_row_and_a_request_is_cut_there() -> None:
    building = builder()
    assert building.add(inference("a", matrix(0, 3), outputs={"y": [0, 1, 2]}), 10.0) == []
    ended = building.add(inference("b", matrix(3, 6), outputs={"y": [3, 4, 5, 6, 7, 8]}), 12.0)
    assert [batch.rows for batch in ended] == [4, 4]
    assert [batch.columns["f0"].tolist() for batch in ended] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [batch.prediction.tolist() for batch in ended if batch.prediction is not None] == [
        ["0", "1", "2", "3"],
        ["4", "5", "6", "7"],
    ]
    assert ended[0].ids == ("a", "a", "a", "b")
    assert ended[0].row_numbers.tolist() == [0, 1, 2, 0]
    assert ended[1].row_numbers.tolist() == [1, 2, 3, 4]
    assert ended[0].aliases == {"alias-a": "a", "alias-b": "b"}
    assert (ended[0].opened_at, ended[0].closed_at) == (10.0, 12.0)
    (rest,) = building.flush(13.0)
    assert rest.columns["f1"].tolist() == [16.0]
    assert building.flush(14.0) == []


def test_a_tick_ends_when_its_time_is_over() -> None:
    building = builder()
    building.add(inference("a", matrix(0, 1)), 10.0)
    assert building.due(69.9) == []
    (batch,) = building.due(70.0)
    assert (batch.rows, batch.opened_at, batch.closed_at) == (1, 10.0, 70.0)
    assert building.due(1_000.0) == []


def test_versions_and_slots_never_share_a_batch() -> None:
    building = builder(tick_rows=2)
    building.add(inference("a", matrix(0, 1), version="v1"), 0.0)
    building.add(inference("b", matrix(0, 1), version="v2", slot="candidate"), 0.0)
    (batch,) = building.add(inference("c", matrix(1, 1), version="v1"), 0.0)
    assert (batch.version, batch.ids) == ("v1", ("a", "c"))
    (other,) = building.flush(0.0)
    assert (other.version, other.slot) == ("v2", "candidate")


def test_endless_versions_close_the_oldest_instead_of_filling_the_memory() -> None:
    building = builder()
    ended = []
    for number in range(VERSIONS_MAX + 2):
        ended += building.add(inference("a", matrix(0, 1), version=f"v{number}"), float(number))
    assert [batch.version for batch in ended] == ["v0", "v1"]


def test_weights_times_and_strata_are_per_row() -> None:
    building = builder(tick_rows=3)
    building.add(inference("a", matrix(0, 2), at=1.0, weight=4.0, uniform=False), 0.0)
    (batch,) = building.add(inference("b", matrix(0, 1), at=2.0), 0.0)
    assert batch.weight.tolist() == [4.0, 4.0, 2.0]
    assert batch.uniform.tolist() == [False, False, True]
    assert batch.at.tolist() == [1.0, 1.0, 2.0]


def test_columns_that_come_and_go_are_missing_in_between() -> None:
    building = builder(tick_rows=4)
    building.add(inference("a", [[41, "clerk"]], ["age", "job"]), 0.0)
    building.add(inference("b", [["nurse", True]], ["job", "own"]), 0.0)
    building.add(inference("c", np.array([[1.0]]), ["age"]), 0.0)
    (batch,) = building.add(inference("d", [[None, 7.5]], ["job", "age"]), 0.0)
    np.testing.assert_array_equal(batch.columns["age"], [41, np.nan, 1.0, 7.5])
    assert batch.columns["job"].tolist() == ["clerk", "nurse", None, None]
    np.testing.assert_array_equal(batch.columns["own"], [np.nan, 1.0, np.nan, np.nan])
    assert batch.type_changes == {}


def test_cells_of_another_type_are_missing_and_counted() -> None:
    building = builder(tick_rows=3, kinds={"age": "numeric", "own": "boolean"})
    rows = [["41", True], [41, "yes"], ["?", 0]]
    (batch,) = building.add(inference("a", rows, ["age", "own"]), 0.0)
    np.testing.assert_array_equal(batch.columns["age"], [np.nan, 41.0, np.nan])
    np.testing.assert_array_equal(batch.columns["own"], [1.0, np.nan, 0.0])
    assert batch.type_changes == {"age": 2, "own": 1}


def test_numbers_in_a_categorical_column_are_categories() -> None:
    building = builder(tick_rows=4, kinds={"code": "categorical"})
    building.add(inference("a", np.array([[1.0], [np.nan]]), ["code"]), 0.0)
    (batch,) = building.add(inference("b", [[1], ["1"]], ["code"]), 0.0)
    assert batch.columns["code"].tolist() == ["1", None, "1", "1"]
    assert batch.type_changes == {}


def test_columns_the_schema_does_not_know_are_counted_not_kept() -> None:
    building = builder(tick_rows=2, features=("a",))
    names = ["a", *(f"new-{number}" for number in range(UNEXPECTED_MAX + 5))]
    (batch,) = building.add(inference("a", np.ones((2, len(names))), names), 0.0)
    assert list(batch.columns) == ["a"]
    assert len(batch.unexpected) == UNEXPECTED_MAX
    assert set(batch.unexpected.values()) == {2}


def test_positional_rows_of_another_width_do_not_slip_under_known_names() -> None:
    building = builder(tick_rows=2, features=("a", "b"))
    building.add(inference("a", np.array([[1.0, 2.0]])), 0.0)
    (batch,) = building.add(inference("b", np.array([[7.0, 8.0, 9.0]])), 0.0)
    np.testing.assert_array_equal(batch.columns["a"], [1.0, np.nan])
    assert batch.unexpected == {"f0": 1, "f1": 1, "f2": 1}


def test_rows_without_a_prediction_are_missing_beside_those_with_one() -> None:
    building = builder(tick_rows=3)
    building.add(inference("a", matrix(0, 1), outputs={"label": ["x"], "score": [0.5]}), 0.0)
    building.add(inference("b", matrix(0, 1)), 0.0)
    (batch,) = building.add(inference("c", matrix(0, 1), outputs={"label": ["y"]}), 0.0)
    assert batch.prediction is not None
    assert batch.prediction.tolist() == ["x", None, "y"]
    np.testing.assert_array_equal(batch.score, [0.5, np.nan, np.nan])


def test_rows_that_come_one_by_one_keep_their_order_and_their_columns() -> None:
    rows = 2 * MATRICES_AT_ONCE + 3
    building = builder(tick_rows=rows)
    batches: list[Batch] = []
    for row in range(rows):
        # Every 50th has its columns the other way round, and so stands in a group of its own.
        names, cells = ("f0", "f1"), matrix(row, 1)
        if row % 50 == 7:
            names, cells = ("f1", "f0"), cells[:, ::-1]
        batches += building.add(inference(f"r{row}", cells, names), 0.0)
    (batch,) = batches
    assert batch.columns["f0"].tolist() == list(range(rows))
    assert batch.columns["f1"].tolist() == [2.0 * row for row in range(rows)]
    assert batch.ids == tuple(f"r{row}" for row in range(rows))


def values(batches: Sequence[Batch]) -> list[float]:
    return [cell for batch in batches for cell in batch.columns["f0"].tolist()]


@given(
    sizes=st.lists(st.integers(1, 13), min_size=1, max_size=20),
    tick_rows=st.integers(1, 9),
    in_lists=st.booleans(),
)
def test_no_row_is_lost_doubled_or_moved_however_requests_were_cut(
    sizes: list[int], tick_rows: int, in_lists: bool
) -> None:
    building = builder(tick_rows=tick_rows)
    starts = np.cumsum([0, *sizes]).tolist()
    batches: list[Batch] = []
    for number, (start, stop) in enumerate(pairwise(starts)):
        rows = matrix(start, stop - start)
        # Lists and matrices in turn: the order of rows must survive the mixture.
        some = rows.tolist() if in_lists and number % 2 else rows
        batches += building.add(inference(f"r{number}", some), float(number))
    assert all(batch.rows == tick_rows for batch in batches)
    batches += building.flush(99.0)
    assert values(batches) == list(range(starts[-1]))
    assert [identity for batch in batches for identity in batch.ids] == [
        f"r{number}" for number, size in enumerate(sizes) for _ in range(size)
    ]


def test_vectors_are_stacked_and_rows_without_one_have_none() -> None:
    made = builder(tick_rows=5)

    def points(first: float, count: int, width: int) -> Any:
        return np.arange(first, first + count * width, dtype=np.float32).reshape(count, width)

    made.add(inference("a", matrix(0, 2), vectors={"embedding": points(0, 2, 3)}), 0.0)
    made.add(inference("b", matrix(2, 1)), 0.0)
    made.add(inference("c", matrix(3, 1), vectors={"embedding": points(0, 1, 7)}), 0.0)
    # A request that is cut takes its own part of its vectors along.
    [batch] = made.add(inference("d", matrix(4, 2), vectors={"embedding": points(60, 2, 3)}), 0.0)
    np.testing.assert_array_equal(
        batch.vectors["embedding"],
        [[0, 1, 2], [3, 4, 5], [np.nan] * 3, [np.nan] * 3, [60, 61, 62]],
    )
    [rest] = made.flush(1.0)
    np.testing.assert_array_equal(rest.vectors["embedding"], [[63, 64, 65]])
    long = builder(tick_rows=1)
    wide = np.zeros((1, VECTOR_WIDTH_MAX + 1), dtype=np.float32)
    [batch] = long.add(inference("e", matrix(0, 1), vectors={"embedding": wide}), 0.0)
    assert batch.vectors == {}
