"""How sure we are that a feature moved: a Shiryaev-Roberts e-detector over counts.

For each feature a bank of 112 alternatives, each a density ratio f on its 18 bins: tilts along the
first four cosines of the rank (location, scale, skew, shape) and single bins that became rarer or
more frequent. Each ratio is divided by a constant c so large that no distribution within the
reference's sampling error and the practical tolerance makes f / c exceed one on average. Then
R <- (R + w pi a) exp(sum over bins of count x log(f / c)), and R less the budget spent so far is a
supermartingale whatever the dependence between features: the expected number of false alarms
(R >= 1) up to any time is at most the budget spent by then.

Sources: Shin, Ramdas, Rinaldo, "E-detectors" (2023); Ville (1939); for many features at once Wang
and Ramdas, "False discovery rate control with e-values" (2022); c is a Bernstein bound (1924).

The one thing not to break: evidence is forgotten at will (that only costs power), never invented.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.reference import FeatureProfile
from detectors.references.calibration import REFERENCE_ERRORS, TILT_MIN, slack
from detectors.rows.binning import BINS, MISSING, OUTSIDE, WIDTH

Floats = NDArray[np.float64]

TILTS: Final = (TILT_MIN, 0.14, 0.28, 0.56, 1.1)
COSINES: Final = 4
COSINE_WEIGHTS: Final = (0.4, 0.2, 0.1, 0.1)
#: Large shifts need no weight: each of their rows says more than the weight does.
TILT_WEIGHTS: Final = (0.15, 0.3, 0.35, 0.15, 0.05)
BIN_RATIOS: Final = (0.4, 0.7, 1.5, 3.0)
RARE_RATIOS: Final = (2.0, 5.0, 20.0, 0.4)
SINGLES_WEIGHT: Final = 0.1
RARE_WEIGHT: Final = 0.1

_COSINE_SCORES: Final = COSINES * len(TILTS) * 2
_SINGLE_SCORES: Final = BINS * len(BIN_RATIOS)
SCORES: Final = _COSINE_SCORES + _SINGLE_SCORES + 2 * len(RARE_RATIOS)

#: A bin must hold this many expected reference rows before its becoming rarer counts as evidence:
#: with fewer, the reference cannot tell a rare value from one that never comes.
DECREASE_ROWS_MIN: Final = 20

#: Of the budget, what plain thresholds get and what e-BH over features gets.
PLAIN_SHARE: Final = 0.9
EBH_LEVEL: Final = 0.1

#: Of the empirical Bernstein bound at the confidence of so many standard errors: 7/3 log(1 / delta)
#: with log(1 / delta) = errors^2 / 2 (Maurer and Pontil 2009). It is what keeps a bin that the
#: reference has not met, or met once, from being taken for impossible.
_BERNSTEIN: Final = 7 / 3 * REFERENCE_ERRORS**2 / 2

_LOG_STEP_MAX: Final = 300.0
_LOG_STEP_MIN: Final = -700.0
_LEAST: Final = 1e-300
#: Evidence at or below ten ticks' worth of budget (log10 = 1) is at its floor; more where a tick
#: has no more than so many rows.
FLOOR_TICKS: Final = 10.0
FLOOR_ROWS: Final = 50.0
#: A latched feature's evidence is held here, so that it can fall again when the drift has gone.
HELD_FLOORS_MAX: Final = 3.0


def cosine_scores(p: Floats, ordered_bins: int) -> Floats:
    """Give up to four functions on the bins, [h, 18], orthonormal under `p` over the ordered bins.

    They are cos(h pi u) of the mid-rank u, made orthonormal by Gram-Schmidt; 0 on missing and
    outside. A feature of b used bins has at most b - 1 of them.
    """
    mass = p[:ordered_bins]
    if ordered_bins < 2 or mass.sum() <= 0:
        return np.empty((0, WIDTH))
    weights = mass / mass.sum()
    ranks = np.cumsum(weights) - weights / 2
    basis = [np.ones(ordered_bins)]
    scores = []
    for h in range(1, min(COSINES, ordered_bins - 1) + 1):
        score = np.cos(h * np.pi * ranks)
        for _ in range(2):  # twice: once leaves rounding errors where bins are few
            for known in basis:
                score = score - known * float((weights * known) @ score)
        norm = float(np.sqrt((weights * score) @ score))
        if norm < 1e-6:
            break
        basis.append(score / norm)
        padded = np.zeros(WIDTH)
        padded[:ordered_bins] = score / norm
        scores.append(padded)
    return np.array(scores) if scores else np.empty((0, WIDTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreBank:
    """One feature's alternatives: `log_ratios` [112, 18] = log(f / c), `weights` [112] sum to 1.

    An alternative that a feature does not have (no order, no such bin) has weight 0.
    """

    log_ratios: Floats
    weights: Floats


def score_bank(profile: FeatureProfile, *, margin: bool = True) -> ScoreBank:
    """Build the alternatives of one feature.

    `margin=False` takes the reference for exact and every shift for relevant: only for showing in
    tests that this cries wolf.
    """
    p = profile.probabilities()
    rows = max(effective_rows(profile), 1.0)
    ratios = np.ones((SCORES, WIDTH))
    weights = np.zeros(SCORES)
    _add_cosines(profile, p, ratios, weights)
    live = profile.live()
    for b in range(BINS):
        if live[b]:
            start = _COSINE_SCORES + b * len(BIN_RATIOS)
            _add_single(p, b, BIN_RATIOS, rows, ratios[start:], weights[start:])
    singles = weights[_COSINE_SCORES : _COSINE_SCORES + _SINGLE_SCORES]
    singles *= SINGLES_WEIGHT / max(singles.sum(), 1.0)
    for start, b in ((SCORES - 8, MISSING), (SCORES - 4, OUTSIDE)):
        if live[b]:
            _add_single(p, b, RARE_RATIOS, rows, ratios[start:], weights[start:])
    weights[SCORES - 8 :] *= RARE_WEIGHT / max(weights[SCORES - 8 :].sum(), 1.0)
    weights /= weights.sum()

    spread = np.sqrt(np.maximum((ratios - 1) ** 2 @ p, 0.0))  # E_p f = 1
    normaliser = 1 + spread * slack(profile.tolerance, rows)
    normaliser += _BERNSTEIN * (ratios.max(axis=1) - 1) / rows
    if not margin:
        normaliser = np.ones(SCORES)
    log_ratios = np.log(np.maximum(ratios, _LEAST)) - np.log(normaliser)[:, None]
    return ScoreBank(log_ratios=np.where(live, log_ratios, 0.0), weights=weights)


def effective_rows(profile: FeatureProfile) -> float:
    """Give the independent rows a profile is worth: fewer if autocorrelated or sketched."""
    rows = profile.rows / profile.phi
    return rows if profile.counts_exact else min(rows, 65_536.0)  # rank error 1/512 ~ 4/sqrt(65536)


def _add_cosines(profile: FeatureProfile, p: Floats, ratios: Floats, weights: Floats) -> None:
    if not profile.ordered:
        return
    live = int(profile.live()[:BINS].sum())
    for h, score in enumerate(cosine_scores(p, live)):
        for t, tilt in enumerate(s * tilt for tilt in TILTS for s in (1, -1)):
            k = (h * len(TILTS) * 2) + t
            tilted = np.exp(tilt * score)
            ratios[k] = tilted / (tilted @ p)
            weights[k] = COSINE_WEIGHTS[h] * TILT_WEIGHTS[t // 2] / 2


def _add_single(
    p: Floats,
    b: int,
    choices: tuple[float, ...],
    rows: float,
    ratios: Floats,
    weights: Floats,
) -> None:
    for k, ratio in enumerate(choices):
        rest = (1 - ratio * p[b]) / (1 - p[b]) if p[b] < 1 else 0.0
        if rest <= 0.01 or (ratio < 1 and p[b] * rows <= DECREASE_ROWS_MIN):
            continue  # a bin cannot triple that holds half of all rows
        ratios[k] = rest
        ratios[k, b] = ratio
        weights[k] = 1.0


def score_kind(score: int) -> str:
    """Say what an alternative stands for: location, scale, shape, bin, missing or outside."""
    if score < _COSINE_SCORES:
        return ("location", "scale", "shape", "shape")[score // (len(TILTS) * 2)]
    if score < _COSINE_SCORES + _SINGLE_SCORES:
        return "bin"
    return "missing" if score < SCORES - len(RARE_RATIOS) else "outside"


#: The eight alternatives exported for a fleet-wide CUSUM: location and scale, two tilts, two signs.
EXPORTED_SCORES: Final[Mapping[str, int]] = {
    f"{name}_{sign}{tilt}": h * len(TILTS) * 2 + TILTS.index(tilt) * 2 + (0 if sign == "+" else 1)
    for h, name in enumerate(("location", "scale"))
    for tilt in (0.14, 0.56)
    for sign in ("+", "-")
}


class Evidence:
    """The recursion over ticks for all features of one reference: R of shape [features, 112]."""

    def __init__(self, profiles: tuple[FeatureProfile, ...], *, margin: bool = True) -> None:
        banks = [score_bank(profile, margin=margin) for profile in profiles]
        shape = (len(profiles), SCORES, WIDTH)
        # single precision halves the memory; the margin c is a thousand times its rounding error
        self._log_ratios = np.empty(shape, dtype=np.float32)
        self.weights = np.empty(shape[:2])
        for row, bank in enumerate(banks):
            self._log_ratios[row] = bank.log_ratios
            self.weights[row] = bank.weights
        self._phi = np.array([profile.phi for profile in profiles])
        self.share = 1.0 / max(len(profiles), 1)  # of the budget, per feature
        self._floor = np.where(self.weights > 0, _LEAST, 0.0)
        self.wealth = np.zeros(shape[:2])
        self.exported = np.array(list(EXPORTED_SCORES.values()))

    def update(self, counts: NDArray[np.int64], budget: float) -> tuple[Floats, Floats]:
        """Take one tick's counts [features, 18] and the budget it brings to those that have rows.

        Gives R summed over alternatives, [features], and the log-evidence of the exported ones,
        [features, 8].
        """
        steps = np.matmul(self._log_ratios, counts.astype(np.float32)[:, :, None])[:, :, 0]
        steps = steps.astype(np.float64) / self._phi[:, None]
        gift = counts.any(axis=1, keepdims=True) * (self.share * budget * PLAIN_SHARE)
        self.wealth += self.weights * gift
        self.wealth *= np.exp(np.clip(steps, _LOG_STEP_MIN, _LOG_STEP_MAX))
        np.maximum(self.wealth, self._floor, out=self.wealth)
        total: Floats = self.wealth.sum(axis=1)
        return total, steps[:, self.exported]

    def alarms(self, total: Floats, open_: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say which features alarm: R >= 1, or by e-BH at level .1; only `open_` ones compete."""
        alarmed: NDArray[np.bool_] = open_ & (total >= 1)
        values = np.where(open_, total / self.share, 0.0)
        if values.max(initial=0.0) * len(values) < len(values) / EBH_LEVEL:
            return alarmed  # the highest with the highest rank would not pass
        order = np.argsort(-values, kind="stable")
        ranks = np.arange(1, len(values) + 1)
        passed = (values[order] * ranks >= len(values) / EBH_LEVEL).nonzero()[0]
        if len(passed):
            alarmed[order[: passed[-1] + 1]] = True
        return alarmed & open_

    def hold(self, latched: NDArray[np.bool_], unit: float, floor: Floats) -> NDArray[np.bool_]:
        """Keep each alternative of latched features near its floor; say which have fallen back.

        `floor` [features] is in ticks. Of an alternative's own share of `unit` (one tick's budget
        of one feature) at most three times that are kept, so that a drift that ends is seen to end
        soon.
        """
        quiet = np.zeros(len(latched), dtype=bool)
        if latched.any():
            own = self.weights[latched] * unit * floor[latched, None]
            held = np.minimum(self.wealth[latched], own * HELD_FLOORS_MAX)
            self.wealth[latched] = held
            quiet[latched] = held.sum(axis=1) <= unit * floor[latched]
        return quiet

    def floor(self, rows_per_tick: float) -> Floats:
        """Give the evidence that unchanged rows hold, in ticks, [features].

        It is higher where a tick brings few rows: budget comes in with each tick, and only rows
        wear it down.
        """
        result: Floats = FLOOR_TICKS * (1 + FLOOR_ROWS * self._phi / max(rows_per_tick, 1e-9))
        return result

    def leading(self, feature: int) -> int:
        """Give the alternative with most evidence."""
        return int(self.wealth[feature].argmax())

    def reset(self, features: NDArray[np.bool_]) -> None:
        """Forget the evidence of some features."""
        self.wealth[features] = 0.0

    def state(self) -> dict[str, Any]:
        """Give what a restart must not forget, as a dictionary of arrays."""
        return {"wealth": self.wealth.copy()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit or is not finite."""
        wealth = np.array(state["wealth"], dtype=np.float64)
        if wealth.shape != self.wealth.shape or not np.isfinite(wealth).all() or (wealth < 0).any():
            raise ValueError(f"evidence of shape {wealth.shape}, expected {self.wealth.shape}")
        self.wealth = wealth
