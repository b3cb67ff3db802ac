"""Which exchanges are kept, and the references to their chunks while they pass.

Kept means references to bytes that were forwarded anyway: nothing is copied until a batch is
sent. Nothing here awaits, and nothing here may raise into the relay: an exchange that cannot be
captured is dropped and counted.
"""

import struct
from hashlib import blake2b
from typing import Final

from agent.edge.channel import exchange_head
from agent.edge.counters import Counters
from agent.edge.outbox import Outbox
from agent.edge.settings import EdgeSettings

_HASHES: Final = 1 << 64
_number: Final = struct.Struct("<Q").unpack


class Tape:
    """The chunks of one exchange that is being kept. Cut at the limit, and says so."""

    __slots__ = (
        "_capture",
        "request",
        "request_bytes",
        "request_cut",
        "response",
        "response_bytes",
        "response_cut",
        "weight",
    )

    _capture: "Capture"
    weight: float
    request: list[bytes]
    request_bytes: int
    request_cut: bool
    response: list[bytes]
    response_bytes: int
    response_cut: bool

    def add_request(self, data: bytes) -> None:
        if self.request_cut:
            return
        capture = self._capture
        size = len(data)
        have = self.request_bytes + size
        held = capture.held_bytes + size
        if have <= capture.side_bytes_max and held <= capture.total_bytes_max:
            capture.held_bytes = held
        else:
            try:
                data, self.request_cut = capture.fit(data, self.request_bytes)
            except Exception:
                self.request_cut = capture.failed()
                return
            have = self.request_bytes + len(data)
        self.request_bytes = have
        self.request.append(data)

    def add_response(self, data: bytes) -> None:
        if self.response_cut:
            return
        capture = self._capture
        size = len(data)
        have = self.response_bytes + size
        held = capture.held_bytes + size
        if have <= capture.side_bytes_max and held <= capture.total_bytes_max:
            capture.held_bytes = held
        else:
            try:
                data, self.response_cut = capture.fit(data, self.response_bytes)
            except Exception:
                self.response_cut = capture.failed()
                return
            have = self.response_bytes + len(data)
        self.response_bytes = have
        self.response.append(data)


class Capture:
    """Decides by keyed hash of the request id, and hands finished exchanges to the outbox."""

    def __init__(self, settings: EdgeSettings, counters: Counters, outbox: Outbox) -> None:
        self.side_bytes_max = settings.capture_bytes_max
        self.total_bytes_max = settings.capture_total_bytes_max
        self._counters = counters
        self._outbox = outbox
        self.held_bytes = 0  # by all tapes that are not finished
        self.set_sampling(rate=settings.sampling_rate, salt=bytes.fromhex(settings.sampling_salt))

    def set_sampling(self, *, rate: float, salt: bytes) -> None:
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"sampling rate {rate} is not between 0 and 1")
        # 64 bytes are blake2b's longest key.
        self._copy_keyed = blake2b(digest_size=8, key=salt[:64], person=b"keep").copy
        self.on = rate > 0.0
        self._below = int(rate * _HASHES)
        self._weight = 1.0 / rate if rate else 0.0

    def begin(self, id: bytes, request: bytes = b"") -> Tape | None:
        """A tape when the exchange with this id is to be kept."""
        try:
            below = self._below
            if below < _HASHES:
                hash = self._copy_keyed()  # two thirds of the cost of one made with its key
                hash.update(id)
                if _number(hash.digest())[0] >= below:
                    return None
            if self.held_bytes >= self.total_bytes_max:
                self._counters.drop("capture_memory")
                return None
            tape = Tape()  # a constructor of its own would double the cost
            tape._capture = self
            tape.weight = self._weight
            tape.request = []
            tape.response = []
            tape.request_bytes = tape.response_bytes = 0
            tape.request_cut = tape.response_cut = False
        except Exception:
            self.failed()
            return None
        tape.add_request(request)
        return tape

    def fit(self, data: bytes, have: int) -> tuple[bytes, bool]:
        """As much of `data` as may still be kept, and whether that was not all."""
        room = min(self.side_bytes_max - have, self.total_bytes_max - self.held_bytes)
        cut = len(data) > room
        if cut:
            data = data[: max(0, room)]
        self.held_bytes += len(data)
        return data, cut

    def keep(
        self,
        tape: Tape,
        slot: int,
        version: bytes,
        id: bytes,
        id_from: int,
        outcome: int,
        started_at: float,
        first_byte_s: float | None,
        duration_s: float,
    ) -> None:
        """Names at calls would cost half as much again as this method does."""
        request_bytes = tape.request_bytes
        response_bytes = tape.response_bytes
        self.held_bytes -= request_bytes + response_bytes
        try:
            head = exchange_head(
                slot,
                outcome,
                id_from,
                id,
                version,
                request_bytes,
                tape.request_cut,
                response_bytes,
                tape.response_cut,
                started_at,
                first_byte_s,
                duration_s,
                tape.weight,
            )
            size = len(head) + request_bytes + response_bytes
            self._outbox.put([head, *tape.request, *tape.response], size)
        except Exception:
            self.failed()

    def failed(self) -> bool:
        """Whatever it was, the client's answer comes first. True: keep nothing more of this one."""
        self._counters.drop("capture_failed")
        return True
