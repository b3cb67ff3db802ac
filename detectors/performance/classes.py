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
        codes = np.full(len(values), UNKNOWN, dtype=np.int64)
        for name, number in self._numbers.items():
            as_number = _as_number(name)
            if as_number is not None:
                codes[values == as_number] = number
        left = codes == UNKNOWN
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
        return self._numbers.setdefault(name, len(self._numbers))


def _as_number(name: str) -> float | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) and class_name(number) == name else None
