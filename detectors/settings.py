"""What a monitor is told besides its reference: budget, bounds, and what else to look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from detectors.budget import Budget

#: Effects above which evidence is called drift.
EFFECT_DEFAULT: Final[Mapping[str, float]] = MappingProxyType({"psi": 0.1, "ks": 0.1})


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessSettings:
    """One attribute that groups are told apart by, and the bound on the gap between them.

    `positive` is the class that is wished for; `gap_max` the largest difference of rates, and
    `ratio_min` the smallest ratio of selection rates, that are accepted (None: shown, not judged).
    """

    attribute: str
    positive: str = "1"
    gap_max: float | None = None
    ratio_min: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySettings:
    """Of quality on labelled rows: its window; of a regression the range of its errors (None: not
    known), and the quantile that it predicts (None: a mean).
    """

    window_rows: int = 5_000
    error_max: float | None = None
    quantile: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a monitor looks. `provisional`: its reference is still being learnt, so that effects are
    shown and every state is `insufficient_data`.
    """

    budget: Budget = field(default_factory=Budget)
    effect: Mapping[str, float] = field(default_factory=lambda: EFFECT_DEFAULT)
    version: str = ""
    provisional: bool = False
    fairness: tuple[FairnessSettings, ...] = ()
    quality: QualitySettings = field(default_factory=QualitySettings)
