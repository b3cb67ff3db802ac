"""Which protocol each route speaks, found from its first exchanges; then decoding by it.

Do not let a settled route change its decoder: a stranger's odd request must not turn the
columns of a model into other ones.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.decoders.body import require_answered
from agent.decoders.decoder import DecodeError, Decoder, DecodeReason, DecoderSettings
from agent.decoders.redaction import Redaction
from agent.exchange import Exchange
from agent.inference import Inference

AGREEING = 5  # exchanges in a row that one decoder must read before a route sticks to it
ROUTES_MAX = 256  # routes remembered; beyond, every exchange is looked at afresh


@dataclass(slots=True, kw_only=True)
class _Trial:
    """How a route's exchanges read so far."""

    decoder: Decoder
    agreed: int


class Decoding:
    """Exchanges in, inferences out, with the protocol found per route when there is a choice.

    A single decoder is what the operator configured, and is used without asking. Counts what
    was decoded and, by reason, what was not.
    """

    def __init__(
        self,
        decoders: Sequence[Decoder],
        *,
        agreeing: int = AGREEING,
        redaction: Redaction | None = None,
    ) -> None:
        self._decoders = tuple(decoders)
        self._redaction = redaction or Redaction(DecoderSettings())
        # A protocol that the operator named needs no agreement: a route has it once it was read.
        self._agreeing = agreeing if len(self._decoders) > 1 else 1
        self._trials: dict[str, _Trial] = {}
        self.decoded_total = 0
        self.dropped: Counter[DecodeReason] = Counter()

    @property
    def detected(self) -> Mapping[str, str]:
        """Route to the name of the protocol it settled on, or that was configured and read."""
        return {
            route: trial.decoder.name
            for route, trial in self._trials.items()
            if trial.agreed >= self._agreeing
        }

    def decode(self, exchange: Exchange) -> Inference:
        """What was asked and answered.

        Raises:
            DecodeError: by the decoder of the route, or unsupported_protocol when no decoder
                recognises the exchange. It is counted here.
        """
        try:
            inference = self._decoded(self._redaction.exchange(exchange))
            inference = self._redaction.inference(inference)
        except DecodeError as error:
            self.dropped[error.reason] += 1
            raise
        self.decoded_total += 1
        return inference

    def taken(self, inference: Inference) -> Inference:
        """What came decoded already, as it may be seen.

        Raises:
            DecodeError: redacted. It is counted here.
        """
        try:
            return self._redaction.inference(inference)
        except DecodeError as error:
            self.dropped[error.reason] += 1
            raise

    @property
    def redaction_dropped(self) -> Counter[str]:
        """Values taken out whole because a pattern could not be run on them, by why."""
        return self._redaction.dropped

    def _decoded(self, exchange: Exchange) -> Inference:
        if len(self._decoders) == 1:
            inference = self._decoders[0].decode(exchange)
            self._vote(exchange.path, self._decoders[0])
            return inference
        trial = self._trials.get(exchange.path)
        if trial is not None and trial.agreed >= self._agreeing:
            return trial.decoder.decode(exchange)
        # Errors and probes say nothing about a protocol: they get their own reason, no vote. But
        # of a stream that was cut some decoders can still tell when its first token came.
        refusal = _unanswered(exchange) or DecodeError(
            DecodeReason.UNSUPPORTED_PROTOCOL, "no decoder recognises it"
        )
        for decoder in self._decoders:
            if not decoder.matches(exchange):
                continue
            try:
                inference = decoder.decode(exchange)
            except DecodeError as error:
                refusal = _more_telling(refusal, error)
                continue
            self._vote(exchange.path, decoder)
            return inference
        raise refusal

    def _vote(self, route: str, decoder: Decoder) -> None:
        trial = self._trials.get(route)
        if trial is not None and trial.decoder is decoder:
            trial.agreed += 1
        elif trial is not None or len(self._trials) < ROUTES_MAX:
            self._trials[route] = _Trial(decoder=decoder, agreed=1)


def _unanswered(exchange: Exchange) -> DecodeError | None:
    try:
        require_answered(exchange)
    except DecodeError as error:
        return error
    return None


def _more_telling(first: DecodeError, second: DecodeError) -> DecodeError:
    """The refusal of a decoder that got further: one that knew the protocol but not the rows."""
    if second.generation is not None:
        return second
    vague = (DecodeReason.UNSUPPORTED_PROTOCOL, DecodeReason.NOT_AN_INFERENCE)
    return second if first.reason in vague else first
