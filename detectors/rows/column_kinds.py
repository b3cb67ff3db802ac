"""What each column of a reference is: a kind of feature, or text or vectors to derive features
from.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from detectors.relations.text import is_text
from detectors.rows.columns import Column, Table, guess_kind

PLAIN_KINDS: Final = ("numeric", "categorical", "boolean")
KINDS: Final = (*PLAIN_KINDS, "text", "vector")


def column_kinds(
    tables: Sequence[Table], given: Mapping[str, str], *, outputs: Collection[str] = ()
) -> dict[str, str]:
    """Give the kind of every column of some tables: what is given holds, the rest is guessed.

    `outputs` are never texts: their words are what the model or the world said.
    """
    kinds: dict[str, str] = {}
    for name in dict.fromkeys(name for table in tables for name in table.columns):
        arrays = [table.columns[name] for table in tables if name in table.columns]
        kind = given.get(name) or _guessed([a for a in arrays if len(a)] or arrays)
        kinds[name] = "categorical" if kind == "text" and name in outputs else kind
    plain = {name for table in tables if table.rows for name in table.columns}
    for table in tables:
        kinds.update({name: "vector" for name in table.vectors if name not in plain})
    return kinds


def _guessed(arrays: Sequence[Column]) -> str:
    guesses = {guess_kind(array) for array in arrays}
    if len(guesses) == 1:
        (guess,) = guesses
    else:
        guess = "categorical" if "categorical" in guesses else "numeric"
    return "text" if guess == "categorical" and any(map(is_text, arrays[:1])) else guess
