"""CSV with a header line as named rows, read as pandas would read it.

Do not guess types cell by cell: a column is numeric when all its cells are, because that is
how the model's own framework saw it.
"""

import csv
import io
import math
from collections.abc import Sequence

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason
from agent.decoders.tabular import (
    Table,
    cells_of,
    require_cells,
    require_names,
    require_width,
    unique_names,
)
from agent.inference import Rows, Value

# What pandas takes for a missing value by default.
MISSING = frozenset(
    {
        "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
        "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
    }
)  # fmt: skip
_TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}


def csv_table(body: bytes, limits: DecodeLimits) -> Table:
    """The rows under a header line, quoted fields and all.

    Raises:
        DecodeError: unsupported_encoding (not UTF-8), not_csv, empty_batch, ragged_rows,
            too_many_rows, too_many_columns, wrong_type.
    """
    header, *rows = csv_lines(body, limits)
    if not rows:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "a header line and no rows")
    names = unique_names(
        name or f"Unnamed: {position}"  # as pandas calls the index that it wrote itself
        for position, name in enumerate(header)
    )
    require_names(names, len(rows), limits)
    return names, csv_cells(rows, len(names), limits)


def csv_lines(body: bytes, limits: DecodeLimits) -> list[list[str]]:
    """All lines that are not empty, at least one, as fields.

    Raises:
        DecodeError: unsupported_encoding, not_csv, empty_batch, too_many_rows.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "CSV that is not UTF-8") from None
    lines: list[list[str]] = []
    try:
        for line in csv.reader(io.StringIO(text, newline=""), strict=True):
            if line:
                lines.append(line)
            if len(lines) > limits.rows_max + 1:
                raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"over {limits.rows_max}")
    except csv.Error as error:
        raise DecodeError(DecodeReason.NOT_CSV, str(error)) from None
    if not lines:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "no header line")
    return lines


def csv_cells(rows: Sequence[Sequence[str]], width: int, limits: DecodeLimits) -> Rows:
    """Lines of `width` fields as cells, a type for each column.

    Raises:
        DecodeError: ragged_rows, too_many_rows, too_many_columns.
    """
    require_width(width, limits)
    require_cells(len(rows), width, limits)
    if any(len(row) != width for row in rows):
        raise DecodeError(DecodeReason.RAGGED_ROWS, f"not all lines have {width} fields")
    columns = [_typed(cells) for cells in zip(*rows, strict=True)]
    return cells_of(list(zip(*columns, strict=True)), limits)


def has_header(lines: Sequence[Sequence[str]]) -> bool:
    """Whether the first line names columns: it holds no number, and there are lines below it.

    >>> has_header([["age", "income"], ["41", "3"]]), has_header([["41", "3"], ["67", "4"]])
    (True, False)
    """
    first = lines[0]
    is_named = not any(cell in MISSING or _number(cell) is not None for cell in first)
    return is_named and len(lines) > 1 and len(set(first)) == len(first)


def _typed(cells: Sequence[str]) -> Sequence[Value]:
    """A column's cells as numbers, else as booleans, else as strings; missing is null."""
    present = [cell for cell in cells if cell not in MISSING]
    numbers = [_number(cell) for cell in present]
    if None not in numbers:
        return [None if cell in MISSING else _number(cell) for cell in cells]
    if all(cell in _TRUTH for cell in present):
        return [_TRUTH.get(cell) for cell in cells]
    return [None if cell in MISSING else cell for cell in cells]


def field_value(cell: str) -> Value:
    """A field by itself: a number, null for what pandas calls missing, else the text.

    >>> field_value("0.5"), field_value(" 3"), field_value("spam"), field_value("nan")
    (0.5, 3.0, 'spam', None)
    """
    if cell in MISSING:
        return None
    number = _number(cell)
    return cell if number is None else number


def _number(cell: str) -> float | None:
    if "_" in cell or not cell.isascii():
        return None  # Python reads 1_000 as a number, nobody else does
    try:
        number = float(cell)
    except ValueError:
        return None
    return None if math.isnan(number) else number
