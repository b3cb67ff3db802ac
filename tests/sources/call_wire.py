"""An edge's journal in the hands of a test, and all that analysis makes of it."""

import struct
from collections import Counter

from agent.edge.journal import FROM_CLIENT, FROM_SERVER, KEPT, OPENED, Record
from agent.exchange import Exchange
from agent.sources.grpc_calls import CallEnded, GrpcCalls
from tests.wire.h2 import PREFACE, Client, Server

PATH = "/inference.GRPCInferenceService/ModelInfer"
CANCEL = b"\0\0\0\x08"


class Wire:
    """One or more connections, as an edge tells of them. Each record is one second later."""

    def __init__(self) -> None:
        self.begun_paths: list[str] = []
        self.calls: list[CallEnded] = []
        self.lost_paths: list[str] = []
        self.exchanges: list[Exchange] = []
        self.dropped: Counter[str] = Counter()
        self.reader = GrpcCalls(
            self, self.exchanges.append, dropped=self.dropped, headers_also=["x-client"]
        )
        self.client, self.server = Client(), Server()
        self.now = 100.0

    # The tally.

    def begun(self, version: str, path: str, *, is_grpc: bool) -> None:
        self.begun_paths.append(path)

    def ended(self, call: CallEnded) -> None:
        self.calls.append(call)

    def lost(self, version: str, path: str, *, is_grpc: bool) -> None:
        self.lost_paths.append(path)

    # The journal.

    def tell(
        self, what: int, payload: bytes = b"", *, connection: int = 1, stream: int = 0
    ) -> None:
        self.now += 1.0
        record = Record(
            what=what, connection=connection, stream=stream, at=self.now, payload=payload
        )
        self.reader.take([record])

    def opened(self, connection: int = 1) -> "Wire":
        self.tell(OPENED, b"7", connection=connection)
        self.tell(FROM_CLIENT, self.client.opening()[len(PREFACE) :], connection=connection)
        self.tell(FROM_SERVER, self.server.opening(), connection=connection)
        return self

    def kept(self, stream: int, *, draw: float = 0.25, weight: float = 4.0) -> None:
        payload = struct.pack("<Qd?", int(draw * 2**64), weight, True)
        self.tell(KEPT, payload, stream=stream)

    def asks(self, stream: int, *more: tuple[str, str], path: str = PATH) -> None:
        self.tell(FROM_CLIENT, self.client.asks(stream, path, b"question", *more))

    def answers(self, stream: int, status: int = 0) -> None:
        self.tell(FROM_SERVER, self.server.answers(stream, b"answer", status=status))
