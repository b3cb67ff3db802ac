"""How big a change is: every distance between counts and the reference, of all features at once.

What chance gives is a figure of the reference, worked out once. Rows that resemble their neighbours
count as fewer (`phi`), or calm features would seem to have moved.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift import distances
from detectors.drift.evidence import effective_rows
from detectors.drift.export import limits
from detectors.references.feature_profile import FeatureProfile
from detectors.rows.bins import BINS, MISSING

Floats = NDArray[np.float64]

#: What makes evidence a drift, unless somebody says otherwise.
EFFECT_DEFAULT: Final[Mapping[str, float]] = {"psi": 0.1, "ks": 0.1}


class Effects:
    """Distances of counts from the profiles of one reference."""

    def __init__(self, profiles: Sequence[FeatureProfile]) -> None:
        self.p = np.array([profile.probabilities() for profile in profiles])
        self.rows = np.array([effective_rows(profile) for profile in profiles])
        self.phi = np.array([profile.phi for profile in profiles])
        self._ordered = np.array([profile.ordered for profile in profiles])
        self._edges = limits(profiles)[:, : BINS + 1]
        self._null = {
            "js": distances.js_null(self.p),
            "ks": distances.ks_null(self.p, self._ordered),
            "cramers_v": distances.cramers_v_null(self.p),
            "wasserstein": distances.wasserstein_null(self.p[:, :BINS], self._edges),
        }

    def figures(self, counts: NDArray[Any]) -> dict[str, Floats]:
        """Give every distance of counts [features, 18], plain and `_corrected`; 0 for a feature
        without rows.
        """
        p, q, rows = self.p, distances.shares(counts), counts.sum(axis=1)
        n = rows / self.phi
        plain = {
            "js": distances.js(p, q),
            "ks": distances.ks(p, q, self._ordered),
            "wasserstein": distances.wasserstein(p[:, :BINS], q[:, :BINS], self._edges),
            "cramers_v": distances.cramers_v(p, q),
        }
        values = {"psi": distances.psi(p, q)} | plain
        values["psi_corrected"] = distances.psi_corrected(p, q, n, self.rows)
        for name, distance in plain.items():
            values[f"{name}_corrected"] = distances.less_chance(
                distance, self._null[name], n, self.rows
            )
        values["missing_ratio"] = q[:, MISSING]
        return {name: np.where(rows > 0, value, 0.0) for name, value in values.items()}

    def gates(self, which: NDArray[np.intp], counts: NDArray[Any]) -> dict[str, Floats]:
        """Give corrected PSI and KS of `counts` [which, 18], those of features `which`."""
        p, q, n = self.p[which], distances.shares(counts), counts.sum(axis=1) / self.phi[which]
        gap = distances.ks(p, q, self._ordered[which])
        return {
            "psi": distances.psi_corrected(p, q, n, self.rows[which]),
            "ks": distances.less_chance(gap, self._null["ks"][which], n, self.rows[which]),
        }
