"""An estimate and the interval that it is known within, at 95 %.

Sources: Wilson (1927) for shares; Agresti and Coull (1998) for the spread of shares near 0 and 1.
"""

import math
from dataclasses import dataclass
from typing import Final

Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric's value with its 95 % interval and the rows it rests on."""

    value: float
    lower: float
    upper: float
    rows: int


def share_of(part: float, whole: float, effective: float, rows: int) -> Estimate:
    """Wilson's interval with the effective number of rows."""
    value = min(max(part / whole, 0.0), 1.0)
    spread = Z95**2 / effective
    centre = (value + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(value * (1 - value) / effective + spread / 4 / effective)
    lower, upper = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(value=value, lower=min(lower, value), upper=max(upper, value), rows=rows)


def around(value: float, half: float, rows: int) -> Estimate:
    """A figure that is never negative, give or take `half`."""
    return Estimate(value=value, lower=max(0.0, value - half), upper=value + half, rows=rows)


def smooth_variance(part: float, whole: float) -> float:
    """The variance of a share; one of 0 or 1 seen in few rows is not known exactly."""
    smooth = (min(part, whole) + 2.0) / (whole + 4.0)
    return smooth * (1.0 - smooth) / (whole + 4.0)
