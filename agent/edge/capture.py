"""Which exchanges are kept, and the references to their chunks while they pass.

Kept means references to bytes that were forwarded anyway: nothing is copied until a batch is
sent. Nothing here awaits, and nothing here may raise into the relay: an exchange that cannot be
captured is dropped and counted.
"""

from hashlib import blake2b
from typing import Final

from agent.edge.channel import exchange_head
from agent.edge.counters import Counters
from agent.edge.outbox import Outbox
from agent.edge.settings import EdgeSettings

_HASHES: Final = 1 << 64


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

    def __init__(self, capture: "Capture", weight: float) -> None:
        self._capture = capture
        self.weight = weight
        self.request: list[bytes] = []
        self.request_bytes = 0
        self.request_cut = False
        self.response: list[bytes] = []
        self.response_bytes = 0
        self.response_cut = False

    def add_request(self, data: bytes) -> None:
        if not self.request_cut:
            try:
                data, self.request_cut = self._capture.fit(data, self.request_bytes)
            except Exception:
                self.request_cut = self._capture.failed()
                return
            self.request.append(data)
            self.request_bytes += len(data)

    def add_response(self, data: bytes) -> None:
        if not self.response_cut:
            try:
                data, self.response_cut = self._capture.fit(data, self.response_bytes)
            except Exception:
                self.response_cut = self._capture.failed()
                return
            self.response.append(data)
            self.response_bytes += len(data)


class Capture:
    """Decides by keyed hash of the request id, and hands finished exchanges to the outbox."""

    def __init__(self, settings: EdgeSettings, counters: Counters, outbox: Outbox) -> None:
        self._side_bytes_max = settings.capture_bytes_max
        self._total_bytes_max = settings.capture_total_bytes_max
        self._counters = counters
        self._outbox = outbox
        self._held_bytes = 0  # by all tapes that are not finished
        self.set_sampling(rate=settings.sampling_rate, salt=bytes.fromhex(settings.sampling_salt))

    def set_sampling(self, *, rate: float, salt: bytes) -> None:
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"sampling rate {rate} is not between 0 and 1")
        self._salt = salt[:64]  # blake2b's longest key
        self.on = rate > 0.0
        self._below = int(rate * _HASHES)
        self._weight = 1.0 / rate if rate else 0.0

    def begin(self, id: bytes) -> Tape | None:
        """A tape when the exchange with this id is to be kept."""
        try:
            return self._begin(id)
        except Exception:
            self.failed()
            return None

    def _begin(self, id: bytes) -> Tape | None:
        below = self._below
        if below < _HASHES:
            if not below:
                return None
            digest = blake2b(id, digest_size=8, key=self._salt, person=b"keep").digest()
            if int.from_bytes(digest, "little") >= below:
                return None
        if self._held_bytes >= self._total_bytes_max:
            self._counters.drop("capture_memory")
            return None
        return Tape(self, self._weight)

    def fit(self, data: bytes, have: int) -> tuple[bytes, bool]:
        """As much of `data` as may still be kept, and whether that was not all."""
        room = min(self._side_bytes_max - have, self._total_bytes_max - self._held_bytes)
        cut = len(data) > room
        if cut:
            data = data[: max(0, room)]
        self._held_bytes += len(data)
        return data, cut

    def forget(self, tape: Tape) -> None:
        self._held_bytes -= tape.request_bytes + tape.response_bytes

    def keep(
        self,
        tape: Tape,
        *,
        slot: int,
        version: bytes,
        id: bytes,
        id_from: int,
        outcome: int,
        started_at: float,
        first_byte_s: float | None,
        duration_s: float,
    ) -> None:
        self.forget(tape)
        try:
            head = exchange_head(
                slot=slot,
                outcome=outcome,
                id_from=id_from,
                id=id,
                version=version,
                request_bytes=tape.request_bytes,
                request_truncated=tape.request_cut,
                response_bytes=tape.response_bytes,
                response_truncated=tape.response_cut,
                started_at=started_at,
                first_byte_s=first_byte_s,
                duration_s=duration_s,
                weight=tape.weight,
            )
            self._outbox.put([head, *tape.request, *tape.response])
        except Exception:
            self.failed()

    def failed(self) -> bool:
        """Whatever it was, the client's answer comes first. True: keep nothing more of this one."""
        self._counters.drop("capture_failed")
        return True
