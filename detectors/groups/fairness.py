"""Do groups of people fare differently? Gaps between the groups of one attribute, with intervals.

Four figures over the most recent rows: demographic parity (largest gap between selection rates),
disparate impact (smallest ratio of selection rates), equal opportunity (largest gap between true
positive rates) and equalised odds (the larger of that and the gap between false positive rates).
Parity and impact need no labels; the others use the labelled rows alone.

Groups, pairs of groups and blocks of rows have limits, so memory is constant. Every interval holds
for all pairs of groups at once, but for one look, not for a stream of looks: changes of state stand
outside the false-alarm budget, and say so.

Sources: Feldman et al. (2015) for disparate impact; Hardt, Price, Srebro (2016) for opportunity and
odds; Newcombe (1998) for the interval of a difference, Katz et al. (1978) for that of a ratio;
Bonferroni over pairs.
"""

import math
from collections import deque
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.explain import shown
from detectors.performance.intervals import Estimate
from detectors.reading import Change, Kind, Scope, State
from detectors.rows.columns import Column, category_keys, key_of

Floats = NDArray[np.float64]

GROUPS_MAX: Final = 20
OTHER: Final = "(other)"
#: A group of fewer (effective) rows is not compared: its rates say nothing.
GROUP_ROWS_MIN: Final = 30.0
BLOCKS: Final = 20
#: A violation is taken back when the figure was within its bound for so many rows.
CALM_ROWS: Final = 3_000
METRICS: Final = ("demographic_parity", "disparate_impact", "equal_opportunity", "equalised_odds")
OUTSIDE_BUDGET: Final = "outside the false-alarm budget"

# Per group: rows selected and not, by label (no, yes, none): weights, then squared weights.
_NEGATIVE, _POSITIVE, _UNLABELLED = 0, 1, 2
_SHAPE: Final = (GROUPS_MAX + 1, 3, 2, 2)  # group, label, selected, weight or its square


class Fairness:
    """Fairness of one attribute over about the last `window_rows` rows.

    `positive` is the prediction (and label) that a person wishes for, by its text key; `bounds`
    says what is still accepted: for gaps the largest, for `disparate_impact` the smallest. Groups
    beyond the first 20 count as one other group, which is compared with nobody. Raises ValueError
    for unknown bounds or a senseless window.

    >>> fairness = Fairness("sex", positive=1, bounds={"disparate_impact": 0.8})
    >>> group = np.array(["f", "m"] * 500, dtype=object)
    >>> [change] = fairness.update(group, predicted=np.array([0, 1, 1, 1] * 250))
    >>> change.explain[:65]
    'disparate impact between groups of sex is 0.50 (at least 0.46 and'
    """

    def __init__(
        self,
        attribute: str,
        *,
        positive: Any = 1,
        bounds: Mapping[str, float] | None = None,
        window_rows: int = 10_000,
    ) -> None:
        if set(bounds or {}) - set(METRICS):
            raise ValueError(f"bounds: of {METRICS}, not {sorted(bounds or {})}")
        if window_rows < BLOCKS:
            raise ValueError(f"window_rows must be at least {BLOCKS}, not {window_rows}")
        self.attribute, self.positive = attribute, key_of(positive)
        self.bounds = dict(bounds or {})
        self._block_rows = window_rows // BLOCKS
        self._groups: dict[str, int] = {}
        self._blocks: deque[tuple[int, Floats]] = deque([(0, np.zeros(_SHAPE))])
        self._violated: dict[str, int] = {}  # metric -> rows in a row within its bound
        self.rows = 0
        self.unknown_total = 0  # rows without a group, a prediction or a usable weight

    def update(
        self,
        group: Column,
        predicted: Column,
        truth: Column | None = None,
        weight: Floats | None = None,
    ) -> list[Change]:
        """Take rows, [rows] each, and give changes of state.

        `truth` is None, or None or NaN where a row has no label; `weight` undoes the sampling. Rows
        without a group, a prediction or a finite weight above 0 are counted and passed by. Raises
        ValueError if the lengths differ.
        """
        for array in (predicted, truth, weight):
            if array is not None and len(array) != len(group):
                raise ValueError(f"{len(array)} entries for {len(group)} rows")
        if not len(group):
            return []
        said, known = category_keys(predicted), category_keys(group)
        weights = np.ones(len(group)) if weight is None else np.asarray(weight, dtype=np.float64)
        usable = np.isfinite(weights) & (weights > 0)
        usable &= np.array(
            [a is not None and b is not None for a, b in zip(said, known, strict=True)]
        )
        self.unknown_total += len(group) - int(usable.sum())
        label = np.full(len(group), _UNLABELLED)
        if truth is not None:
            labels = category_keys(truth)
            has = np.array([key is not None for key in labels.tolist()])
            label[has] = (labels[has] == self.positive).astype(np.int64)
        places = np.array([self._place(key) for key in known[usable].tolist()], dtype=np.int64)
        selected = (said[usable] == self.positive).astype(np.int64)
        flat = np.ravel_multi_index((places, label[usable], selected), _SHAPE[:3])
        self._add(flat, np.clip(weights[usable], 1e-6, 1e6))
        return self._judge(len(flat)) if len(flat) else []

    def _place(self, key: str) -> int:
        place = self._groups.get(key)
        if place is None:
            if len(self._groups) >= GROUPS_MAX:
                return GROUPS_MAX
            place = self._groups[key] = len(self._groups)
        return place

    def _add(self, flat: NDArray[np.int64], weights: Floats) -> None:
        start = 0
        cells = int(np.prod(_SHAPE[:3]))
        self.rows += len(flat)
        while start < len(flat):
            rows, table = self._blocks[-1]
            if rows >= self._block_rows:
                if len(self._blocks) > BLOCKS:
                    self._blocks.popleft()
                rows, table = 0, np.zeros(_SHAPE)
                self._blocks.append((rows, table))
            stop = min(start + self._block_rows - rows, len(flat))
            for power in (0, 1):
                part = np.bincount(flat[start:stop], weights[start:stop] ** (power + 1), cells)
                table[..., power] += part.reshape(_SHAPE[:3])
            self._blocks[-1] = (rows + stop - start, table)
            start = stop

    def metrics(self) -> dict[str, Estimate]:
        """Give the figures that can be given, each with its interval at 95 % over all pairs.

        A figure needs two groups of 30 effective rows. `rows` are those of the groups compared.
        """
        table = self._table()
        result = {}
        selection = _rates(table.sum(axis=1))
        if (gap := _gap(selection)) is not None:
            result["demographic_parity"] = gap
        if (ratio := _ratio(selection)) is not None:
            result["disparate_impact"] = ratio
        found = _gap(_rates(table[:, _POSITIVE]))
        if found is not None:
            result["equal_opportunity"] = found
            false = _gap(_rates(table[:, _NEGATIVE]))
            if false is not None:
                result["equalised_odds"] = _larger(found, false)
        return result

    def rates(self) -> dict[str, dict[str, float]]:
        """Give each group's rates, for a page: `selection`, `true_positive`, `false_positive`, and
        `rows` (effective). A group is named after 20 rows.
        """
        table = self._table()
        parts = {
            "selection": _rates(table.sum(axis=1)),
            "true_positive": _rates(table[:, _POSITIVE]),
            "false_positive": _rates(table[:, _NEGATIVE]),
        }
        names = {**self._groups, OTHER: GROUPS_MAX}
        result = {}
        for name, g in names.items():
            rows = float(parts["selection"][1][g])
            if rows >= 20:
                figures = {part: float(rates[g]) for part, (rates, n) in parts.items() if n[g] > 0}
                result[shown(name)] = {**figures, "rows": rows}
        return result

    def standing(self) -> list[str]:
        """Give the figures that are said to be beyond their bound now."""
        return list(self._violated)

    def _table(self) -> Floats:
        total = np.zeros(_SHAPE)
        for _, table in self._blocks:
            total += table
        return total

    def _judge(self, rows: int) -> list[Change]:
        if not self.bounds:
            return []
        changes = []
        for name, estimate in self.metrics().items():
            if name not in self.bounds:
                continue
            bound = self.bounds[name]
            low = name == "disparate_impact"
            beyond = estimate.upper < bound if low else estimate.lower > bound
            within = estimate.value >= bound if low else estimate.value <= bound
            if name not in self._violated:
                if beyond:
                    self._violated[name] = 0
                    changes.append(self._change(name, State.WARNING, estimate))
                continue
            self._violated[name] = self._violated[name] + rows if within else 0
            if self._violated[name] >= CALM_ROWS:
                del self._violated[name]
                changes.append(self._change(name, State.OK, estimate))
        return changes

    def _change(self, name: str, state: State, estimate: Estimate) -> Change:
        bound = self.bounds[name]
        least = name == "disparate_impact"
        limit = f"{'at least' if least else 'at most'} {bound:.2f} is accepted"
        span = f"at least {estimate.lower:.2f} and at most {estimate.upper:.2f}"
        verb = "is" if state is State.WARNING else "is back at"
        explain = (
            f"{name.replace('_', ' ')} between groups of {shown(self.attribute)} {verb} "
            f"{estimate.value:.2f} ({span}) over {estimate.rows:,} rows; {limit} "
            f"({OUTSIDE_BUDGET})"
        )
        return Change(
            kind=Kind.QUALITY,
            scope=Scope.MODEL,
            subject=f"{shown(self.attribute)}:{name}",
            detector="fairness",
            state=state,
            statistic=estimate.value,
            threshold=bound,
            rows=estimate.rows,
            explain=explain,
        )

    def reset(self) -> None:
        """Forget what was said; the rows stay."""
        self._violated.clear()

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep."""
        return {
            "attribute": self.attribute,
            "groups": dict(self._groups),
            "block_rows": [rows for rows, _ in self._blocks],
            "blocks": np.array([table for _, table in self._blocks]),
            "violated": dict(self._violated),
            "rows": self.rows,
            "unknown_total": self.unknown_total,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError if it does not fit."""
        blocks = np.array(state["blocks"], dtype=np.float64)
        rows = [int(n) for n in state["block_rows"]]
        groups = {str(k): int(v) for k, v in state["groups"].items()}
        if state["attribute"] != self.attribute:
            raise ValueError(f"fairness of {state['attribute']!r}, expected {self.attribute!r}")
        if blocks.shape[1:] != _SHAPE or not 1 <= len(rows) == len(blocks) <= BLOCKS + 1:
            raise ValueError(f"blocks of shape {blocks.shape[1:]}, expected {_SHAPE}")
        if sorted(groups.values()) != list(range(len(groups))) or len(groups) > GROUPS_MAX:
            raise ValueError("groups that are not numbered in order")
        if not np.isfinite(blocks).all() or (blocks < 0).any():
            raise ValueError("weights that cannot be")
        self._groups = groups
        self._blocks = deque((n, table) for n, table in zip(rows, blocks, strict=True))
        self._violated = {str(k): int(v) for k, v in state["violated"].items() if k in self.bounds}
        self.rows, self.unknown_total = int(state["rows"]), int(state["unknown_total"])


def _rates(cells: Floats) -> tuple[Floats, Floats]:
    """Give the share selected and the effective rows of each group, from [groups, 2, 2]."""
    weight, squares = cells[:, :, 0].sum(axis=1), cells[:, :, 1].sum(axis=1)
    rates: Floats = cells[:, 1, 0] / np.maximum(weight, 1e-300)
    effective: Floats = weight**2 / np.maximum(squares, 1e-300)
    return rates, effective


def _pairs(rows: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], float]:
    """Give the ordered pairs of groups large enough, without (other), and the normal quantile."""
    groups = np.flatnonzero(rows[:GROUPS_MAX] >= GROUP_ROWS_MIN)
    first, second = (axis.ravel() for axis in np.meshgrid(groups, groups, indexing="ij"))
    apart = first != second
    pairs = max(int(apart.sum()) // 2, 1)
    return first[apart], second[apart], NormalDist().inv_cdf(1 - 0.025 / pairs)


def _gap(groups: tuple[Floats, Floats]) -> Estimate | None:
    """Give the largest difference of rates; Newcombe's interval over Wilson's limits."""
    rates, rows = groups
    first, second, z = _pairs(rows)
    if not len(first):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = z * z / rows
        centre = (rates + spread / 2) / (1 + spread)
        half = z / (1 + spread) * np.sqrt(rates * (1 - rates) / rows + spread / 4 / rows)
    lower, upper = np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
    difference = rates[first] - rates[second]
    below = np.hypot(rates[first] - lower[first], upper[second] - rates[second])
    above = np.hypot(upper[first] - rates[first], rates[second] - lower[second])
    return Estimate(
        value=float(difference.max()),
        lower=max(0.0, float((difference - below).max())),
        upper=min(1.0, float((difference + above).max())),
        rows=int(rows[np.unique(first)].sum()),
    )


def _ratio(groups: tuple[Floats, Floats]) -> Estimate | None:
    """Give the smallest ratio of rates; the delta method on its logarithm, half a row added.

    The interval is that of the ratios with half a row added to every cell, which stay finite.
    """
    rates, rows = groups
    first, second, z = _pairs(rows)
    if not len(first):
        return None
    smooth = (rates * rows + 0.5) / (rows + 1)
    variance = (1 - smooth) / (smooth * (rows + 1))
    log = np.log(smooth[first] / smooth[second])
    half = z * np.sqrt(variance[first] + variance[second])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = rates[first] / rates[second]
    ratios = ratios[np.isfinite(ratios)]
    value = min(float(ratios.min()), 1.0) if len(ratios) else 1.0
    return Estimate(
        value=value,
        lower=min(value, math.exp(float((log - half).min()))),
        upper=max(value, math.exp(min(float((log + half).min()), 0.0))),
        rows=int(rows[np.unique(first)].sum()),
    )


def _larger(one: Estimate, other: Estimate) -> Estimate:
    """Give the larger of two gaps, whichever that is."""
    return Estimate(
        value=max(one.value, other.value),
        lower=max(one.lower, other.lower),
        upper=max(one.upper, other.upper),
        rows=max(one.rows, other.rows),
    )
