"""Tables from Parquet, CSV and JSON Lines, by pyarrow, with the columns that are wanted.

CSV is read as text throughout: pyarrow would guess a type from the first block and fail on the
first odd cell of the second; `retrain.preprocess` reads numbers from text in one way.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

CSV_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")


class DataError(ValueError):
    """Rows that cannot be had: one line with the mend. The command exits 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """columns: name to [rows] values, text, numbers, datetimes or None."""

    name: str
    columns: Mapping[str, NDArray[Any]]
    rows: int


def read_tables(
    paths: Sequence[Path],
    wanted: Sequence[str],
    *,
    optional: Sequence[str] = (),
    skipped: Counter[str] | None = None,
) -> Iterator[Table]:
    """One table for each file, with all `wanted` columns and those of `optional` that it has.

    skipped: where given, a file that lacks a column or cannot be read is counted there and left
    out (captures outlive a change of schema); else it raises DataError.
    """
    for path in paths:
        try:
            yield _read(path, wanted, optional)
        except DataError:
            if skipped is None:
                raise
            skipped["files_left_out"] += 1


def _read(path: Path, wanted: Sequence[str], optional: Sequence[str]) -> Table:
    if not path.is_file():
        raise DataError(f"{path}: no such file: correct data.paths or data.holdout")
    name = path.name.lower()
    try:
        if name.endswith(PARQUET_SUFFIXES):
            table = _parquet(path, [*wanted, *optional])
        elif name.endswith(CSV_SUFFIXES):
            table = _csv(path, "\t" if ".tsv" in name else ",")
        elif name.endswith(JSON_SUFFIXES):
            table = pyarrow.json.read_json(path)
        else:
            raise DataError(f"{path}: unknown kind of file: use .parquet, .csv, .tsv or .jsonl")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    absent = [column for column in wanted if column not in table.column_names]
    if absent:
        raise DataError(f"{path}: has no column {absent[0]!r}: correct the recipe or the file")
    kept = [*wanted, *(column for column in optional if column in table.column_names)]
    return Table(
        name=path.name,
        columns={column: _values(table.column(column)) for column in kept},
        rows=table.num_rows,
    )


def _parquet(path: Path, columns: Sequence[str]) -> Any:
    with pyarrow.parquet.ParquetFile(path) as file:
        present = [name for name in columns if name in file.schema_arrow.names]
        return file.read(columns=present)


def _csv(path: Path, delimiter: str) -> Any:
    # pyarrow unpacks .gz by the file's name. The header is read first: text must be asked for by
    # the name of each column.
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter)
    with pyarrow.csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    convert = pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in names}, strings_can_be_null=False
    )
    return pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)


def _values(column: Any) -> NDArray[Any]:
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values
