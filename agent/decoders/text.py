"""A text as a handful of numbers that mean the same in any language: what drift is looked for in.

Nothing of the text itself may leave this file: its callers keep the numbers and let go of the
words. Shares are of the characters looked at, and NaN, which means missing, for an empty text.
"""

import math
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Beyond these a text is measured by its beginning; its length is always the whole one's.
TEXT_CHARACTERS_MAX: Final = 65_536
TRIGRAM_CHARACTERS_MAX: Final = 4_096

TEXT_DESCRIPTORS: Final = (
    "length",
    "words",
    "lines",
    "mean_word_length",
    "letter_share",
    "digit_share",
    "punctuation_share",
    "whitespace_share",
    "upper_share",
    "non_ascii_share",
    "entropy_bits",
    "repeated_trigram_share",
)
_LETTER, _DIGIT, _PUNCTUATION, _WHITESPACE, _OTHER = range(5)
_ASCII: Final = 128


def describe_text(text: str, *, characters_max: int = TEXT_CHARACTERS_MAX) -> Mapping[str, float]:
    """The descriptors of one text, each of `TEXT_DESCRIPTORS`. Never raises.

    `length` counts characters, `words` what whitespace parts. `punctuation_share` has symbols
    and emoji in it. `repeated_trigram_share` is the share of three characters in a row that were
    there before, in the first 4,096: near 1 for a model that repeats itself. Words and lines of
    a text longer than `characters_max` are those of its beginning.

    >>> said = describe_text("Hello, World 42!")
    >>> said["length"], said["words"], said["digit_share"], said["upper_share"]
    (16.0, 3.0, 0.125, 0.125)
    """
    seen = text[:characters_max]
    if not seen:
        nothing = dict.fromkeys(TEXT_DESCRIPTORS, math.nan)
        return nothing | {"length": float(len(text)), "words": 0.0, "lines": 0.0}
    points = np.frombuffer(seen.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    kinds, upper, non_ascii, entropy_bits = _characters(points)
    words = seen.split()
    total = len(seen)
    return {
        "length": float(len(text)),
        "words": float(len(words)),
        "lines": float(len(seen.splitlines())),
        "mean_word_length": sum(map(len, words)) / len(words) if words else 0.0,
        "letter_share": kinds[_LETTER] / total,
        "digit_share": kinds[_DIGIT] / total,
        "punctuation_share": kinds[_PUNCTUATION] / total,
        "whitespace_share": kinds[_WHITESPACE] / total,
        "upper_share": upper / total,
        "non_ascii_share": non_ascii / total,
        "entropy_bits": entropy_bits,
        "repeated_trigram_share": _repeated(points[:TRIGRAM_CHARACTERS_MAX]),
    }


def _characters(points: NDArray[np.uint32]) -> tuple[list[int], int, int, float]:
    """Characters of each kind, upper case ones, those beyond ASCII; entropy in bits."""
    if int(points.max()) < _ASCII:
        every = np.bincount(points, minlength=1)
        distinct = np.flatnonzero(every)
        counts = every[distinct]
    else:
        distinct, counts = np.unique(points, return_counts=True)
    kinds = [0] * 5
    upper = non_ascii = 0
    for point, count in zip(distinct.tolist(), counts.tolist(), strict=True):
        kind, is_upper = _kind(point)
        kinds[kind] += count
        upper += count * is_upper
        non_ascii += count * (point >= _ASCII)
    shares = counts / len(points)
    entropy = -float((shares * np.log2(shares)).sum())
    return kinds, upper, non_ascii, max(0.0, entropy)


@lru_cache(maxsize=8_192)
def _kind(point: int) -> tuple[int, bool]:
    character = chr(point)
    if character.isspace():
        return _WHITESPACE, False
    category = unicodedata.category(character)
    if category[0] in "LM":  # marks belong to the letters that they stand on
        return _LETTER, character.isupper()
    if category[0] == "N":
        return _DIGIT, False
    if category[0] in "PS":
        return _PUNCTUATION, False
    return _OTHER, False


def _repeated(points: NDArray[np.uint32]) -> float:
    """How many of the trigrams had been there before, as a share."""
    trigrams = len(points) - 2
    if trigrams < 1:
        return 0.0
    wide = points.astype(np.uint64)
    codes = (wide[:-2] << np.uint64(42)) | (wide[1:-1] << np.uint64(21)) | wide[2:]
    return 1.0 - len(np.unique(codes)) / trigrams
