"""A reference from columns held in memory: `build_reference`, for people and tests.

What makes it is the `ReferenceBuilder`, which takes rows in chunks; here are only their order in
time and the pass that looks for seasons.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.reference import ProfileError, Reference, Task
from detectors.references.reference_builder import ReferenceBuilder
from detectors.references.seasonality import SeasonFitter, unix_seconds
from detectors.rows.columns import Table, as_table

__all__ = ["ReferenceBuilder", "build_reference"]


def build_reference(
    columns: Any,
    *,
    kinds: Mapping[str, str] | None = None,
    timestamps: Any = None,
    tick_rows: int = 1_000,
    ordered: bool = True,
    prediction: str | None = None,
    score: str | None = None,
    label: str | None = None,
    segment: str | None = None,
    ignored: Iterable[str] = (),
    errors: Any = None,
    sensitive: Iterable[str] = (),
    task: Task | None = None,
    learnt: bool = False,
    derive: bool = True,
    seasonality: str = "auto",
) -> Reference:
    """Build a reference from columns held in memory; see `ReferenceBuilder` for the arguments.

    `timestamps`, one per row (Unix seconds or dates), put the rows in order first, and seasons are
    looked for: `seasonality` is auto, none, day or week. Raises ProfileError if there is nothing to
    build from, a kind is unknown, a column that is named is not there, or the timestamps do not fit
    the rows.

    >>> import numpy as np
    >>> reference = build_reference({"age": np.arange(800) % 80})
    >>> reference.features[0].median
    39.0
    """
    table = as_table(columns)
    if not table.columns and not table.vectors:
        raise ProfileError(f"reference: no column to build from (malformed: {table.malformed})")
    _require(table, prediction=prediction, score=score, label=label, segment=segment)
    rows, errors, times = _in_order(table, timestamps, errors)
    ignored = frozenset(ignored)
    seasons = None
    if times is not None and seasonality != "none":
        fitter = SeasonFitter(kinds=kinds, ignored=ignored, wanted=seasonality)
        fitter.update(rows, times)
        seasons = fitter.finish()
    builder = ReferenceBuilder(
        kinds=kinds,
        tick_rows=tick_rows,
        ordered=ordered,
        prediction=prediction,
        score=score,
        label=label,
        segment=segment,
        ignored=ignored,
        sensitive=frozenset(sensitive),
        task=task,
        learnt=learnt,
        derive=derive,
        seasons=seasons,
    )
    builder.update(rows, errors=errors, times=times)
    return builder.finish()


def _require(table: Table, **roles: str | None) -> None:
    """Raise ProfileError for a column that is named and not there, naming the nearest."""
    there = [*table.columns, *table.vectors]
    for role, name in roles.items():
        if name is None or name in there:
            continue
        near = difflib.get_close_matches(name, there, n=1)
        why = table.malformed.get(name, "is not among the columns")
        mend = f": did you mean {near[0]!r}?" if near else ""
        raise ProfileError(f"{role} {name!r} {why}{mend}")


def _in_order(
    table: Table, timestamps: Any, errors: Any
) -> tuple[dict[str, Any], Any, NDArray[np.float64] | None]:
    """Give the columns, errors and Unix times of the rows in the order of time."""
    rows: dict[str, Any] = {**table.columns, **table.vectors}
    if timestamps is None or not table.rows:
        return rows, errors, None
    at = np.asarray(timestamps)
    if at.shape != (table.rows,):
        raise ProfileError(f"timestamps: shape {at.shape}, expected ({table.rows},)")
    order = np.argsort(at, kind="stable")
    if errors is not None and len(errors) == table.rows:
        errors = np.asarray(errors)[order]
    rows = {name: column[order] for name, column in rows.items()}
    return rows, errors, unix_seconds(at[order])
