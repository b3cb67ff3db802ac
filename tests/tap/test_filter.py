"""The kernel's program and our own reading of packets agree on which packets are wanted."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tap import filter as bpf
from agent.tap.filter import PARTS, FlowSampling, Program, flow_filter, packed
from agent.wire.packet import ACK, ETHERNET, FIN, RAW, RST, SYN, locate, network_at, ports
from tests.wire.wires import IP4, IP6, ethernet, ipv4, ipv6, tcp

PORT = 8_000
EVERYTHING = FlowSampling()


def run(program: list[tuple[int, int, int, int]], frame: bytes, *, packet_type: int = 0) -> int:
    """A classic BPF machine: what the kernel does with the program. Reads beyond the frame end
    it with 0."""
    a = x = at = 0
    memory = [0] * 16

    def load(offset: int, size: int) -> int:
        if offset == 0xFFFFF004:
            return packet_type
        if offset + size > len(frame):
            raise IndexError
        return int.from_bytes(frame[offset : offset + size])

    try:
        while True:
            code, yes, no, k = program[at]
            at += 1
            match code:
                case bpf.LDH:
                    a = load(k, 2)
                case bpf.LDB:
                    a = load(k, 1)
                case bpf.LDH_X:
                    a = load(x + k, 2)
                case bpf.LDB_X:
                    a = load(x + k, 1)
                case bpf.LDX_IMM:
                    x = k
                case bpf.LDX_MSH:
                    x = (load(k, 1) & 15) * 4
                case bpf.LD_MEM:
                    a = memory[k]
                case bpf.ST:
                    memory[k] = a
                case bpf.ADD:
                    a = a + k & 0xFFFFFFFF
                case bpf.ADD_X:
                    a = a + x & 0xFFFFFFFF
                case bpf.SUB_X:
                    a = a - x & 0xFFFFFFFF
                case bpf.MUL:
                    a = a * k & 0xFFFFFFFF
                case bpf.AND:
                    a &= k
                case bpf.LSH:
                    a = a << k & 0xFFFFFFFF
                case bpf.RSH:
                    a >>= k
                case bpf.TAX:
                    x = a
                case bpf.JA:
                    at += k
                case bpf.JEQ:
                    at += yes if a == k else no
                case bpf.JGE:
                    at += yes if a >= k else no
                case bpf.JSET:
                    at += yes if a & k else no
                case bpf.RET:
                    return k
                case _:
                    raise AssertionError(f"instruction {code:#x}")
    except IndexError:
        return 0


def wanted(frame: bytes, link: int, sampling: FlowSampling) -> bool:
    """The same decision by the code that reads packets."""
    at = network_at(frame, 0, len(frame), link)
    found = locate(frame, at, len(frame)) if at >= 0 else "other"
    if isinstance(found, str):
        return False
    key, _, _, flags, first, last = found
    source, destination = ports(key)
    if PORT not in (source, destination):
        return False
    client = source if destination == PORT else destination
    return (first < last or bool(flags & (FIN | SYN | RST))) and sampling.keeps(client)


SAMPLINGS = st.builds(
    FlowSampling,
    keep=st.sampled_from([1, 1_024, 2_048, PARTS]),
    multiplier=st.integers(0, 2**31 - 1).map(lambda half: 2 * half + 1),
    salt=st.integers(0, 2**32 - 1),
)
SEGMENTS = st.builds(
    lambda ports_, flags, data, words: tcp(
        ports_[0], ports_[1], 1, 2, flags, data, options=words * 4
    ),
    st.one_of(
        st.tuples(st.just(PORT), st.integers(1, 65_535)),
        st.tuples(st.integers(1, 65_535), st.just(PORT)),
        st.tuples(st.integers(1, 65_535), st.integers(1, 65_535)),
    ),
    st.sampled_from([ACK, SYN, SYN | ACK, FIN | ACK, RST, 0]),
    st.sampled_from([b"", b"x", b"y" * 100]),
    st.integers(0, 10),
)
TAGS = st.sampled_from([[], [0x8100], [0x88A8]])
HOP_BY_HOP = bytes([6, 0]) + bytes(6)
FRAMES = st.one_of(
    st.builds(
        lambda segment, words, tags: ethernet(ipv4(segment, options=b"\1" * 4 * words), tags=tags),
        SEGMENTS,
        st.integers(0, 10),
        TAGS,
    ),
    st.builds(
        lambda segment, hop, tags: ethernet(
            ipv6(segment, extensions=hop, first=0 if hop else 6), IP6, tags=tags
        ),
        SEGMENTS,
        st.sampled_from([b"", HOP_BY_HOP]),
        TAGS,
    ),
    st.builds(lambda segment: ethernet(ipv4(segment, protocol=17)), SEGMENTS),
    st.builds(lambda segment: ethernet(ipv4(segment, fragment=0x0010)), SEGMENTS),
    st.builds(lambda segment: ethernet(ipv4(segment), 0x0806), SEGMENTS),
    st.binary(max_size=100).map(lambda data: ethernet(data, IP4)),
)


@given(FRAMES, SAMPLINGS)
def test_the_program_decides_like_the_reader(frame: bytes, sampling: FlowSampling) -> None:
    program = flow_filter(PORT, sampling, ethernet=True, skip_outgoing=False)
    passes = run(program, frame) > 0
    if passes != wanted(frame, ETHERNET, sampling):
        # It lets through what it cannot judge: the reader does, and counts it.
        assert passes
        at = network_at(frame, 0, len(frame), ETHERNET)
        assert isinstance(locate(frame, at, len(frame)), str)


@given(SEGMENTS, SAMPLINGS, st.booleans())
def test_tunnels_have_no_link_layer(segment: bytes, sampling: FlowSampling, six: bool) -> None:
    packet = ipv6(segment) if six else ipv4(segment)
    program = flow_filter(PORT, sampling, ethernet=False, skip_outgoing=False)
    assert (run(program, packet) > 0) == wanted(packet, RAW, sampling)


def test_loopback_frames_are_taken_once() -> None:
    frame = ethernet(ipv4(tcp(40_000, PORT, 1, 2, ACK, b"x")))
    program = flow_filter(PORT, EVERYTHING, ethernet=True, skip_outgoing=True)
    assert run(program, frame, packet_type=0) > 0
    assert run(program, frame, packet_type=4) == 0


def test_a_first_fragment_gets_through_to_be_counted() -> None:
    frame = ethernet(ipv4(tcp(40_000, PORT, 1, 2, ACK, b"x"), fragment=0x2000))
    assert run(flow_filter(PORT, EVERYTHING, ethernet=True, skip_outgoing=False), frame) > 0


def test_packets_longer_than_their_length_field_are_taken() -> None:
    program = flow_filter(PORT, EVERYTHING, ethernet=True, skip_outgoing=False)
    segment = tcp(40_000, PORT, 1, 2, ACK, bytes(70_000))
    assert run(program, ethernet(ipv4(segment))) > 70_000
    assert run(program, ethernet(ipv6(segment), IP6)) > 70_000


def test_over_all_salts_every_port_is_kept_as_often() -> None:
    for port in (1, 32_768, 40_001, 65_535):
        kept = sum(
            FlowSampling(keep=1_024, salt=part << 20 | 77).keeps(port) for part in range(PARTS)
        )
        assert kept == 1_024


def test_for_a_salt_the_share_of_ports_is_near_the_rate() -> None:
    chance = random.Random(7)
    for _ in range(20):
        sampling = FlowSampling(keep=410, salt=chance.getrandbits(32))
        share = sum(map(sampling.keeps, range(32_768, 61_000))) / (61_000 - 32_768)
        assert share == pytest.approx(410 / PARTS, rel=0.1)


def test_a_weight_undoes_the_share() -> None:
    assert FlowSampling(keep=1_024).weight == 4.0
    assert EVERYTHING.weight == 1.0


def test_jumps_that_are_too_far_are_refused() -> None:
    program = Program()
    program.add(bpf.JEQ, 1, yes="far")
    for _ in range(256):
        program.add(bpf.TAX)
    program.label("far")
    program.add(bpf.RET, 0)
    with pytest.raises(ValueError, match="far"):
        program.instructions()


def test_instructions_are_packed_as_the_kernel_reads_them() -> None:
    assert packed([(0x15, 1, 2, 0x800)]) == bytes.fromhex("1500 01 02 00080000")
