"""Rows that are pushed: their shape, their labels, and what is refused of them."""

import json
from typing import Any

import numpy as np
import pytest

from agent.sources.sampler import Sampler
from tests.sources.house import Client, pushing

ROWS = "/api/v1/rows"
ROW = {"request_id": "r-1", "age": 41, "city": "Bonn", "prediction": 1, "score": 0.9}
ARROW = "application/vnd.apache.arrow.stream"


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


async def answered(client: Client, data: bytes, **headers: str) -> dict[str, Any]:
    answer = await client.post(ROWS, data, **headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (body(ROW), "application/json"),
        (body([ROW]), "application/json"),
        (body(ROW) + b"\n", "application/x-ndjson"),
        (b"\n\n" + body(ROW) + b"\n\n", ""),
    ],
)
async def test_an_object_an_array_and_lines_are_the_same_row(data: bytes, kind: str) -> None:
    async with pushing() as client:
        assert (await answered(client, data, content_type=kind))["rows"] == 1
        await client.taking.until(1)
        (inference,) = client.taking.inferences
        assert (inference.id, inference.names) == ("r-1", ("age", "city"))
        assert [list(row) for row in inference.rows] == [[41, "Bonn"]]
        assert inference.outputs == {"prediction": [1], "score": [0.9]}
        assert (inference.version, inference.slot) == ("", "stable")


async def test_time_version_and_label_are_no_features() -> None:
    row = {**ROW, "timestamp": "2026-08-21T10:00:00Z", "version": 3, "label": "yes"}
    async with pushing() as client:
        found = await answered(client, body(row))
        await client.taking.until(1)
        (inference,) = client.taking.inferences
        assert (inference.at, inference.version) == (1787306400.0, "3")
        assert inference.names == ("age", "city")
        assert found["labels"] == {"joined": 0, "pending": 1}
        labels = json.loads(client.taking.labels[0][0])
        assert labels == [{"request_id": "r-1", "row": 0, "label": "yes"}]


async def test_features_may_stand_in_an_object_of_their_own() -> None:
    row = {"request_id": "r", "features": {"prediction": 1.5, "a": {"b": 2}}, "prediction": 0}
    async with pushing() as client:
        await answered(client, body(row))
        await client.taking.until(1)
        assert client.taking.inferences[0].names == ("prediction", "a.b")


async def test_names_that_clash_can_be_changed() -> None:
    names = {"id": "ref", "score": "_score", "prediction": "price"}
    row = {"ref": 7, "score": 610, "price": 1.5, "label": 2}
    async with pushing(rows=names) as client:
        await answered(client, body(row))
        await client.taking.until(1)
        (inference,) = client.taking.inferences
        assert (inference.id, inference.names) == ("7", ("score",))
        assert inference.outputs == {"prediction": [1.5]}


async def test_rows_of_one_request_are_numbered_in_their_order() -> None:
    rows = [{**ROW, "age": age, "label": age} for age in (1, 2)] + [{**ROW, "request_id": "r-2"}]
    async with pushing() as client:
        await answered(client, body(rows))
        await client.taking.until(2)
        assert [i.row_count for i in client.taking.inferences] == [2, 1]
        labels = json.loads(client.taking.labels[0][0])
        assert [(label["row"], label["label"]) for label in labels] == [(0, 1), (1, 2)]


async def test_rows_without_ids_come_together_and_are_drawn_one_by_one() -> None:
    rows = [{"x": n, "prediction": 0} for n in range(2_500)]
    async with pushing() as client:
        assert (await answered(client, body(rows)))["rows"] == 2_500
        await client.taking.until(3)
        assert [i.row_count for i in client.taking.inferences] == [1_000, 1_000, 500]
        assert np.asarray(client.taking.inferences[2].rows)[0, 0] == 2_000
    sampler = Sampler(keeps=lambda id: id.endswith("0"), weight=lambda: 10.0)
    async with pushing(sampler=sampler) as client:
        found = await answered(client, body(rows))
        assert (found["rows"], found["sampled_out"]) == (250, 2_250)
        await client.taking.until(3)
        assert {i.weight for i in client.taking.inferences} == {10.0}


async def test_a_bad_row_is_named_with_its_place_and_reason_and_costs_no_other() -> None:
    bad: list[Any] = [
        7,
        {**ROW, "request_id": "not an id"},
        {**ROW, "timestamp": "yesterday"},
        {**ROW, "timestamp": 1787306400000},
        {**ROW, "version": "a b"},
        {**ROW, "prediction": {"class": 1}},
        {"request_id": "r"},
        {**ROW, "city": "x" * 5_000},
    ]
    async with pushing() as client:
        found = await answered(client, body([*bad, ROW]))
        assert found["rows"] == 1
        assert [(entry["index"], entry["reason"]) for entry in found["rejected"]] == [
            (0, "row_not_an_object"),
            (1, "row_bad_id"),
            (2, "row_bad_at"),
            (3, "row_bad_at"),
            (4, "row_bad_version"),
            (5, "row_bad_answer"),
            (6, "row_bad_features"),
            (7, "row_bad_features"),
        ]
        assert client.dropped["row_bad_at"] == 2
        lines = body(ROW) + b"\n{\n" + body(ROW)
        assert (await answered(client, lines))["rejected"][0]["index"] == 1


async def test_what_is_no_rows_at_all_is_refused() -> None:
    async with pushing() as client:
        for data in (b"", b"  ", b"hello", b"[1,", b"\xff\xfe\n\x00"):
            assert (await client.post(ROWS, data)).status_code == 400
        assert client.taking.taken == []


async def test_nan_is_a_missing_value() -> None:
    async with pushing() as client:
        await answered(client, b'{"x": NaN, "y": 1, "prediction": 2}')
        await client.taking.until(1)
        assert np.isnan(np.asarray(client.taking.inferences[0].rows)[0, 0])


async def test_labels_are_taken_as_on_the_admin_port() -> None:
    async with pushing() as client:
        data = body({"request_id": "a", "label": 1})
        answer = await client.post("/api/v1/labels", data)
        assert answer.json()["pending"] == 1
        assert client.taking.labels == [(data, "application/json")]


async def test_an_arrow_stream_is_rows() -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table(
        {
            "request_id": ["a", "b"],
            "timestamp": pa.array([1_787_306_400_500, None], pa.timestamp("ms", "UTC")),
            "age": pa.array([41, None], pa.int32()),
            "income": pa.array([1.5, float("nan")]),
            "city": pa.array(["Bonn", "Köln"]).dictionary_encode(),
            "prediction": [True, False],
        }
    )
    async with pushing() as client:
        found = await answered(client, stream(table), content_type=ARROW)
        assert found["rows"] == 2
        await client.taking.until(2)
        first, second = client.taking.inferences
        assert (first.id, first.at, first.names) == (
            "a",
            1_787_306_400.5,
            ("age", "income", "city"),
        )
        assert [list(row) for row in first.rows] == [[41, 1.5, "Bonn"]]
        assert [list(row) for row in second.rows] == [[None, None, "Köln"]]
        assert second.outputs == {"prediction": [False]}


async def test_arrow_that_may_unfold_is_refused() -> None:
    pa = pytest.importorskip("pyarrow")
    bomb = pa.table({"x": pa.array([0.0] * 1_000_000)})
    packed = pa.ipc.IpcWriteOptions(compression="zstd")
    dictionary = pa.table({"x": pa.array(["y" * 100_000] * 3).dictionary_encode()})
    nested = pa.table({"x": [[1, 2]], "y": [1]})
    async with pushing() as client:
        for table, options, status in (
            (bomb, packed, 415),
            (bomb, None, 413),
            (nested, None, 415),
        ):
            answer = await client.post(ROWS, stream(table, options), content_type=ARROW)
            assert answer.status_code == status, answer.text
        found = await answered(client, stream(dictionary), content_type=ARROW)
        assert found["rejected_total"] == 3  # each exists once, and is too long


def stream(table: Any, options: Any = None) -> bytes:
    from pyarrow import BufferOutputStream, ipc

    sink = BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
