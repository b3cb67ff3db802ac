"""Slices of the stream where the model is worst: one feature's part, or parts of two together.

At most six features are cut into at most six parts each (four of the values, missing, outside), so
there are at most 576 slices; each keeps three sums, halved now and then, so that old rows fade. A
slice is named if its mean loss surely exceeds that of all other rows, by a bound that holds for all
slices at once; one of two features only if it is surely worse than either part alone. That is
search, not a test in time: it stands outside the false-alarm budget and gives no readings.

Source: Chung et al., "Slice Finder" (2019), with Bonferroni over all slices instead of a search.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.explain import shown
from detectors.reference import FeatureProfile
from detectors.rows.binning import BINS, MISSING, OUTSIDE, WIDTH
from detectors.rows.columns import Column
from detectors.rows.places import places

Floats = NDArray[np.float64]

FEATURES_MAX: Final = 6
VALUE_PARTS: Final = 4
PARTS: Final = VALUE_PARTS + 2
ROWS_MIN: Final = 50.0
WINDOW_ROWS: Final = 20_000
LEVEL: Final = 0.05
#: Losses beyond this count as this.
LOSS_MAX: Final = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice: (feature, part) of each condition, its rows, its mean loss, that of all other
    rows, and the least that the difference surely is.
    """

    conditions: tuple[tuple[str, str], ...]
    rows: int
    loss: float
    rest: float
    excess: float


class Slices:
    """Finds slices among labelled rows; `names` are the features to cut, the first six of them.

    Raises ValueError for names that no profile has.

    >>> from detectors import build_reference
    >>> rng = np.random.default_rng(7)
    >>> age = rng.normal(40, 9, 8_000)
    >>> slices = Slices(build_reference({"age": age}).features)
    >>> slices.update({"age": age}, (rng.random(8_000) < np.where(age > 47, 0.4, 0.1)) * 1.0)
    >>> [(found.conditions[0][0], found.loss > 0.3) for found in slices.worst()]
    [('age', True)]
    """

    def __init__(
        self, profiles: Sequence[FeatureProfile], names: Sequence[str] | None = None
    ) -> None:
        known = {profile.name: profile for profile in profiles}
        wanted = list(known) if names is None else list(names)
        if set(wanted) - set(known):
            raise ValueError(f"no features {sorted(set(wanted) - set(known))}")
        self._profiles = [known[name] for name in wanted[:FEATURES_MAX]]
        self._cuts = [_cut(profile) for profile in self._profiles]
        count = len(self._profiles)
        self._pairs = list(combinations(range(count), 2))
        # rows, sum and sum of squares of the loss
        self._singles = np.zeros((count, PARTS, 3))
        self._doubles = np.zeros((len(self._pairs), PARTS, PARTS, 3))
        self._total = np.zeros(3)

    def update(self, columns: Mapping[str, Column], loss: Floats) -> None:
        """Take labelled rows: their columns, and their loss [rows], not finite where unknown.

        Rows of a tick without one of the features are passed by. Raises ValueError if the lengths
        differ.
        """
        present = [columns.get(profile.name) for profile in self._profiles]
        found = [column for column in present if column is not None]
        if any(len(column) != len(loss) for column in found):
            raise ValueError(f"columns of other lengths than {len(loss)} losses")
        if len(found) < len(present) or not len(loss):
            return
        usable = np.isfinite(loss)
        losses = np.clip(np.asarray(loss, dtype=np.float64)[usable], -LOSS_MAX, LOSS_MAX)
        parts = [
            cut[places(column, profile.bins)][usable]
            for column, profile, cut in zip(found, self._profiles, self._cuts, strict=True)
        ]
        for power in range(3):
            weights = losses**power
            self._total[power] += weights.sum()
            for j, part in enumerate(parts):
                self._singles[j, :, power] += np.bincount(part, weights, PARTS)
            for k, (i, j) in enumerate(self._pairs):
                cells = np.bincount(parts[i] * PARTS + parts[j], weights, PARTS * PARTS)
                self._doubles[k, :, :, power] += cells.reshape(PARTS, PARTS)
        if self._total[0] > 2 * WINDOW_ROWS:
            for sums in (self._singles, self._doubles, self._total):
                sums /= 2

    def worst(self, most: int = 10) -> list[Slice]:
        """Give the slices that are surely worse than the rest, the worst first."""
        tested = self._singles.size // 3 + self._doubles.size // 3
        z = NormalDist().inv_cdf(1 - LEVEL / max(tested, 1))
        result = []
        for j, part in np.argwhere(self._singles[:, :, 0] >= ROWS_MIN).tolist():
            found = self._slice(self._singles[j, part], ((j, part),), z)
            result += [found] if found is not None else []
        for k, a, b in np.argwhere(self._doubles[..., 0] >= ROWS_MIN).tolist():
            i, j = self._pairs[k]
            sums = self._doubles[k, a, b]
            parents = (self._singles[i, a], self._singles[j, b])
            if all(_excess(sums, parent - sums, z) > 0 for parent in parents):
                found = self._slice(sums, ((i, a), (j, b)), z)
                result += [found] if found is not None else []
        return sorted(result, key=lambda found: -found.excess)[: max(most, 0)]

    def _slice(self, sums: Floats, where: Sequence[tuple[int, int]], z: float) -> Slice | None:
        rest = self._total - sums
        excess = _excess(sums, rest, z)
        if not excess > 0:
            return None
        conditions = tuple(
            (shown(self._profiles[j].name), _label(self._profiles[j], self._cuts[j], part))
            for j, part in where
        )
        return Slice(
            conditions=conditions,
            rows=int(sums[0]),
            loss=float(sums[1] / sums[0]),
            rest=float(rest[1] / rest[0]),
            excess=excess,
        )

    def reset(self) -> None:
        """Forget all rows."""
        self._singles[:], self._doubles[:], self._total[:] = 0, 0, 0

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep."""
        return {
            "singles": self._singles.copy(),
            "doubles": self._doubles.copy(),
            "total": self._total.copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit."""
        singles, doubles, total = (
            np.array(state[name], dtype=np.float64) for name in ("singles", "doubles", "total")
        )
        shapes = (self._singles.shape, self._doubles.shape, self._total.shape)
        if (singles.shape, doubles.shape, total.shape) != shapes:
            raise ValueError(f"slices of {len(singles)} features, expected {len(self._singles)}")
        if not all(np.isfinite(sums).all() for sums in (singles, doubles, total)):
            raise ValueError("sums that are not finite")
        self._singles, self._doubles, self._total = singles, doubles, total


def _cut(profile: FeatureProfile) -> NDArray[np.int64]:
    """Give the part of each of the 18 bins, [18]: ordered bins in four about equal runs; of a
    category the three most frequent by themselves and all others together.
    """
    p = profile.probabilities()[:BINS]
    cut = np.full(WIDTH, VALUE_PARTS - 1, dtype=np.int64)
    if profile.ordered:
        middles = (np.cumsum(p) - p / 2) / max(float(p.sum()), 1e-300)
        cut[:BINS] = np.minimum((middles * VALUE_PARTS).astype(np.int64), VALUE_PARTS - 1)
    else:
        cut[: VALUE_PARTS - 1] = np.arange(VALUE_PARTS - 1)
    cut[MISSING], cut[OUTSIDE] = VALUE_PARTS, VALUE_PARTS + 1
    return cut


def _label(profile: FeatureProfile, cut: NDArray[np.int64], part: int) -> str:
    """Name a part as people would: a range, a category, missing, outside or unseen."""
    labels = profile.labels()
    bins = [b for b in np.flatnonzero(cut == part).tolist() if b >= BINS or labels[b]]
    if not profile.ordered and len(bins) > 1:
        return "other"
    if len(bins) > 1:
        return f"{labels[bins[0]].split('..')[0]}..{labels[bins[-1]].split('..')[-1]}"
    return labels[bins[0]] if bins else ""


def _excess(sums: Floats, rest: Floats, z: float) -> float:
    """Give the least that the mean of `sums` surely exceeds that of `rest`; -inf if unknown.

    Variances are raised by mean^2 / rows, so that a slice whose losses are all equal is not sure.
    """
    if sums[0] < 2 or rest[0] < 2:
        return -math.inf
    means = sums[1] / sums[0], rest[1] / rest[0]
    squares = 0.0
    for part, mean in zip((sums, rest), means, strict=True):
        variance = max(float(part[2] / part[0] - mean**2), 0.0)
        squares += (variance + max(mean**2, 1e-12) / part[0]) / part[0]
    return float(means[0] - means[1] - z * math.sqrt(squares))
