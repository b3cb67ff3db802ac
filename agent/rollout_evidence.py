"""What is known of a rollout's two models: outcomes, labels, answers to one request.

Fed by whoever sees requests, asked by `agent.release`. Outcomes are looked at in the order in which
requests finished, whichever edge told of them first.
"""

from collections.abc import Sequence
from typing import Any

import structlog

from agent.config import Config
from agent.inference import Inference
from agent.labels import Joined
from agent.outcome_order import InOrder
from agent.pairing import Pairs
from agent.release_rules import losses_of, outcomes_of, plan
from agent.schema import Schema
from agent.sources.proxy import Outcome
from agent.version_names import VersionNames
from retrain.analysis import Analysis, Arm
from retrain.assessment import Assessment
from retrain.rollout import Rollout, State
from retrain.rollout_messages import BeginStep, Measured

log = structlog.get_logger("remora.release")


class RolloutEvidence:
    """Of one rollout; a new one for each."""

    def __init__(self, config: Config, names: VersionNames) -> None:
        self._config = config
        self._names = names
        self._analysis = Analysis(plan(config))
        self._arriving = InOrder()
        self.pairs = Pairs(tolerance=config.rollout.shadow.tolerance)
        self.assessment: Assessment | None = None

    def restore(self, state: Any) -> None:
        """Go on where a stop or a crash interrupted; `state` is None where nothing was saved."""
        if state is None:
            return
        try:
            self._analysis = Analysis.restore(plan(self._config), state)
        except (KeyError, TypeError, ValueError) as error:
            # Evidence lost costs time, never validity: the canary is watched from anew.
            log.error("canary evidence not restored", error=repr(error))

    def state(self) -> Any:
        return self._analysis.state()

    # What comes in.

    def arrive(self, outcomes: Sequence[Outcome]) -> None:
        """Requests of both models, to be looked at by `observe`."""
        self._arriving.add(outcomes)

    def observe(self, rollout: Rollout, *, all_of_them: bool = False) -> None:
        """Look at what has arrived, but for the newest, which others may still come before."""
        outcomes = self._arriving.take_all() if all_of_them else self._arriving.take()
        if outcomes:
            self._analysis.observe(
                outcomes_of(
                    outcomes,
                    candidate=self._names.label(rollout.candidate),
                    stable=self._names.label(rollout.stable),
                    clustered=self._config.rollout.client_key is not None,
                    shadow=rollout.state is State.SHADOW,
                )
            )

    def answered(self, inference: Inference, schema: Schema, *, shadow: bool, now: float) -> None:
        """What either model answered, while the candidate is asked the same."""
        self.pairs.take(inference, schema, shadow=shadow, now=now)
        if self.pairs.invalid:
            self._analysis.observe_invalid_output("candidate", "NaN or infinity to a copy")

    def labelled(self, rollout: Rollout, joined: Sequence[Joined]) -> None:
        """Labels of either model."""
        candidate = self._names.label(rollout.candidate)
        stable = self._names.label(rollout.stable)
        self._analysis.observe_losses(losses_of(joined, candidate=candidate, stable=stable))

    def invalid_output(self, rollout: Rollout, version: str, what: str) -> None:
        """A model answered NaN or infinity."""
        its = version == self._names.label(rollout.candidate)
        arm: Arm = "candidate" if its else "stable"
        self._analysis.observe_invalid_output(arm, what)

    # What the rollout asks for.

    def begin_step(self, command: BeginStep, now: float) -> None:
        if command.anew:
            # What copies have shown is in the ledger; the canary is judged by its own requests.
            self._analysis = Analysis(plan(self._config))
            self._arriving = InOrder()
        self._analysis.begin_step(step=command.step, weight=command.weight, at=now)

    def begin_bake(self, now: float) -> None:
        self._analysis.begin_bake(now)

    def measure(self, now: float) -> Measured:
        """What everything seen so far adds up to."""
        self.assessment = self._analysis.assess(now)
        return Measured(
            assessment=self.assessment,
            pairs=self.pairs.compared,
            disagreeing=self.pairs.disagreeing,
        )
