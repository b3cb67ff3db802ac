"""What one scrape is made from, and how its families and labels are spelt.

Names of features come from requests: a label is cut at 64 characters and always something that
UTF-8 can carry, and two names never become one label, for Prometheus refuses a whole scrape over
one series that is there twice.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent.edge_totals import EdgeTotals
from agent.generation_totals import VersionTokens
from agent.intake import Delays
from agent.objectives import Standing
from agent.resources import Resources
from agent.version_watch import VersionWatch
from exporters.prometheus import Family, FamilyKind, Histogram

NAME_CHARACTERS_MAX: Final = 64
_HASH_CHARACTERS: Final = 8
Row = tuple[tuple[str, ...], float | Histogram]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFigures:
    """The rollout that is, or was last."""

    candidate: str
    state: int
    weight: float
    version: str
    pairs: Mapping[str, int] = field(default_factory=dict)  # answers to one request, by agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrapeInput:
    """Everything a scrape shows, taken at one moment.

    Whatever becomes a counter counts from the start of this process: a count that a restart takes
    back by a little looks to `increase()` like a reset to zero, and is added as a whole.
    """

    model: str
    version: str
    digest: str
    totals: EdgeTotals
    watches: Mapping[str, VersionWatch]
    stable: str
    features: tuple[str, ...]  # fixed at start: configured, else in the order of the schema
    max_series: int  # of one family about features
    rows_total: int
    sampling_rate: float  # of the uniform stratum, in force now
    drops: Mapping[str, int]
    labels: Mapping[str, int]
    delays: Delays
    label_figures: Mapping[str, float] = field(default_factory=dict)  # by name, where known
    server: Resources
    cost: Mapping[str, Any] | None = None  # as `Costs.as_json` says it
    processes: Mapping[str, Mapping[str, float]]
    completeness: Mapping[str, float] = field(default_factory=dict)  # by source, where it is known
    runs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    deliveries: Mapping[tuple[str, str], int] = field(default_factory=dict)
    outbox: Mapping[str, int] = field(default_factory=dict)
    rollout: RolloutFigures | None = None
    rollbacks: Mapping[str, int] = field(default_factory=dict)
    latencies: Mapping[tuple[str, str], Sequence[float]] = field(default_factory=dict)
    standings: Sequence[Standing] = ()
    sampling_cpu_s: Mapping[str, float] = field(default_factory=dict)  # by part, for the budget
    budgets_held: Mapping[str, bool] = field(default_factory=dict)
    generations: Mapping[str, VersionTokens] = field(default_factory=dict)  # by version
    # Effects against a reference that is still being learnt: shown, never believed.
    provisional: VersionWatch | None = None


def family(name: str, kind: FamilyKind, help: str, labels: str, rows: Sequence[Row]) -> Family:
    """A family by its name without the prefix, its labels in one string."""
    return Family(
        name=f"remora_{name}", kind=kind, help=help, labels=tuple(labels.split()), rows=rows
    )


def label(name: str) -> str:
    """A name from a request as a label; a long or unreadable one ends in a hash of itself.

    >>> label("age"), label("x" * 80)[-12:]
    ('age', 'xxx~d929cdee')
    """
    if len(name) <= NAME_CHARACTERS_MAX and "\ufffd" not in (shown := _readable(name)):
        return shown
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]
    return f"{_readable(name)[: NAME_CHARACTERS_MAX - _HASH_CHARACTERS - 1]}~{digest}"


def _readable(name: str) -> str:
    """Control characters and halves of characters replaced; line ends are escaped later."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() or c in " \n" else "\ufffd" for c in name)
