"""CSV with a header line as named rows, read as pandas would read it.

Do not guess types cell by cell: a column is numeric when all its cells are, because that is
how the model's own framework saw it.
"""

import csv
import io
import math
from collections.abc import Sequence

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason
from agent.decoders.tabular import Table, cells_of, require_names, unique_names
from agent.inference import Value

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
    header, *rows = lines
    if not rows:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "a header line and no rows")
    names = unique_names(
        name or f"Unnamed: {position}"  # as pandas calls the index that it wrote itself
        for position, name in enumerate(header)
    )
    require_names(names, len(rows), limits)
    if any(len(row) != len(names) for row in rows):
        raise DecodeError(DecodeReason.RAGGED_ROWS, f"not all lines have {len(names)} fields")
    columns = [_typed(cells) for cells in zip(*rows, strict=True)]
    return names, cells_of(list(zip(*columns, strict=True)), limits)


def _typed(cells: Sequence[str]) -> Sequence[Value]:
    """A column's cells as numbers, else as booleans, else as strings; missing is null."""
    present = [cell for cell in cells if cell not in MISSING]
    numbers = [_number(cell) for cell in present]
    if None not in numbers:
        return [None if cell in MISSING else _number(cell) for cell in cells]
    if all(cell in _TRUTH for cell in present):
        return [_TRUTH.get(cell) for cell in cells]
    return [None if cell in MISSING else cell for cell in cells]


def _number(cell: str) -> float | None:
    if "_" in cell or not cell.isascii():
        return None  # Python reads 1_000 as a number, nobody else does
    try:
        number = float(cell)
    except ValueError:
        return None
    return None if math.isnan(number) else number
