"""An estimate and the interval that it is known within, at 95 %, with the ground it stands on.

Source: Agresti and Coull (1998) for the spread of shares near 0 and 1.
Intervals that hold at every look are in `confidence`.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Z95: Final = 1.959963984540054

#: betting: holds at every look at once, for outcomes within known limits and any distribution.
#: asymptotic: meant to hold at every look at once, and does in the limit of many rows.
#: sampling: of an estimate without labels: where the realised figure of the same rows falls, at one
#: look, as long as calibration holds.
#: single: for one look at one time. none: there is no interval, and its limits are NaN.
Interval: TypeAlias = Literal["betting", "asymptotic", "sampling", "single", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric's value with its 95 % interval, the rows it rests on, and what the interval is."""

    value: float
    lower: float
    upper: float
    rows: int
    kind: Interval = "single"


def around(
    value: float,
    half: float,
    rows: int,
    *,
    kind: Interval = "single",
    most: float = math.inf,
) -> Estimate:
    """A figure between 0 and `most`, give or take `half`."""
    lower, upper = max(0.0, value - half), min(most, value + half)
    return Estimate(value=value, lower=lower, upper=upper, rows=rows, kind=kind)


def without(value: float, rows: int) -> Estimate:
    """A figure that has no interval worth the name."""
    return Estimate(value=value, lower=math.nan, upper=math.nan, rows=rows, kind="none")


def smooth_variance(part: float, whole: float) -> float:
    """The variance of a share; one of 0 or 1 seen in few rows is not known exactly."""
    smooth = (min(part, whole) + 2.0) / (whole + 4.0)
    return smooth * (1.0 - smooth) / (whole + 4.0)
