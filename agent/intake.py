"""Everything that comes in: exchanges decoded, rows cut into ticks, labels joined to them.

The order matters: a tick's predictions are remembered before anybody may label them, and what a
label joins is scored before the policy looks.
"""

import sqlite3
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from agent.concept_child import AdwinChange, adwin_reading, error_bits
from agent.config import Config
from agent.decoders.catalog import decoders
from agent.decoders.decoder import (
    DecodeError,
    DecodeLimits,
    DecoderSettings,
    JsonPathSettings,
    RedactionRule,
)
from agent.decoders.detection import Decoding
from agent.decoders.redaction import Redaction
from agent.exchange import Exchange
from agent.generation import Generation
from agent.generation_totals import GenerationTotals
from agent.inference import Inference
from agent.labels import Joined, Label, LabelStore
from agent.monitor import ModelMonitor, MonitorSettings, Tick
from agent.sampling import Sampler, Strategies
from agent.schema import FeatureKind, SchemaSettings, TargetKind
from detectors import Reading, Reference, State
from detectors.budget import Budget
from detectors.reading import Change, Moment
from detectors.settings import FairnessSettings, QualitySettings, Settings

log = structlog.get_logger("remora.intake")

T = TypeVar("T")

# Delays of labels, as a histogram: seconds to a month.
DELAY_BOUNDS_S = (1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)
EXPIRE_EVERY_S = 60.0


@dataclass(slots=True)
class Delays:
    """How long labels took, in buckets."""

    counts: list[int]
    sum_s: float = 0.0

    def add(self, delay_s: float) -> None:
        place = sum(delay_s > bound for bound in DELAY_BOUNDS_S)
        self.counts[place] += 1
        self.sum_s += delay_s


class Intake:
    """From exchanges and labels to readings; callbacks get what follows from them."""

    def __init__(
        self,
        config: Config,
        *,
        stable: str,
        reference: Reference | None,
        labels: LabelStore,
        on_tick: Callable[[Tick], None],
        on_labelled: Callable[[Sequence[Joined], Sequence[Reading]], None],
        clock: Callable[[], float] = time.time,
        sampler: Sampler | None = None,
    ) -> None:
        self._clock = clock
        self._on_tick = on_tick
        self._on_labelled = on_labelled
        self.labels = labels
        self.sampler = sampler or Sampler(Strategies(), salt=b"")
        settings = decoder_settings(config)
        self.decoding = Decoding(
            decoders(config.protocol.name, settings), redaction=Redaction(settings)
        )
        self.monitor = ModelMonitor(
            monitor_settings(config), schema_settings(config, reference), stable=stable
        )
        if reference is not None:
            self.monitor.install(stable, reference)
        self.dropped: Counter[str] = Counter()
        self.generations = GenerationTotals()
        self.delays = Delays(counts=[0] * (len(DELAY_BOUNDS_S) + 1))
        self.last_errors: deque[str] = deque(maxlen=20)
        self._expire_at = 0.0
        # Where answers go as well, to be paired with those to copies of their requests; and error
        # bits, when a second opinion on concept drift is wanted.
        self.feed_pairs: Callable[[Inference, bool], object] | None = None
        self.feed_concept: Callable[[str, bytes], object] | None = None

    def take(self, taken: Exchange | Inference) -> bool:
        """From a source, decoded or not; nothing that is wrong with it escapes.

        False: no rows came of it, and that is counted. What names no version is the stable one's.
        """
        if not taken.version:
            taken = replace(taken, version=self.monitor.stable)
        if isinstance(taken, Exchange):
            self.sampler.seen(taken)
        if not self.sampler.plain and not self.sampler.admits(taken):
            return True  # left out on purpose: no loss
        try:
            if isinstance(taken, Inference):
                inference = self.decoding.taken(taken)
            else:
                inference = self.decoding.decode(taken)
        except DecodeError as error:
            # Probes and other endpoints are no loss; they are counted by the decoding itself.
            self.last_errors.append(str(error)[:200])
            self._generated(taken, error.generation)
            return False
        except Exception as error:
            # Bytes from outside found a fault of ours: it costs this exchange, not the reading.
            self.dropped["intake_failed"] += 1
            # Its words may be a stranger's: only what it was, and where, is shown.
            self.last_errors.append(type(error).__name__)
            log.error("an exchange could not be taken in", error=fault(error))
            return False
        self._generated(taken, inference.generation)
        shadow = isinstance(taken, Exchange) and taken.shadow
        if self.feed_pairs is not None:
            self.feed_pairs(inference, shadow)
        if shadow:  # a copy's rows have been taken in once
            return True
        weighed = self._weighed(taken, inference)
        if weighed is not None:
            self._ticked(self.monitor.take(weighed, self._clock()))
        return True

    def _weighed(self, taken: Exchange | Inference, inference: Inference) -> Inference | None:
        """With the weight that its rows have, now that they are known; None: no rule wants it."""
        if self.sampler.plain:
            return inference
        schema = self.monitor.schema_learner.schema
        counts = self.sampler.weigh(taken, inference, schema)
        if counts is None:
            return None
        return replace(inference, weight=counts.weight, uniform=counts.uniform)

    def _generated(self, taken: Exchange | Inference, generation: Generation | None) -> None:
        """Tokens and times count of answers that are not whole as well, and of copies."""
        if generation is None or isinstance(taken, Inference):
            return
        weight = self.sampler.stands_for(taken)
        if weight > 0.0:
            self.generations.take(replace(generation, weight=weight))

    def advance(self) -> None:
        """Close the ticks whose time is over, and let go of what waited too long."""
        now = self._clock()
        self._ticked(self.monitor.advance(now))
        if now >= self._expire_at:
            more = self._stored(lambda: self.labels.expire(now))
            self._expire_at = now + (0.0 if more else EXPIRE_EVERY_S)
            self._say(self._stored(lambda: self.labels.look(now)) or [], now)
        # Labels whose cohort has become mature: what comes early is no sample of what is to come.
        self._labelled(self._stored(lambda: self.labels.ripe(now)) or [])

    def flush(self) -> None:
        """Close every open tick: before a restart."""
        self._ticked(self.monitor.flush(self._clock()))

    def take_labels(self, labels: Sequence[Label]) -> Counter[str] | None:
        """Join labels; what became of each, by outcome. None when the store refuses."""
        found = self._stored(lambda: self.labels.take(labels, self._clock()))
        if found is None:
            return None
        counts, joined = found
        self._labelled(joined)
        return counts

    def _ticked(self, ticks: Sequence[Tick]) -> None:
        for tick in ticks:
            early = self._stored(partial(self.labels.remember, tick.batch, self._clock()))
            self._on_tick(tick)
            self._labelled(early or [])

    def _labelled(self, joined: Sequence[Joined]) -> None:
        if not joined:
            return
        for row in joined:
            if row.old_label is None:
                self.delays.add(row.delay_s)
        if self.feed_concept is not None:
            for version, bits in error_bits(joined).items():
                self.feed_concept(version, bits)
        readings = self.monitor.take_labelled(joined, self._clock())
        self._on_labelled(joined, readings)

    def _say(self, changes: Sequence[Change], now: float) -> None:
        """What the join of labels says of itself joins the readings of the stable version."""
        watch = self.monitor.watch(self.monitor.stable)
        if not changes or watch is None:
            return
        moment = Moment(
            row=watch.labelled_rows, at=now, reference=watch.reference.digest, version=watch.version
        )
        readings = [moment.reading(change) for change in changes]
        self.monitor.findings.extend(readings)
        self._on_labelled((), readings)

    def take_concept_change(self, change: AdwinChange) -> None:
        """What the child found joins the readings of its version, when it is a change of state."""
        watch = self.monitor.watch(change.version)
        if watch is None:
            return
        reading = adwin_reading(
            change,
            labelled_rows=watch.labelled_rows,
            reference=watch.reference.digest,
            at=self._clock(),
        )
        if reading.state is not watch.child_states.get(reading.detector, State.OK):
            watch.child_states[reading.detector] = reading.state
            self.monitor.findings.append(reading)
            self._on_labelled((), (reading,))

    def _stored(self, call: Callable[[], T]) -> T | None:
        """A full or locked disk costs labels, counted; it does not stop the watching.

        A file that turns out to be damaged is set aside, and a new one is begun.
        """
        try:
            return call()
        except sqlite3.Error as error:
            self.dropped["label_store"] += 1
            log.error("label store refuses", error=str(error))
            try:
                self.labels.start_anew(error)
            except (sqlite3.Error, OSError) as worse:
                log.error("no new label store either", error=str(worse))
            return None


def fault(error: Exception) -> str:
    """A fault of ours by its type and the last places it came through, without its message.

    >>> try: {}["a prompt"]
    ... except KeyError as error: fault(error)
    'KeyError at <module>:1'
    """
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"


def decoder_settings(config: Config) -> DecoderSettings:
    """What decoders are made from."""
    paths = config.protocol.json_path
    schema = config.schema_
    return DecoderSettings(
        limits=DecodeLimits(columns_max=schema.columns_max, rows_max=schema.rows_max),
        redact=tuple(
            RedactionRule(path=rule.path, pattern=rule.pattern, feature=rule.feature)
            for rule in config.protocol.redact
        ),
        text_kept_characters=config.capture.text_characters_max
        if config.capture.enabled and config.capture.text
        else 0,
        json_path=None
        if paths is None
        else JsonPathSettings(
            features=paths.features,
            feature_names=paths.names,
            prediction=paths.prediction,
            score=paths.score,
            request_id=paths.id,
        ),
    )


def monitor_settings(config: Config) -> MonitorSettings:
    """Ticks, learning and the budget."""
    detect = config.detect
    return MonitorSettings(
        tick_rows=detect.tick_rows,
        tick_s=detect.tick_s,
        learn_rows=config.reference.learn_rows,
        provisional_rows=config.reference.provisional_rows,
        watch=Settings(
            budget=Budget(
                false_alarms_per_month=detect.false_alarms_per_month, replicas=detect.replicas
            ),
            effect={"psi": detect.effect.psi, "ks": detect.effect.ks},
            quality=QualitySettings(
                window_rows=detect.quality.window_rows,
                error_max=detect.quality.error_max,
                quantile=detect.quality.quantile,
            ),
            fairness=tuple(
                FairnessSettings(
                    attribute=group.attribute,
                    positive=group.positive,
                    gap_max=group.gap_max,
                    ratio_min=group.ratio_min,
                )
                for group in detect.fairness
            ),
        ),
    )


def schema_settings(config: Config, reference: Reference | None) -> SchemaSettings:
    """What configuration says of the columns, and where it is silent the reference."""
    given = config.schema_
    features: tuple[str, ...] | None = None
    kinds: dict[str, FeatureKind] = {}
    sensitive = frozenset(feature.name for feature in given.features if feature.sensitive)
    if reference is not None:
        sensitive |= {profile.name for profile in reference.features if profile.sensitive}
    if given.features:
        features = tuple(feature.name for feature in given.features)
        kinds = {feature.name: feature.kind for feature in given.features}
    elif reference is not None:
        # Derived features do not come by themselves: what comes are the columns they rest on.
        features = reference.columns or reference.feature_names
        kinds = {p.name: p.kind for p in reference.features if p.name in features}
        if reference.derivation is not None:
            kinds |= dict.fromkeys(reference.derivation.texts, "text")
    task = given.task
    if task == "auto" and reference is not None and reference.task is not None:
        task = reference.task
    targets: dict[str, TargetKind | None] = {
        "auto": None,
        "classification": "class",
        "regression": "number",
    }
    return SchemaSettings(
        features=features,
        kinds=kinds,
        sensitive=sensitive,
        prediction=given.prediction,
        score=given.score,
        target=targets[task],
    )
