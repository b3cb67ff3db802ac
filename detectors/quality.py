"""Realised quality of a model over its most recent labelled rows, with intervals.

Counts and sums live in a ring of blocks: an old block leaves as a whole, so memory is constant
and what the numbers cover is always known. Rows kept by other rules than the uniform sampling
come with a weight (1 / their probability of having been kept) and enter by it.

Sources: Wilson (1927) for shares; the delta method for F1 and RMSE. Intervals are for one look,
not for a stream of looks: policies therefore ask for a minimum of rows and a limit that clears.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from detectors.intervals import Z95, Estimate, around, share_of, smooth_variance

__all__ = ["Class", "Estimate", "Quality", "Task", "class_name"]

Task = Literal["classification", "regression"]
Class = str | int | float | bool

# More classes than this share one "other" class: a confusion table is never unbounded.
CLASSES_MAX = 100
OTHER = "(other)"
MAPE_TRUTH_MIN = 1e-9
WEIGHT_MIN = 1e-9  # below it a sum of weights is what rounding left of nothing


@dataclass(slots=True)
class _Block:
    rows: int = 0
    weight: float = 0.0
    weight_squared: float = 0.0
    confusion: dict[tuple[str, str], float] = field(default_factory=dict)  # (truth, predicted)
    # weighted sums over regression rows: |e|, e^2, e^4, |e|/|y|, and rows with y near zero left out
    absolute: float = 0.0
    squared: float = 0.0
    fourth: float = 0.0
    relative: float = 0.0
    relative_weight: float = 0.0
    keys: set[int] = field(default_factory=set)  # of its rows, where they have one

    def add(self, other: "_Block") -> None:
        for name in ("rows", "weight", "weight_squared", "absolute", "squared", "fourth"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.relative += other.relative
        self.relative_weight += other.relative_weight
        for pair, weight in other.confusion.items():
            self.count(pair, weight)

    def count(self, pair: tuple[str, str], weight: float) -> None:
        left = self.confusion.get(pair, 0.0) + weight
        if abs(left) < WEIGHT_MIN:
            self.confusion.pop(pair, None)  # a pair of which no row is left names no class
        else:
            self.confusion[pair] = left


class Quality:
    """Realised metrics over the last `window_rows` labelled rows of one model version.

    Classification gives accuracy, precision, recall and f1 (of the class that sorts last when
    there are two, the unweighted mean over classes when there are more); regression gives rmse,
    mae and mape.

    >>> quality = Quality(task="classification")
    >>> quality.update([("yes", "yes"), ("no", "yes"), ("no", "no"), ("yes", "yes")])
    >>> quality.metrics()["accuracy"].value
    0.75
    """

    def __init__(self, *, task: Task, window_rows: int = 5_000, blocks: int = 25) -> None:
        self.task: Task = task
        self._block_rows = max(1, window_rows // blocks)
        self._blocks_max = blocks + 1
        self._blocks: deque[_Block] = deque([_Block()])
        self._where: dict[int, _Block] = {}  # key of a row in the window -> its block
        self._classes: set[str] = set()
        self.rows_total = 0

    def update(
        self,
        pairs: Sequence[tuple[Class | None, Class | None]],
        *,
        weight: float = 1.0,
        keys: Iterable[int] | None = None,
    ) -> None:
        """Take (predicted, truth) pairs. Pairs with a missing or not finite side are passed by.

        `keys` (64-bit, one for each pair) let corrections find their rows again.
        """
        named: Iterable[int | None] = [None] * len(pairs) if keys is None else keys
        for (predicted, truth), key in zip(pairs, named, strict=True):
            block = self._blocks[-1]
            if not self._take(block, predicted, truth, weight):
                continue
            block.rows += 1
            self.rows_total += 1
            if key is not None:
                block.keys.add(key)
                self._where[key] = block
            if block.rows >= self._block_rows:
                self._begin_block()

    def correct(
        self,
        predicted: Class,
        old_truth: Class,
        new_truth: Class,
        *,
        weight: float = 1.0,
        key: int | None = None,
    ) -> bool:
        """A label was wrong: take its row out again and put it in with the new truth.

        False when the row of that key is not in the window, and nothing is changed. Without a key
        the row is taken to be one of the newest.
        """
        block = self._blocks[-1] if key is None else self._where.get(key)
        if block is None or not self._take(block, predicted, old_truth, -weight):
            return False
        if not self._take(block, predicted, new_truth, weight):
            block.rows -= 1
        return True

    def _begin_block(self) -> None:
        if len(self._blocks) == self._blocks_max:
            gone = self._blocks.popleft()
            for key in gone.keys:
                if self._where[key] is gone:
                    del self._where[key]
        self._blocks.append(_Block())

    def _take(
        self, block: _Block, predicted: Class | None, truth: Class | None, weight: float
    ) -> bool:
        """Count one row, or take it out again; False when it is none that counts."""
        if self.task == "classification":
            if predicted is None or truth is None or predicted != predicted or truth != truth:
                return False
            block.count((self._name(truth), self._name(predicted)), weight)
        elif not self._take_number(block, predicted, truth, weight):
            return False
        block.weight += weight
        block.weight_squared += weight * abs(weight)
        return True

    def _take_number(
        self, block: _Block, predicted: Class | None, truth: Class | None, weight: float
    ) -> bool:
        try:
            said, true = float(predicted), float(truth)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            return False
        error = said - true
        if not math.isfinite(error) or abs(error) > 1e70:
            return False
        block.absolute += weight * abs(error)
        block.squared += weight * error**2
        block.fourth += weight * error**4
        if abs(true) > MAPE_TRUTH_MIN:
            block.relative += weight * abs(error / true)
            block.relative_weight += weight
        return True

    def _name(self, value: Class) -> str:
        name = class_name(value)
        if name in self._classes:
            return name
        if len(self._classes) >= CLASSES_MAX:
            return OTHER
        self._classes.add(name)
        return name

    @property
    def rows(self) -> int:
        """Labelled rows in the window."""
        return sum(block.rows for block in self._blocks)

    def metrics(self) -> dict[str, Estimate]:
        """Metric name to estimate; empty while there is no labelled row."""
        total = _Block()
        for block in self._blocks:
            total.add(block)
        if total.rows <= 0 or total.weight <= 0.0:
            return {}
        if self.task == "classification":
            return _classification(total)
        return _regression(total)

    def state(self) -> dict[str, Any]:
        """Everything that matters, as JSON-able values."""
        return {
            "task": self.task,
            "classes": sorted(self._classes),
            "rows_total": self.rows_total,
            "blocks": [
                {
                    "rows": block.rows,
                    "weight": block.weight,
                    "weight_squared": block.weight_squared,
                    "confusion": [[*pair, weight] for pair, weight in block.confusion.items()],
                    "absolute": block.absolute,
                    "squared": block.squared,
                    "fourth": block.fourth,
                    "relative": block.relative,
                    "relative_weight": block.relative_weight,
                    "keys": sorted(block.keys),
                }
                for block in self._blocks
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off."""
        self.task = state["task"]
        self._classes = set(state["classes"])
        self.rows_total = int(state["rows_total"])
        self._blocks.clear()
        self._where.clear()
        for saved in state["blocks"]:
            confusion = {(truth, said): weight for truth, said, weight in saved["confusion"]}
            keys = {int(key) for key in saved["keys"]}
            block = _Block(**{**saved, "confusion": confusion, "keys": keys})
            self._blocks.append(block)
            self._where |= dict.fromkeys(keys, block)


_TRUTH = {"true": "1", "false": "0"}


def class_name(value: Class) -> str:
    """One spelling for a class: JSON, CSV and clients each have their own for the same.

    >>> {class_name(value) for value in (1, 1.0, True, "1", "1.0", "true", "True")}
    {'1'}
    >>> class_name("1.5"), class_name("yes")
    ('1.5', 'yes')
    """
    if isinstance(value, str):
        whole, point, rest = value.partition(".")
        if point and rest and not rest.strip("0") and whole.removeprefix("-").isdigit():
            return whole
        return _TRUTH.get(value.lower(), value)
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _classification(total: _Block) -> dict[str, Estimate]:
    effective = _effective_rows(total)
    right = sum(weight for (truth, said), weight in total.confusion.items() if truth == said)
    metrics = {"accuracy": share_of(right, total.weight, effective, total.rows)}
    classes = sorted({name for pair in total.confusion for name in pair})
    if len(classes) == 2:
        return metrics | _of_class(total, classes[-1])
    if len(classes) > 2:
        return metrics | _over_classes(total, classes)
    return metrics


@dataclass(frozen=True, slots=True)
class _Tally:
    """Of one class: rows found, rows said to be it, rows that are it, in rows they are worth."""

    hit: float
    said: float
    true: float

    @classmethod
    def of(cls, cells: Mapping[tuple[str, str], float], name: str) -> "_Tally":
        return cls(
            hit=cells.get((name, name), 0.0),
            said=sum(rows for (_, said), rows in cells.items() if said == name),
            true=sum(rows for (truth, _), rows in cells.items() if truth == name),
        )


def _worth(total: _Block) -> dict[tuple[str, str], float]:
    """The confusion table, from weights to the rows they are worth."""
    scale = _effective_rows(total) / total.weight
    return {pair: scale * weight for pair, weight in total.confusion.items()}


def _of_class(total: _Block, name: str) -> dict[str, Estimate]:
    tally = _Tally.of(_worth(total), name)
    metrics = {}
    if tally.said > 0:
        metrics["precision"] = share_of(tally.hit, tally.said, tally.said, total.rows)
    if tally.true > 0:
        metrics["recall"] = share_of(tally.hit, tally.true, tally.true, total.rows)
    # F1 = 2J / (1 + J) with J = hit / union, a plain share of the rows in the union; it rises
    # with J, so that the limits of J give its own.
    union = tally.said + tally.true - tally.hit
    if union > 0:
        share = share_of(tally.hit, union, union, total.rows)
        value, lower, upper = (2 * j / (1 + j) for j in (share.value, share.lower, share.upper))
        metrics["f1"] = Estimate(value=value, lower=lower, upper=upper, rows=total.rows)
    return metrics


def _over_classes(total: _Block, classes: Sequence[str]) -> dict[str, Estimate]:
    """Means over classes. Their spread is the delta method's on the whole table, for an error
    lowers the F1 of two classes at once.
    """
    cells = _worth(total)
    tallies = {name: _Tally.of(cells, name) for name in classes}
    metrics = {}
    for metric in ("precision", "recall", "f1"):
        parts = {name: _ratio(metric, tally) for name, tally in tallies.items()}
        known = {name: part for name, part in parts.items() if part[1] > 0}
        if not known:
            continue
        value = sum(part / whole for part, whole in known.values()) / len(known)
        slopes = {
            pair: sum(_slope(metric, pair, name, *known[name]) for name in {*pair} & known.keys())
            / len(known)
            for pair in cells
        }
        mean = sum(rows * slopes[pair] for pair, rows in cells.items())
        squares = sum(rows * slopes[pair] ** 2 for pair, rows in cells.items())
        spread = squares - mean**2 / sum(cells.values())
        least = sum(smooth_variance(*part) for part in known.values()) / len(known) ** 2
        half = Z95 * math.sqrt(max(spread, least))
        metrics[metric] = Estimate(
            value=value,
            lower=max(0.0, value - half),
            upper=min(1.0, value + half),
            rows=total.rows,
        )
    return metrics


def _ratio(metric: str, tally: _Tally) -> tuple[float, float]:
    if metric == "precision":
        return tally.hit, tally.said
    if metric == "recall":
        return tally.hit, tally.true
    return 2 * tally.hit, tally.said + tally.true


def _slope(metric: str, pair: tuple[str, str], name: str, part: float, whole: float) -> float:
    """By how much one more row in a cell of the table moves the metric of a class."""
    truth, said = pair
    hit, is_said, is_true = truth == said, said == name, truth == name
    if metric == "precision":
        more, wider = float(hit), float(is_said)
    elif metric == "recall":
        more, wider = float(hit), float(is_true)
    else:
        more, wider = 2.0 * hit, float(is_said) + float(is_true)
    return more / whole - wider * part / whole**2


def _regression(total: _Block) -> dict[str, Estimate]:
    effective = _effective_rows(total)
    mae, mse = total.absolute / total.weight, total.squared / total.weight
    fourth = total.fourth / total.weight
    rmse = math.sqrt(max(mse, 0.0))
    error_of_mse = math.sqrt(max(fourth - mse**2, 0.0) / effective)
    half_rmse = Z95 * error_of_mse / (2 * rmse) if rmse > 0 else 0.0
    half_mae = Z95 * math.sqrt(max(mse - mae**2, 0.0) / effective)
    metrics = {
        "rmse": around(rmse, half_rmse, total.rows),
        "mae": around(mae, half_mae, total.rows),
    }
    if total.relative_weight > 0:
        # No interval worth the name: the ratio's spread depends on the smallest truths.
        mape = total.relative / total.relative_weight
        metrics["mape"] = Estimate(value=mape, lower=math.nan, upper=math.nan, rows=total.rows)
    return metrics


def _effective_rows(total: _Block) -> float:
    """Kish's effective sample size: what weighted rows are worth."""
    return max(total.weight**2 / total.weight_squared, 1.0) if total.weight_squared > 0 else 1.0
