"""HTTP/2 as tests write it: frames, header blocks, whole calls of gRPC."""

import struct
from collections.abc import Sequence

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PROMISE, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITIZED = 1, 4, 8, 32
Pairs = Sequence[tuple[str, str]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((kind, flags))
        + struct.pack(">I", stream)
        + payload
    )


def message(payload: bytes, *, flag: int = 0) -> bytes:
    """A message of gRPC with its prefix."""
    return bytes((flag,)) + struct.pack(">I", len(payload)) + payload


class Side:
    """One end of a connection, with the header compression of what it sends."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()

    def block(self, headers: Pairs, *, huffman: bool = True) -> bytes:
        return bytes(self.encoder.encode(list(headers), huffman=huffman))

    def headers(self, stream: int, headers: Pairs, *, ends: bool = False) -> bytes:
        return frame(HEADERS, END_HEADERS | ends * END_STREAM, stream, self.block(headers))


class Client(Side):
    def opening(self) -> bytes:
        return PREFACE + frame(SETTINGS, 0, 0)

    def asks(self, stream: int, path: str, body: bytes, *more: tuple[str, str]) -> bytes:
        """A unary call, whole."""
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "m"),
            ("content-type", "application/grpc"), ("te", "trailers"), *more,
        ]  # fmt: skip
        return self.headers(stream, headers) + frame(DATA, END_STREAM, stream, message(body))


class Server(Side):
    def opening(self) -> bytes:
        return frame(SETTINGS, 0, 0) + frame(SETTINGS, 1, 0)

    def answers(self, stream: int, body: bytes, *, status: int = 0) -> bytes:
        """One message and trailers."""
        head = self.headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        return head + frame(DATA, 0, stream, message(body)) + self.ends(stream, status)

    def ends(self, stream: int, status: int) -> bytes:
        trailers = [("grpc-status", str(status)), ("grpc-message", "")]
        return self.headers(stream, trailers, ends=True)

    def refuses(self, stream: int, status: int) -> bytes:
        """Trailers alone."""
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        return self.headers(stream, [*headers, ("grpc-status", str(status))], ends=True)
