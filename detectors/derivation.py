"""Columns derived from columns: what single features cannot show, as features that can be watched.

Text becomes descriptors, a vector its norm and its cosine to the reference, the row as a whole its
principal components. Fitted once, on the first rows of the reference, and part of it from then on:
a reference is only comparable with columns derived by its own `Derivation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from detectors.columns import Column, Table, numbers
from detectors.components import COMPONENTS_MAX, fit_projection
from detectors.multivariate import Projection

FORMAT: Final = 1
ROWS_MAX: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Derivation:
    """How derived columns are made; see `fit`. Immutable, and exact through `tree`."""

    rows: Projection | None

    @classmethod
    def fit(
        cls,
        tables: Sequence[Table],
        kinds: Mapping[str, str],
        *,
        components_max: int = COMPONENTS_MAX,
        fourier: int = 0,
    ) -> Derivation | None:
        """Fit to the first 16,384 rows of `tables`; only columns that `kinds` names are looked at.

        `fourier` asks for that many random Fourier features of the rows. None if there is nothing
        to derive. Raises ValueError for a senseless argument, never for what is in the data.
        """
        names = sorted(name for name, kind in kinds.items() if kind in ("numeric", "boolean"))
        columns = {name: numbers(column) for name, column in _joined(tables, names).items()}
        projection = fit_projection(columns, components_max=components_max, fourier=fourier)
        if projection is None:
            return None
        return cls(rows=projection)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of derived columns that describe one column each."""
        return ()

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of derived columns that rest on many columns."""
        return () if self.rows is None else self.rows.outputs

    def derive(self, table: Table) -> dict[str, Column]:
        """Give all derived columns, float32, of a chunk of rows.

        Projections of the row are left out if one of their columns is absent: that is a change of
        schema, told as such, and not of the relations between columns.
        """
        derived: dict[str, Column] = {}
        if self.rows is not None and all(name in table.columns for name in self.rows.inputs):
            arrays = [numbers(table.columns[name]) for name in self.rows.inputs]
            derived.update(zip(self.rows.outputs, self.rows.apply(arrays), strict=True))
        return derived

    def shares(self) -> dict[str, dict[str, float]]:
        """Give, for each projection of the row, the share that each column has in it."""
        return {} if self.rows is None else self.rows.shares()

    def tree(self) -> dict[str, Any]:
        """Give JSON values from which `from_tree` makes the very same derivation."""
        return {"format": FORMAT, "rows": None if self.rows is None else self.rows.tree()}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Derivation:
        """Take back what `tree` gave. Raises ValueError if it is malformed."""
        try:
            if tree["format"] != FORMAT:
                raise ValueError(f"derivation: format {tree['format']!r} is not {FORMAT}")
            rows = tree["rows"]
            return cls(rows=None if rows is None else Projection.from_tree(rows))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"derivation: malformed ({error!r})") from None


def _joined(tables: Sequence[Table], names: Sequence[str]) -> dict[str, Column]:
    """The first rows of some columns of all tables; a table that lacks one has it missing."""
    rows = sum(table.rows for table in tables)
    joined: dict[str, Column] = {}
    for name in names:
        parts: list[Column] = []
        held = 0
        for table in tables:
            take = min(ROWS_MAX - held, table.rows)
            if take <= 0:
                break
            column = table.columns.get(name)
            parts.append(np.full(take, np.nan) if column is None else column[:take])
            held += take
        if parts and any(name in table.columns for table in tables):
            joined[name] = _concatenated(parts, min(rows, ROWS_MAX))
    return joined


def _concatenated(parts: Sequence[Column], rows: int) -> Column:
    kinds = {part.dtype.kind for part in parts}
    if len(parts) == 1:
        return parts[0]
    if kinds <= set("fiub"):
        return np.concatenate(parts)
    column = np.empty(rows, dtype=object)  # numpy would make text of numbers beside text
    start = 0
    for part in parts:
        column[start : start + len(part)] = part.tolist()
        start += len(part)
    return column
