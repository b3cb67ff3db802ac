"""Quality of a regression without labels (DLE): the errors that the reference had at such
predictions.

No second model: a table keeps the sums of |residual|, its square and its fourth power by bin of the
prediction, and a window keeps how many predictions fell into each bin. So it sees errors grow
because the model now answers in ranges where it was always worse (large amounts, rare levels); it
cannot see errors that depend on a feature and not on the prediction, nor a changed concept. A
prediction beyond the reference's range counts as one in the outermost bin.

Source: the idea of direct loss estimation is NannyML's; that one trains a model on the features.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.performance.intervals import Z95, Estimate, around
from detectors.performance.score_bins import BinTable, Places
from detectors.rows.columns import Column, numbers

Floats: TypeAlias = NDArray[np.float64]

#: rows, and the sums of |residual|, its square, its fourth power, and |residual| at most the cap
ERROR_COLUMNS: Final = 5
CAP_SHARE: Final = 0.99
#: Beyond it the fourth power of a residual would be no finite number.
RESIDUAL_MAX: Final = 1e70


def numbers_of(values: Column) -> Floats:
    """As float64; not finite for what is no number."""
    return np.asarray(numbers(values), dtype=np.float64)


def error_cap(residuals: Floats) -> float:
    """Where a residual must be bounded: what all but one in a hundred stay below, doubled."""
    sizes = np.abs(residuals)
    return float(2.0 * np.quantile(sizes, CAP_SHARE)) if len(sizes) else 0.0


def with_errors(table: BinTable, predicted: Floats, truth: Floats, cap: float) -> BinTable:
    """The table with more labelled rows."""
    sizes, places = np.abs(truth - predicted), table.places(predicted)
    for column, amounts in enumerate(
        (None, sizes, sizes**2, sizes**4, np.minimum(sizes, cap)),
    ):
        place: Places = np.full(len(sizes), column, dtype=np.intp)
        table = table.plus(predicted, place, amounts, places=places)
    return table


def expected_errors(table: BinTable, counts: Floats) -> dict[str, Estimate]:
    """MAE, MSE and RMSE of `counts` rows in each bin, [bins].

    The interval holds the realised figure of the same rows 19 times in 20 where residuals are as
    the reference's were: the spread of its own rows, and that of the reference's means.
    """
    rows = counts.sum()
    known = table.sums[:, 0] > 0
    whole = table.sums.sum(axis=0)
    if rows <= 0 or whole[0] <= 0:
        return {}
    # A bin nobody was in during the reference is taken to be as all were.
    means = (
        np.where(known[:, None], table.sums, whole)
        / np.where(known, table.sums[:, 0], whole[0])[:, None]
    )
    share = counts / rows
    spread = share / rows + share**2 / np.maximum(table.sums[:, 0], 1.0)
    mae, mse = float(share @ means[:, 1]), float(share @ means[:, 2])
    of_mae = float(spread @ np.maximum(means[:, 2] - means[:, 1] ** 2, 0.0))
    of_mse = float(spread @ np.maximum(means[:, 3] - means[:, 2] ** 2, 0.0))
    rmse = mse**0.5
    half_rmse = Z95 * of_mse**0.5 / (2.0 * rmse) if rmse > 0 else 0.0
    count = round(rows)
    return {
        "mae": around(mae, Z95 * of_mae**0.5, count, kind="sampling"),
        "mse": around(mse, Z95 * of_mse**0.5, count, kind="sampling"),
        "rmse": around(rmse, half_rmse, count, kind="sampling"),
    }
