"""Which features explain a drift, and what it is likely to cost.

If feature j alone moved from shares p to q over its bins, the mean of what the model says, or of
its loss, would move by D_j = sum over bins of (q - p) x the bin's reference mean: reweighting the
reference by that feature. The features that drifted are weighed by |D_j| less two standard errors,
of the loss where it is known and moved, else of the score, else by PSI, which says how far a
feature moved but not whether the model cares. The weights sum to one.

Features that move together are each given what they share; so the weights rank, they do not add up
to the loss. A changed concept cannot be seen here: bin means are the reference's for ever. What it
costs is therefore taken from the estimated quality of all rows, not from the weights.

Source: the importance weighting of Shimodaira (2000), one feature at a time; PSI as in `distances`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.distances import psi_terms, shares
from detectors.drift.explain import shown
from detectors.performance.intervals import Estimate
from detectors.reference import FeatureProfile
from detectors.references.bin_means import BinMeans

Floats = NDArray[np.float64]

#: Weights of fewer rows in a bin say nothing about its mean.
BIN_ROWS_MIN: Final = 20
#: At least so much of a feature's movement must be among bins with a known mean.
KNOWN_MIN: Final = 0.5
ERRORS: Final = 2.0
NAMED_MAX: Final = 3
NAMED_SHARE_MIN: Final = 0.1
BASES: Final = ("loss", "score", "psi")
_WORDS: Final[Mapping[str, str]] = {
    "loss": "of the expected change of errors",
    "score": "of the change of what the model says",
    "psi": "of the shift",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """Shares of the drifted features, largest first, summing to one; `basis` is loss, score or psi;
    `change` is D_j in units of the basis (PSI itself for psi).
    """

    basis: str
    shares: Mapping[str, float]
    change: Mapping[str, float]


class Attribution:
    """Weighs features of one reference; `means` are those of its bins, where they are known."""

    def __init__(self, profiles: Sequence[FeatureProfile], means: BinMeans | None = None) -> None:
        self._names = tuple(profile.name for profile in profiles)
        self._place = {name: j for j, name in enumerate(self._names)}
        self._p = np.array([profile.probabilities() for profile in profiles]).reshape(-1, 18)
        self._phi = np.array([max(profile.phi, 1.0) for profile in profiles])
        self._rows = np.array([max(profile.rows, 1.0) for profile in profiles])
        self._means = means if means is not None and means.names == self._names else None

    def explain(self, counts: NDArray[Any], drifted: Collection[str]) -> Attributed | None:
        """Weigh the `drifted` features by the counts [features, 18] of the rows since they moved.

        None if none of them has rows.
        """
        which = np.array(
            sorted(self._place[name] for name in set(drifted) if name in self._place),
            dtype=np.int64,
        )
        which = which[counts[which].sum(axis=1) > 0] if len(which) else which
        if not len(which):
            return None
        for basis in BASES:
            found = self._psi(counts, which) if basis == "psi" else None
            if basis != "psi" and self._means is not None:
                found = self._reweighted(counts, which, basis)
            if found is None:
                continue
            change, weights = found
            order = np.argsort(-weights, kind="stable")
            named = [(self._names[which[k]], k) for k in order.tolist()]
            return Attributed(
                basis=basis,
                shares={name: float(weights[k]) for name, k in named},
                change={name: float(change[k]) for name, k in named},
            )
        return None

    def _reweighted(
        self, counts: NDArray[Any], which: NDArray[np.int64], basis: str
    ) -> tuple[Floats, Floats] | None:
        """Give D_j and the weights, each [which]; None where they are not known or all is noise."""
        assert self._means is not None
        rows, means = self._means.rows(basis)[which], self._means.means(basis)[which]
        known = rows >= BIN_ROWS_MIN
        p, q = self._p[which], shares(counts[which])
        moved = np.abs(q - p)
        enough = np.where(known, moved, 0.0).sum(axis=1) >= KNOWN_MIN * moved.sum(axis=1)
        if not enough.all():
            return None
        overall = (np.where(known, means, 0.0) * rows).sum(axis=1) / np.maximum(
            np.where(known, rows, 0.0).sum(axis=1), 1.0
        )
        centred = np.where(known, means - overall[:, None], 0.0)
        change = ((q - p) * centred).sum(axis=1)
        n = np.maximum(counts[which].sum(axis=1), 1)
        spread = (q * centred**2).sum(axis=1) / n + (p * centred**2).sum(axis=1) / self._rows[which]
        variance = self._means.variances(basis)[which]
        doubt = ((q - p) ** 2 / np.maximum(rows, 1.0) * known).sum(axis=1) * variance
        error = np.sqrt(self._phi[which] * (spread + doubt))
        size = np.maximum(np.abs(change) - ERRORS * error, 0.0)
        total = float(size.sum())
        return (change, size / total) if total > 0 and math.isfinite(total) else None

    def _psi(self, counts: NDArray[Any], which: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Give PSI less what chance gives, and the weights; equal ones where nothing is left."""
        p, q = self._p[which], shares(counts[which])
        psi = psi_terms(p, q).sum(axis=1)
        rows = np.maximum(counts[which].sum(axis=1), 1)
        bins = (p > 0).sum(axis=1) - 1
        chance = bins * self._phi[which] * (1 / rows + 1 / self._rows[which])
        size = np.maximum(psi - chance, 0.0)
        total = float(size.sum())
        return psi, size / total if total > 0 else np.full(len(which), 1 / len(which))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a drift is likely to cost: one metric, estimated then and now.

    `sure` says that the reference's figure lies outside the interval of today's; `per_1000` is how
    many more errors 1,000 rows bring (accuracy only, else None), `per_day` the same for a day.
    """

    metric: str
    was: float
    now: Estimate
    sure: bool
    per_1000: float | None
    per_day: float | None


#: Metrics in the order they are chosen, and whether more of each is better.
_METRICS: Final[Mapping[str, bool]] = {
    "accuracy": True,
    "mae": False,
    "rmse": False,
    "roc_auc": True,
    "f1": True,
    "brier": False,
}


def cost_of(
    reference: Mapping[str, float],
    now: Mapping[str, Estimate],
    *,
    rows_per_day: float | None = None,
) -> Cost | None:
    """Choose the first metric estimated then and now: accuracy, else mae, rmse, roc_auc, f1, brier.

    None if there is none that is finite.
    """
    for metric in _METRICS:
        if metric not in reference or metric not in now:
            continue
        was, estimate = float(reference[metric]), now[metric]
        if not (math.isfinite(was) and math.isfinite(estimate.value)):
            continue
        sure = not estimate.lower <= was <= estimate.upper
        per_row = was - estimate.value if metric == "accuracy" else None
        known = rows_per_day is not None and math.isfinite(rows_per_day) and rows_per_day > 0
        return Cost(
            metric=metric,
            was=was,
            now=estimate,
            sure=sure,
            per_1000=None if per_row is None else 1_000 * per_row,
            per_day=None if per_row is None or not known else per_row * float(rows_per_day or 0),
        )
    return None


def sentence(attributed: Attributed | None, cost: Cost | None) -> str:
    """Say both in one plain sentence to be put after a reading's own; empty if there is nothing."""
    parts = [part for part in (_features(attributed), _cost(cost)) if part]
    return "; ".join(parts)


def _features(attributed: Attributed | None) -> str:
    """Name the features that carry most, if more than one drifted."""
    if attributed is None or len(attributed.shares) < 2:
        return ""
    (first, most), *rest = attributed.shares.items()
    text = f"{shown(first)} explains {most:.0%} {_WORDS[attributed.basis]}"
    others = [
        f"{shown(name)} {share:.0%}"
        for name, share in rest[: NAMED_MAX - 1]
        if share >= NAMED_SHARE_MIN
    ]
    return ", ".join([text, *others])


def _cost(cost: Cost | None) -> str:
    if cost is None:
        return ""
    name = cost.metric.replace("_", " ")
    was, now = _pair(cost.was, cost.now.value)
    if not cost.sure:
        return f"estimated {name} is {now}, not surely another than {was}"
    verb = "fell" if cost.now.value < cost.was else "rose"
    text = f"estimated {name} {verb} from {was} to {now}"
    if cost.per_1000 is None or abs(cost.per_1000) < 0.5:
        return text
    word = "more" if cost.per_1000 > 0 else "fewer"
    text += f", about {abs(cost.per_1000):,.0f} {word} errors in 1,000 rows"
    if cost.per_day is not None and abs(cost.per_day) >= 0.5:
        text += f" ({abs(cost.per_day):,.0f} a day)"
    return text


def _pair(was: float, now: float) -> tuple[str, str]:
    """Write two figures with as many places as tell them apart, two to four."""
    for places in (2, 3, 4):
        texts = f"{was:.{places}f}", f"{now:.{places}f}"
        if texts[0] != texts[1]:
            break
    return texts
