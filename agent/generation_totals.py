"""Tokens and times of language models, summed for scrapes: per version, since this process began.

Every answer counts for as many as it stands for, the inverse of the probability that it was kept,
so a lower sampling rate leaves the figures where they are. Do not save these sums: a counter
that starts at zero again is understood by Prometheus, one that is taken back by a little is not.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, Final

from agent.edge_totals import quantile
from agent.generation import (
    FINISH_REASONS,
    TOKEN_BASES,
    FinishReason,
    Generation,
    TokenBasis,
)

FIRST_TOKEN_BOUNDS_S: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
PER_TOKEN_BOUNDS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
VERSIONS_MAX: Final = 50
SHARES_SHOWN: Final = (0.5, 0.99)
OVERFLOW: Final = "other"


@dataclass(slots=True, kw_only=True)
class Times:
    """A weighted histogram of seconds."""

    bounds_s: tuple[float, ...]
    counts: list[float]
    sum_s: float = 0.0

    @classmethod
    def within(cls, bounds_s: tuple[float, ...]) -> "Times":
        return cls(bounds_s=bounds_s, counts=[0.0] * (len(bounds_s) + 1))

    def add(self, seconds: float, weight: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += weight
        self.sum_s += seconds * weight

    def quantiles(self) -> dict[str, float | None]:
        """Seconds by name, interpolated within their buckets; None before the first time."""
        return {
            f"p{100 * share:g}_s": quantile(self.bounds_s, self.counts, share)
            for share in SHARES_SHOWN
        }


@dataclass(slots=True, kw_only=True)
class VersionTokens:
    """All generations of one version."""

    first_token: Times = field(default_factory=lambda: Times.within(FIRST_TOKEN_BOUNDS_S))
    per_token: Times = field(default_factory=lambda: Times.within(PER_TOKEN_BOUNDS_S))
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    # From zero on: the first refusal or cut answer is an increase like any other.
    bases: dict[TokenBasis, float] = field(default_factory=lambda: dict.fromkeys(TOKEN_BASES, 0.0))
    finish_reasons: dict[FinishReason, float] = field(
        default_factory=lambda: dict.fromkeys(FINISH_REASONS, 0.0)
    )

    def as_json(self) -> dict[str, Any]:
        """For status: of reasons and bases, those that there were."""
        return {
            "answers": sum(self.bases.values()),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "first_token": self.first_token.quantiles(),
            "per_token": self.per_token.quantiles(),
            "finish_reasons": {name: n for name, n in self.finish_reasons.items() if n},
            "bases": {name: n for name, n in self.bases.items() if n},
        }


class GenerationTotals:
    """Takes generations, whole or not, gives sums."""

    def __init__(self) -> None:
        self.versions: dict[str, VersionTokens] = {}

    def as_json(self) -> list[dict[str, Any]]:
        """For status, by version."""
        return [
            {"version": name, **self.versions[name].as_json()} for name in sorted(self.versions)
        ]

    def take(self, generation: Generation) -> None:
        sums = self._of(generation.version)
        weight = generation.weight
        if generation.first_token_s is not None:
            sums.first_token.add(generation.first_token_s, weight)
        if generation.per_token_s is not None:
            sums.per_token.add(generation.per_token_s, weight)
        sums.input_tokens += weight * (generation.input_tokens or 0)
        sums.output_tokens += weight * (generation.output_tokens or 0)
        sums.bases[generation.basis] += weight
        for reason in generation.finish_reasons:
            sums.finish_reasons[reason] += weight

    def _of(self, version: str) -> VersionTokens:
        if version not in self.versions and len(self.versions) >= VERSIONS_MAX:
            version = OVERFLOW
        return self.versions.setdefault(version, VersionTokens())
