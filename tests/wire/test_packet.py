"""Frames of every link type lead to the payload; whatever else comes in is a reason."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.packet import (
    ACK,
    ETHERNET,
    IPV4,
    IPV6,
    LINUX_COOKED,
    LINUX_COOKED_2,
    LOOP,
    NULL,
    RAW,
    Located,
    locate,
    network_at,
    ports,
    reversed_key,
)
from tests.wire.wires import CLIENT, IP4, IP6, SERVER, ethernet, ipv4, ipv6, tcp

SEGMENT = tcp(CLIENT, SERVER, 7, 9, ACK, b"hello")


def found(packet: bytes) -> Located:
    located = locate(packet, 0, len(packet))
    assert isinstance(located, tuple), located
    return located


def payload(packet: bytes) -> bytes:
    *_, first, last = found(packet)
    return packet[first:last]


def test_the_payload_of_both_families_is_found() -> None:
    for packet in (ipv4(SEGMENT), ipv6(SEGMENT)):
        key, seq, ack, flags, _, _ = found(packet)
        assert (seq, ack, flags) == (7, 9, ACK)
        assert ports(key) == (CLIENT, SERVER)
        assert payload(packet) == b"hello"


def test_ip_options_do_not_shift_the_payload() -> None:
    packet = ipv4(SEGMENT, options=b"\1" * 8)
    assert payload(packet) == b"hello"
    assert found(packet)[0] == found(ipv4(SEGMENT))[0]


def test_ethernet_padding_is_no_payload() -> None:
    packet = ipv4(tcp(CLIENT, SERVER, 7, 9, ACK, b"")) + bytes(20)
    *_, first, last = found(packet)
    assert first == last


def test_a_total_length_of_zero_reaches_to_the_end() -> None:
    big = bytes(70_000)
    for packet in (
        ipv4(tcp(CLIENT, SERVER, 7, 9, ACK, big)),
        ipv6(tcp(CLIENT, SERVER, 7, 9, ACK, big)),
    ):
        assert payload(packet) == big


def test_extension_headers_of_ipv6_are_walked_over() -> None:
    hop_by_hop = bytes([60, 0]) + bytes(6)
    destination = bytes([51, 1]) + bytes(14)
    authentication = bytes([44, 2]) + bytes(14)
    atomic = bytes([6, 0, 0, 0]) + bytes(4)
    chain = hop_by_hop + destination + authentication + atomic
    assert payload(ipv6(SEGMENT, extensions=chain, first=0)) == b"hello"


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ipv4(SEGMENT, fragment=0x2000), "fragment"),
        (ipv4(SEGMENT, fragment=0x0001), "fragment"),
        (ipv4(SEGMENT, options=b"\1" * 4, fragment=0x1000), "fragment"),
        (ipv6(SEGMENT, extensions=bytes([6, 0, 0, 1]) + bytes(4), first=44), "fragment"),
        (ipv6(SEGMENT, extensions=bytes([6, 0, 0, 8]) + bytes(4), first=44), "fragment"),
        (ipv4(SEGMENT, protocol=17), "other"),
        (ipv6(SEGMENT, first=17), "other"),
        (ipv6(SEGMENT, first=59), "other"),
        (b"\x55" + bytes(60), "other"),
        (b"", "other"),
        (ipv4(SEGMENT)[:-1], "cut"),
        (ipv4(SEGMENT)[:30], "cut"),
        (ipv6(SEGMENT)[:-1], "cut"),
        (ipv6(SEGMENT, extensions=bytes([6, 200]) + bytes(6), first=0), "malformed"),
        (b"\x43" + ipv4(SEGMENT)[1:], "malformed"),
        (ipv4(SEGMENT[:12] + b"\x40" + SEGMENT[13:]), "malformed"),
        (ipv4(SEGMENT[:12] + b"\xf0" + SEGMENT[13:]), "malformed"),
    ],
)
def test_what_is_no_whole_segment_says_why(packet: bytes, reason: str) -> None:
    assert locate(packet, 0, len(packet)) == reason


def test_every_link_type_leads_to_the_network_header() -> None:
    packet = ipv4(SEGMENT)
    six = ipv6(SEGMENT)
    frames = [
        (ETHERNET, ethernet(packet)),
        (ETHERNET, ethernet(six, IP6)),
        (ETHERNET, ethernet(packet, tags=[0x8100])),
        (ETHERNET, ethernet(packet, tags=[0x88A8, 0x8100])),
        (NULL, struct.pack("<I", 2) + packet),
        (LOOP, struct.pack(">I", 30) + six),
        (RAW, packet),
        (IPV4, packet),
        (IPV6, six),
        (LINUX_COOKED, bytes(14) + struct.pack("!H", IP4) + packet),
        (LINUX_COOKED_2, struct.pack("!H", IP6) + bytes(18) + six),
    ]
    for link, frame in frames:
        at = network_at(frame, 0, len(frame), link)
        located = locate(frame, at, len(frame))
        assert isinstance(located, tuple), (link, located)
        assert frame[located[4] : located[5]] == b"hello"


@pytest.mark.parametrize(
    ("link", "frame"),
    [
        (ETHERNET, ethernet(b"\x00" * 40, 0x0806)),
        (ETHERNET, bytes(13)),
        (ETHERNET, ethernet(ipv4(SEGMENT), tags=[0x8100] * 5)),
        (LINUX_COOKED, bytes(60)),
        (LINUX_COOKED_2, bytes(60)),
        (NULL, b"\0\0"),
        (105, ethernet(ipv4(SEGMENT))),
    ],
)
def test_frames_without_ip_have_no_network_header(link: int, frame: bytes) -> None:
    assert network_at(frame, 0, len(frame), link) == -1


def test_the_reversed_key_is_that_of_the_answer() -> None:
    for family in (ipv4, ipv6):
        key = found(family(SEGMENT))[0]
        assert ports(reversed_key(key)) == (SERVER, CLIENT)
        assert reversed_key(reversed_key(key)) == key


LINKS = st.sampled_from([NULL, ETHERNET, RAW, LOOP, LINUX_COOKED, LINUX_COOKED_2, IPV4, 12_345])
SHAPED = st.builds(
    lambda start, rest: start + rest,
    st.sampled_from([b"", b"\x45", b"\x46", b"\x60", b"\x6f", bytes(12) + b"\x81\0\0\1\x08\0\x45"]),
    st.binary(max_size=120),
)


@given(SHAPED, LINKS)
def test_no_bytes_raise_or_lead_out_of_the_frame(frame: bytes, link: int) -> None:
    at = network_at(frame, 0, len(frame), link)
    assert -1 <= at <= max(len(frame), 0) + 20
    if at < 0:
        return
    located = locate(frame, at, len(frame))
    if isinstance(located, tuple):
        key, seq, ack, flags, first, last = located
        assert len(key) in (12, 36)
        assert at <= first <= last <= len(frame)
        assert 0 <= seq < 2**32 > ack >= 0
        assert 0 <= flags < 256


@given(st.binary(max_size=64), st.integers(0, 2**32 - 1), st.integers(0, 10), st.integers(0, 10))
def test_what_is_written_is_read(data: bytes, seq: int, ip_words: int, tcp_words: int) -> None:
    segment = tcp(CLIENT, SERVER, seq, 1, ACK, data, options=tcp_words * 4)
    packet = b"before" + ipv4(segment, options=b"\1" * ip_words * 4) + b"behind"
    located = locate(packet, 6, len(packet))
    assert isinstance(located, tuple)
    assert located[1] == seq
    assert packet[located[4] : located[5]] == data
