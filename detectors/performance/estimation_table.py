"""Quality of a classifier without labels: expected figures from calibrated scores (CBPE), and the
table that all estimates rest on.

A table keeps, by bin of the score, how many reference rows had which prediction and which truth; a
window keeps how many rows had which prediction. Both are a few KB for any number of rows, and add.
Blind by construction to a changed concept: P(y given score) is the reference's for ever. What is
shown must stand next to realised figures where there are any (see `estimate_trust`).

Sources: NannyML's documentation for confidence-based performance estimation; Zadrozny and Elkan
(2002) for isotonic calibration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.performance.error_estimation import ERROR_COLUMNS
from detectors.performance.score_bins import BinTable, Floats

#: binary and multiclass rest on probabilities; confidence on the score of the predicted class alone
#: (accuracy only); regression on residuals by bin of the prediction.
Basis: TypeAlias = Literal["binary", "multiclass", "confidence", "regression"]

HELD_ROWS: Final = 16_384
ROWS_MIN: Final = 500
CLASSES_MAX: Final = 20
FORMAT: Final = 1
# Half an overall rate of doubt: a bin without a positive is not known to have none.
DOUBT_ROWS: Final = 0.5
CELLS: Final = 4  # columns of a score table: predicted x truth, each 0 or 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EstimationTable:
    """What a labelled reference teaches about truth, by bin of the score.

    `tables` has one entry for binary (of the positive class, `classes[1]`), confidence and
    regression, one for each class for multiclass. Columns of a score's table are (not predicted,
    not true), (not predicted, true), (predicted, not true), (predicted, true). `oriented` says that
    a binary score was that of the predicted class and is turned into that of the positive one.
    """

    basis: Basis
    classes: tuple[str, ...]
    oriented: bool = False
    cap: float = 0.0  # regression: residuals count no more than this where they must be bounded
    rows: int
    tables: tuple[BinTable, ...]

    def calibration(self, index: int = 0) -> Floats:
        """P(true given the bin) of one table, [bins], rising with the score."""
        sums = self.tables[index].sums
        rows, true = sums.sum(axis=1), sums[:, 1] + sums[:, 3]
        return isotonic((true + DOUBT_ROWS * true.sum() / rows.sum()) / (rows + DOUBT_ROWS), rows)

    def takes(self, width: int) -> bool:
        """Whether scores of so many columns are those that the tables are about."""
        return width == len(self.tables) or (self.basis == "binary" and width == 2)

    def aligned(self, score: Floats, positive: NDArray[np.bool_]) -> Floats:
        """[rows, tables] scores as the tables have them, from [rows, columns]; `positive` says
        where the positive class was predicted.
        """
        if self.basis == "binary" and score.shape[1] == 2:
            return score[:, 1:]
        if self.oriented:
            return np.where(positive[:, None], score, 1.0 - score)
        return score

    @property
    def _counted(self) -> slice:
        """The columns of a table that count a row once."""
        return slice(0, 1) if self.basis == "regression" else slice(0, CELLS)

    def coarsened(self) -> Self:
        """With at most as many bins as are kept."""
        return replace(self, tables=tuple(part.coarsened(self._counted) for part in self.tables))

    def merged(self, other: Self) -> Self:
        """Both references' rows; ValueError where they are about different things."""
        mine = (self.basis, self.classes, self.oriented, len(self.tables))
        theirs = (other.basis, other.classes, other.oriented, len(other.tables))
        if mine != theirs:
            raise ValueError(f"tables for {mine[:2]} and {theirs[:2]}")
        pairs = zip(self.tables, other.tables, strict=True)
        tables = tuple(one.merged(two, self._counted) for one, two in pairs)
        cap = max(self.cap, other.cap)
        return replace(self, rows=self.rows + other.rows, cap=cap, tables=tables)

    def tree(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "format": FORMAT,
            "basis": self.basis,
            "classes": list(self.classes),
            "oriented": self.oriented,
            "cap": self.cap,
            "rows": self.rows,
            "tables": [table.tree() for table in self.tables],
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Read `tree` back. Raises ValueError for what cannot be one."""
        try:
            if tree["format"] != FORMAT:
                raise ValueError(f"format {tree['format']!r} is not {FORMAT}")
            basis: Basis = tree["basis"]
            if basis not in ("binary", "multiclass", "confidence", "regression"):
                raise ValueError(f"basis {basis!r}")
            classes = tuple(str(name) for name in tree["classes"])
            columns = ERROR_COLUMNS if basis == "regression" else CELLS
            tables = tuple(BinTable.from_tree(table, columns) for table in tree["tables"])
            if len(tables) != (len(classes) if basis == "multiclass" else 1):
                raise ValueError(f"{len(tables)} tables for {len(classes)} classes")
            return cls(
                basis=basis,
                classes=classes,
                oriented=bool(tree["oriented"]),
                cap=float(tree["cap"]),
                rows=int(tree["rows"]),
                tables=tables,
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a table for estimation: {error!r}") from error


def isotonic(rates: Floats, weights: Floats) -> Floats:
    """The rising sequence nearest to `rates` (pool adjacent violators); a bin without rows takes
    its neighbour's.
    """
    pools: list[list[float]] = []  # rate, weight, bins
    for rate, weight in zip(rates.tolist(), np.maximum(weights, 1e-9).tolist(), strict=True):
        pools.append([rate, weight, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            later, pool = pools.pop(), pools[-1]
            both = pool[1] + later[1]
            pool[0] = (pool[0] * pool[1] + later[0] * later[1]) / both
            pool[1], pool[2] = both, pool[2] + later[2]
    return np.repeat([pool[0] for pool in pools], [int(pool[2]) for pool in pools])
