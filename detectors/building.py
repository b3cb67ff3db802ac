"""From rows to a reference, in constant memory, whatever the number of rows.

The first rows are held until there are enough to choose bins. From then on every row is counted
in those bins, exactly, and forgotten; a quantile sketch per feature watches whether the bins still
fit. Where the data moved so far that they do not, bins and counts are taken from the sketch and the
profile says so (`counts_exact`). Counts are kept per block of successive rows, neighbouring blocks
merging when 128 are full: that is all the self-calibration needs.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from detectors.binning import (
    BINS,
    MISSING,
    WIDTH,
    Binner,
    Bins,
    CategoryBins,
    NumericBins,
    fit_numeric,
    numeric_counts,
    widened,
)
from detectors.calibration import TOLERANCE, block_scores, calibrate, significant
from detectors.columns import (
    Column,
    Table,
    as_table,
    category_keys,
    digest_of,
    guess_kind,
    numbers,
)
from detectors.evidence import cosine_scores
from detectors.profiles import by_count, categorical_profile, numeric_profile
from detectors.reference import (
    NAME_CHARACTERS_MAX,
    NAMED_ROWS_MIN,
    FeatureKind,
    FeatureProfile,
    Keys,
    LabelledBaseline,
    ProfileError,
    Reference,
    Task,
)
from detectors.sketch import KeyTable, Points, QuantileSketch

HELD_ROWS_MAX: Final = 16_384
HELD_VALUES_MAX: Final = 4_194_304
HELD_ROWS_MIN: Final = 512
BLOCKS_MAX: Final = 128


class _FeatureRows:
    """What is remembered of one feature's rows: a sketch, or counted keys, and what was missing."""

    def __init__(self, kind: FeatureKind) -> None:
        self.kind = kind
        self.sketch = QuantileSketch()
        self.keys = KeyTable()
        self.minimum = math.nan
        self.maximum = math.nan
        self.missing = 0
        self.outside = 0
        self.rows = 0
        self._fitted: tuple[int, Points, NumericBins] | None = None

    def add(self, column: Column) -> None:
        self.rows += len(column)
        if self.kind == "categorical":
            counts = Counter(column.tolist())
            self.missing += counts.pop(None, 0)
            self.keys.update(counts)
            return
        finite = column[np.isfinite(column)]
        missing = int(np.count_nonzero(np.isnan(column)))
        self.missing += missing
        self.outside += len(column) - missing - len(finite)
        if len(finite):
            self.sketch.update(finite)
            self.minimum = float(np.fmin(self.minimum, float(finite.min())))
            self.maximum = float(np.fmax(self.maximum, float(finite.max())))

    def provisional_bins(self) -> Bins:
        if self.kind == "categorical":
            top = by_count({digest_of(key): n for key, n in self.keys.counts.items()})
            return CategoryBins(top=tuple(top[: BINS - 1]), others=frozenset(), open=True)
        return widened(self.fit()[1])

    def fit(self) -> tuple[Points, NumericBins]:
        """Give the sketch's points and the bins that fit the rows so far."""
        if self._fitted is None or self._fitted[0] != self.rows:
            points = self.sketch.points()
            self._fitted = (self.rows, points, fit_numeric(points, self.minimum, self.maximum))
        return self._fitted[1:]


class _Blocks:
    """Counts of successive blocks of rows, [blocks, features, 18], at most 128 of them."""

    def __init__(self, features: int, block_rows: int) -> None:
        self.block_rows = block_rows
        self._counts = np.zeros((BLOCKS_MAX, features, WIDTH), dtype=np.uint32)
        self._used = 0
        self._filled = 0  # rows in the block being filled

    def room(self) -> int:
        """Give how many rows the current block still takes."""
        return self.block_rows - self._filled

    def add(self, counts: NDArray[np.int64], rows: int) -> None:
        self._counts[self._used] += counts.astype(np.uint32)
        self._filled += rows
        if self._filled < self.block_rows:
            return
        self._used, self._filled = self._used + 1, 0
        if self._used == BLOCKS_MAX:
            half = BLOCKS_MAX // 2
            self._counts[:half] = self._counts[0::2] + self._counts[1::2]
            self._counts[half:] = 0
            self._used, self.block_rows = half, self.block_rows * 2

    def full(self) -> NDArray[np.uint32]:
        return self._counts[: self._used]

    def total(self) -> NDArray[np.float64]:
        """Give all rows' counts, [features, 18]."""
        total: NDArray[np.float64] = self._counts.sum(axis=0, dtype=np.float64)
        return total


class ReferenceBuilder:
    """Builds a reference from rows given in chunks, in their order in time.

    `kinds` fixes the kind of some features by name (else guessed from the first rows); `tick_rows`
    is the number of rows per tick in production, the scale of the self-calibration, which
    `ordered=False` leaves out; `prediction` names the column that is the model's output;
    `sensitive` features never have their categories named; `learnt` marks a reference taken from
    live traffic, which nobody has accepted yet.
    """

    def __init__(
        self,
        *,
        kinds: Mapping[str, str] | None = None,
        tick_rows: int = 1_000,
        ordered: bool = True,
        prediction: str | None = None,
        sensitive: Collection[str] = (),
        task: Task | None = None,
        learnt: bool = False,
    ) -> None:
        for name, kind in (kinds or {}).items():
            if kind not in ("numeric", "categorical", "boolean"):
                raise ProfileError(
                    f"feature {name!r}: kind {kind!r} is not numeric, categorical or boolean"
                )
        if tick_rows < 1:
            raise ProfileError(f"tick_rows must be at least 1, not {tick_rows}")
        self._kinds = dict(kinds or {})
        self._tick_rows, self._ordered, self._prediction = tick_rows, ordered, prediction
        self._sensitive, self._task, self._learnt = frozenset(sensitive), task, learnt
        self._held: list[Table] = []
        self._held_rows = 0
        self._features: dict[str, _FeatureRows] = {}
        self._binner = Binner([])
        self._blocks = _Blocks(0, 1)
        self._opened = False
        self._labelled = self._errors = 0
        self.rows = 0
        self.malformed: dict[str, str] = {}  # columns that were left out of a chunk, and why

    def update(self, columns: Any, *, errors: Any = None) -> None:
        """Add rows; `errors` says of each labelled row whether the model was wrong (NaN: no label).

        Raises TypeError if `columns` is no mapping and no table; no column's content raises.
        """
        table = as_table(columns)
        self.malformed.update(table.malformed)
        if errors is not None:
            wrong = numbers(np.asarray(errors)).astype(np.float64)
            wrong = wrong[np.isfinite(wrong)]
            self._labelled += len(wrong)
            self._errors += int(np.count_nonzero(wrong))
        if not table.rows:
            for name, column in table.columns.items():  # a part without rows still knows its schema
                self._kinds.setdefault(name, guess_kind(column))
            if not self._opened:
                self._held.append(table)
            return
        self.rows += table.rows
        if self._opened:
            self._add(table)
            return
        self._held.append(table)
        self._held_rows += table.rows
        width = max(len(table.columns), 1)
        if self._held_rows >= min(HELD_ROWS_MAX, max(HELD_ROWS_MIN, HELD_VALUES_MAX // width)):
            self._open()

    def finish(self) -> Reference:
        """Give the reference of all rows so far. More rows may follow, and another reference."""
        if not self._opened:
            self._open()
        totals = self._blocks.total()
        profiles = {}
        for row, (name, seen) in enumerate(self._features.items()):
            phi, tolerance = self._calibrate(row, seen.kind, totals[row])
            if seen.kind == "categorical":
                profile = self._categorical(name, seen)
            else:
                profile = self._numeric(name, seen, totals[row])
            profiles[name] = replace(
                profile,
                phi=significant(phi),
                tolerance=significant(tolerance),
                sensitive=name in self._sensitive,
            )
        prediction = profiles.pop(self._prediction, None) if self._prediction else None
        baseline = LabelledBaseline(rows=self._labelled, errors=self._errors)
        return Reference(
            features=tuple(profiles.values()),
            prediction=prediction,
            rows=self.rows,
            tick_rows=self._tick_rows,
            ordered=self._ordered,
            task=self._task,
            baseline=baseline if self._labelled else None,
            learnt=self._learnt,
            accepted=not self._learnt,
        )

    def _open(self) -> None:
        """Choose kinds and bins from the rows held so far, then count those rows."""
        held, self._held = self._held, []
        names = dict.fromkeys(name for table in held for name in table.columns)
        for name in names:
            arrays = [table.columns[name] for table in held if name in table.columns]
            self._features[name] = _FeatureRows(cast("FeatureKind", self._kind(name, arrays)))
        plain = [self._plain(table) for table in held]
        for columns in plain:
            self._remember(columns)
        bins = [(name, seen.provisional_bins()) for name, seen in self._features.items()]
        self._binner = Binner(bins)
        self._blocks = _Blocks(len(bins), max(1, self._tick_rows // 16))
        self._opened = True
        for table, columns in zip(held, plain, strict=True):
            self._count(columns, table.rows)

    def _kind(self, name: str, arrays: list[Column]) -> str:
        if name in self._kinds:
            return self._kinds[name]
        guesses = {guess_kind(array) for array in arrays}
        if len(guesses) == 1:
            return guesses.pop()
        return "categorical" if "categorical" in guesses else "numeric"

    def _add(self, table: Table) -> None:
        columns = self._plain(table)
        self._remember(columns)
        self._count(columns, table.rows)

    def _plain(self, table: Table) -> dict[str, Column]:
        """Turn columns into floats and keys once, so that slices of them need no further look."""
        plain: dict[str, Column] = {}
        for name, column in table.columns.items():
            seen = self._features.get(name)
            if seen is None:
                self.malformed[name] = "appeared after the bins were chosen"
            elif seen.kind == "categorical":
                plain[name] = category_keys(column)
            else:
                plain[name] = numbers(column).astype(np.float64, copy=False)
        return plain

    def _remember(self, columns: Mapping[str, Column]) -> None:
        for name, column in columns.items():
            self._features[name].add(column)

    def _count(self, columns: Mapping[str, Column], rows: int) -> None:
        start = 0
        while start < rows:
            # without an order there are no blocks to tell apart: count whatever is there in one go
            take = min(self._blocks.room() if self._ordered else rows, rows - start)
            part = {name: column[start : start + take] for name, column in columns.items()}
            self._blocks.add(self._binner.count(part, take), take)
            start += take

    def _calibrate(
        self, row: int, kind: FeatureKind, total: NDArray[np.float64]
    ) -> tuple[float, float]:
        if not self._ordered or total.sum() == 0:
            return 1.0, TOLERANCE
        p = total / total.sum()
        used = int(np.flatnonzero(p[:BINS]).max(initial=-1)) + 1
        cosines = cosine_scores(p, used) if kind != "categorical" else np.empty((0, WIDTH))
        singles = [MISSING] if 0 < p[MISSING] < 1 else []
        if kind == "categorical":
            singles += [b for b in range(BINS) if 0.01 <= p[b] < 1]
        scores = block_scores(cosines, p, singles)
        blocks = self._blocks.full()[:, row, :]
        return calibrate(blocks, self._blocks.block_rows, self._tick_rows, scores)

    def _numeric(self, name: str, seen: _FeatureRows, total: NDArray[np.float64]) -> FeatureProfile:
        points, best = seen.fit()
        bins = self._binner.bins_of(name)
        assert isinstance(bins, NumericBins)
        bins = replace(bins, low=best.low, high=best.high)
        sketched = numeric_counts(points, best)
        crowded = total[:BINS].max() > 1.5 * sketched.max() + 2
        exact = not crowded and len(best.edges) <= 1.5 * len(bins.edges) + 1
        return numeric_profile(
            name=name,
            kind=seen.kind,
            points=points,
            bins=bins if exact else best,
            counts=total if exact else sketched,
            range_=(seen.minimum, seen.maximum),
            lost=(seen.missing, seen.outside),
            exact=exact or points.exact,
        )

    def _categorical(self, name: str, seen: _FeatureRows) -> FeatureProfile:
        counts = {digest_of(key): count for key, count in seen.keys.counts.items()}
        names = {
            digest_of(key): key[:NAME_CHARACTERS_MAX]
            for key, count in seen.keys.counts.items()
            if count >= NAMED_ROWS_MIN and name not in self._sensitive
        }
        keys = Keys(counts=counts, names=names, exact=seen.keys.exact)
        return categorical_profile(name, keys, seen.rows - seen.missing, seen.missing)


def build_reference(
    columns: Any,
    *,
    kinds: Mapping[str, str] | None = None,
    timestamps: Any = None,
    tick_rows: int = 1_000,
    ordered: bool = True,
    prediction: str | None = None,
    errors: Any = None,
    sensitive: Iterable[str] = (),
    task: Task | None = None,
    learnt: bool = False,
) -> Reference:
    """Build a reference from columns held in memory; see `ReferenceBuilder` for the arguments.

    `timestamps`, one per row, put the rows in order first. Raises ProfileError if there is nothing
    to build from, a kind is unknown, or the timestamps do not fit the rows.

    >>> import numpy as np
    >>> reference = build_reference({"age": np.arange(800) % 80})
    >>> reference.features[0].median
    39.0
    """
    builder = ReferenceBuilder(
        kinds=kinds,
        tick_rows=tick_rows,
        ordered=ordered,
        prediction=prediction,
        sensitive=frozenset(sensitive),
        task=task,
        learnt=learnt,
    )
    table = as_table(columns)
    if not table.columns:
        raise ProfileError(f"reference: no column to build from (malformed: {table.malformed})")
    rows: Mapping[str, Column] = table.columns
    if timestamps is not None and table.rows:
        at = np.asarray(timestamps)
        if at.shape != (table.rows,):
            raise ProfileError(f"timestamps: shape {at.shape}, expected ({table.rows},)")
        order = np.argsort(at, kind="stable")
        rows = {name: column[order] for name, column in rows.items()}
    builder.update(rows, errors=errors)
    return builder.finish()
