"""Real rows that come inside river's and NannyML's packages, in the order in which they come there.

The one thing not to break: no row is made up and none is left out on account of its values; only
identifiers, times, targets and the models' own answers are no features.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.peers.sides import python_of

Column = NDArray[Any]

#: Columns that are no features, in any of the streams.
LEFT_OUT = {
    *("id", "timestamp", "date", "year", "period", "target", "employed", "repaid", "y_true"),
    *("y_pred", "y_pred_proba", "clf_target", "work_home_actual", "prediction"),
    *("predicted_probability", "ordinal_date", "five_thirty_eight", "category"),
}
ROWS_MAX = 120_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a stream lies, and how it is cut: rows of a tick, and of a block that stays whole."""

    name: str
    package: str
    files: tuple[str, ...]
    tick_rows: int
    block_rows: int
    reference_rows: int


SOURCES = (
    Source(
        name="employment",
        package="nannyml",
        files=("employment_MA_reference.pq", "employment_MA_analysis.pq"),
        tick_rows=1_000,
        block_rows=5_000,
        reference_rows=40_000,
    ),
    Source(
        name="car_loan",
        package="nannyml",
        files=("synthetic_car_loan_reference.csv", "synthetic_car_loan_analysis.csv"),
        tick_rows=1_000,
        block_rows=5_000,
        reference_rows=30_000,
    ),
    Source(
        name="car_price",
        package="nannyml",
        files=("regression_synthetic_reference.csv", "regression_synthetic_analysis.csv"),
        tick_rows=1_000,
        block_rows=5_000,
        reference_rows=30_000,
    ),
    Source(
        name="credit_card",
        package="nannyml",
        files=("mc_reference.csv", "mc_analysis.csv"),
        tick_rows=1_000,
        block_rows=5_000,
        reference_rows=30_000,
    ),
    Source(
        name="housing",
        package="nannyml",
        files=("california_housing_reference.csv", "california_housing_analysis.csv"),
        tick_rows=168,
        block_rows=168,
        reference_rows=5_712,
    ),
    Source(
        name="shuttle",
        package="river",
        files=("shuttle.csv.gz",),
        tick_rows=500,
        block_rows=500,
        reference_rows=15_000,
    ),
    Source(
        name="yeast",
        package="river",
        files=("yeast.csv.gz",),
        tick_rows=50,
        block_rows=50,
        reference_rows=1_000,
    ),
    Source(
        name="segment",
        package="river",
        files=("segment.csv.zip",),
        tick_rows=50,
        block_rows=50,
        reference_rows=1_000,
    ),
    Source(
        name="sp500",
        package="river",
        files=("sp500.csv.gz",),
        tick_rows=21,
        block_rows=21,
        reference_rows=504,
    ),
)


def columns_of(source: Source) -> dict[str, Column]:
    """Read a stream's features: numbers as float64, all others as objects. Raises MissingPeer."""
    table = pd.concat([_read(path) for path in _paths(source)], ignore_index=True)
    table = table.iloc[:ROWS_MAX]
    features = {}
    for name in table.columns:
        if name in LEFT_OUT or str(name).startswith(("y_pred", "Class")):
            continue
        column = table[name]
        numbers = column.dtype.kind in "iuf"
        features[str(name)] = column.to_numpy(np.float64 if numbers else object)
    return features


def as_numbers(columns: dict[str, Column]) -> NDArray[np.float64]:
    """Give [features, rows] for libraries that want numbers; categories by their order."""
    rows = []
    for column in columns.values():
        if column.dtype == object:
            codes, _ = pd.factorize(pd.Series(column).astype(str), sort=True)
            rows.append(codes.astype(np.float64))
        else:
            rows.append(column)
    return np.array(rows)


def _paths(source: Source) -> Iterator[Path]:
    if source.package == "river":
        found = importlib.util.find_spec("river")
        assert found is not None
        assert found.origin is not None
        home = Path(found.origin).parent / "datasets"
    else:
        python = python_of("nannyml")
        [home] = python.parents[1].glob("lib/python*/site-packages/nannyml/datasets/data")
    for name in source.files:
        yield home / name


def _read(path: Path) -> "pd.DataFrame":
    if path.suffix == ".pq":
        return pd.read_parquet(path)
    return pd.read_csv(path)
