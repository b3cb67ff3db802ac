"""Names of classes and their numbers: what clients spell differently is one class.

Order is that of first sight, so that a number once given keeps its meaning; a reader must not sort
what `ClassNames` holds.

>>> names = ClassNames()
>>> names.codes(np.array(["no", "yes", "no", None], dtype=object)).tolist(), names.names
([0, 1, 0, -1], ('no', 'yes'))
"""

import math
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Class: TypeAlias = str | int | float | bool
Codes: TypeAlias = NDArray[np.int64]

# More classes than this share one "other" class: a confusion table is never unbounded.
CLASSES_MAX: Final = 100
OTHER: Final = "(other)"
NAME_CHARACTERS_MAX: Final = 200
# Spellings remembered between calls; when full it is emptied, which costs time only.
SPELLINGS_MAX: Final = 1_024
#: Up to so many spellings all rows are compared with each; so few rows tell that there are few.
FEW_SPELLINGS: Final = 3
FEW_ROWS_MIN: Final = 32
UNKNOWN: Final = -1
_NUMERIC: Final = "biuf"
_TRUTH: Final = {"true": "1", "false": "0"}


def class_name(value: object) -> str:
    """One spelling for a class: JSON, CSV and clients each have their own for the same.

    >>> {class_name(value) for value in (1, 1.0, True, "1", "1.0", "true", "True")}
    {'1'}
    >>> class_name("1.5"), class_name("yes")
    ('1.5', 'yes')
    """
    if isinstance(value, str):
        whole, point, rest = value.partition(".")
        if point and rest and not rest.strip("0") and whole.removeprefix("-").isdigit():
            return whole
        return _TRUTH.get(value.lower(), value)
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating) and value.is_integer():
        return str(int(value))
    return str(value)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted as numbers where all are numbers, else as text."""
    listed = list(names)
    try:
        return tuple(sorted(listed, key=float))
    except ValueError:
        return tuple(sorted(listed))


class ClassNames:
    """Names in the order of first sight: at most `CLASSES_MAX`, and one more for all others."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        self._as_number: list[tuple[float, int]] = []  # names that are numbers, with their own
        self._spellings: dict[object, int] = {}
        for name in names:
            self._number(name)

    @property
    def names(self) -> tuple[str, ...]:
        """By number: `names[code]`."""
        return tuple(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def codes(self, values: NDArray[Any]) -> Codes:
        """The number of each value's class, learning new ones; -1 for what names none.

        None, NaN, infinities and values that cannot be a key name no class.
        """
        if values.dtype.kind in _NUMERIC:
            return self._of_numbers(values)
        if values.dtype == object and len(values) >= FEW_ROWS_MIN:
            try:
                return self._of_few(values)
            except (TypeError, ValueError, ArithmeticError):  # an array, or an int beyond floats
                pass
        return self._of_many(values)

    def _of_few(self, values: NDArray[Any]) -> Codes:
        """The same by comparing all rows with one spelling at a time, which is several times as
        quick as looking each up as long as there are few; rows left over are looked up.
        """
        if len(set(values[:FEW_ROWS_MIN].tolist())) > FEW_SPELLINGS:
            return self._of_many(values)
        codes = np.full(len(values), UNKNOWN, dtype=np.int64)
        places, rest = np.arange(len(values)), values
        for _ in range(FEW_SPELLINGS):
            first = rest[0]
            if type(first) not in (str, int, float, bool):
                break
            known = self._spellings.get(first, UNKNOWN)
            same = np.asarray(rest == first, dtype=np.bool_)
            codes[places[same]] = self._of(first) if known == UNKNOWN else known
            places = places[~same]
            if not len(places):
                return codes
            rest = values[places]
        codes[places] = self._of_many(rest)
        return codes

    def _of_many(self, values: NDArray[Any]) -> Codes:
        listed = values.tolist()
        try:
            known = self._spellings
            found = [known.get(value, UNKNOWN) for value in listed]
        except TypeError:  # a list or a mapping among them
            found = [UNKNOWN] * len(listed)
        if UNKNOWN in found:
            found = [self._of(listed[i]) if c == UNKNOWN else c for i, c in enumerate(found)]
        return np.asarray(found, dtype=np.int64)

    def _of_numbers(self, values: NDArray[Any]) -> Codes:
        # One more than the code, 0 for none yet: bytes, of which there are enough for all codes.
        above = np.zeros(len(values), dtype=np.int8)
        for as_number, number in self._as_number:
            above += (values == as_number).view(np.int8) * np.int8(number + 1)
        codes = above.astype(np.int64) - 1
        if above.all():
            return codes
        left = above == 0
        if values.dtype.kind == "f":
            left &= np.isfinite(values)
        if left.any():
            new, places = np.unique(values[left], return_inverse=True)
            numbers = np.array([self._of(value) for value in new.tolist()], dtype=np.int64)
            codes[left] = numbers[places]
        return codes

    def _of(self, value: object) -> int:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return UNKNOWN
        try:
            hash(value)
            name = class_name(value)
        except (TypeError, ValueError):
            return UNKNOWN
        number = self._number(name[:NAME_CHARACTERS_MAX])
        if len(self._spellings) >= SPELLINGS_MAX:
            self._spellings.clear()
        self._spellings[value] = number
        return number

    def _number(self, name: str) -> int:
        if name in self._numbers:
            return self._numbers[name]
        if len(self._numbers) >= CLASSES_MAX:
            name = OTHER
        if name not in self._numbers:
            self._numbers[name] = len(self._numbers)
            as_number = _as_number(name)
            if as_number is not None:
                self._as_number.append((as_number, self._numbers[name]))
        return self._numbers[name]


def _as_number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) and class_name(number) == name else None
