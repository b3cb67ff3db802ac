"""From the configuration's triggers to the policy, and from quality figures to what it looks at."""

from agent.config import Config, DriftTrigger, QualityTrigger
from agent.version_watch import VersionWatch
from retrain.policy import Policy, Role
from retrain.schedule import Schedule
from retrain.triggers import DriftRule, Quality, QualityRule, Rule, ScheduleRule


def policy(config: Config, role: Role) -> Policy:
    """The configured triggers and brakes."""
    rules: list[Rule] = []
    for trigger in config.triggers:
        if isinstance(trigger, DriftTrigger):
            rules.append(
                DriftRule(
                    name=trigger.name,
                    kinds=frozenset(trigger.kinds),
                    features_min=trigger.features_min,
                )
            )
        elif isinstance(trigger, QualityTrigger):
            rules.append(
                QualityRule(
                    name=trigger.name,
                    metric=trigger.metric,
                    below=trigger.below,
                    above=trigger.above,
                    basis=trigger.basis,
                    rows_min=trigger.rows_min,
                )
            )
        else:
            schedule = Schedule(cron=trigger.cron, timezone=trigger.timezone)
            rules.append(ScheduleRule(name=trigger.name, schedule=schedule))
    return Policy(
        rules=rules,
        role=role,
        enabled=config.retrain.via != "none",
        cooldown_s=config.retrain.cooldown_s,
        runs_per_day_max=config.retrain.runs_per_day_max,
    )


def quality_of(watch: VersionWatch | None) -> tuple[Quality, ...]:
    """Realised quality, and the estimated one for as long as labels do not contradict it."""
    if watch is None:
        return ()
    monitor = watch.monitor
    found = [("realised", watch.metrics())]
    if monitor.estimates_hold:
        found.append(("estimated", monitor.estimated()))
    return tuple(
        Quality(
            metric=name,
            basis=basis,
            value=estimate.value,
            lower=_known(estimate.lower),
            upper=_known(estimate.upper),
            rows=estimate.rows,
            version=watch.version,
        )
        for basis, metrics in found
        for name, estimate in metrics.items()
    )


def _known(limit: float) -> float | None:
    return None if limit != limit else limit
