"""What can be counted of a text: descriptors that are watched like numbers.

A text column has too many values to be a category and no order to be a number. How long its texts
are and what they are made of is cheap, and moves when language, client or encoding does. Texts are
never kept. Every descriptor rests on a text's first 2,048 characters, but for the length.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.rows.columns import Column, key_of

#: Descriptors in their order: characters, words, characters per word, then shares: of characters
#: that are digits, upper case, punctuation or beyond ASCII, and of words that stood there before.
DESCRIPTORS: Final = (
    "length",
    "words",
    "word_length",
    "digits",
    "upper",
    "punctuation",
    "non_ascii",
    "repeated",
)
CHARACTERS_MAX: Final = 2_048

_LOOKED_AT: Final = 1_000
_TEXTS_MIN: Final = 20
_TEXT_SHARE_MIN: Final = 0.95
_DISTINCT_SHARE_MIN: Final = 0.5
_WORDS_MIN: Final = 4.0
_BATCH: Final = 1_024
_DIGIT, _UPPER, _PUNCTUATION, _WIDE = 0, 1, 2, 3
_OTHER: Final = 4


def _classes() -> NDArray[np.uint8]:
    """The class of each code point below 128; all above are `_WIDE`."""
    table = np.full(129, _OTHER, dtype=np.uint8)
    for code in range(128):
        letter = chr(code)
        if letter.isdigit():
            table[code] = _DIGIT
        elif letter.isupper():
            table[code] = _UPPER
        elif letter.isprintable() and not letter.isalnum() and letter != " ":
            table[code] = _PUNCTUATION
    table[128] = _WIDE
    return table


_CLASSES: Final = _classes()


def is_text(column: Column) -> bool:
    """Say whether a column of keys is prose: mostly different values, of four words on average."""
    if column.dtype.kind not in "OUS":
        return False
    values = list(islice((v for v in column.tolist() if key_of(v) is not None), _LOOKED_AT))
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < max(_TEXTS_MIN, _TEXT_SHARE_MIN * len(values)):
        return False
    words = sum(len(text[:CHARACTERS_MAX].split()) for text in texts)
    return words >= _WORDS_MIN * len(texts) and len({*texts}) >= _DISTINCT_SHARE_MIN * len(texts)


def describe(column: Column) -> NDArray[np.float32]:
    """Give the descriptors [8, rows]: NaN where the text is missing or empty, an infinity (which
    counts as outside) where there is something that is no text.
    """
    described = np.empty((len(DESCRIPTORS), len(column)), dtype=np.float32)
    for start in range(0, len(column), _BATCH):
        values = column[start : start + _BATCH].tolist()
        described[:, start : start + len(values)] = _batch(values)
    return described


def _batch(values: list[Any]) -> NDArray[np.float32]:
    out = np.full((len(DESCRIPTORS), len(values)), np.nan, dtype=np.float32)
    places: list[int] = []
    texts: list[str] = []
    figures: list[tuple[int, int, float, float]] = []
    for place, value in enumerate(values):
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            if value:
                text = value[:CHARACTERS_MAX]
                places.append(place)
                texts.append(text)
                figures.append(_of_words(text.split(), len(value)))
        elif key_of(value) is not None:
            out[:, place] = np.inf
    if texts:
        of_words = np.array(figures, dtype=np.float32).T
        out[:3, places], out[3:7, places] = of_words[:3], _shares(texts)
        out[7, places] = of_words[3]
    return out


def _of_words(words: list[str], length: int) -> tuple[int, int, float, float]:
    if not words:  # nothing but spaces
        return length, 0, 0.0, 0.0
    count = len(words)
    return length, count, len("".join(words)) / count, 1 - len(set(words)) / count


def _shares(texts: list[str]) -> NDArray[np.float32]:
    """Shares [4, texts] of the characters of each class; no text is empty."""
    lengths = np.array([len(text) for text in texts])
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    classes = _CLASSES[np.minimum(codes, 128)]
    owners = np.repeat(np.arange(len(texts)), lengths)
    counts = np.bincount(owners * (_OTHER + 1) + classes, minlength=len(texts) * (_OTHER + 1))
    shares = counts.reshape(len(texts), _OTHER + 1)[:, :_OTHER] / lengths[:, None]
    turned: NDArray[np.float32] = shares.T.astype(np.float32)
    return turned
