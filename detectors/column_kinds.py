"""What each column of a reference is: a kind of feature, or text or vectors to derive features
from.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from detectors.columns import Column, Table, guess_kind

PLAIN_KINDS: Final = ("numeric", "categorical", "boolean")
KINDS: Final = (*PLAIN_KINDS, "text", "vector")
#: A text is what people write: longer than a category's name, or more than a few words, and hardly
#: ever the same twice.
TEXT_CHARACTERS_MEAN: Final = 64.0
TEXT_WORDS_MEAN: Final = 6.0
TEXT_DISTINCT_MIN: Final = 0.5
_TEXTS_LOOKED_AT: Final = 2_000


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
    for table in tables:
        for name in table.vectors:
            kinds.setdefault(name, "vector")
    return kinds


def _guessed(arrays: Sequence[Column]) -> str:
    guesses = {guess_kind(array) for array in arrays}
    if len(guesses) == 1:
        (guess,) = guesses
    else:
        guess = "categorical" if "categorical" in guesses else "numeric"
    return "text" if guess == "categorical" and _is_text(arrays) else guess


def _is_text(arrays: Sequence[Column]) -> bool:
    texts: list[str] = []
    for array in arrays:
        texts += [value for value in array[:_TEXTS_LOOKED_AT].tolist() if isinstance(value, str)]
        if len(texts) >= _TEXTS_LOOKED_AT:
            break
    if not texts or len(set(texts)) < TEXT_DISTINCT_MIN * len(texts):
        return False
    characters = sum(map(len, texts)) / len(texts)
    words = sum(len(text.split()) for text in texts) / len(texts)
    return characters > TEXT_CHARACTERS_MEAN or words > TEXT_WORDS_MEAN
