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

Task = Literal["classification", "regression"]
Class = str | int | float | bool

Z95 = 1.959963984540054
# More classes than this share one "other" class: a confusion table is never unbounded.
CLASSES_MAX = 100
OTHER = "(other)"
MAPE_TRUTH_MIN = 1e-9
WEIGHT_MIN = 1e-9  # below it a sum of weights is what rounding left of nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric's value with its 95 % interval and the rows it rests on."""

    value: float
    lower: float
    upper: float
    rows: int


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
    metrics = {"accuracy": _share(right, total.weight, effective, total.rows)}
    classes = sorted({name for pair in total.confusion for name in pair})
    if len(classes) < 2:
        return metrics
    counted = classes[-1:] if len(classes) == 2 else classes
    found = [_per_class(total, name) for name in counted]
    for position, metric in enumerate(("precision", "recall", "f1")):
        values = [value for one in found if (value := one[position]) is not None]
        if values:
            metrics[metric] = _mean(values, total.rows)
    return metrics


_Spread = tuple[float, float]  # value, variance


def _per_class(total: _Block, name: str) -> tuple[_Spread | None, _Spread | None, _Spread | None]:
    """Precision, recall and F1 of one class with their variances (delta method)."""
    scale = _effective_rows(total) / total.weight  # from weights to the rows they are worth
    pairs = total.confusion.items()
    hit = scale * total.confusion.get((name, name), 0.0)
    said = scale * sum(weight for (_, predicted), weight in pairs if predicted == name)
    true = scale * sum(weight for (truth, _), weight in pairs if truth == name)
    precision = _binomial(hit, said) if said > 0 else None
    recall = _binomial(hit, true) if true > 0 else None
    f1 = None
    if said + true > 0:
        union = said + true - hit
        # F1 = 2J/(1+J) with J = hit/union, a plain share of the rows in the union.
        share, variance = _binomial(hit, union)
        f1 = (2 * share / (1 + share), variance * (2 / (1 + share) ** 2) ** 2)
    return precision, recall, f1


def _binomial(part: float, whole: float) -> _Spread:
    share = min(max(part / whole, 0.0), 1.0)
    # A share of 0 or 1 seen in few rows is not known exactly: Agresti-Coull's two extra rows.
    smooth = (part + 2.0) / (whole + 4.0)
    return share, smooth * (1.0 - smooth) / (whole + 4.0)


def _mean(spreads: list[_Spread], rows: int) -> Estimate:
    value = sum(one for one, _ in spreads) / len(spreads)
    half = Z95 * math.sqrt(sum(variance for _, variance in spreads)) / len(spreads)
    return Estimate(
        value=value, lower=max(0.0, value - half), upper=min(1.0, value + half), rows=rows
    )


def _share(part: float, whole: float, effective: float, rows: int) -> Estimate:
    """Wilson's interval with the effective number of rows."""
    share = min(max(part / whole, 0.0), 1.0)
    spread = Z95**2 / effective
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / effective + spread / 4 / effective)
    lower, upper = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(value=share, lower=min(lower, share), upper=max(upper, share), rows=rows)


def _regression(total: _Block) -> dict[str, Estimate]:
    effective = _effective_rows(total)
    mae, mse = total.absolute / total.weight, total.squared / total.weight
    fourth = total.fourth / total.weight
    rmse = math.sqrt(max(mse, 0.0))
    error_of_mse = math.sqrt(max(fourth - mse**2, 0.0) / effective)
    half_rmse = Z95 * error_of_mse / (2 * rmse) if rmse > 0 else 0.0
    half_mae = Z95 * math.sqrt(max(mse - mae**2, 0.0) / effective)
    metrics = {
        "rmse": _interval(rmse, half_rmse, total.rows),
        "mae": _interval(mae, half_mae, total.rows),
    }
    if total.relative_weight > 0:
        # No interval worth the name: the ratio's spread depends on the smallest truths.
        mape = total.relative / total.relative_weight
        metrics["mape"] = Estimate(value=mape, lower=math.nan, upper=math.nan, rows=total.rows)
    return metrics


def _interval(value: float, half: float, rows: int) -> Estimate:
    return Estimate(value=value, lower=max(0.0, value - half), upper=value + half, rows=rows)


def _effective_rows(total: _Block) -> float:
    """Kish's effective sample size: what weighted rows are worth."""
    return max(total.weight**2 / total.weight_squared, 1.0) if total.weight_squared > 0 else 1.0
