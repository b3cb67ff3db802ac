"""What the configuration and the registry say of a rollout: how sure, how far, how fast.

Values only; the performer is `agent.release`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import structlog
from pydantic import TypeAdapter, ValidationError

from agent.config import Config
from agent.labels import Joined
from agent.sources.proxy import Outcome as EdgeOutcome
from detectors import ProfileError, Reference
from detectors.performance.quality import class_name
from retrain import artifact
from retrain.analysis import Arm, LabelledLoss, Outcome
from retrain.assessment import HardStop
from retrain.guards import AnalysisPlan
from retrain.registry import Version
from retrain.rollout import Refused as NotAdmitted
from retrain.rollout import RolloutPolicy
from retrain.rollout_messages import Measured, Operator, RolloutEvent, SlotFailed
from retrain.rollout_state import Strategy

log = structlog.get_logger("remora.release")


# Every word that `cause` may say.
ROLLBACK_REASONS = ("evidence", *get_args(HardStop), "slot_failed", "operator", "time")


# What a person may ask for.
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def cause(event: RolloutEvent) -> str:
    """Why a rollout goes back: a metric label, from a closed set."""
    match event:
        case Measured(assessment=assessment):
            return assessment.hard_stop or "evidence"
        case SlotFailed():
            return "slot_failed"
        case Operator():
            return "operator"
        case _:
            return "time"


def plan(config: Config) -> AnalysisPlan:
    """How sure the canary must be, from the configuration."""
    rollout = config.rollout
    return AnalysisPlan(
        alpha_rollback=rollout.alpha_rollback,
        alpha_promote=rollout.alpha_promote,
        delta_error=rollout.delta.error,
        delta_slow=rollout.delta.slow,
        delta_quality=rollout.delta.quality,
        margin_error=rollout.margin.error,
        margin_slow=rollout.margin.slow,
        margin_quality=rollout.margin.quality,
        slo_latency_s=rollout.slo_latency_s,
        clustered=rollout.client_key is not None,
    )


def rollout_policy(config: Config) -> RolloutPolicy:
    """How far, how fast, how long, from the configuration."""
    rollout = config.rollout
    ready_s = rollout.candidate.ready_timeout_s if rollout.candidate is not None else 0.0
    return RolloutPolicy(
        strategy=rollout.strategy,
        shadow=rollout.shadow.share,
        shadow_requests_min=rollout.shadow.requests_min,
        shadow_s_min=rollout.shadow.duration_s_min,
        disagreement_max=rollout.shadow.disagreement_max,
        steps=tuple(rollout.steps),
        step_requests_min=rollout.step_requests_min,
        promote_requests_min=rollout.promote_requests_min,
        step_s_min=rollout.step_s_min,
        total_s_min=rollout.total_s_min,
        duration_s_max=rollout.duration_s_max,
        on_inconclusive=rollout.on_inconclusive,
        bake_s=rollout.bake_s,
        bake_requests=rollout.bake_requests,
        staging_s_max=max(600.0, 3 * ready_s),
    )


def with_strategy(policy: RolloutPolicy, name: str) -> RolloutPolicy:
    """The policy as a person wants it for one rollout. Raises `Refused` for what cannot be."""
    try:
        strategy = TypeAdapter(Strategy).validate_python(name)
    except ValidationError:
        raise NotAdmitted(f"strategy {name!r} is none of {', '.join(STRATEGIES)}") from None
    if strategy == "shadow" and not policy.shadow:
        raise NotAdmitted("rollout.shadow.share is 0: nothing would be copied")
    return replace(policy, strategy=strategy)


def reference_in(version: Version) -> Reference | None:
    """The profile an artifact carries; None when there is none, or it cannot be read."""
    if version.directory is None:
        return None
    path = Path(version.directory) / artifact.REFERENCE
    try:
        return Reference.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ProfileError) as error:
        log.error(
            "the artifact's reference cannot be read", digest=version.digest, error=str(error)
        )
        return None


def outcomes_of(
    seen: Iterable[EdgeOutcome], *, candidate: str, stable: str, clustered: bool, shadow: bool
) -> Iterator[Outcome]:
    """What the edge saw, as the analysis takes it; `candidate` and `stable` are version labels.

    Copies count only while there are nothing but copies: `shadow`.
    """
    for outcome in seen:
        if outcome.shadow and not shadow:
            continue
        # A client that left says nothing about the model; late news of an earlier candidate says
        # nothing about this one.
        if outcome.outcome == "client_disconnect" or outcome.version not in (candidate, stable):
            continue
        yield Outcome(
            arm="candidate" if outcome.version == candidate else "stable",
            at=outcome.at,
            error=outcome.outcome != "ok" or outcome.status >= 500,
            duration_s=outcome.duration_s,
            key_hash=outcome.key if clustered else None,
        )


def losses_of(joined: Sequence[Joined], *, candidate: str, stable: str) -> list[LabelledLoss]:
    """Labels of either arm, as losses between 0 and 1."""
    losses = []
    for row in joined:
        if row.version not in (candidate, stable) or row.old_label is not None:
            continue
        arm: Arm = "candidate" if row.version == candidate else "stable"
        wrong = row.prediction is None or class_name(row.prediction) != class_name(row.label)
        if isinstance(row.prediction, float) and isinstance(row.label, float | int):
            continue  # a regression's loss has no natural range: gates compare it instead
        losses.append(LabelledLoss(arm=arm, at=row.predicted_at, loss=float(wrong)))
    return losses
