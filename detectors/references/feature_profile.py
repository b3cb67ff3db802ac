"""One feature of a reference: its bins, its counts in them, and how far it wanders by itself.

A profile never changes: evidence and counts mean something only under the profile they were made
with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from detectors.rows.bins import BINS, MISSING, OUTSIDE, WIDTH, Bins, NumericBins
from detectors.rows.sketch import Points

NAME_CHARACTERS_MAX: Final = 64
NAMED_ROWS_MIN: Final = 20

FeatureKind = Literal["numeric", "categorical", "boolean"]
ValueType = Literal["integer", "number", "boolean", "text", "timestamp"]


class ProfileError(ValueError):
    """A reference profile that cannot be read, merged or used; the message names what is wrong with
    it.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Counts of category keys by hash, with the names of those seen often enough to be shown."""

    counts: Mapping[str, int]
    names: Mapping[str, str]
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureProfile:
    """One feature of the reference.

    `counts` are the reference rows in each of the 18 bins (see `binning`); the count of unseen
    categories is the Good-Turing estimate, the number of categories seen once. `phi` is the design
    effect of autocorrelation (rows per independent row), `tolerance` the wander declared
    irrelevant, in units of a standardised score. `counts_exact` is false where counts come from a
    merged sketch. `minimum`, `maximum`, `median` are NaN for a feature without numbers. `type` is
    what the values were where they were read: of a categorical feature, integer or text.
    """

    name: str
    kind: FeatureKind
    bins: Bins
    counts: tuple[float, ...]
    counts_exact: bool
    minimum: float
    maximum: float
    median: float
    phi: float
    tolerance: float
    points: Points | None
    keys: Keys | None
    sensitive: bool = False
    type: ValueType = "number"

    @property
    def phases(self) -> tuple[NumericBins, ...]:
        """Bins of each part of a day (24 or 96) or week (168 or 672); empty without seasons."""
        return self.bins.phases if isinstance(self.bins, NumericBins) else ()

    @property
    def rows(self) -> float:
        """Rows the counts stand for, missing ones included."""
        return math.fsum(self.counts)

    @property
    def ordered(self) -> bool:
        """Whether the value bins have an order."""
        return self.kind != "categorical"

    def live(self) -> NDArray[np.bool_]:
        """Say which of the 18 bins a row can fall into."""
        mask = np.zeros(WIDTH, dtype=bool)
        mask[[MISSING, OUTSIDE]] = True
        if isinstance(self.bins, NumericBins):
            mask[: len(self.bins.edges) + 1] = True
        else:
            mask[: len(self.bins.top)] = True
            mask[BINS - 1] = self.bins.open or bool(self.bins.others)
            mask[OUTSIDE] = not self.bins.open
        return mask

    def probabilities(self) -> NDArray[np.float64]:
        """Give (count + .5) / (rows + .5 bins) for each live bin, 0 for the others; the 18 values
        sum to one.
        """
        live = self.live()
        weights: NDArray[np.float64] = np.where(live, np.array(self.counts) + 0.5, 0.0)
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares

    def limits(self) -> tuple[float, ...]:
        """Give the outer limits and edges of the ordered bins: minimum, edges, maximum (empty
        without an order).
        """
        if not isinstance(self.bins, NumericBins) or not math.isfinite(self.minimum):
            return ()
        return (self.minimum, *self.bins.edges, max(self.maximum, *self.bins.edges, self.minimum))

    def labels(self) -> tuple[str, ...]:
        """Name the 18 bins for people. Rare categories and those of sensitive features are
        numbered, not named.
        """
        names = [""] * BINS + ["missing", "outside"]
        if isinstance(self.bins, NumericBins):
            limits = self.limits()
            for b in range(len(limits) - 1):
                names[b] = f"{limits[b]:.6g}..{limits[b + 1]:.6g}"
            if self.bins.phases:  # the limits of a bin differ from part to part
                used = len(self.bins.edges) + 1
                names[:used] = [f"{b + 1}/{used} of its time" for b in range(used)]
            if self.kind == "boolean" and len(self.bins.edges) == 1:
                names[:2] = ["false", "true"]
        else:
            shown = self.keys.names if self.keys is not None and not self.sensitive else {}
            for b, digest in enumerate(self.bins.top):
                names[b] = shown.get(digest, f"category {b + 1}")
            names[BINS - 1], names[OUTSIDE] = "other", "unseen"
        return tuple(names)
