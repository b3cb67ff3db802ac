"""Betting e-processes over bounded outcomes: evidence that may be looked at after every request.

Somebody who bets against a null hypothesis that is true does not get rich: his wealth is a
nonnegative supermartingale with mean at most 1, so by Ville's inequality it ever reaches 1/alpha
with probability at most alpha, whenever and however often one looks. Bets follow Waudby-Smith and
Ramdas, "Estimating means of bounded random variables by betting" (JRSS B, 2024): the wealth is the
mean over a fixed grid of stakes, and the mean over several streams is an e-process again.

Two things must not break: a stake is fixed before its outcome is seen, and every candidate outcome
is bet on by itself (a batch mean shared by many bets would count the same noise many times).
Cutting the same outcomes into other batches gives the very same floats.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Booleans: TypeAlias = NDArray[np.bool_]

STAKES = 12
STAKE_MIN = 0.02
# No bet risks more than this part of the wealth, so wealth never becomes zero.
RISK_MAX = 0.95
# More partners than this take little more noise away: the noise of y falls with 1/partners.
PARTNERS_MAX = 20
# Controls wait for at most this many bets. Taking only those since the previous candidate outcome
# would waste half the bets at weight 50%; waiting longer would pair an outage with the time
# before it, and three lost bets at its start cost a factor of 1.95^3 at most.
WAITING_BETS = 3


def stakes(worst_loss: Sequence[float]) -> Floats:
    """One row of log-spaced stakes per stream; `worst_loss` is the most one outcome can cost."""
    rows = [np.geomspace(STAKE_MIN, RISK_MAX / loss, STAKES) for loss in worst_loss]
    return np.asarray(rows, dtype=np.float64)


def log_evidence(log_wealth: Floats) -> Floats:
    """Natural log of the mean wealth over streams and stakes (the last two axes)."""
    top = log_wealth.max(axis=(-2, -1), keepdims=True)
    mean = np.exp(log_wealth - top).mean(axis=(-2, -1))
    return np.asarray(np.log(mean) + top[..., 0, 0], dtype=np.float64)


def wilson(total: float, count: int, z: float) -> tuple[float, float]:
    """Wilson score interval of a mean of `count` outcomes in [0, 1].

    Exact enough for 0/1 outcomes and wider than needed for others (their variance is smaller).
    For one look at one time: it is shown to people, decisions rest on evidence.

    >>> low, high = wilson(12, 400, 1.96)
    >>> f"{low:.4f} {high:.4f}"
    '0.0172 0.0517'
    """
    if count == 0:
        return 0.0, 1.0
    mean, square = total / count, z * z
    centre = (mean + square / (2 * count)) / (1 + square / count)
    spread = mean * (1 - mean) / count + square / (4 * count * count)
    half = z * math.sqrt(max(0.0, spread)) / (1 + square / count)
    return max(0.0, centre - half), min(1.0, centre + half)


class PairedBets:
    """Candidate against control, as both arrive, over one or more streams of outcomes in [0, 1].

    Each candidate outcome x is compared with the mean y of control outcomes just before it that
    no other bet has used (none: no bet). `rollback` bets against "x - y is at most `delta` on
    average", `promote` against "x - y is `margin` or more". Both hold under a base rate that
    moves, as long as it moves for both arms.
    """

    def __init__(self, *, delta: Sequence[float], margin: Sequence[float]) -> None:
        streams = len(delta)
        self.delta: Floats = np.asarray(delta, dtype=np.float64)
        self.margin: Floats = np.asarray(margin, dtype=np.float64)
        self._rollback_stakes = stakes([1 + value for value in delta])
        self._promote_stakes = stakes([1 - value for value in margin])
        self._rollback: Floats = np.zeros((streams, STAKES))
        self._promote: Floats = np.zeros((streams, STAKES))
        self._waiting: Floats = np.empty((0, streams))  # controls that no bet has used
        self._partners_max = PARTNERS_MAX
        self.rollback_peak = 0.0  # natural log; the highest ever, which is what Ville bounds
        self.count = [0, 0]  # outcomes of control and candidate
        self.total: Floats = np.zeros((2, streams))
        self.bets = 0
        self._excess_sum: Floats = np.zeros(streams)
        self._excess_square: Floats = np.zeros(streams)

    def update(self, candidate: Booleans, values: Floats) -> None:
        """Take outcomes in the order they arrived; `values` is (outcomes, streams)."""
        control = ~candidate
        for arm, rows in ((0, values[control]), (1, values[candidate])):
            self.count[arm] += len(rows)
            self.total[arm] = _running_sum(self.total[arm], rows)
        excess = self._excess(candidate, values)
        if not len(excess):
            return
        self.bets += len(excess)
        self._excess_sum = _running_sum(self._excess_sum, excess)
        self._excess_square = _running_sum(self._excess_square, excess**2)
        path = _wealth_path(self._rollback, self._rollback_stakes, excess - self.delta)
        self._rollback = path[-1]
        self.rollback_peak = max(self.rollback_peak, float(log_evidence(path).max()))
        self._promote = _wealth_path(self._promote, self._promote_stakes, self.margin - excess)[-1]

    def pace(self, weight: float) -> None:
        """The candidate's share is `weight` from now on: so many controls go with each outcome."""
        if 0 < weight < 1:
            self._partners_max = min(PARTNERS_MAX, max(1, round((1 - weight) / weight)))

    def _excess(self, candidate: Booleans, values: Floats) -> Floats:
        """x - y for each candidate outcome that has a y; controls left over wait, a few of them.

        Which controls are taken depends on who came when, never on an outcome.
        """
        controls = np.concatenate([self._waiting, values[~candidate]])
        arrived = len(self._waiting) + np.cumsum(~candidate)[candidate]
        head, waiting_max = 0, WAITING_BETS * self._partners_max
        paired = np.zeros(len(arrived), dtype=np.bool_)
        spans: list[int] = []
        for index, here in enumerate(arrived.tolist()):
            head = max(head, here - waiting_max)
            partners = min(here - head, self._partners_max)
            if partners:
                paired[index] = True
                spans += [head, head + partners]
                head += partners
        self._waiting = controls[max(head, len(controls) - waiting_max) :]
        if not spans:
            return np.empty((0, values.shape[1]))
        # reduceat wants every end to be an index, hence one row more.
        padded = np.concatenate([controls, np.zeros((1, values.shape[1]))])
        sums = np.add.reduceat(padded, spans, axis=0)[::2]
        partners_of = np.diff(np.asarray(spans).reshape(-1, 2), axis=1)
        return np.asarray(values[candidate][paired] - sums / partners_of, dtype=np.float64)

    @property
    def rollback_evidence(self) -> float:
        """Natural log of the evidence, now, that the candidate is worse by more than delta."""
        return float(log_evidence(self._rollback))

    @property
    def promote_evidence(self) -> float:
        """Natural log of the evidence, now, that the candidate is not worse by the margin."""
        return float(log_evidence(self._promote))

    def excess(self) -> Floats:
        """Mean of x - y per stream: the effect, freed of a base rate that moved."""
        return self._excess_sum / max(1, self.bets)

    def excess_upper(self, z: float) -> Floats:
        """Interim upper estimate of the excess; no error claim, it only paces the steps.

        One made-up failure is added to the variance: 200 requests without an error are not
        known to have none.
        """
        if self.bets == 0:
            return np.full(self.delta.shape, np.inf)
        mean = self.excess()
        variance = (self._excess_square + 1) / (self.bets + 1) - mean**2
        return np.asarray(mean + z * np.sqrt(np.maximum(variance, 0) / self.bets))

    def state(self) -> dict[str, Any]:
        return {
            "delta": self.delta.tolist(),
            "margin": self.margin.tolist(),
            "rollback": self._rollback.tolist(),
            "promote": self._promote.tolist(),
            "waiting": self._waiting.tolist(),
            "partners_max": self._partners_max,
            "rollback_peak": self.rollback_peak,
            "count": list(self.count),
            "total": self.total.tolist(),
            "bets": self.bets,
            "excess_sum": self._excess_sum.tolist(),
            "excess_square": self._excess_square.tolist(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        bets = cls(delta=state["delta"], margin=state["margin"])
        bets._rollback = np.asarray(state["rollback"])
        bets._promote = np.asarray(state["promote"])
        bets._waiting = np.asarray(state["waiting"]).reshape(-1, len(bets.delta))
        bets._partners_max = int(state["partners_max"])
        bets.rollback_peak = float(state["rollback_peak"])
        bets.count = [int(value) for value in state["count"]]
        bets.total = np.asarray(state["total"])
        bets.bets = int(state["bets"])
        bets._excess_sum = np.asarray(state["excess_sum"])
        bets._excess_square = np.asarray(state["excess_square"])
        return bets


class BoundBets:
    """One arm against a fixed bound per stream: bets against "the mean is at most `bound`".

    There is no control to move along with: where the world may have moved the bound must leave
    room for it.
    """

    def __init__(self, *, bound: Sequence[float]) -> None:
        self.bound: Floats = np.asarray(bound, dtype=np.float64)
        self._stakes = stakes(list(bound))
        self._wealth: Floats = np.zeros((len(bound), STAKES))
        self.peak = 0.0
        self.count = 0
        self.total: Floats = np.zeros(len(bound))

    def update(self, values: Floats) -> None:
        """Take outcomes in order; `values` is (outcomes, streams)."""
        if not len(values):
            return
        self.count += len(values)
        self.total = _running_sum(self.total, values)
        path = _wealth_path(self._wealth, self._stakes, values - self.bound)
        self._wealth = path[-1]
        self.peak = max(self.peak, float(log_evidence(path).max()))

    def state(self) -> dict[str, Any]:
        return {
            "bound": self.bound.tolist(),
            "wealth": self._wealth.tolist(),
            "peak": self.peak,
            "count": self.count,
            "total": self.total.tolist(),
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        bets = cls(bound=state["bound"])
        bets._wealth = np.asarray(state["wealth"])
        bets.peak = float(state["peak"])
        bets.count = int(state["count"])
        bets.total = np.asarray(state["total"])
        return bets


def _running_sum(start: Floats, rows: Floats) -> Floats:
    """`start` plus each row in turn: pairwise summation would depend on where batches end."""
    return np.asarray(np.cumsum(np.concatenate([start[None], rows]), axis=0)[-1])


def _wealth_path(start: Floats, stake: Floats, gains: Floats) -> Floats:
    """Log-wealth after each bet: (bets, streams, stakes)."""
    steps = np.log1p(stake[None] * gains[:, :, None])
    path = np.cumsum(np.concatenate([start[None], steps]), axis=0)
    return np.asarray(path[1:], dtype=np.float64)
