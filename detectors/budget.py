"""How many false alarms are accepted, and who may raise them.

One agent is granted one false alarm in 30 days over everything it watches. The shares below are
parts of that one; whoever adds a detector inside the budget takes its share from another, so that
the sum stays what the operator was promised. Replicas that each decide for themselves divide it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

#: A month at one tick a minute: the unit in which the budget is spent.
TICKS_PER_MONTH: Final = 43_200.0

#: Parts of the one false alarm. A third of `data` is the ladder's. Segments, fairness, outliers and
#: river's detectors have none: they stand outside the budget, and say so.
SHARES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "data": 0.5,
        "projections": 0.1,
        "prediction": 0.1,
        "error_rate": 0.1,
        "calibration": 0.06,
        "label": 0.04,
        "data_quality": 0.08,
        "estimation": 0.02,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """False alarms per month over everything, a month being `ticks_per_month` ticks.

    Raises ValueError for numbers that are not positive and finite, and for shares above one.

    >>> round(Budget(replicas=2).of("data"), 3)
    0.25
    """

    false_alarms_per_month: float = 1.0
    ticks_per_month: float = TICKS_PER_MONTH
    replicas: int = 1
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)

    def __post_init__(self) -> None:
        for name in ("false_alarms_per_month", "ticks_per_month", "replicas"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, not {getattr(self, name)}")
        if math.fsum(self.shares.values()) > 1.0 + 1e-9:
            raise ValueError("the shares of the budget add up to more than all of it")

    def of(self, share: str) -> float:
        """False alarms per month that this share may raise."""
        return self.false_alarms_per_month * self.shares[share] / self.replicas
