"""Images as numbers: sizes from headers that we read ourselves, pixels by Pillow, bombs refused."""

import base64
import io
import math
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.decoders import images
from agent.decoders.decoder import DecodeError, DecodeReason
from agent.decoders.images import (
    IMAGE_DESCRIPTORS,
    PIXEL_DESCRIPTORS,
    ImageLimits,
    describe_image,
    image_header,
    image_kind,
    image_of_base64,
)


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **how: object) -> bytes:
    """A grey slope from black to white."""
    image = Image.linear_gradient("L").resize(size).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(size))
    file = io.BytesIO()
    image.convert(mode).save(file, kind, **how)
    return file.getvalue()


def png_that_says(width: int, height: int) -> bytes:
    """A header of any size with hardly anything behind it."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1_000)
    chunks = [head, data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


SAMPLES = [
    ("PNG", "RGB", 3, {}),
    ("PNG", "RGBA", 4, {}),
    ("PNG", "L", 1, {}),
    ("PNG", "LA", 2, {}),
    ("PNG", "P", 3, {}),
    ("JPEG", "RGB", 3, {}),
    ("JPEG", "L", 1, {"progressive": True}),
    ("JPEG", "CMYK", 4, {}),
    ("GIF", "P", 3, {}),
    ("WEBP", "RGB", 3, {}),
    ("WEBP", "RGB", 3, {"lossless": True}),
    ("WEBP", "RGBA", 4, {}),
    ("WEBP", "RGBA", 4, {"lossless": True}),
]


@pytest.mark.parametrize(("kind", "mode", "channels", "how"), SAMPLES)
def test_size_and_channels_come_from_the_header(
    kind: str, mode: str, channels: int, how: dict[str, object]
) -> None:
    data = picture(kind, mode, (40, 30), **how)
    header = image_header(data)
    assert (header.kind, header.width, header.height) == (kind.lower(), 40, 30)
    assert header.channels == channels
    assert image_kind(data) == kind.lower()
    described = describe_image(data)
    assert tuple(described) == IMAGE_DESCRIPTORS + PIXEL_DESCRIPTORS
    assert described["bytes"] == len(data)
    assert described["aspect"] == pytest.approx(4 / 3)
    assert described["brightness"] == pytest.approx(0.5, abs=0.12)
    assert described["contrast"] > 0.15


def test_brightness_and_contrast_tell_a_dark_image_from_a_bright_one() -> None:
    for grey in (0, 64, 255):
        file = io.BytesIO()
        Image.new("RGB", (100, 50), (grey, grey, grey)).save(file, "PNG")
        described = describe_image(file.getvalue())
        assert described["brightness"] == pytest.approx(grey / 255, abs=0.01)
        assert described["contrast"] == pytest.approx(0.0, abs=0.01)


def test_a_camera_jpeg_has_much_before_its_frame() -> None:
    plain = picture("JPEG")
    exif = b"\xff\xe1" + struct.pack(">H", 60_002) + b"x" * 60_000
    tables = b"\xff\xc4\x00\x0anoframes" + b"\xff\xcc\x00\x0anoframes"
    padded = plain[:2] + exif + tables + b"\xff\xff\xff" + plain[3:]
    assert image_header(padded).width == 40


def test_an_image_that_says_it_is_enormous_is_refused_before_anything_is_unpacked() -> None:
    with pytest.raises(DecodeError) as refused:
        describe_image(png_that_says(60_000, 60_000))
    assert refused.value.reason is DecodeReason.TOO_MANY_PIXELS


def test_a_large_image_keeps_what_its_header_says() -> None:
    described = describe_image(picture("PNG"), ImageLimits(decoded_pixels_max=100))
    assert described["width"] == 40
    assert math.isnan(described["brightness"])


def test_broken_pixels_are_missing_and_the_header_holds() -> None:
    described = describe_image(png_that_says(40, 30)[:-20])
    assert described["height"] == 30
    assert math.isnan(described["contrast"])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", DecodeReason.UNSUPPORTED_DATATYPE),
        (b"BM not one of ours", DecodeReason.UNSUPPORTED_DATATYPE),
        (b"\x89PNG\r\n\x1a\n", DecodeReason.UNSUPPORTED_DATATYPE),
        (png_that_says(0, 5), DecodeReason.UNSUPPORTED_DATATYPE),
        (b"\xff\xd8\xff\xe0\x00\x01", DecodeReason.UNSUPPORTED_DATATYPE),
        (b"\xff\xd8" + b"\xff" * 5_000, DecodeReason.UNSUPPORTED_DATATYPE),
        (b"GIF89a\x01", DecodeReason.UNSUPPORTED_DATATYPE),
        (b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 12, DecodeReason.UNSUPPORTED_DATATYPE),
        (b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2e\0\0\0\0", DecodeReason.UNSUPPORTED_DATATYPE),
        (b"GIF89a" + b"\1" * 100, DecodeReason.BODY_TOO_LARGE),
    ],
)
def test_what_is_no_image_has_its_reason(data: bytes, reason: DecodeReason) -> None:
    with pytest.raises(DecodeError) as refused:
        describe_image(data, ImageLimits(image_bytes_max=100 if b"\1" * 9 in data else 10**6))
    assert refused.value.reason is reason


def test_base64_is_an_image_only_when_its_first_bytes_say_so() -> None:
    data = picture("GIF", "P")
    text = base64.b64encode(data).decode()
    assert image_of_base64(text) == data
    assert image_of_base64(f"data:image/gif;base64,{text}") == data
    assert image_of_base64(f"data:image/gif,{text}") is None
    assert image_of_base64(base64.b64encode(b"a text that is none").decode()) is None
    assert image_of_base64("GIF89a is a format") is None
    assert image_of_base64("") is None
    assert image_of_base64(text, ImageLimits(image_bytes_max=100)) is None


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_pillow", lambda: None)


@pytest.mark.usefixtures("no_pillow")
def test_without_the_extra_there_is_everything_but_pixels() -> None:
    assert tuple(describe_image(picture("PNG"))) == IMAGE_DESCRIPTORS


@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]),
    place=st.integers(0, 60),
    byte=st.integers(0, 255),
    length=st.integers(0, 2_000),
)
def test_nothing_but_a_reason_escapes_over_damaged_images(
    kind: str, place: int, byte: int, length: int
) -> None:
    data = bytearray(picture(kind, "P" if kind == "GIF" else "RGB"))
    data[place] = byte
    try:
        described = describe_image(bytes(data[:length]), ImageLimits(decoded_pixels_max=10_000))
    except DecodeError:
        return
    assert described["width"] >= 1
    assert described["height"] >= 1
