"""The rules that may ask for a retraining: confirmed drift, quality below a bound, the calendar.

A rule only says what it sees, with its arithmetic; whether anything starts is for the policy. Every
rule must say something when it is quiet, because that is what a HOLD is explained with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

from retrain.decision import Finding
from retrain.schedule import Schedule

NAMED_MAX: Final = 3  # findings spelt out in a reason; the rest are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRule:
    """Fires when at least `features_min` subjects are in confirmed drift."""

    name: str
    kinds: frozenset[str] = frozenset({"data_drift", "prediction_drift", "concept_drift"})
    features_min: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRule:
    """Fires when a metric is surely worse than its bound: its whole interval lies beyond it.

    `below` is for metrics where more is better, `above` for errors and losses; exactly one.
    """

    name: str
    metric: str
    below: float | None = None
    above: float | None = None
    basis: str = "realised"  # or estimated
    rows_min: int = 200

    def __post_init__(self) -> None:
        if (self.below is None) == (self.above is None):
            raise ValueError(f"{self.name}: give `below` or `above`, exactly one")

    @property
    def bound(self) -> float:
        """The one of the two that was given."""
        bound = self.above if self.below is None else self.below
        assert bound is not None
        return bound


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRule:
    """Fires when its cron line is due; times missed while the agent was down count once."""

    name: str
    schedule: Schedule


Rule: TypeAlias = DriftRule | QualityRule | ScheduleRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One estimate of one metric over the stable version's labelled rows."""

    metric: str
    basis: str
    value: float
    lower: float | None  # 95 % interval; None when it is not known
    upper: float | None
    rows: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one rule says of the view. `keys` name what it rests on; empty when it is quiet."""

    rule: str
    text: str
    keys: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()


def claim(
    rule: Rule,
    *,
    findings: Sequence[Finding],
    quality: Sequence[Quality],
    due: Mapping[str, float],
    now: float,
) -> Claim:
    """What `rule` says. `due` has the next time of each schedule; times in unix seconds."""
    if isinstance(rule, DriftRule):
        return _drift_claim(rule, findings)
    if isinstance(rule, QualityRule):
        return _quality_claim(rule, quality)
    return _schedule_claim(rule, due.get(rule.name), now)


def recovered(
    rules: Sequence[Rule], *, findings: Sequence[Finding], quality: Sequence[Quality]
) -> frozenset[str]:
    """Keys of what is surely over, so that it may fire again when it comes back.

    A subject that is not mentioned, or lacks data, has not recovered: a restart must not re-arm.
    Quality is back when its value is on the good side of the bound, whatever its interval says.
    """
    keys = {_subject_key(finding) for finding in findings if finding.get("state") == "ok"}
    for rule in rules:
        if isinstance(rule, QualityRule):
            keys.update(
                _quality_key(rule, estimate)
                for estimate in quality
                if _about(rule, estimate) and not _beyond(rule, estimate.value)
            )
    return frozenset(keys)


def _schedule_claim(rule: ScheduleRule, due: float | None, now: float) -> Claim:
    if due is None:
        return Claim(rule=rule.name, text=f"{rule.name}: never due again")
    when = datetime.fromtimestamp(due, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if due > now:
        return Claim(rule=rule.name, text=f"{rule.name}: next at {when}")
    text = f"{rule.name}: due at {when} ({rule.schedule.cron} {rule.schedule.timezone})"
    return Claim(rule=rule.name, text=text, keys=frozenset({f"schedule|{rule.name}|{due}"}))


def _drift_claim(rule: DriftRule, findings: Sequence[Finding]) -> Claim:
    found: dict[str, Finding] = {}
    for finding in findings:
        if finding.get("state") == "drift" and finding.get("kind") in rule.kinds:
            found.setdefault(_subject_key(finding), finding)
    count = len(found)
    noun = "subject" if count == 1 else "subjects"
    if count < rule.features_min:
        text = f"{rule.name}: {count} {noun} in drift < quorum {rule.features_min}"
        return Claim(rule=rule.name, text=text)
    named = ", ".join(_describe(finding) for finding in list(found.values())[:NAMED_MAX])
    if count > NAMED_MAX:
        named += f" and {count - NAMED_MAX} more"
    text = f"{rule.name}: {count} {noun} in drift ({named}) >= quorum {rule.features_min}"
    return Claim(rule=rule.name, text=text, keys=frozenset(found), findings=tuple(found.values()))


def _quality_claim(rule: QualityRule, quality: Sequence[Quality]) -> Claim:
    estimate = next((one for one in quality if _about(rule, one)), None)
    said = f"{rule.name}: {rule.basis} {rule.metric}"
    if estimate is None:
        return Claim(rule=rule.name, text=f"{said} is not known yet")
    said += f" {estimate.value:.4g}"
    if estimate.rows < rule.rows_min:
        return Claim(rule=rule.name, text=f"{said}, but {estimate.rows} rows < {rule.rows_min}")
    said += f" over {estimate.rows} rows"
    # The far end of the interval, never the point: a small window must not cry wolf.
    below = rule.below is not None
    side, limit = ("upper", estimate.upper) if below else ("lower", estimate.lower)
    if limit is None:
        text = f"{said} has no {side} confidence limit, and a point alone is not acted upon"
        return Claim(rule=rule.name, text=text)
    beyond = _beyond(rule, limit)
    sign = {(True, True): "<", (True, False): ">=", (False, True): ">", (False, False): "<="}
    text = f"{said}, {side} limit {limit:.4g} {sign[below, beyond]} {rule.bound:.4g}"
    keys = frozenset({_quality_key(rule, estimate)} if beyond else ())
    return Claim(rule=rule.name, text=text, keys=keys)


def _about(rule: QualityRule, estimate: Quality) -> bool:
    return (estimate.metric, estimate.basis) == (rule.metric, rule.basis)


def _beyond(rule: QualityRule, value: float) -> bool:
    return value < rule.bound if rule.below is not None else value > rule.bound


def _quality_key(rule: QualityRule, estimate: Quality) -> str:
    return f"quality|{rule.name}|{estimate.version}"


def _subject_key(finding: Finding) -> str:
    """One subject under one version and reference: a promotion makes old drift new again."""
    names = ("kind", "scope", "subject", "reference", "version")
    return "|".join(str(finding.get(name, "")) for name in names)


def _describe(finding: Finding) -> str:
    """`age psi .31 >= .1`, as far as the finding tells."""
    effect = finding.get("effect") or {}
    subject = str(finding.get("subject", "?"))
    if effect.get("value") is not None:
        subject += f" {effect.get('name', 'effect')} {effect['value']:.3g}"
    elif finding.get("statistic") is not None:
        subject += f" {finding['statistic']:.3g}"
        if finding.get("threshold") is not None:
            subject += f" >= {finding['threshold']:.3g}"
    if finding.get("evidence") is not None:
        subject += f", evidence 10^{finding['evidence']:.1f}"
    return subject
