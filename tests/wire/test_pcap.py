"""Capture files of either format, byte order and resolution, however they are cut or damaged."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.pcap import FRAME_BYTES_MAX, Frame, PcapDecoder, PcapError
from tests.wire.wires import pieces

PACKETS = [(1_700_000_000, 250_000_000, b"one"), (1_700_000_001, 999_999_000, b"second!")]
FRAMES = [
    Frame(at=1_700_000_000.25, link=1, data=b"one"),
    Frame(at=1_700_000_001.999999, link=1, data=b"second!"),
]


def pcap(order: str, units: int) -> bytes:
    magic = 0xA1B2C3D4 if units == 10**6 else 0xA1B23C4D
    file = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, 1)
    for seconds, nanoseconds, data in PACKETS:
        parts = nanoseconds * units // 10**9
        file += struct.pack(order + "IIII", seconds, parts, len(data), len(data)) + data
    return file


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, *, link: int = 1, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link, 0, 0) + options)


def packet(order: str, ticks: int, data: bytes, *, of: int = 0, kind: int = 6) -> bytes:
    which = struct.pack(order + ("I" if kind == 6 else "HH"), *([of] if kind == 6 else [of, 0]))
    times = struct.pack(order + "IIII", ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(order, kind, which + times + data)


def pcapng(order: str, *, kind: int = 6) -> bytes:
    """Nanoseconds by an option, blocks that are of no use in between, and a second section."""
    nanoseconds = option(order, 9, b"\x09") + option(order, 0, b"")
    named = option(order, 2, b"lo") + nanoseconds
    file = section(order) + interface(order, options=named)
    for seconds, parts, data in PACKETS[:1]:
        file += packet(order, seconds * 10**9 + parts, data, kind=kind)
    file += block(order, 5, b"statistics..") + section(order) + interface(order)
    for seconds, parts, data in PACKETS[1:]:
        file += packet(order, seconds * 10**6 + parts // 1000, data, kind=kind)
    return file


FILES = {
    f"{name} {order}": file
    for order in "<>"
    for name, file in [
        ("microseconds", pcap(order, 10**6)),
        ("nanoseconds", pcap(order, 10**9)),
        ("pcapng", pcapng(order)),
        ("pcapng of old", pcapng(order, kind=2)),
    ]
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_says_the_same(name: str) -> None:
    decoder = PcapDecoder()
    assert decoder.feed(FILES[name]) == FRAMES
    assert decoder.rest == 0


@given(st.sampled_from(sorted(FILES)), st.lists(st.integers(1, 40), max_size=40))
def test_how_the_file_was_cut_does_not_matter(name: str, cuts: list[int]) -> None:
    decoder = PcapDecoder()
    assert [frame for piece in pieces(FILES[name], cuts) for frame in decoder.feed(piece)] == FRAMES


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_early_gives_what_is_whole(name: str) -> None:
    decoder = PcapDecoder()
    assert decoder.feed(FILES[name][:-1]) == FRAMES[:1]
    assert decoder.rest > 0


def test_powers_of_two_and_offsets_are_times() -> None:
    options = option("<", 9, b"\x8a") + option("<", 14, struct.pack("<q", 1_000))
    file = section("<") + interface("<", options=options) + packet("<", 512, b"x")
    assert PcapDecoder().feed(file)[0].at == 1_000.5


def test_interfaces_have_links_of_their_own() -> None:
    file = section("<") + interface("<", link=113) + interface("<", link=276)
    file += packet("<", 1, b"b", of=1) + packet("<", 1, b"a", of=0)
    assert [frame.link for frame in PcapDecoder().feed(file)] == [276, 113]


@pytest.mark.parametrize(
    "file",
    [
        b"GET / HTTP/1.1\r\n",
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0, 1)
        + struct.pack("<IIII", 0, 0, FRAME_BYTES_MAX + 1, 0),
        b"\x0a\x0d\x0d\x0a" + bytes(20),
        section("<") + struct.pack("<II", 6, 0xFFFFFFF0) + bytes(8),
        section("<") + struct.pack("<II", 6, 8) + bytes(8),
        section("<") + struct.pack("<II", 6, 14) + bytes(16),
        section("<") + struct.pack("<III", 5, 12, 16),
        section("<") + packet("<", 1, b"nobody's"),
        section("<") + interface("<") + section("<") + packet("<", 1, b"forgotten"),
        section("<") + block("<", 1, b"abcd"),
        section("<") + interface("<") + block("<", 6, bytes(16)),
        section("<") + interface("<") + block("<", 6, struct.pack("<IIIII", 0, 0, 0, 99, 99)),
        section("<") + interface("<", options=struct.pack("<HH", 9, 60_000)),
        section("<") + interface("<", options=option("<", 9, b"\x7f")),
        section("<") + interface("<") * 1_025,
    ],
)
def test_damage_is_refused(file: bytes) -> None:
    with pytest.raises(PcapError):
        PcapDecoder().feed(file)


@given(st.sampled_from(sorted(FILES)), st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_no_damage_raises_anything_else(name: str, at: int, damage: bytes) -> None:
    file = FILES[name]
    try:
        frames = PcapDecoder().feed(file[:at] + damage + file[at + len(damage) :])
    except PcapError:
        return
    assert all(len(frame.data) <= len(file) + 8 for frame in frames)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for start in (b"", b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1" + bytes(20)):
        try:
            PcapDecoder().feed(start + data)
        except PcapError:
            continue
