"""Which exchanges are kept, for how many each of them stands, and which of them are evidence.

One number u is drawn for an exchange, a salted hash of its request id (`agent/edge/draw.py`), and
every rule is a rate that u is compared with: the uniform one, that of failed exchanges, those of
classes and segments. So an exchange is kept with the highest of the rates that apply to it, exactly
so, and one that a rule keeps is kept by every rule with a higher rate. Never draw a second number
for the same exchange: two decisions with unrelated probabilities make both weights wrong.

The edge knows neither classes nor segments and keeps at the highest of their rates; here, after
decoding, what no rule wants goes. An exchange of several rows is kept or dropped as a whole, by the
highest rate of any of its rows.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent.config.serving import SamplingConfig
from agent.edge.counters import CODE_OF_OUTCOME, CODES
from agent.edge.draw import DRAWS, below, draw
from agent.exchange import Exchange
from agent.inference import Inference
from agent.schema import Schema, category, feature_names, outcome

_OUTCOMES: Final = ("ok", "client_disconnect", "upstream_unreachable", "timeout")
_HISTORY_MAX: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How one exchange counts: for how many it stands, and whether it may be evidence."""

    weight: float  # 1 / probability of having been kept, at least 1
    uniform: bool


def kept(exchange: Exchange) -> Kept:
    """The weight and the stratum of an exchange, as its source says.

    A weight that no probability can have (below 1, not finite) comes from a
    source that does not know its own sampling: such rows are counted once and are no evidence.
    """
    if math.isfinite(exchange.weight) and exchange.weight >= 1.0:
        return Kept(weight=exchange.weight, uniform=exchange.uniform)
    return Kept(weight=1.0, uniform=False)


def edge_keeps(id: str, *, rate: float, salt: bytes) -> bool:
    """Whether the edge keeps a request of that id at that rate: its very draw.

    >>> sum(edge_keeps(str(n), rate=0.25, salt=b"salt") for n in range(1_000))
    259
    """
    limit = below(rate)
    return limit >= DRAWS or draw(id.encode(), salt) < limit


def code_of(exchange: Exchange) -> str:
    """What became of it, as `remora_requests_total` names it; an answer that began counts as it
    began, for the edge decides then. A copy that no client saw is no failure: "" then."""
    if exchange.shadow:
        return ""
    if exchange.status:
        return CODES[min(max(exchange.status // 100 - 1, 0), 4)]
    return CODES[CODE_OF_OUTCOME[_OUTCOMES.index(exchange.outcome)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Exchanges with a row of this class (`feature` is None) or of this value are wanted."""

    feature: str | None
    value: str
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The rates in force: `uniform` everywhere, `factor` times what strategies ask for."""

    uniform: float
    also: float  # the highest rate of any class or segment: what the edge keeps for us
    errors: float
    factor: float

    @property
    def kept(self) -> float:
        """The share that the edge keeps whatever becomes of it."""
        return max(self.uniform, self.also)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategies:
    """What the configuration asks for; `at` says what of it is in force at a scale."""

    rate: float = 1.0
    rate_min: float = 0.001
    errors: float = 0.0
    error_codes: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, config: SamplingConfig) -> "Strategies":
        """From the section `sampling`."""
        classes = (
            Rule(feature=None, value=rule.prediction, rate=rule.rate) for rule in config.classes
        )
        segments = (
            Rule(feature=rule.feature, value=rule.value, rate=rule.rate) for rule in config.segments
        )
        return cls(
            rate=config.rate,
            rate_min=config.rate_min,
            errors=config.errors if config.error_codes else 0.0,
            error_codes=frozenset(config.error_codes),
            rules=(*classes, *segments),
        )

    @property
    def any(self) -> bool:
        """Whether anything but the uniform rate is asked for."""
        return self.errors > 0.0 or bool(self.rules)

    @property
    def scale_min(self) -> float:
        """The scale at which everything is as low as it may be."""
        return self._turn * (self.rate_min if self.any else 1.0)

    @property
    def _turn(self) -> float:
        """Down to this scale the uniform rate gives way alone: errors and rare classes are few,
        and asked for by name. Below it the uniform rate is at its least, and the others follow."""
        return self.rate_min / self.rate if self.rate > self.rate_min else 1.0

    def at(self, scale: float) -> Rates:
        """The rates at a scale between `scale_min` and 1; 1 is what was asked for."""
        factor = min(1.0, scale / self._turn)
        return Rates(
            uniform=self._lowered(self.rate, scale),
            also=max((self._lowered(rule.rate, factor) for rule in self.rules), default=0.0),
            errors=self._lowered(self.errors, factor),
            factor=factor,
        )

    def lowered(self, rate: float, rates: Rates) -> float:
        """What of a strategy's rate is in force."""
        return self._lowered(rate, rates.factor)

    def _lowered(self, rate: float, factor: float) -> float:
        return max(rate * factor, min(rate, self.rate_min))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOrder:
    """What a process that keeps exchanges is told; the fields of the channel's SAMPLING."""

    rate: float = 1.0
    salt: bytes = b""
    also: float = 0.0
    errors: float = 0.0
    error_codes: tuple[str, ...] = ()


class Sampler:
    """Weighs what sources bring, by the rates in force, and drops what no rule wants.

    Whatever a source has drawn by is respected: nothing is kept here with a higher probability than
    there. That is why rates may change at any time, at the edge a moment earlier or later than
    here: an exchange is kept with the lower of both, which is known exactly, and that neither
    depends on its draw is all that an unbiased weight needs.
    """

    def __init__(self, strategies: Strategies, *, salt: bytes) -> None:
        self.strategies = strategies
        self.rates = strategies.at(1.0)
        self.dropped = 0  # exchanges that no rule wanted: no loss, a decision
        self.tally = ExchangeTally()
        self._salt = salt

    def ask_for(self, strategies: Strategies, *, scale: float) -> bool:
        """Other rates from now on; False when they are what they were."""
        rates = strategies.at(scale)
        changed = (strategies, rates) != (self.strategies, self.rates)
        self.strategies, self.rates = strategies, rates
        return changed

    @property
    def plain(self) -> bool:
        """Everything is kept and nothing is asked for: then no exchange has to be asked about."""
        return self.rates.uniform >= 1.0

    def admits(self, exchange: Exchange | Inference) -> bool:
        """Whether any rule might still want it: asked before it is decoded."""
        u, limit = self._drawn(exchange)
        if u < min(max(self.rates.kept, self._error_rate(exchange)), limit) or u < 0.0:
            return True
        self.dropped += 1
        return False

    def weigh(
        self, exchange: Exchange | Inference, inference: Inference, schema: Schema
    ) -> Kept | None:
        """How its rows count, now that they are known; None when no rule wants them."""
        u, limit = self._drawn(exchange)
        if u < 0.0:
            return Kept(weight=inference.weight, uniform=inference.uniform)
        uniform = min(self.rates.uniform, limit)
        probability = max(uniform, min(self._error_rate(exchange), limit))
        if self.strategies.rules and probability < min(self.rates.also, limit):
            rate = rate_of(self.strategies.rules, inference, schema)
            wanted = self.strategies.lowered(rate, self.rates)
            probability = max(probability, min(wanted, limit))
        if u >= probability:
            self.dropped += 1
            return None
        return Kept(weight=1.0 / probability, uniform=u < uniform and inference.uniform)

    def seen(self, exchange: Exchange) -> None:
        """Count it, for how many it stands, whether or not it can be decoded."""
        code = code_of(exchange)
        if not code:
            return
        weight = self.stands_for(exchange)
        if weight > 0.0:
            self.tally.add(code, weight)

    def stands_for(self, exchange: Exchange) -> float:
        """For how many it counts whatever its rows are; 0: only a class or segment kept it."""
        u, limit = self._drawn(exchange)
        if u < 0.0:
            return kept(exchange).weight
        rate = min(max(self.rates.uniform, self._error_rate(exchange)), limit)
        return 1.0 / rate if u < rate else 0.0

    def _error_rate(self, exchange: Exchange | Inference) -> float:
        """The rate of errors when it is one."""
        if self.rates.errors <= 0.0 or isinstance(exchange, Inference):
            return 0.0
        return self.rates.errors if code_of(exchange) in self.strategies.error_codes else 0.0

    def _drawn(self, taken: Exchange | Inference) -> tuple[float, float]:
        """Its draw, and the rate at which its source has kept it; -1 where that is not ours to
        change: its source has drawn by itself and told nothing but a weight."""
        number = taken.draw if isinstance(taken, Exchange) else 0.0
        weight = taken.weight
        if weight == 1.0:
            if self.rates.uniform >= 1.0:
                return number, 1.0
            return number or draw(taken.id.encode(), self._salt) / DRAWS, 1.0
        if isinstance(taken, Inference) or not (number and math.isfinite(weight) and weight > 1.0):
            return -1.0, 0.0
        if not self.strategies.any:
            return -1.0, 0.0  # kept uniformly, at the rate that it came with
        if taken.source == "tap":
            return -1.0, 0.0  # its weight may be that of a share of connections as well
        return number, 1.0 / weight


def rate_of(rules: Iterable[Rule], inference: Inference, schema: Schema) -> float:
    """The highest rate of the rules that any row of it fits; 0 for none."""
    classes: set[str | None] | None = None
    names: tuple[str, ...] | None = None
    found = 0.0
    for rule in rules:
        if rule.rate <= found:
            continue
        if rule.feature is None:
            if classes is None:
                said, _ = outcome(schema, inference.outputs)
                classes = set() if said is None else {category(value) for value in said.tolist()}
            fits = rule.value in classes
        else:
            if names is None:
                names = feature_names(inference, schema.names)
            fits = rule.feature in names and _has(inference, names.index(rule.feature), rule.value)
        if fits:
            found = rule.rate
    return found


def _has(inference: Inference, place: int, value: str) -> bool:
    return any(category(row[place]) == value for row in inference.rows)


class RateHistory:
    """Which shares were kept lately: whether a request of a while ago would have been."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, float]] = deque(maxlen=_HISTORY_MAX)  # from when on, share

    def note(self, share: float, now: float) -> None:
        """This share from now on."""
        self._told.append((now, share))

    def highest_since(self, since: float) -> float:
        """The highest share in force from then until now; 1 for what nobody remembers."""
        found = None
        for at, share in reversed(self._told):
            found = share if found is None else max(found, share)
            if at <= since:
                break
        return 1.0 if found is None else found


class ExchangeTally:
    """How many exchanges ended how, estimated from those that were kept (Horvitz and Thompson)."""

    def __init__(self) -> None:
        self.kept = 0
        self.by_code: Counter[str] = Counter()
        self._represented: dict[str, float] = {}

    def add(self, code: str, weight: float) -> None:
        """One exchange that stands for `weight` of them."""
        self.kept += 1
        self.by_code[code] += 1
        self._represented[code] = self._represented.get(code, 0.0) + weight

    @property
    def represented(self) -> float:
        """How many there were."""
        return sum(self._represented.values())

    def share(self, codes: Iterable[str]) -> float | None:
        """The share that ended with one of these codes; None before anything was seen."""
        total = self.represented
        return sum(self._represented.get(code, 0.0) for code in codes) / total if total else None


@dataclass(slots=True, kw_only=True)
class SamplingTally:
    """The sampling rate that was truly in force: rows seen over the rows they stand for."""

    rows: int = 0
    represented: float = 0.0

    def add(self, rows: int, weight: float) -> None:
        self.rows += rows
        self.represented += rows * weight

    @property
    def rate(self) -> float:
        """Between 0 and 1; 1 before anything was seen."""
        return self.rows / self.represented if self.rows else 1.0


def effective_rows(weights: Iterable[float]) -> float:
    """Kish's effective number of rows: how many equally weighted rows say as much.

    >>> effective_rows([1.0, 1.0, 1.0, 1.0])
    4.0
    >>> effective_rows([7.0, 1.0])
    1.28
    """
    total = squares = 0.0
    for weight in weights:
        total += weight
        squares += weight * weight
    return total * total / squares if squares else 0.0
