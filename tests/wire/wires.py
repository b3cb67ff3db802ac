"""Packets as hosts write them, and connections that write them one after the other."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6, inet_pton

from agent.edge.heads import HeadReader
from agent.wire.message_ends import ResponseHeads
from agent.wire.packet import ACK, FIN, RST, SYN
from agent.wire.pair import Budget, Pair

CLIENT, SERVER = 40_000, 8_000
IP4 = 0x0800
IP6 = 0x86DD


def tcp(
    source: int, destination: int, seq: int, ack: int, flags: int, data: bytes, *, options: int = 12
) -> bytes:
    offset = (20 + options) // 4 << 4
    fixed = struct.pack(
        "!HHIIBBHHH", source, destination, seq % 2**32, ack % 2**32, offset, flags, 512, 0, 0
    )
    return fixed + b"\1" * options + data


def ipv4(
    payload: bytes, *, options: bytes = b"", fragment: int = 0x4000, protocol: int = 6
) -> bytes:
    total = 20 + len(options) + len(payload)
    fixed = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | (20 + len(options)) // 4,
        0,
        total if total < 65_536 else 0,
        1,
        fragment,
        64,
        protocol,
        0,
        inet_pton(AF_INET, "127.0.0.1"),
        inet_pton(AF_INET, "127.0.0.2"),
    )
    return fixed + options + payload


def ipv6(payload: bytes, *, extensions: bytes = b"", first: int = 6) -> bytes:
    length = len(extensions) + len(payload)
    return (
        struct.pack(
            "!IHBB16s16s",
            0x6000_0000,
            length if length < 65_536 else 0,
            first,
            64,
            inet_pton(AF_INET6, "::1"),
            inet_pton(AF_INET6, "::2"),
        )
        + extensions
        + payload
    )


def ethernet(packet: bytes, kind: int = IP4, *, tags: Sequence[int] = ()) -> bytes:
    vlan = b"".join(struct.pack("!HH", tag, 7) for tag in tags)
    return bytes(12) + vlan + struct.pack("!H", kind) + packet


@dataclass
class Segment:
    """What a flow table is fed."""

    key: bytes
    seq: int
    ack: int
    flags: int
    data: bytes
    at: float


@dataclass
class Connection:
    """Both ends of a connection; every method is somebody sending, and adds to `sent`."""

    client_seq: int = 1_000
    server_seq: int = 5_000
    client_port: int = CLIENT
    sent: list[Segment] = field(default_factory=list)
    at: float = 100.0

    def open(self) -> "Connection":
        self._add(True, b"", SYN)
        self.client_seq += 1
        self._add(False, b"", SYN | ACK)
        self.server_seq += 1
        return self

    def ask(self, data: bytes, *sizes: int) -> "Connection":
        """The client sends, in segments of these sizes and one with the rest."""
        for piece in pieces(data, sizes):
            self._add(True, piece, ACK)
            self.client_seq += len(piece)
        return self

    def answer(self, data: bytes, *sizes: int) -> "Connection":
        for piece in pieces(data, sizes):
            self._add(False, piece, ACK)
            self.server_seq += len(piece)
        return self

    def end(self, *, from_client: bool) -> "Connection":
        self._add(from_client, b"", FIN | ACK)
        if from_client:
            self.client_seq += 1
        else:
            self.server_seq += 1
        return self

    def reset(self, *, from_client: bool) -> "Connection":
        self._add(from_client, b"", RST | ACK)
        return self

    def _add(self, from_client: bool, data: bytes, flags: int) -> None:
        self.at += 0.001
        client, server = struct.pack("!H", self.client_port), struct.pack("!H", SERVER)
        seq, ack = self.client_seq, self.server_seq
        key = b"ccccssss" + client + server
        if not from_client:
            seq, ack = ack, seq
            key = b"sssscccc" + server + client
        self.sent.append(Segment(key, seq % 2**32, ack % 2**32, flags, data, self.at))


def pieces(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    found, at = [], 0
    for size in sizes:
        if at + size >= len(data):
            break
        found.append(data[at : at + size])
        at += size
    return [*found, data[at:]]


class Witness:
    """Observes conversations, keeps everything, and remembers what it was told."""

    def __init__(self, *, side_bytes_max: int = 1 << 20, total_bytes_max: int = 1 << 24) -> None:
        self.requests = HeadReader(None, lambda _: 0)
        self.responses = ResponseHeads()
        self.budget = Budget(side_bytes_max=side_bytes_max, total_bytes_max=total_bytes_max)
        self.begun_pairs = 0
        self.given_up: list[tuple[bytes, str]] = []
        self.dropped: list[str] = []

    def begun(self, pair: Pair) -> None:
        self.begun_pairs += 1

    def gave_up(self, pair: Pair, reason: str) -> None:
        self.given_up.append((pair.head.line.path, reason))
        pair.release()

    def drop(self, reason: str) -> None:
        self.dropped.append(reason)


def seen(pair: Pair) -> tuple[bytes, bytes, int, bool, bool, int]:
    """What of a pair does not depend on how its bytes were cut."""
    return (
        b"".join(pair.request),
        b"".join(pair.response),
        pair.status,
        pair.request_cut,
        pair.response_cut,
        pair.outcome,
    )
