"""Small made-up tables for the tests of the pipeline: seconds, not minutes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

RECIPE = """\
line: loans
task: classification
target: outcome
features:
  - {name: age, kind: numeric}
  - {name: income, kind: numeric}
  - {name: job, kind: categorical}
model: {hidden: [16], dropout: 0.0}
training: {epochs: 12, batch: 64, lr: 0.01, patience: 4}
data: {paths: [train.parquet], holdout_share: 0.25, recent_share: 0.4, tick_rows: 100}
gates: {rows_min: 100, holdout_margin: 0.2, recent_margin: 0.06, latency_ratio_max: 10}
"""
JOBS = ("clerk", "nurse", "smith")


def rows(count: int, seed: int, *, unit: float = 1.0, new_job: bool = False) -> dict[str, Any]:
    """Columns with an outcome that age, income and job decide. `unit` scales the income."""
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 12, count).round(2)
    income = rng.lognormal(8, 0.6, count).round(2)
    job = rng.choice([*JOBS, *(["gig"] if new_job else [])], count)
    value = (age - 40) / 12 + 1.5 * (np.log(income) - 8) + np.where(job == "nurse", 1.0, -0.3)
    outcome = np.where(value + rng.normal(0, 0.4, count) > 0, "paid", "default")
    missing = rng.random(count) < 0.03
    return {
        "age": [None if gone else float(v) for v, gone in zip(age, missing, strict=True)],
        "income": (income * unit).tolist(),
        "job": job.tolist(),
        "outcome": outcome.tolist(),
    }


def write_training(path: Path, count: int = 1_600, seed: int = 1) -> None:
    pyarrow.parquet.write_table(pa.table(rows(count, seed)), path)


def write_captures(directory: Path, count: int = 800, seed: int = 2, **changes: Any) -> None:
    """As the agent writes them; `changes` replaces columns, None removes one."""
    directory.mkdir(parents=True, exist_ok=True)
    unit = changes.pop("unit", 1.0)
    columns = rows(count, seed, unit=unit, new_job=changes.pop("new_job", False))
    columns["label"] = columns.pop("outcome")
    columns |= {
        "prediction": ["paid"] * count,
        "score": [0.5] * count,
        "request_id": [f"r{seed}-{index}" for index in range(count)],
        "row": [0] * count,
        "at": [1_000.0 + index for index in range(count)],
        "version": ["v1"] * count,
        "tick": [index // 100 for index in range(count)],
    }
    columns |= changes
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    pyarrow.parquet.write_table(table, directory / f"part-{seed}.parquet")


def write_recipe(directory: Path, text: str = RECIPE) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "recipe.yaml").write_text(text, encoding="utf-8")
    write_training(directory / "train.parquet")
    return directory / "recipe.yaml"
