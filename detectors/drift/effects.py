"""How big a change is: every distance between counts and the reference, of all features at once.

What chance gives is a figure of the reference, worked out once. Rows that resemble their neighbours
count as fewer (`phi`), or calm features would seem to have moved.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift import distances
from detectors.drift.evidence import effective_rows
from detectors.drift.export import limits
from detectors.references.feature_profile import FeatureProfile
from detectors.rows.bins import BINS, MISSING

Floats = NDArray[np.float64]

_DISTANCES: Final = ("psi", "js", "ks", "wasserstein", "cramers_v")
#: What `figures` gives, in this order.
FIGURES: Final = (*_DISTANCES, *(f"{name}_corrected" for name in _DISTANCES), "missing_ratio")


class Effects:
    """Distances of counts from the profiles of one reference."""

    def __init__(self, profiles: Sequence[FeatureProfile]) -> None:
        self.p = np.array([profile.probabilities() for profile in profiles])
        self.rows = np.array([effective_rows(profile) for profile in profiles])
        self.phi = np.array([profile.phi for profile in profiles])
        self._ordered = np.array([profile.ordered for profile in profiles])
        edges = limits(profiles)[:, : BINS + 1]
        # What is the same for all counts is worked out here, once.
        self._freedom = distances.freedom(self.p)
        self._ks_null = distances.ks_null(self.p, self._ordered)
        self._inside = distances.inside(self.p[:, :BINS])
        self._steps = distances.steps(edges)
        self._nulls = np.stack(
            [
                distances.js_null(self.p),
                self._ks_null,
                distances.wasserstein_null(self.p[:, :BINS], edges),
                distances.cramers_v_null(self.p),
            ]
        )

    def figures(self, counts: NDArray[Any]) -> dict[str, Floats]:
        """Give every distance of counts [features, 18], plain and `_corrected`; 0 for a feature
        without rows.
        """
        p, rows = self.p, counts.sum(axis=1)
        q = counts / np.maximum(rows, 1)[:, None]
        n = rows / self.phi
        values = np.empty((len(FIGURES), len(p)))
        values[0] = distances.psi(p, q)
        values[1] = distances.js(p, q)
        values[2] = distances.ks(p, q, self._ordered)
        values[3] = distances.area(self._inside, distances.inside(q[:, :BINS]), self._steps)
        values[4] = distances.cramers_v(p, q)
        values[5] = distances.above_chance(values[0], self._freedom, n, self.rows)
        values[6:10] = distances.less_chance(values[1:5], self._nulls, n, self.rows)
        values[10] = q[:, MISSING]
        if not rows.all():
            values[:, rows <= 0] = 0.0
        return dict(zip(FIGURES, values, strict=True))

    def gates(self, which: NDArray[np.intp], counts: NDArray[Any]) -> dict[str, Floats]:
        """Give corrected PSI and KS of `counts` [which, 18], those of features `which`."""
        p, q, n = self.p[which], distances.shares(counts), counts.sum(axis=1) / self.phi[which]
        gap = distances.ks(p, q, self._ordered[which])
        return {
            "psi": distances.psi_corrected(p, q, n, self.rows[which]),
            "ks": distances.less_chance(gap, self._ks_null[which], n, self.rows[which]),
        }
