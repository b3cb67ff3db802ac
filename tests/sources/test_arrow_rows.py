"""Arrow streams: damaged anywhere they are refused, and nothing unfolds beyond what was sent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.admin.view import Refused
from agent.sources.arrow_packing import is_packed
from agent.sources.arrow_rows import arrow_entries

pa = pytest.importorskip("pyarrow")


def stream(**options: Any) -> bytes:
    table = pa.table(
        {
            "id": [f"r-{n}" for n in range(20)],
            "x": [float(n) for n in range(20)],
            "kind": pa.array(["a", "b"] * 10).dictionary_encode(),
        }
    )
    sink = pa.BufferOutputStream()
    settings = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, table.schema, options=settings) as writer:
        writer.write_table(table, max_chunksize=7)
    data: bytes = sink.getvalue().to_pybytes()
    return data


WHOLE = stream()


def test_a_stream_is_rows_and_a_packed_one_is_known_by_its_messages() -> None:
    rows = arrow_entries(WHOLE, rows_max=100)
    assert rows[3] == {"id": "r-3", "x": 3.0, "kind": "b"}
    assert not is_packed(WHOLE)
    assert not is_packed(stream(use_legacy_format=True))
    assert is_packed(stream(compression="lz4"))
    assert is_packed(stream(compression="zstd"))


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))
def test_damage_anywhere_is_refused_or_read_and_never_crashes(at: int, bytes_: bytes) -> None:
    damaged = WHOLE[:at] + bytes_ + WHOLE[at + len(bytes_) :]
    read(damaged)


@given(st.integers(0, len(WHOLE)))
def test_a_stream_that_ends_early_is_refused_or_short(at: int) -> None:
    read(WHOLE[:at])


@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_refused_or_rows(data: bytes) -> None:
    read(data)


def read(data: bytes) -> None:
    """Rows within the limit, or a refusal that blames the sender; nothing else."""
    status, rows = 400, 0
    try:
        rows = len(arrow_entries(data, rows_max=100))
    except Refused as refused:
        status = refused.status
    assert status in (400, 413, 415)
    assert rows <= 100
