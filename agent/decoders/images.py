"""An image as a few numbers: its size from the header, its brightness from a bounded look inside.

Headers are read by us, pixels by Pillow (extra `images`), and never before the header has said
how many there are: a kilobyte of PNG can hold a gigabyte. Without Pillow brightness and contrast
are not there at all; everything else is the same.
"""

import binascii
import io
import math
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

from agent.decoders.decoder import DecodeError, DecodeReason

IMAGE_DESCRIPTORS: Final = ("bytes", "width", "height", "channels", "aspect")
PIXEL_DESCRIPTORS: Final = ("brightness", "contrast")
# What brightness is measured on: the image made this small, in grey.
_LOOK_PIXELS: Final = 64
_MARKERS_MAX: Final = 1_000  # segments of a JPEG before its frame; a real one has a dozen
_DATA_URL_HEAD_MAX: Final = 200
_PIL_FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """How large an image may say it is, and how large one may be that is looked into."""

    image_bytes_max: int = 16 * 1024 * 1024
    pixels_max: int = 100_000_000  # more is refused: nobody sends that to a model
    decoded_pixels_max: int = 16_000_000  # larger ones keep their header's facts alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    kind: str  # png, jpeg, gif or webp
    width: int
    height: int
    channels: int


Reader: TypeAlias = Callable[[bytes], tuple[int, int, int]]


def describe_image(data: bytes, limits: ImageLimits | None = None) -> Mapping[str, float]:
    """The descriptors of an encoded image: `IMAGE_DESCRIPTORS`, with Pillow
    `PIXEL_DESCRIPTORS` as well.

    `bytes` is its encoded size, `aspect` width over height; brightness is the mean and contrast
    the standard deviation of grey values between 0 and 1, both NaN when the pixels cannot be read.

    Raises:
        DecodeError: unsupported_datatype (no PNG, JPEG, GIF or WebP, or a broken header),
            body_too_large, too_many_pixels.
    """
    limits = limits or ImageLimits()
    if len(data) > limits.image_bytes_max:
        raise DecodeError(DecodeReason.BODY_TOO_LARGE, f"an image of {len(data)} bytes")
    header = image_header(data)
    pixels = header.width * header.height
    if pixels > limits.pixels_max:
        size = f"{header.width} x {header.height}"
        raise DecodeError(DecodeReason.TOO_MANY_PIXELS, f"{size} is over {limits.pixels_max}")
    described = {
        "bytes": float(len(data)),
        "width": float(header.width),
        "height": float(header.height),
        "channels": float(header.channels),
        "aspect": header.width / header.height,
    }
    if _pillow() is not None:
        fits = pixels <= limits.decoded_pixels_max
        brightness, contrast = _greys(data) if fits else (math.nan, math.nan)
        described |= {"brightness": brightness, "contrast": contrast}
    return described


def image_kind(data: bytes) -> str | None:
    """What the first bytes say it is: png, jpeg, gif or webp; None for anything else.

    >>> image_kind(b"GIF89a..."), image_kind(b"{}")
    ('gif', None)
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    return None


def image_of_base64(text: str, limits: ImageLimits | None = None) -> bytes | None:
    """The bytes of an image written as base64 or as a data URL; None when it is neither.

    >>> image_of_base64("data:image/gif;base64,R0lGODlh")
    b'GIF89a'
    """
    limits = limits or ImageLimits()
    if text.startswith("data:"):
        comma = text.find(",", 0, _DATA_URL_HEAD_MAX)
        if comma < 0 or not text[:comma].endswith(";base64"):
            return None
        text = text[comma + 1 :]
    if not 8 <= len(text) <= limits.image_bytes_max * 4 // 3 + 4:
        return None
    try:
        # The first bytes decide, so that a long text which is no image costs nothing.
        if image_kind(binascii.a2b_base64(text[:32])) is None:
            return None
        return binascii.a2b_base64(text)
    except (binascii.Error, ValueError):
        return None


def image_header(data: bytes) -> ImageHeader:
    """Size and channels, from the header alone.

    Raises:
        DecodeError: unsupported_datatype.
    """
    kind = image_kind(data)
    if kind is None:
        raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, "no PNG, JPEG, GIF or WebP")
    try:
        width, height, channels = _READERS[kind](data)
    except (struct.error, IndexError, KeyError):
        raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, f"a broken {kind} header") from None
    if not width or not height:
        raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, f"a {kind} without pixels")
    return ImageHeader(kind=kind, width=width, height=height, channels=channels)


def _png(data: bytes) -> tuple[int, int, int]:
    length, name, width, height, _, color = struct.unpack_from(">I4sIIBB", data, 8)
    if name != b"IHDR" or length != 13:
        raise KeyError("IHDR")
    # Palettes count as what they show: red, green and blue.
    return width, height, {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[color]


def _jpeg(data: bytes) -> tuple[int, int, int]:
    place = 2
    for _ in range(_MARKERS_MAX):
        if data[place] != 0xFF:
            raise KeyError("marker")
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # stand alone, without a length
            place += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _, height, width, channels = struct.unpack_from(">BHHB", data, place + 4)
            return width, height, channels
        (length,) = struct.unpack_from(">H", data, place + 2)
        if length < 2:
            raise KeyError("length")
        place += 2 + length
    raise KeyError("frame")


def _gif(data: bytes) -> tuple[int, int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height, 3


def _webp(data: bytes) -> tuple[int, int, int]:
    chunk = data[12:16]
    if chunk == b"VP8X" and len(data) >= 30:
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return width, height, 4 if data[20] & 0x10 else 3
    if chunk == b"VP8L":
        if data[20] != 0x2F:
            raise KeyError("VP8L")
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 4 if bits >> 28 & 1 else 3
    if chunk == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise KeyError("VP8")
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, 3
    raise KeyError("chunk")


_READERS: Final[Mapping[str, Reader]] = {"png": _png, "jpeg": _jpeg, "gif": _gif, "webp": _webp}


@cache
def _pillow() -> Any:
    """Pillow's Image module, loaded when the first image comes; None without the extra."""
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image


def _greys(data: bytes) -> tuple[float, float]:
    """Brightness and contrast of a small grey version of the image; NaN when it is broken."""
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            # Its size was judged already; whatever else is odd about it is not our business.
            warnings.simplefilter("ignore")
            with pillow.open(io.BytesIO(data), formats=_PIL_FORMATS) as image:
                image.draft("L", (_LOOK_PIXELS, _LOOK_PIXELS))  # JPEG: decoded at an eighth
                grey = image.convert("L")
                small = grey.resize((_LOOK_PIXELS, _LOOK_PIXELS), pillow.Resampling.BOX)
                greys = small.tobytes()
    except Exception:
        # A decoder of strangers' bytes in C: whatever it raises, these pixels cannot be read.
        return math.nan, math.nan
    mean = sum(greys) / len(greys)
    square = sum(value * value for value in greys) / len(greys)
    return mean / 255.0, math.sqrt(max(0.0, square - mean * mean)) / 255.0
