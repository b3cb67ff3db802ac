"""What a canary is judged by: the plan, and one guard per question, each with its arithmetic.

A guard turns two e-processes into a measurement: enough evidence that the candidate is worse
(FAILED), enough that it is not worse by the margin (SUCCESSFUL), or neither (INCONCLUSIVE).
Silence is neither. Error budgets are split here and nowhere else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from retrain.betting import BoundBets, Floats, PairedBets, wilson
from retrain.gates import Verdict

Guard: TypeAlias = Literal["error", "slow", "quality"]
QUANTILES = (0.90, 0.95, 0.99)
Z_SHOWN = 1.959963984540054  # 95%, two-sided: intervals that people look at
Z_INTERIM = 0.8416212335729143  # 80%, one-sided: paces the steps, promises nothing
Z_BAKE = 2.3263478740408408  # 99%, one-sided: how high the control's rate may really have been
# Fewer control outcomes than this bound nothing.
CONTROL_MIN = 100
_UNITS = {"error": "errors", "slow": "slow", "quality": "loss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPlan:
    """How sure, how much, how many. Rates and losses are in [0, 1].

    alpha_rollback: chance that a candidate no worse than delta is ever rolled back by evidence,
        over all guards, canary and bake together. alpha_promote: chance that one worse by the
        margin is promoted, however many guards there are.
    delta_*: by how much it may be worse without being rolled back. margin_*: by how much it must
        be shown not to be worse. For `slow` both are relative to the share of requests above the
        quantile (.1 x 1% at q99).
    latency_tolerance: slow means slower than (1 + tolerance) x the control's quantile: a candidate
        has colder caches, and nobody minds a few per cent. slo_latency_s: nothing faster is slow.
    quality: `off`; `observed`, must be shown once both arms have quality_labels_min labels;
        `required`, no promotion without. It can always roll back, unless `off`.
    control_error_max, control_slow_max: a stable model beyond them (errors; share slower than the
        SLO) is sick, and nothing is decided by comparison with it.
    bake_window_s: in bake the requests of one window make one bet.
    clustered: a client key is configured; one outcome per key, minute and arm counts.
    """

    alpha_rollback: float = 0.01
    alpha_promote: float = 0.05
    delta_error: float = 0.002
    delta_slow: float = 0.1
    delta_quality: float = 0.0
    margin_error: float = 0.01
    margin_slow: float = 0.5
    margin_quality: float = 0.01
    latency_tolerance: float = 0.1
    slo_latency_s: float | None = None
    quality: Literal["off", "observed", "required"] = "observed"
    quality_labels_min: int = 200
    limit_requests_min: int = 500
    starved_s: float = 300.0
    control_error_max: float = 0.1
    control_slow_max: float = 0.1
    bake_window_s: float = 5.0
    clustered: bool = False

    def __post_init__(self) -> None:
        for name in ("alpha_rollback", "alpha_promote"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1")
        for guard in _UNITS:
            delta, margin = getattr(self, f"delta_{guard}"), getattr(self, f"margin_{guard}")
            if not 0 <= delta <= margin < 1:
                raise ValueError(f"{guard}: 0 <= delta ({delta}) <= margin ({margin}) < 1")

    @property
    def guards(self) -> tuple[Guard, ...]:
        return ("error", "slow") if self.quality == "off" else ("error", "slow", "quality")

    @property
    def rollback_evidence_min(self) -> float:
        """Bonferroni over the guards, each once in canary and once in bake."""
        return 2 * len(self.guards) / self.alpha_rollback

    @property
    def promote_evidence_min(self) -> float:
        """No correction: every guard must pass (intersection-union)."""
        return 1 / self.alpha_promote

    def bets(self, guard: Guard) -> PairedBets:
        delta: float = getattr(self, f"delta_{guard}")
        margin: float = getattr(self, f"margin_{guard}")
        shares = [1 - quantile for quantile in QUANTILES] if guard == "slow" else [1.0]
        return PairedBets(
            delta=[delta * share for share in shares], margin=[margin * share for share in shares]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Mean outcome of one arm, its 95% interval (one look), and how many it rests on."""

    mean: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, total: float, count: int) -> "Estimate":
        lower, upper = wilson(total, count, Z_SHOWN)
        return cls(mean=total / max(1, count), lower=lower, upper=upper, count=count)

    def as_json(self) -> dict[str, float]:
        return {"mean": self.mean, "lower": self.lower, "upper": self.upper, "count": self.count}


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardMeasurement:
    """What one guard says. Evidence is an e-value, capped at 1e300; `excess` is candidate minus
    control, freed of a base rate that moved. `required`: promotion waits for it.
    """

    guard: Guard
    verdict: Verdict
    words: str
    required: bool = True
    interim: bool = False
    rollback_evidence: float = 1.0
    promote_evidence: float = 0.0
    excess: float | None = None
    candidate: Estimate | None = None
    control: Estimate | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "guard": self.guard,
            "verdict": self.verdict.value,
            "words": self.words,
            "required": self.required,
            "interim": self.interim,
            "rollback_evidence": self.rollback_evidence,
            "promote_evidence": self.promote_evidence,
            "excess": self.excess,
            "candidate": self.candidate and self.candidate.as_json(),
            "control": self.control and self.control.as_json(),
            "figures": dict(self.figures),
        }


def measure_canary(guard: Guard, bets: PairedBets, plan: AnalysisPlan) -> GuardMeasurement:
    """Both e-processes of one guard against their thresholds.

    For `slow` the evidence is the mean of three quantiles: it speaks against "worse by the margin
    at all of them". One bad tail could hide behind two good ones, so SUCCESSFUL asks in addition
    that no quantile's estimate lies beyond its margin.
    """
    failed, passed = evidence(bets.rollback_peak), evidence(bets.promote_evidence)
    failed_min, passed_min = plan.rollback_evidence_min, plan.promote_evidence_min
    inside = bets.bets > 0 and bool((bets.excess() <= bets.margin).all())
    # The stream that is worst off stands for the guard in words and estimates.
    stream = int(np.argmax(bets.excess() - bets.margin))
    arms = _arms(guard, bets, stream)
    required = guard != "quality" or _quality_required(bets, plan)
    if failed >= failed_min:
        verdict = Verdict.FAILED
        words = f"{arms}: evidence {_number(failed)} >= {_number(failed_min)}"
    elif passed >= passed_min and inside:
        verdict = Verdict.SUCCESSFUL
        words = f"{arms}: not worse by the margin, evidence {_number(passed)} >= {passed_min:g}"
    else:
        verdict = Verdict.INCONCLUSIVE
        words = (
            f"{arms}: evidence {_number(failed)} < {_number(failed_min)} that it is worse, "
            f"{_number(passed)} against {passed_min:g} that it is not"
        )
    control, candidate = (
        Estimate.of(float(bets.total[arm][stream]), bets.count[arm]) for arm in (0, 1)
    )
    return GuardMeasurement(
        guard=guard,
        verdict=verdict,
        words=words,
        required=required,
        interim=bool((bets.excess_upper(Z_INTERIM) <= bets.margin).all()),
        rollback_evidence=failed,
        promote_evidence=passed,
        excess=float(bets.excess()[stream]) if bets.bets else None,
        candidate=candidate,
        control=control,
    )


def bake_bound(bets: PairedBets, guard: Guard, plan: AnalysisPlan) -> list[float] | None:
    """What the new stable model may not exceed once there is no control beside it.

    The control's past rate, taken at its upper 99% limit, plus the margin: room for a world that
    moves a little. A world that moves more looks just like a bad model: evidence against this
    bound is exact about the rate and says nothing about its cause. None: too little was seen.
    """
    if bets.count[0] < CONTROL_MIN:
        return [plan.control_error_max + plan.margin_error] if guard == "error" else None
    upper = (wilson(float(total), bets.count[0], Z_BAKE)[1] for total in bets.total[0])
    return [min(0.95, rate + float(room)) for rate, room in zip(upper, bets.margin, strict=True)]


def measure_bake(guard: Guard, bets: BoundBets, plan: AnalysisPlan) -> GuardMeasurement:
    """Evidence against the bound, or none: a bake never succeeds by evidence, it only ends."""
    found, threshold = evidence(bets.peak), plan.rollback_evidence_min
    share = bets.total / max(1, bets.count)
    worst = int(np.argmax(share - bets.bound))
    unit = "labels" if guard == "quality" else f"windows of {plan.bake_window_s:g} s"
    words = (
        f"{_UNITS[guard]} {share[worst]:.2%} over {bets.count:,} {unit} against a bound of "
        f"{bets.bound[worst]:.2%}: evidence {_number(found)} "
        f"{'>=' if found >= threshold else '<'} {_number(threshold)}"
    )
    return GuardMeasurement(
        guard=guard,
        verdict=Verdict.FAILED if found >= threshold else Verdict.INCONCLUSIVE,
        words=words,
        required=False,
        rollback_evidence=found,
        candidate=Estimate.of(float(bets.total[worst]), bets.count),
        figures={"bound": float(bets.bound[worst])},
    )


def slow_limits(durations: Mapping[int, int], plan: AnalysisPlan) -> Floats:
    """Seconds above which a request is slow, one per quantile, from binned control durations."""
    bins = sorted(durations)
    cumulated = np.cumsum([durations[index] for index in bins])
    places = [int(np.searchsorted(cumulated, q * cumulated[-1])) for q in QUANTILES]
    edges = np.asarray([DURATION_MIN_S * DURATION_RATIO ** (bins[place] + 1) for place in places])
    return np.maximum(edges * (1 + plan.latency_tolerance), plan.slo_latency_s or 0.0)


# Bins of 2%: the comparison is between two arms, so where exactly "slow" begins matters little.
DURATION_MIN_S = 1e-5
DURATION_RATIO = 1.02


def duration_bins(durations_s: Floats) -> Floats:
    """Index of the logarithmic bin of each duration."""
    clipped = np.clip(durations_s, DURATION_MIN_S, 1e5)
    return np.floor(np.log(clipped / DURATION_MIN_S) / math.log(DURATION_RATIO))


def evidence(log_evidence: float) -> float:
    return math.exp(min(log_evidence, 690.0))


def _quality_required(bets: PairedBets, plan: AnalysisPlan) -> bool:
    return plan.quality == "required" or min(bets.count) >= plan.quality_labels_min


def _arms(guard: Guard, bets: PairedBets, stream: int) -> str:
    control, candidate = (float(bets.total[arm][stream]) for arm in (0, 1))
    name = _UNITS[guard]
    if guard == "slow":
        name = f"slow (above q{QUANTILES[stream] * 100:.0f})"
    return (
        f"{name} {_number(candidate)}/{bets.count[1]:,} against "
        f"{_number(control)}/{bets.count[0]:,} control"
    )


def _number(value: float) -> str:
    """Whole numbers as such, small ones with two digits.

    >>> _number(1204.4), _number(0.0456), _number(3.0), _number(1e9)
    ('1,204', '0.046', '3', '1e+09')
    """
    if value >= 1e7:
        return f"{value:.0e}"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}"
