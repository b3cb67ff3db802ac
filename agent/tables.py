"""Data files as chunks of columns: Parquet, CSV, JSON Lines, each in constant memory.

A column keeps the kind that its first chunk showed: numbers (float64, missing as NaN) or objects
(text, booleans, whatever JSON holds, missing as None). A later value that is no number stays what
it is, in an object chunk of that column: what it means is the detectors' to say, not lost here.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from agent.errors import BadInputError

Columns: TypeAlias = dict[str, NDArray[Any]]
Format: TypeAlias = Literal["parquet", "csv", "jsonl"]

CHUNK_ROWS: Final = 10_000
LINE_BYTES_MAX: Final = 16 << 20
COLUMNS_MAX: Final = 100_000
MISSING_TOKENS: Final = frozenset({"", "NA", "NaN", "nan", "null", "?"})

_FORMATS: Final[Mapping[str, Format]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(slots=True)
class BadLines:
    """How many lines could not be read, and how many are put up with."""

    allowed: int = 0
    count: int = 0
    said: Callable[[str], None] | None = None  # told of each line that is left out

    def add(self, where: str, message: str) -> None:
        """Counts a bad line. Raises BadInputError when there is one more than allowed."""
        self.count += 1
        if self.count > self.allowed:
            mend = "mend it" if not self.allowed else f"{self.allowed} were allowed"
            raise BadInputError(f"{where}: {message}: {mend}, or leave bad lines out by --skip-bad")
        if self.said is not None:
            self.said(f"{where}: {message}: left out")


def read_columns(
    path: Path,
    *,
    chunk_rows: int = CHUNK_ROWS,
    missing: Collection[str] = MISSING_TOKENS,
    bad_lines: BadLines | None = None,
) -> Iterator[Columns]:
    """Chunks of at most `chunk_rows` rows, in the order of the file.

    Parameters
    ----------
    path: a file whose name ends in .parquet, .csv, .tsv, .jsonl or .ndjson, the texts also in .gz.
    missing: words that stand for a missing value in CSV.
    bad_lines: how many unreadable lines to leave out; none by default.

    Raises BadInputError naming the file and line.
    """
    bad = BadLines() if bad_lines is None else bad_lines
    kind = format_of(path)
    if kind == "parquet":
        yield from _read_parquet(path, chunk_rows)
    elif kind == "csv":
        yield from _read_csv(path, chunk_rows, frozenset(missing), bad)
    else:
        yield from _read_json_lines(path, chunk_rows, bad)


def format_of(path: Path) -> Format:
    """The format, by the ending of the name. Raises BadInputError for any other.

    >>> format_of(Path("rows.csv.gz"))
    'csv'
    """
    name = path.name.lower().removesuffix(".gz")
    found = _FORMATS.get(name[name.rfind(".") :]) if "." in name else None
    if found is None:
        raise BadInputError(f"{path}: unknown kind of file: let it end in .csv, .jsonl or .parquet")
    return found


@dataclass(slots=True)
class _Lines:
    """Lines of a text file, decoded one by one, so that a broken one can be named."""

    path: Path
    number: int = 0
    undecodable: set[int] = field(default_factory=set)

    def __iter__(self) -> Iterator[str]:
        try:
            with _open_bytes(self.path) as file:
                while raw := file.readline(LINE_BYTES_MAX + 1):
                    self.number += 1
                    if len(raw) > LINE_BYTES_MAX:
                        raise BadInputError(
                            f"{self.path}:{self.number}: is longer than {LINE_BYTES_MAX} bytes:"
                            " is this the right file?"
                        )
                    try:
                        yield raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
                    except UnicodeDecodeError:
                        self.undecodable.add(self.number)
                        yield raw.decode("utf-8", "replace")
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise BadInputError(f"{self.path}: is damaged or cut off: copy it again") from None
        except OSError as error:
            raise BadInputError(f"{self.path}: cannot be read ({error.strerror})") from None


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not zipped:
            yield file
            return
        # GzipFile leaves the file that it was given open: the outer `with` closes it.
        with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
            yield cast("IO[bytes]", unzipped)


def _read_csv(
    path: Path, chunk_rows: int, missing: frozenset[str], bad: BadLines
) -> Iterator[Columns]:
    lines = _Lines(path)
    texts = iter(lines)
    first = next(texts, "")
    if not first.strip():
        raise BadInputError(f"{path}: is empty: the first line must name the columns")
    delimiter = max(",;\t", key=first.count)  # the comma where they tie
    names = _header(path, first, delimiter)
    reader = csv.reader(texts, delimiter=delimiter, skipinitialspace=True)
    numeric: dict[str, bool] = {}
    rows = _whole_rows(path, reader, lines, len(names), bad)
    while chunk := list(islice(rows, chunk_rows)):
        columns: Columns = {}
        for name, values in zip(names, zip(*chunk, strict=True), strict=True):
            if name not in numeric:
                numeric[name] = _looks_numeric(values, missing)
            columns[name] = _numbers(values, missing) if numeric[name] else _texts(values, missing)
        yield columns


def _header(path: Path, line: str, delimiter: str) -> list[str]:
    try:
        names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise BadInputError(f"{path}:1: names no columns ({error}): mend the header") from None
    named = [name.strip() or f"column {index}" for index, name in enumerate(names, 1)]
    twice = next((name for i, name in enumerate(named) if name in named[:i]), None)
    if len(named) > COLUMNS_MAX:
        raise BadInputError(f"{path}:1: names more than {COLUMNS_MAX} columns")
    if twice is not None:
        raise BadInputError(f"{path}:1: names the column {twice!r} twice: rename one")
    return named


def _whole_rows(
    path: Path, reader: Any, lines: _Lines, width: int, bad: BadLines
) -> Iterator[list[str]]:
    while True:
        try:
            row: list[str] = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad.add(f"{path}:{lines.number}", f"is no CSV ({error})")
            continue
        if lines.undecodable:
            lines.undecodable.clear()
            bad.add(f"{path}:{lines.number}", "is not UTF-8 text")
        elif len(row) == width:
            yield row
        elif row:  # an empty line is no row and no mistake
            fields = f"has {len(row)} fields where the header has {width}"
            bad.add(f"{path}:{lines.number}", fields)


def _looks_numeric(values: tuple[str, ...], missing: frozenset[str]) -> bool:
    """Whether every value that is there reads as a number. A column without values is numeric."""
    return all(value in missing or _is_number(value) for value in values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(values: tuple[str, ...], missing: frozenset[str]) -> NDArray[Any]:
    # A word for missing may read as a number (-999): then it must go before numbers are read.
    if not any(_is_number(word) and word.lower() != "nan" for word in missing):
        try:
            return np.array(values, dtype=np.float64)
        except ValueError:
            pass
    filled = ["nan" if value in missing else value for value in values]
    try:
        return np.array(filled, dtype=np.float64)
    except ValueError:
        mixed = [float(v) if _is_number(v) else v for v in filled]
        return _objects(mixed)


def _texts(values: tuple[str, ...], missing: frozenset[str]) -> NDArray[Any]:
    return _objects([None if value in missing else value for value in values])


def _objects(values: list[Any]) -> NDArray[Any]:
    # Filled item by item: numpy would make a matrix of a column of lists.
    column = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        column[index] = value
    return column


def _read_json_lines(path: Path, chunk_rows: int, bad: BadLines) -> Iterator[Columns]:
    lines = _Lines(path)
    numeric: dict[str, bool] = {}
    rows = _objects_of(path, lines, bad)
    while chunk := list(islice(rows, chunk_rows)):
        # Columns of the first chunk stay, so that a feature that stops coming is seen as missing.
        for name in dict.fromkeys(name for row in chunk for name in row):
            if name not in numeric:
                if len(numeric) >= COLUMNS_MAX:
                    raise BadInputError(f"{path}: holds more than {COLUMNS_MAX} keys")
                numeric[name] = _all_numbers([row.get(name) for row in chunk])
        columns: Columns = {}
        for name, is_numeric in numeric.items():
            values = [row.get(name) for row in chunk]
            columns[name] = _json_numbers(values) if is_numeric else _objects(values)
        yield columns


def _objects_of(path: Path, lines: _Lines, bad: BadLines) -> Iterator[dict[str, Any]]:
    import orjson

    for line in lines:
        if not line.strip():
            continue
        where = f"{path}:{lines.number}"
        if lines.undecodable:
            lines.undecodable.clear()
            bad.add(where, "is not UTF-8 text")
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            bad.add(where, f"is no JSON ({error.msg})")
            continue
        if isinstance(value, dict):
            yield value
        else:
            bad.add(where, "is no JSON object of column and value")


def _all_numbers(values: list[Any]) -> bool:
    return all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )


def _json_numbers(values: list[Any]) -> NDArray[Any]:
    if _all_numbers(values):
        try:
            return np.array(values, dtype=np.float64)
        except (OverflowError, TypeError):
            pass
    return _objects(values)


def _read_parquet(path: Path, chunk_rows: int) -> Iterator[Columns]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise BadInputError(
            f"{path}: reading Parquet needs an extra: pip install 'remora[parquet]'"
        ) from None
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=chunk_rows, use_threads=False):
                names = batch.schema.names
                yield {name: _arrow(batch.column(i)) for i, name in enumerate(names)}
    except (pa.ArrowException, EOFError) as error:
        raise BadInputError(f"{path}: is no whole Parquet file ({error})") from None
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _arrow(column: Any) -> NDArray[Any]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64(), safe=False)
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    return _objects(column.to_pylist())
