"""What a column of anything becomes: numbers with two special values, or counted category keys.

Models are sent everything: None, NaN, infinities, strings among numbers, integers of 400 digits,
bytes, dates. Each has one stated outcome here, and none raises, so that one column never stops
another:

- a number column gives floats; missing (None, NaN, NaT, masked, empty text) becomes NaN; what is no
  number, or no finite double, becomes an infinity, which binning counts as *outside*; text that
  reads as a number is that number; True and False are 1 and 0; a date or time, as text too (ISO
  8601), is its second of the day (a phase: a clock that goes on is no drift);
- a category column gives text keys; missing becomes None; 1 and 1.0 are the same key, as they are
  in JSON.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]

_DAY_S: Final = 86_400
_KEY_CHARACTERS_MAX: Final = 256
_WIDTH_MAX: Final = 65_536
_VECTORS_LOOKED_AT: Final = 20
_MISSING_TYPES: Final = frozenset({"NAType", "NaTType", "NoneType", "MaskedConstant"})
_TRUTH: Final = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of equal length, what was wrong with the others, and the number of rows.

    `vectors` are the columns that hold a vector of numbers per row, [rows, width] float32, NaN
    where a row had none or one of another width. Nothing bins them: features are derived from them.
    """

    columns: dict[str, Column]
    malformed: dict[str, str]
    rows: int
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def as_table(columns: Any) -> Table:
    """Take a mapping of names to one-dimensional arrays, or a pandas or Arrow table, and never
    raise for a column.

    Rows are the length most columns have (the longer one where tied). A column of another length or
    shape is left out and named in `malformed`; one of vectors (two-dimensional, or lists of
    numbers) stands in `vectors`. Raises TypeError if `columns` is no mapping and no table at all.
    """
    arrays: dict[str, Column] = {}
    vectors: dict[str, NDArray[np.float32]] = {}
    malformed: dict[str, str] = {}
    for name, values in _items(columns):
        try:
            array = _array(values)
        except (
            Exception
        ) as error:  # whatever a foreign column type raises is a fact about that column only
            malformed[name] = f"cannot be read as an array ({type(error).__name__})"
            continue
        vector = as_vectors(array)
        if vector is not None:
            vectors[name] = vector
        elif array.ndim == 1:
            arrays[name] = array
        else:
            malformed[name] = f"has {array.ndim} dimensions, not 1"
    lengths = Counter(len(array) for array in (*arrays.values(), *vectors.values()))
    rows = max(lengths, key=lambda length: (lengths[length], length), default=0)
    held: dict[str, Any]
    for held in (arrays, vectors):
        for name in [name for name, array in held.items() if len(array) != rows]:
            malformed[name] = f"has {len(held.pop(name))} rows, not {rows}"
    return Table(columns=arrays, malformed=malformed, rows=rows, vectors=vectors)


def as_vectors(array: Column) -> NDArray[np.float32] | None:
    """Give a column of vectors as [rows, width] float32; None if it is no such column.

    A two-dimensional array of numbers is one; so is an object column of lists or arrays, most of
    the first of them of numbers. The width is that of most rows, at most 65,536.
    """
    if array.ndim == 2:
        fits = array.dtype.kind in "fiub" and 0 < array.shape[1] <= _WIDTH_MAX
        with np.errstate(over="ignore"):
            return array.astype(np.float32) if fits else None
    if array.dtype != object or not _begins_with_vectors(array):
        return None
    rows = [_vector(value) for value in array.tolist()]
    widths = Counter(len(row) for row in rows if row is not None)
    width = max(widths, key=lambda wide: (widths[wide], wide), default=0)
    if not 0 < width <= _WIDTH_MAX:
        return None
    stacked = np.full((len(rows), width), np.nan, dtype=np.float32)
    for place, row in enumerate(rows):
        if row is not None and len(row) == width:
            stacked[place] = row
    return stacked


def _begins_with_vectors(array: Column) -> bool:
    votes: list[bool] = []
    for value in array:
        if isinstance(value, list | tuple | np.ndarray):
            votes.append(_vector(value) is not None)
        elif type(value).__name__ not in _MISSING_TYPES:
            return False
        if len(votes) == _VECTORS_LOOKED_AT:
            break
    return 2 * sum(votes) > len(votes)


def _vector(value: Any) -> NDArray[np.float32] | None:
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    try:
        row = np.asarray(value)
        if row.ndim != 1 or not len(row) or row.dtype.kind not in "fiubO":
            return None
        with np.errstate(over="ignore"):
            plain: NDArray[np.float32] = row.astype(np.float32)
    except Exception:  # ragged, or of things that are no numbers
        return None
    return plain


def is_masked(column: Column) -> bool:
    """Say whether it is a masked array. Nobody has one who has not loaded numpy.ma, and to load it
    only to ask would take a megabyte.
    """
    loaded = sys.modules.get("numpy.ma")
    return loaded is not None and isinstance(column, loaded.MaskedArray)


def numbers(column: Column) -> Column:
    """Give floats or integers, one per row: NaN is missing, an infinity is outside."""
    if is_masked(column):
        plain = numbers(np.asarray(column.data)).astype(np.float64)
        plain[np.ma.getmaskarray(column)] = np.nan
        return plain
    kind = column.dtype.kind
    if kind in "fiub":
        return column
    if kind == "M":
        seconds = column.astype("datetime64[s]")
        phases = np.mod(seconds.astype(np.int64), _DAY_S).astype(np.float64)
        phases[np.isnat(seconds)] = np.nan
        return phases
    if kind == "m":
        spans = column.astype("timedelta64[s]").astype(np.float64)
        spans[np.isnat(column)] = np.nan
        return spans
    if kind == "c":
        return np.full(len(column), np.inf)
    try:
        plain = np.array(column.tolist(), dtype=np.float64)
    except Exception:  # text, dates, integers of 400 digits, or an object that refuses
        plain = np.empty((0, 0))
    if plain.ndim != 1:  # not all numbers, or lists inside the column
        return np.fromiter((number_of(value) for value in column.tolist()), np.float64, len(column))
    return plain


def number_of(value: Any) -> float:
    """Give one value as a number: NaN if missing, an infinity if no double can hold it."""
    if type(value).__name__ in _MISSING_TYPES:
        return math.nan
    if isinstance(value, np.datetime64 | np.timedelta64):
        return float(numbers(np.array([value]))[0])
    if isinstance(value, str | bytes):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        text = text.strip().lower()
        if not text:
            return math.nan
        value = _time_of(text) if _is_time(text) else _TRUTH.get(text, text)
    if isinstance(value, datetime):
        value = value.time()
    if isinstance(value, time):
        return float(value.hour * 3_600 + value.minute * 60 + value.second)
    if isinstance(value, complex):
        return math.inf
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # any object may stand in a column, and its __float__ may raise anything
        return math.inf


def key_counts(column: Column) -> dict[str | None, int]:
    """Count the column's category keys; None stands for missing."""
    counted: Counter[str | None] = Counter()
    values = column.tolist()  # a masked array lists its hidden values as None
    try:
        raw: Mapping[Any, int] = Counter(values)
    except Exception:  # unhashable values, or values whose comparison raises
        for value in values:
            counted[key_of(value)] += 1
        return counted
    for value, count in raw.items():
        counted[key_of(value)] += count
    return counted


def category_keys(column: Column) -> Column:
    """Give the key of each row, as an object array; None stands for missing."""
    known: dict[Any, str | None] = {}
    keys = np.empty(len(column), dtype=object)
    for row, value in enumerate(column.tolist()):
        try:
            keys[row] = known[value]
        except KeyError:
            keys[row] = known[value] = key_of(value)
        except Exception:  # unhashable, or a comparison that raises
            keys[row] = key_of(value)
    return keys


def key_of(value: Any) -> str | None:
    """Give the text key of one value, None if it is missing. Long text is cut and told apart by its
    hash.
    """
    if isinstance(value, np.generic):
        value = value.item()  # NaT becomes None
    if isinstance(value, str):
        return value if len(value) <= _KEY_CHARACTERS_MAX else _cut(value)
    if type(value).__name__ in _MISSING_TYPES:
        return None
    if isinstance(value, bool):
        value = int(
            value
        )  # True and 1 are equal in Python, so they cannot be two keys of one count
    if isinstance(value, bytes):
        return _cut(value.decode("utf-8", "replace"))
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() and abs(value) < 2**53 else value
    try:
        return _cut(str(value))
    except (
        Exception
    ):  # an object whose __str__ raises (or an int too long to print) is still a value
        return f"<{type(value).__name__}>"


def digest_of(key: str) -> str:
    """Give the 64-bit hash of a category key, in hex: rare categories are kept by hash, not by
    name.
    """
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def guess_kind(column: Column) -> str:
    """Say `numeric`, `boolean` or `categorical` of a column by its type, or of an object column by
    its values.
    """
    kind = column.dtype.kind
    if kind == "b":
        return "boolean"
    if kind in "fiuMmc":
        return "numeric"
    if kind not in "OU":
        return "categorical"
    seen = [value for value in column.tolist() if key_of(value) is not None]
    if seen and all(isinstance(value, str) and _is_time(value) for value in seen):
        return "numeric"
    if seen and all(isinstance(value, bool | np.bool_) for value in seen):
        return "boolean"
    if all(
        isinstance(value, int | float | np.number | datetime | time) or hasattr(value, "as_tuple")
        for value in seen
    ):
        return "numeric"
    return "categorical"


def _is_time(text: str) -> bool:
    """Whether text has the shape of a date with a time of day (ISO 8601)."""
    return (
        15 < len(text) < 40
        and text[4] == "-"
        and text[7] == "-"
        and text[10] in "Tt "
        and text[13] == ":"
        and text[:4].isdigit()
    )


def _time_of(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        return text


def _cut(text: str) -> str:
    return text if len(text) <= _KEY_CHARACTERS_MAX else f"{text[:64]}#{digest_of(text)}"


def _items(columns: Any) -> list[tuple[str, Any]]:
    if isinstance(columns, Mapping):
        return [(str(name), values) for name, values in columns.items()]
    names = getattr(columns, "column_names", None)  # Arrow
    if names is None:
        names = getattr(columns, "columns", None)  # pandas
    if names is None:
        raise TypeError(
            f"columns must be a mapping of names to arrays or a table, not {type(columns).__name__}"
        )
    return [(str(name), columns[name]) for name in names]


def _array(values: Any) -> Column:
    if isinstance(values, np.ndarray):
        return values
    to_numpy = getattr(values, "to_numpy", None)
    if to_numpy is not None:
        return np.asarray(to_numpy())
    if hasattr(values, "__array__"):
        return np.asarray(values)
    # A list of text and numbers must not become all text, so lists stay objects unless they are
    # plainly numbers.
    items = list(values)
    if items and all(type(item) in (int, float) for item in items):
        try:
            return np.array(items)
        except OverflowError:
            pass
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array
