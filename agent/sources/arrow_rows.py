"""Rows of an Arrow stream as plain values. Needs pyarrow, which only this file imports, when asked.

A stream is other people's memory layout: nothing of it is trusted before `validate(full=True)`, and
what can unfold into more than was sent (packed buffers, nested and encoded columns) is refused.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from agent.admin.view import Refused
from agent.sources.arrow_packing import is_packed

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
COLUMNS_MAX: Final = 5_000
TEXT_CHARACTERS_MAX: Final = 4_096
NEEDED: Final = "Arrow needs pyarrow: pip install 'remora[parquet]'"


def arrow_entries(body: bytes, *, rows_max: int) -> Sequence[dict[str, Any]]:
    """One object for each row. Raises `Refused` (400, 413, 415)."""
    try:
        import pyarrow
        from pyarrow import ipc
    except ImportError:
        raise Refused(415, NEEDED) from None
    if is_packed(body):
        raise Refused(415, "the Arrow stream is compressed: write it without compression")
    rows: list[dict[str, Any]] = []
    try:
        with ipc.open_stream(body) as reader:
            readers = _readers(reader.schema)
            for batch in reader:
                if len(rows) + batch.num_rows > rows_max:
                    raise Refused(413, f"more than {rows_max} rows in one body: send several")
                batch.validate(full=True)
                rows += _rows(batch, readers)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise Refused(400, f"the body is no Arrow stream: {error}"[:300]) from None
    return rows


def _rows(batch: Any, readers: Sequence[tuple[str, Callable[[Any], list[Any]]]]) -> Any:
    names = [name for name, _ in readers]
    columns = [read(batch.column(place)) for place, (_, read) in enumerate(readers)]
    return (dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True))


def _readers(schema: Any) -> list[tuple[str, Callable[[Any], list[Any]]]]:
    if not 0 < len(schema) <= COLUMNS_MAX:
        raise Refused(400, f"an Arrow stream has 1 to {COLUMNS_MAX} columns here")
    if len(set(schema.names)) != len(schema):
        raise Refused(400, "two columns of the Arrow stream have the same name")
    return [(field.name, _reader(field)) for field in schema]


def _reader(field: Any) -> Callable[[Any], list[Any]]:
    from pyarrow import types

    kind = field.type
    if types.is_dictionary(kind) and _is_text(kind.value_type):
        return _of_dictionary
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind):
        return _plain
    if types.is_floating(kind):
        return _floats
    if _is_text(kind):
        return _plain
    if types.is_timestamp(kind):
        return _moments
    raise Refused(415, f"column {field.name[:64]!r} is {kind}: send numbers, texts or timestamps")


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _plain(column: Any) -> list[Any]:
    found: list[Any] = column.to_pylist()
    return found


def _floats(column: Any) -> list[Any]:
    # What is not a number is missing, as in a table of pandas.
    return [None if cell is None or math.isnan(cell) else cell for cell in column.to_pylist()]


def _of_dictionary(column: Any) -> list[Any]:
    """The texts by their number: each exists once, however often it is pointed at."""
    texts = column.dictionary.to_pylist()
    return [None if place is None else texts[place] for place in column.indices.to_pylist()]


def _moments(column: Any) -> list[Any]:
    """Unix seconds; a timestamp without a zone is UTC by Arrow's convention for moments."""
    per_s = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[column.type.unit]
    numbers = column.cast("int64").to_pylist()
    return [None if number is None else number / per_s for number in numbers]
