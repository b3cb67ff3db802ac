"""JSON values laid out as rows of features and as outputs with one entry per row.

Do not loop over the cells of plain numbers in Python: rows of numbers go through `chain`,
`set(map(type))` and one `np.array`, which is what makes 10,000 rows/s of 100 features cheap.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason
from agent.decoders.opaque import binary_of, binary_table, describe_binary
from agent.inference import Rows, Value

Table: TypeAlias = tuple[tuple[str, ...] | None, Rows]  # feature names or None, n x d cells

_NUMBERS = {float, int, type(None)}
_SCALARS = {float, int, type(None), bool, str}


def table(entries: object, limits: DecodeLimits) -> Table:
    """A list with one entry per row: lists of cells, objects of named cells, or lone cells.

    Nested arrays (images, series) are laid out flat, row-major, as long as they are no wider
    than `columns_max`. Objects inside objects become `outer.inner`, arrays inside objects
    `name_0`, `name_1`, ...; an object without a name that another row has is missing there.
    Binary values, `{"b64": "..."}`, are described: `name.bytes`, of images `name.width` and more.

    Raises:
        DecodeError: wrong_type, empty_batch, ragged_rows, too_many_rows, too_many_columns,
            too_deep.
    """
    rows = require_rows(entries, limits)
    kinds = set(map(type, rows))
    if kinds == {list}:
        return None, cells_of(rows, limits)
    if kinds == {dict}:
        return named_table(rows, limits)
    if kinds <= _SCALARS:
        return None, cells_of([[cell] for cell in rows], limits)
    raise DecodeError(DecodeReason.WRONG_TYPE, "rows of different shapes in one request")


def require_rows(entries: object, limits: DecodeLimits) -> list[Any]:
    if not isinstance(entries, list):
        found = type(entries).__name__
        raise DecodeError(DecodeReason.WRONG_TYPE, f"rows must be an array, not {found}")
    if not entries:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "no rows")
    if len(entries) > limits.rows_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{len(entries)} > {limits.rows_max}")
    return entries


def cells_of(rows: Sequence[Sequence[Any]], limits: DecodeLimits) -> Rows:
    """n lists of equal length, nested or not, as n x d cells.

    Raises:
        DecodeError: ragged_rows, too_many_columns, too_deep, wrong_type, empty_batch.
    """
    if not rows:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "no rows")
    cells: Sequence[Any] = rows
    width = 1
    for _ in range(limits.depth_max):
        lengths = set(map(len, cells))
        if len(lengths) > 1:
            raise DecodeError(DecodeReason.RAGGED_ROWS, f"lengths {sorted(lengths)[:5]}")
        width *= lengths.pop()
        require_width(width, limits)
        require_cells(len(rows), width, limits)
        cells = list(chain.from_iterable(cells))
        kinds = set(map(type, cells))
        if kinds <= _NUMBERS:
            return np.array(cells, dtype=np.float64).reshape(len(rows), width)
        if kinds <= _SCALARS:
            return [cells[start : start + width] for start in range(0, len(cells), width)]
        if kinds != {list}:
            raise DecodeError(DecodeReason.WRONG_TYPE, "a cell holds an array or an object")
    raise DecodeError(DecodeReason.TOO_DEEP, f"arrays nested over {limits.depth_max} deep")


def require_width(width: int, limits: DecodeLimits) -> None:
    if width == 0:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "rows without cells")
    if width > limits.columns_max:
        raise DecodeError(DecodeReason.TOO_MANY_COLUMNS, f"{width} > {limits.columns_max}")


def require_cells(rows: int, width: int, limits: DecodeLimits) -> None:
    if rows * width > limits.cells_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"over {limits.cells_max} cells")


def require_names(names: Sequence[str], rows: int, limits: DecodeLimits) -> None:
    """Names that may stay in memory for as long as the model runs, and cells that may not.

    Raises:
        DecodeError: empty_batch, too_many_columns, too_many_rows, wrong_type.
    """
    require_width(len(names), limits)
    require_cells(rows, len(names), limits)
    if max(map(len, names)) > limits.name_characters_max:
        raise DecodeError(DecodeReason.WRONG_TYPE, "a name is too long to be one")


def named_table(rows: Sequence[dict[str, Any]], limits: DecodeLimits) -> Table:
    """n objects as rows; the names in the order of their first appearance."""
    if any(len(row) == 1 and "b64" in row for row in rows):
        return _binary_columns("instance", rows)
    flat = rows if are_alike(rows) else [flat_object(row, limits) for row in rows]
    names = tuple(flat[0] if flat is rows else dict.fromkeys(chain.from_iterable(flat)))
    require_names(names, len(rows), limits)
    return names, cells_of(picked(flat, names), limits)


def are_alike(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether all objects have the names of the first one and hold scalars: nearly always."""
    names = rows[0].keys()
    cells = chain.from_iterable(row.values() for row in rows)
    return all(row.keys() == names for row in rows) and set(map(type, cells)) <= _SCALARS


def flat_object(row: dict[str, Any], limits: DecodeLimits) -> dict[str, Value]:
    """An object whose values are all scalars; itself if that is what it was."""
    if set(map(type, row.values())) <= _SCALARS:
        return row
    flat: dict[str, Value] = {}
    waiting: list[tuple[str, Any, int]] = [(name, row[name], 1) for name in reversed(row)]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > limits.depth_max:
            raise DecodeError(DecodeReason.TOO_DEEP, f"nested over {limits.depth_max} deep")
        if (data := binary_of(value)) is not None:
            flat |= describe_binary(name, data)
            continue
        if isinstance(value, dict):
            inner = [(f"{name}.{key}", value[key], depth + 1) for key in reversed(value)]
        elif isinstance(value, list):
            inner = [(f"{name}_{i}", value[i], depth + 1) for i in reversed(range(len(value)))]
        else:
            flat[name] = value
            continue
        require_width(max(1, len(inner) + len(waiting) + len(flat)), limits)
        waiting.extend(inner)
    return flat


def picked(rows: Iterable[Mapping[str, Value]], names: tuple[str, ...]) -> list[Sequence[Value]]:
    """The cells of each object in the order of `names`, null for what it does not have."""
    if len(names) == 1:
        return [[row.get(names[0])] for row in rows]
    pick: Callable[[Mapping[str, Value]], Sequence[Value]] = itemgetter(*names)
    cells: list[Sequence[Value]] = []
    for row in rows:
        try:
            cells.append(pick(row))
        except KeyError:
            cells.append([row.get(name) for name in names])
    return cells


def table_of_columns(columns: Mapping[str, object], limits: DecodeLimits) -> Table:
    """An object of columns, each n cells or n rows of a few cells, as rows.

    Columns of several cells are called `name_0`, `name_1`, ...; binary values are described.

    Raises:
        DecodeError: as `table`; rows_mismatch when the columns differ in length.
    """
    require_width(len(columns), limits)
    names: list[str] = []
    parts: list[Rows] = []
    for name, entries in columns.items():
        rows = require_rows(entries, limits)
        is_nested = isinstance(rows[0], list)
        part: Rows
        if isinstance(rows[0], dict):
            described, part = _binary_columns(name, rows)
            names += described
        else:
            part = cells_of(rows if set(map(type, rows)) == {list} else [[c] for c in rows], limits)
            names += part_names(name, len(part[0]), is_nested=is_nested)
        require_width(len(names), limits)
        parts.append(part)
    require_names(names, len(parts[0]), limits)
    return unique_names(names), beside_each_other(parts)


def _binary_columns(
    name: str, entries: Sequence[object]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    values = [binary_of(entry) for entry in entries]
    if None in values:
        raise DecodeError(DecodeReason.WRONG_TYPE, "binary and other values in one column")
    return binary_table(name, values)


def part_names(name: str, width: int, *, is_nested: bool = True) -> list[str]:
    return [f"{name}_{i}" for i in range(width)] if is_nested and width > 1 else [name]


def beside_each_other(parts: Sequence[Rows]) -> Rows:
    """Parts of n rows each as n rows; a matrix when every part is one.

    In mixed rows the cells of a part of numbers are floats, NaN where null.
    """
    if len({len(part) for part in parts}) > 1:
        raise DecodeError(DecodeReason.ROWS_MISMATCH, "columns of different lengths")
    matrices = [part for part in parts if isinstance(part, np.ndarray)]
    if len(matrices) == len(parts):
        return matrices[0] if len(parts) == 1 else np.hstack(matrices)
    lists = [part.tolist() if isinstance(part, np.ndarray) else part for part in parts]
    return [list(chain.from_iterable(row)) for row in zip(*lists, strict=True)]


def unique_names(names: Iterable[object]) -> tuple[str, ...]:
    """Names as strings, told apart as pandas does: a second `age` is called `age.1`.

    Raises:
        DecodeError: wrong_type for a name that is neither string nor number.
    """
    taken: dict[str, int] = {}
    unique: list[str] = []
    for name in names:
        if not isinstance(name, str | int | float):
            raise DecodeError(DecodeReason.WRONG_TYPE, "a column name is no string")
        text = str(name)
        while text in taken:
            taken[text] += 1
            text = f"{text}.{taken[text]}"
        taken[text] = 0
        unique.append(text)
    return tuple(unique)
