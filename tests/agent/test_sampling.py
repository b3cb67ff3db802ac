"""Estimates from what was kept are right on average, and evidence sees nothing of strategies.

The simulation goes the whole way: the edge's own capture, its frames, the exchange, the sampler.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.serving import SamplingConfig
from agent.edge.capture import Capture
from agent.edge.channel import FRAME_HEAD_BYTES, decode_exchange
from agent.edge.counters import CODE_OF_OUTCOME, Counters
from agent.edge.settings import EdgeSettings
from agent.exchange import Exchange
from agent.inference import Inference
from agent.monitor import ModelMonitor, MonitorSettings
from agent.sampling import RateHistory, Rates, Rule, Sampler, Strategies, edge_keeps, rate_of
from agent.schema import Feature, Schema, SchemaSettings
from agent.sources.proxy import to_exchange
from detectors import build_reference
from detectors.performance.quality import Quality

SCHEMA = Schema(
    features=(Feature(name="amount", kind="numeric"), Feature(name="region", kind="categorical")),
    prediction="y",
    target="class",
)
MIXED = SamplingConfig.model_validate(
    {
        "rate": 0.1,
        "errors": True,
        "error_codes": ["5xx", "upstream_unreachable"],
        "classes": [{"prediction": "fraud", "rate": 0.9}, {"prediction": "odd", "rate": 0.3}],
        "segments": [{"feature": "region", "value": "eu", "rate": 0.4}],
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked, what was said, and what turned out true."""

    id: str
    rows: tuple[tuple[float, str], ...]
    said: tuple[str, ...]
    truth: tuple[str, ...]
    status: int
    outcome: int


class Frames:
    """Stands for the outbox: what would be sent is here."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def put(self, parts: list[bytes], size: int) -> None:
        frame = b"".join(parts)
        assert len(frame) == size
        self.frames.append(frame)


class World:
    """Traffic, and the two ends that look at it."""

    def __init__(self, strategies: Strategies, *, salt: bytes, scale: float = 1.0) -> None:
        self.sampler = Sampler(strategies, salt=salt)
        self.sampler.ask_for(strategies, scale=scale)
        self.frames = Frames()
        edge = EdgeSettings.of({})
        self.capture = Capture(edge, Counters(()), self.frames)  # type: ignore[arg-type]
        self.tell(salt)
        self.kept: list[tuple[Request, Inference]] = []
        self._requests: dict[str, Request] = {}

    def tell(self, salt: bytes) -> None:
        rates, asked = self.sampler.rates, self.sampler.strategies
        self.capture.set_sampling(
            rate=rates.uniform,
            salt=salt,
            also=rates.also,
            errors=rates.errors,
            error_codes=asked.error_codes,
        )

    def serve(self, request: Request) -> None:
        """At the edge: it passes, and is kept or not."""
        if not self.capture.on:
            return
        self._requests[request.id] = request
        tape = self.capture.begin(request.id.encode(), b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
        if tape is None:
            return
        if request.status:
            tape.add_response(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % request.status)
        code = request.status // 100 - 1 if request.status else CODE_OF_OUTCOME[request.outcome]
        self.capture.keep(
            tape, 0, b"1", request.id.encode(), 0, request.outcome, 1.0, None, 0.1, False, code
        )

    def read(self) -> None:
        """In analysis: what was kept arrives."""
        frames, self.frames.frames = self.frames.frames, []
        for frame in frames:
            self.take(to_exchange(decode_exchange(frame[FRAME_HEAD_BYTES:])))

    def take(self, exchange: Exchange) -> None:
        request = self._requests[exchange.id]
        self.sampler.seen(exchange)
        if not self.sampler.plain and not self.sampler.admits(exchange):
            return
        inference = inference_of(request, exchange)
        if not self.sampler.plain:
            counts = self.sampler.weigh(exchange, inference, SCHEMA)
            if counts is None:
                return
            inference = replace(inference, weight=counts.weight, uniform=counts.uniform)
        self.kept.append((request, inference))

    def run(self, requests: Sequence[Request]) -> "World":
        for request in requests:
            self.serve(request)
        self.read()
        return self


def inference_of(request: Request, exchange: Exchange) -> Inference:
    return Inference(
        id=request.id,
        aliases=(),
        at=1.0,
        version="1",
        slot="stable",
        weight=exchange.weight,
        uniform=exchange.uniform,
        latency_s=0.1,
        names=("amount", "region"),
        rows=[list(row) for row in request.rows],
        outputs={"y": list(request.said)},
    )


def traffic(count: int, seed: int = 1) -> list[Request]:
    """Fraud is rare and often wrong, errors are rarer, Europe is a fifth; one to three rows."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        size = int(rng.integers(1, 4))
        said = tuple(rng.choice(["fine", "fraud", "odd"], size, p=[0.9, 0.04, 0.06]).tolist())
        wrong = [rng.random() < {"fine": 0.05, "fraud": 0.5, "odd": 0.2}[word] for word in said]
        status, outcome = 200, 0
        if rng.random() < 0.08:
            status, outcome = ((500, 0), (0, 2), (200, 2))[int(rng.integers(3))]
        made.append(
            Request(
                id=f"request-{seed}-{number}",
                rows=tuple(
                    (float(rng.normal()), str(rng.choice(["eu", "us"], p=[0.2, 0.8]))) for _ in said
                ),
                said=said,
                truth=tuple("other" if w else s for s, w in zip(said, wrong, strict=True)),
                status=status,
                outcome=outcome,
            )
        )
    return made


def accuracy_share(requests: Sequence[Request]) -> float:
    pairs = [(s, t) for r in requests for s, t in zip(r.said, r.truth, strict=True)]
    return sum(s == t for s, t in pairs) / len(pairs)


def estimates(world: World) -> tuple[float, float, float, float, float]:
    """Requests, rows of fraud, of Europe, right answers, failures: totals, Horvitz-Thompson."""
    fraud = europe = right = total = 0.0
    for request, inference in world.kept:
        total += inference.weight
        fraud += inference.weight * request.said.count("fraud")
        europe += inference.weight * sum(region == "eu" for _, region in request.rows)
        right += inference.weight * sum(map(str.__eq__, request.said, request.truth))
    tally = world.sampler.tally
    failed = (tally.share(["5xx", "upstream_unreachable"]) or 0.0) * tally.represented
    return total, fraud, europe, right, failed


def truth(requests: Sequence[Request]) -> tuple[float, float, float, float, float]:
    return (
        float(len(requests)),
        float(sum(r.said.count("fraud") for r in requests)),
        float(sum(region == "eu" for r in requests for _, region in r.rows)),
        float(sum(sum(map(str.__eq__, r.said, r.truth)) for r in requests)),
        float(sum(r.status == 500 or r.status == 0 for r in requests)),
    )


@pytest.mark.parametrize("scale", [1.0, 0.05])
@pytest.mark.parametrize(
    "config",
    [
        MIXED,
        SamplingConfig(rate=0.2),
        SamplingConfig(rate=0.05, errors=1.0),
        SamplingConfig.model_validate(
            {"rate": 0.0, "classes": [{"prediction": "fine", "rate": 0.5}], "errors": 0.3}
        ),
    ],
)
def test_totals_of_kinds_errors_and_right_answers_are_unbiased(
    config: SamplingConfig, scale: float
) -> None:
    """Over many salts the mean of each estimate is the truth, within four standard errors."""
    requests = traffic(250)
    strategies = Strategies.of(config.model_copy(update={"rate_min": 0.1}))
    salts = [b"salt-%d" % number for number in range(40)]
    found = np.array(
        [
            estimates(
                World(strategies, salt=salt, scale=max(scale, strategies.scale_min)).run(requests)
            )
            for salt in salts
        ]
    )
    for place, wanted in enumerate(truth(requests)):
        if config.rate == 0.0 and place < 4:
            continue  # what no rule keeps at all cannot be estimated
        error = found[:, place].std() / len(salts) ** 0.5
        assert abs(found[:, place].mean() - wanted) <= 4 * error + 1e-6, (place, wanted)


def test_accuracy_is_right_though_the_wrong_are_kept_more_often() -> None:
    requests = traffic(8_000, seed=5)
    world = World(Strategies.of(MIXED), salt=b"s").run(requests)
    weighted = Quality(task="classification", window_rows=100_000)
    naive = Quality(task="classification", window_rows=100_000)
    for request, inference in world.kept:
        weighted.update(request.said, request.truth, weight=inference.weight)
        naive.update(request.said, request.truth)
    wanted = accuracy_share(requests)
    estimate = weighted.metrics()["accuracy"]
    assert abs(estimate.value - wanted) < 0.02
    assert naive.metrics()["accuracy"].value < wanted - 0.03
    assert estimate.lower <= wanted <= estimate.upper


def test_evidence_is_of_the_very_same_rows_with_and_without_strategies() -> None:
    requests = traffic(6_000, seed=3)
    rng = np.random.default_rng(8)
    reference = build_reference(
        {
            "amount": rng.normal(size=4_000),
            "region": rng.choice(["eu", "us"], 4_000, p=[0.2, 0.8]).astype(object),
        }
    )
    bins, ids = [], []
    for config in (SamplingConfig(rate=MIXED.rate), MIXED):
        world = World(Strategies.of(config), salt=b"same").run(requests)
        monitor = ModelMonitor(MonitorSettings(), SchemaSettings(), stable="1")
        monitor.install("1", reference)
        for _, inference in world.kept:
            monitor.take(inference, 10.0)
        monitor.flush(60.0)
        watch = monitor.watch("1")
        assert watch is not None
        bins.append(watch.bins())
        ids.append({request.id for request, inference in world.kept if inference.uniform})
    assert ids[0] == ids[1]
    assert len(ids[0]) == pytest.approx(600, abs=100)
    assert bins[0] == bins[1]


def test_a_kept_set_contains_every_set_of_a_lower_rate() -> None:
    requests = traffic(2_000)
    sets = []
    for rate in (0.05, 0.2, 0.7, 1.0):
        world = World(Strategies(rate=rate), salt=b"s").run(requests)
        sets.append({request.id for request, _ in world.kept})
    assert all(small < large for small, large in itertools.pairwise(sets))


@pytest.mark.parametrize(("edge", "here"), [(1.0, 0.3), (0.3, 1.0), (0.05, 0.06), (0.2, 0.05)])
def test_rates_that_changed_on_their_way_leave_the_weights_exact(edge: float, here: float) -> None:
    """The edge still keeps at the old scale when analysis has gone to the new one."""
    requests = traffic(200, seed=2)
    strategies = Strategies.of(MIXED)
    sums = []
    for turn in range(30):
        salt = b"%d" % turn
        world = World(strategies, salt=salt, scale=edge)
        for request in requests:
            world.serve(request)
        world.sampler.ask_for(strategies, scale=here)
        world.read()
        sums.append(sum(inference.weight for _, inference in world.kept))
    error = float(np.std(sums)) / len(sums) ** 0.5
    assert abs(float(np.mean(sums)) - len(requests)) <= 4 * error + 1e-6


def test_a_rate_that_rose_here_first_counts_as_the_one_it_was_kept_at() -> None:
    strategies = Strategies(rate=0.5, errors=0.6, error_codes=frozenset({"5xx"}))
    world = World(strategies, salt=b"s", scale=0.2)
    requests = [request for request in traffic(500) if request.status != 500]
    for request in requests:
        world.serve(request)
    world.sampler.ask_for(strategies, scale=1.0)
    world.read()
    assert {round(inference.weight, 6) for _, inference in world.kept} == {10.0}


def test_what_nobody_has_sampled_is_sampled_here_by_the_same_draw() -> None:
    """Pushed and tailed exchanges come whole: weight 1, no draw."""
    strategies = Strategies(rate=0.25)
    world = World(strategies, salt=b"s")
    requests = traffic(2_000)
    for request in requests:
        whole = World(Strategies(), salt=b"s").run([request])
        ((_, inference),) = whole.kept
        if world.sampler.admits(inference):
            counts = world.sampler.weigh(inference, inference, SCHEMA)
            assert counts is not None
            assert (counts.weight, counts.uniform) == (4.0, True)
            assert edge_keeps(request.id, rate=0.25, salt=b"s")
        else:
            assert not edge_keeps(request.id, rate=0.25, salt=b"s")
    assert world.sampler.dropped == pytest.approx(1_500, abs=80)


def test_a_source_that_samples_by_itself_is_taken_at_its_word() -> None:
    sampler = Sampler(Strategies.of(MIXED), salt=b"s")
    world = World(Strategies(), salt=b"s").run(traffic(1))
    ((_, inference),) = world.kept
    told = replace(inference, weight=8.0, uniform=False)
    assert sampler.admits(told)
    counts = sampler.weigh(told, told, SCHEMA)
    assert counts is not None
    assert (counts.weight, counts.uniform) == (8.0, False)


def test_the_uniform_rate_gives_way_before_errors_and_rare_classes_do() -> None:
    strategies = Strategies(
        rate=0.5, rate_min=0.01, errors=1.0, error_codes=frozenset({"5xx"}),
        rules=(Rule(feature=None, value="fraud", rate=0.8),),
    )  # fmt: skip
    assert strategies.at(1.0) == Rates(uniform=0.5, also=0.8, errors=1.0, factor=1.0)
    assert strategies.at(0.1) == Rates(uniform=0.05, also=0.8, errors=1.0, factor=1.0)
    lower = strategies.at(0.01)
    assert (lower.uniform, lower.also, lower.errors) == pytest.approx((0.01, 0.4, 0.5))
    least = strategies.at(strategies.scale_min)
    assert (least.uniform, least.also, least.errors) == pytest.approx((0.01, 0.01, 0.01))
    assert Strategies(rate=0.5, rate_min=0.01).scale_min == 0.02
    assert Strategies(rate=0.0).at(0.5).uniform == 0.0


@given(
    rate=st.floats(0, 1), rate_min=st.floats(1e-6, 1), errors=st.floats(0, 1), rule=st.floats(0, 1),
    low=st.floats(0, 1), high=st.floats(0, 1),
)  # fmt: skip
def test_no_rate_rises_when_the_scale_falls_nor_leaves_its_limits(
    rate: float, rate_min: float, errors: float, rule: float, low: float, high: float
) -> None:
    strategies = Strategies(
        rate=rate,
        rate_min=rate_min,
        errors=errors,
        rules=(Rule(feature=None, value="x", rate=rule),),
    )
    least, most = sorted((low, high))
    lower, higher = strategies.at(least), strategies.at(most)
    for name, asked in (("uniform", rate), ("also", rule), ("errors", errors)):
        assert 0.0 <= getattr(lower, name) <= getattr(higher, name) <= asked
        assert getattr(lower, name) >= min(asked, rate_min)


def test_rules_read_classes_and_values_as_the_batch_does() -> None:
    world = World(Strategies(), salt=b"s").run(traffic(1))
    ((_, inference),) = world.kept
    rules = (
        Rule(feature=None, value="1", rate=0.5),
        Rule(feature="region", value="eu", rate=0.25),
        Rule(feature="nowhere", value="eu", rate=1.0),
    )
    cases: list[tuple[dict[str, Any], float]] = [
        ({"outputs": {"y": [1.0, 0]}, "rows": [[1.0, "us"], [2.0, "us"]]}, 0.5),
        ({"outputs": {"y": ["no"]}, "rows": [[1.0, "eu"]]}, 0.25),
        ({"outputs": {"y": ["no"]}, "rows": [[1.0, None]]}, 0.0),
        ({"outputs": {}, "rows": [[1.0, "eu"]], "names": None}, 0.25),
    ]
    for changes, wanted in cases:
        assert rate_of(rules, replace(inference, **changes), SCHEMA) == wanted


def test_the_shares_of_a_while_ago_are_remembered() -> None:
    history = RateHistory()
    assert history.highest_since(0.0) == 1.0
    for share, at in ((1.0, 0.0), (0.1, 100.0), (0.4, 200.0), (0.05, 300.0)):
        history.note(share, at)
    assert history.highest_since(350.0) == 0.05
    assert history.highest_since(299.0) == 0.4
    assert history.highest_since(150.0) == 0.4
    assert history.highest_since(99.0) == 1.0
