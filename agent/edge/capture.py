"""Which exchanges are kept, and the references to their chunks while they pass.

Kept means references to bytes that were forwarded anyway: nothing is copied until a batch is
sent. Nothing here awaits, and nothing here may raise into the relay: an exchange that cannot be
captured is dropped and counted. One number is drawn for an exchange, a hash of its id, and every
rule compares its rate with that one; `agent/sampling.py` draws the very same.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from agent.edge.capture_cost import CaptureCost
from agent.edge.channel import exchange_head
from agent.edge.counters import CODES, Counters
from agent.edge.draw import below, hasher, number
from agent.edge.settings import EdgeSettings

if TYPE_CHECKING:  # the tap imports the rates without a loop
    from agent.edge.outbox import Outbox

_OK: Final = CODES.index("2xx")


class Rates:
    """Rates as limits that draws are compared with; the weights are what the kept ones stand for.

    A tape holds those that were in force when it was begun: what it stands for is decided then.
    """

    __slots__ = (
        "below",
        "drawn",
        "error_weight",
        "errors",
        "kept_below",
        "uniform_below",
        "weight",
    )

    def __init__(
        self, *, uniform: float, also: float, errors: float, error_codes: Collection[str]
    ) -> None:
        for name, rate in (("sampling", uniform), ("also", also), ("errors", errors)):
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"{name} rate {rate} is not between 0 and 1")
        kept = max(uniform, also)
        of_errors = max(kept, errors) if error_codes else kept
        self.uniform_below = below(uniform)
        self.kept_below = below(kept)  # whatever became of it
        self.below = below(of_errors)  # what may turn out to be an error is held until then
        self.drawn = uniform < 1.0  # else everything is kept, and nothing has to be decided
        self.weight = 1.0 / kept if kept else 0.0
        self.error_weight = 1.0 / of_errors if of_errors else 0.0
        self.errors = tuple(code in error_codes for code in CODES)


class Tape:
    """The chunks of one exchange that is being kept. Cut at the limit, and says so."""

    __slots__ = (
        "_capture",
        "draw",
        "first_body_s",
        "rates",
        "request",
        "request_bytes",
        "request_cut",
        "response",
        "response_bytes",
        "response_cut",
    )

    _capture: "Capture"
    first_body_s: float | None  # when the first byte of the answer's body came
    draw: int
    rates: Rates
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
    """Decides by salted hash of the request id, and hands finished exchanges to the outbox."""

    def __init__(self, settings: EdgeSettings, counters: Counters, outbox: "Outbox") -> None:
        self.side_bytes_max = settings.capture_bytes_max
        self.total_bytes_max = settings.capture_total_bytes_max
        self._counters = counters
        self._outbox = outbox
        self.held_bytes = 0  # by all tapes that are not finished
        # Attributes, so that timing a few calls now and then costs the others nothing.
        self.begin = self._begin
        self.keep = self._keep
        self.cost = CaptureCost(self, begin=self._begin, keep=self._keep)
        self.set_sampling(rate=settings.sampling_rate, salt=bytes.fromhex(settings.sampling_salt))

    def set_sampling(
        self,
        *,
        rate: float,
        salt: bytes,
        also: float = 0.0,
        errors: float = 0.0,
        error_codes: Collection[str] = (),
    ) -> None:
        """From the next exchange on: `rate` for the uniform stratum, `also` for what analysis will
        choose from, `errors` for what ends with one of `error_codes`. Raises ValueError."""
        self._rates = Rates(uniform=rate, also=also, errors=errors, error_codes=error_codes)
        self._copy = hasher(salt).copy  # a copy is two thirds of the cost of a new one
        self.on = self._rates.below > 0

    def _begin(self, id: bytes, request: bytes = b"") -> Tape | None:
        """A tape when the exchange with this id is to be kept, or may have to be."""
        try:
            rates = self._rates
            draw = 0
            if rates.drawn:
                hash = self._copy()
                hash.update(id)
                draw = number(hash.digest())[0]
                if draw >= rates.below:
                    return None
            if self.held_bytes >= self.total_bytes_max:
                self._counters.drop("capture_memory")
                return None
            tape = Tape()  # a constructor of its own would double the cost
            tape._capture = self
            tape.draw = draw
            tape.rates = rates
            tape.request = []
            tape.response = []
            tape.request_bytes = tape.response_bytes = 0
            tape.request_cut = tape.response_cut = False
            tape.first_body_s = None
        except Exception:
            self.failed()
            return None
        tape.add_request(request)
        return tape

    def drawn(self, id: bytes) -> tuple[int, float, bool] | None:
        """For what is not held until its end is known: draw, weight and whether the uniform rate
        keeps it; None when it is not to be kept."""
        rates = self._rates
        draw = 0
        if rates.drawn:
            hash = self._copy()
            hash.update(id)
            draw = number(hash.digest())[0]
            if draw >= rates.kept_below:
                return None
        return draw, rates.weight, draw < rates.uniform_below

    def fit(self, data: bytes, have: int) -> tuple[bytes, bool]:
        """As much of `data` as may still be kept, and whether that was not all."""
        room = min(self.side_bytes_max - have, self.total_bytes_max - self.held_bytes)
        cut = len(data) > room
        if cut:
            data = data[: max(0, room)]
        self.held_bytes += len(data)
        return data, cut

    def _keep(
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
        shadow: bool = False,
        code: int = _OK,
    ) -> None:
        """`code` is the position in CODES of the answer's status, or of why there was none.

        Names at calls would cost half as much again as this method does.
        """
        rates = tape.rates
        draw = tape.draw
        is_error = rates.errors[code]
        if draw >= rates.kept_below and not is_error:
            self.forget(tape)
            return
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
                rates.error_weight if is_error else rates.weight,
                tape.first_body_s,
                draw,
                draw < rates.uniform_below,
                shadow,
            )
            size = len(head) + request_bytes + response_bytes
            self._outbox.put([head, *tape.request, *tape.response], size)
        except Exception:
            self.failed()

    def forget(self, tape: Tape) -> None:
        """Nothing is to be kept of it after all."""
        self.held_bytes -= tape.request_bytes + tape.response_bytes

    def failed(self) -> bool:
        """Whatever it was, the client's answer comes first. True: keep nothing more of this one."""
        self._counters.drop("capture_failed")
        return True
