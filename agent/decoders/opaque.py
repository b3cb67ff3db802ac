"""Values that are no cells (images, other binaries, texts) as columns that describe them.

Do not let the value itself through: a description is what may be kept, compared and shown.
"""

import binascii
from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from agent.decoders.decoder import DecodeError, DecodeReason
from agent.decoders.images import describe_image, image_kind
from agent.decoders.text import describe_text

# Base64 for URLs and file names, which TensorFlow's clients may write as well.
_URL_SAFE = str.maketrans("-_", "+/")


def binary_of(value: object) -> bytes | None:
    """The bytes that `{"b64": "..."}` stands for; None for any other value.

    Raises:
        DecodeError: wrong_type when that is no base64.

    >>> binary_of({"b64": "aGVsbG8="}), binary_of({"b64": "-_8"}), binary_of("aGk=")
    (b'hello', b'\\xfb\\xff', None)
    """
    if not isinstance(value, dict) or len(value) != 1:
        return None
    text = value.get("b64")
    if not isinstance(text, str):
        return None
    padding = "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text.translate(_URL_SAFE) + padding)
    except ValueError:
        raise DecodeError(DecodeReason.WRONG_TYPE, "b64 that is no base64") from None


def describe_binary(name: str, data: bytes) -> Mapping[str, float]:
    """`name.bytes`, its length; of an image also width, height and what else can be seen.

    >>> describe_binary("voice", b"RIFF....WAVE")
    {'voice.bytes': 12.0}
    """
    described: Mapping[str, float] = {"bytes": float(len(data))}
    if image_kind(data) is not None:
        try:
            described = describe_image(data)
        except DecodeError:
            pass  # too large or broken: its length is still worth watching
    return {f"{name}.{key}": value for key, value in described.items()}


def binary_table(
    name: str, values: Sequence[bytes | None]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """n binary values as n rows of descriptors; what one has and another has not is missing."""
    described = [{} if value is None else describe_binary(name, value) for value in values]
    names = tuple(dict.fromkeys(chain.from_iterable(described))) or (f"{name}.bytes",)
    rows = [[row.get(key, np.nan) for key in names] for row in described]
    return names, np.array(rows, dtype=np.float64)


def text_table(name: str, texts: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """n texts as n rows of descriptors: `name.length`, `name.words` and so on."""
    described = [describe_text(text) for text in texts]
    names = tuple(f"{name}.{key}" for key in described[0])
    return names, np.array([list(row.values()) for row in described], dtype=np.float64)
