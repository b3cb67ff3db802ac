"""What goes into the analysis of a canary and what comes out: values only."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from retrain.gates import Verdict
from retrain.guards import GuardMeasurement

Arm: TypeAlias = Literal["stable", "candidate"]
HardStop: TypeAlias = Literal["invalid_output", "all_failing", "starved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one request ended. `at` in unix seconds; `error`: 5xx, timeout, no answer, bad output.

    `arm` follows the version on trial: after promotion the candidate's requests are still
    `candidate`, until the rollout ends. `key_hash`: of the client key, None without one.
    """

    arm: Arm
    at: float
    error: bool
    duration_s: float
    key_hash: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledLoss:
    """Loss of one labelled prediction, clipped to [0, 1]; `at`: when the prediction was made."""

    arm: Arm
    at: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """All measurements at one time and what they add up to.

    frozen: the stable model is sick, nothing may be decided by comparison. interim: every
    required guard's interim upper estimate is inside its margin. idle: no arm had a request since
    the last assessment.
    """

    at: float
    step: int
    baking: bool
    verdict: Verdict
    words: str
    measurements: tuple[GuardMeasurement, ...]
    hard_stop: HardStop | None
    frozen: bool
    interim: bool
    idle: bool
    requests: int
    step_requests: int
    control_requests: int
    bake_requests: int

    def as_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "step": self.step,
            "baking": self.baking,
            "verdict": self.verdict.value,
            "words": self.words,
            "measurements": [entry.as_json() for entry in self.measurements],
            "hard_stop": self.hard_stop,
            "frozen": self.frozen,
            "interim": self.interim,
            "requests": self.requests,
            "step_requests": self.step_requests,
            "control_requests": self.control_requests,
            "bake_requests": self.bake_requests,
        }
