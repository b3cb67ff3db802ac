"""What a reading says in words: one plain sentence for an engineer who is no statistician."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.drift.distances import psi_terms, shares
from detectors.reading import Effect, Kind, Moment, Reading, Scope, State, Window
from detectors.reference import NAME_CHARACTERS_MAX, FeatureProfile
from detectors.rows.binning import BINS, MISSING, OUTSIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrator:
    """Puts readings together; knows what is the same in all readings of one monitor."""

    kind: Kind
    scope: Scope
    reference: str
    version: str

    def drift(
        self,
        profile: FeatureProfile,
        state: State,
        moment: Moment,
        *,
        detector: str,
        counts: NDArray[np.int64],
        start: int,
        level: Sequence[float],
        evidence: float,
        effect: Effect,
    ) -> Reading:
        """Say that a feature moved; `level` is what `detector` found and what that had to cross."""
        size = f"{effect.name.upper()} {effect.value:.2f} over {int(counts.sum()):,} rows"
        return Reading(
            at=moment.at,
            row=moment.row,
            kind=self.kind,
            scope=self.scope,
            subject=profile.name,
            detector=detector,
            state=state,
            statistic=level[0],
            threshold=level[1],
            evidence=evidence,
            effect=effect,
            window=Window(rows=int(counts.sum()), start=start, end=moment.row),
            reference=self.reference,
            version=self.version,
            explain=f"{what_moved(profile, counts)}; {size} since row {start:,}",
        )

    def recovery(
        self,
        profile: FeatureProfile,
        moment: Moment,
        *,
        detector: str,
        rows: int,
        psi: float,
        psi_max: float,
        evidence: float,
    ) -> Reading:
        """Say that a feature is back: corrected PSI of the last `rows` rows is below its bound."""
        return Reading(
            at=moment.at,
            row=moment.row,
            kind=self.kind,
            scope=self.scope,
            subject=profile.name,
            detector=detector,
            state=State.OK,
            statistic=psi,
            threshold=psi_max,
            evidence=evidence,
            effect=Effect(name="psi", value=psi),
            window=Window(rows=rows, start=max(moment.row - rows, 0), end=moment.row),
            reference=self.reference,
            version=self.version,
            explain=f"{shown(profile.name)} is back at its reference; "
            f"PSI {psi:.2f} over the last {rows:,} rows",
        )


def what_moved(profile: FeatureProfile, counts: NDArray[np.int64]) -> str:
    """Say what is different in `counts` [18] from the profile: `income rose: median bin moved ...`.

    The bin that adds most to PSI decides whether missing values, values outside the reference, or
    the distribution itself is spoken of.
    """
    name = shown(profile.name)
    p, q = profile.probabilities(), shares(counts[None, :])[0]
    leading = int(psi_terms(p[None, :], q[None, :])[0].argmax())
    labels = profile.labels()
    if leading == MISSING:
        return f"{name}: missing values went from {p[MISSING]:.1%} to {q[MISSING]:.1%}"
    if leading == OUTSIDE:
        what = "values outside the reference range" if profile.ordered else "unseen categories"
        return f"{name}: {what} went from {p[OUTSIDE]:.1%} to {q[OUTSIDE]:.1%}"
    if profile.ordered:
        before, now = _median_bin(p), _median_bin(q)
        if before != now:
            verb = "rose" if now > before else "fell"
            return f"{name} {verb}: median bin moved from {labels[before]} to {labels[now]}"
    return f"{name}: share of {labels[leading]} went from {p[leading]:.1%} to {q[leading]:.1%}"


def shown(name: str) -> str:
    """Cut a name from the outside to what may be shown."""
    return name if len(name) <= NAME_CHARACTERS_MAX else name[: NAME_CHARACTERS_MAX - 1] + "…"


def _median_bin(p: NDArray[np.float64]) -> int:
    cumulative = np.cumsum(p[:BINS])
    return int(np.searchsorted(cumulative, cumulative[-1] / 2))
