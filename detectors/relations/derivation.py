"""Columns derived from columns: what single features cannot show, as features that can be watched.

Text becomes descriptors, a vector its norm, its cosine to the reference and its components, the row
as a whole its principal components. Fitted once, on the first rows of the reference, and part of it
from then on: a reference is only comparable with columns derived by its own `Derivation`. How rows
are cut into chunks, and the order of their columns, must change no bit of what is derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from detectors.relations.components import COMPONENTS_MAX, PAIRS_MAX, fit_projection
from detectors.relations.embeddings import VectorDescriptors, fit_vectors
from detectors.relations.multivariate import Projection
from detectors.relations.text import DESCRIPTORS, describe, is_text
from detectors.rows.columns import Column, Table, numbers

FORMAT: Final = 1
ROWS_MAX: Final = 16_384
#: Columns of text, and of vectors, that are described; the first ones by name.
DESCRIBED_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Derivation:
    """How derived columns are made; see `fit`. Immutable, and exact through `tree`.

    `texts` and `vectors` are by the name of their column, with the stem of what is derived from it.
    """

    texts: Mapping[str, str]
    vectors: Mapping[str, tuple[str, VectorDescriptors]]
    rows: Projection | None

    @classmethod
    def fit(
        cls,
        tables: Sequence[Table],
        kinds: Mapping[str, str],
        *,
        components_max: int = COMPONENTS_MAX,
        pairs_max: int = PAIRS_MAX,
        fourier: int = 0,
    ) -> Derivation | None:
        """Fit to the first 16,384 rows of `tables`; of their columns only those that `kinds` names
        are looked at, and all their vectors.

        `numeric` and `boolean` columns make up the row, `categorical` ones that hold prose, and all
        of kind `text`, are described. `fourier` asks for that many random Fourier features of the
        row. A derived name that is taken is lengthened. None if there is nothing to derive. Raises
        ValueError for a senseless argument, never for what is in the data.
        """
        taken = {*kinds}.union(*(table.columns for table in tables))
        taken = taken.union(*(table.vectors for table in tables))
        numeric = sorted(name for name, kind in kinds.items() if kind in ("numeric", "boolean"))
        columns = {name: numbers(column) for name, column in _joined(tables, numeric).items()}
        keyed = sorted(name for name, kind in kinds.items() if kind in ("categorical", "text"))
        texts = {
            name: _free_stem(name, DESCRIPTORS, taken)
            for name, column in _joined(tables, keyed).items()
            if kinds[name] == "text" or is_text(column)
        }
        rows = fit_projection(
            columns, components_max=components_max, pairs_max=pairs_max, fourier=fourier
        )
        while rows is not None and not taken.isdisjoint(rows.outputs):
            rows = rows.prefixed("row.")
        derivation = cls(
            texts=dict(list(texts.items())[:DESCRIBED_MAX]),
            vectors=_fit_all(tables, taken),
            rows=rows,
        )
        return derivation if derivation.features or derivation.projections else None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of derived columns that describe one column each."""
        of_texts = [f"{stem}.{what}" for stem in self.texts.values() for what in DESCRIPTORS]
        of_vectors = [f"{stem}.{what}" for stem, found in _each(self) for what in found.features]
        return (*of_texts, *of_vectors)

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of derived columns that rest on many columns, or on many numbers of a vector."""
        of_vectors = [name for _, found in _each(self) for name in found.projections]
        return (*of_vectors, *(() if self.rows is None else self.rows.outputs))

    def derive(self, table: Table) -> dict[str, Column]:
        """Give all derived columns, float32, of a chunk of rows.

        What rests on an absent column is left out, all projections of the row with it: absence is a
        change of schema, told as such, and not one of the relations between columns.
        """
        derived: dict[str, Column] = {}
        for name, stem in self.texts.items():
            if name in table.columns:
                described = describe(table.columns[name])
                names = [f"{stem}.{what}" for what in DESCRIPTORS]
                derived.update(zip(names, described, strict=True))
        for name, (stem, found) in self.vectors.items():
            if name in table.vectors:
                names = [f"{stem}.{what}" for what in found.features] + [*found.projections]
                derived.update(zip(names, found.describe(table.vectors[name]), strict=True))
        if self.rows is not None and all(name in table.columns for name in self.rows.inputs):
            arrays = [numbers(table.columns[name]) for name in self.rows.inputs]
            derived.update(zip(self.rows.outputs, self.rows.apply(arrays), strict=True))
        return derived

    def shares(self) -> dict[str, dict[str, float]]:
        """Give, for each projection of the row, the share that each column has in it, largest
        first.
        """
        return {} if self.rows is None else self.rows.shares()

    def tree(self) -> dict[str, Any]:
        """Give JSON values from which `from_tree` makes the very same derivation."""
        return {
            "format": FORMAT,
            "texts": dict(self.texts),
            "vectors": {
                name: {"stem": stem, "descriptors": found.tree()}
                for name, (stem, found) in self.vectors.items()
            },
            "rows": None if self.rows is None else self.rows.tree(),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Derivation:
        """Take back what `tree` gave. Raises ValueError if it is malformed."""
        try:
            if tree["format"] != FORMAT:
                raise ValueError(f"derivation: format {tree['format']!r} is not {FORMAT}")
            rows, vectors = tree["rows"], sorted(tree["vectors"].items())
            return cls(
                texts={str(name): str(stem) for name, stem in sorted(tree["texts"].items())},
                vectors={
                    str(name): (
                        str(entry["stem"]),
                        VectorDescriptors.from_tree(entry["descriptors"]),
                    )
                    for name, entry in vectors
                },
                rows=None if rows is None else Projection.from_tree(rows),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"derivation: malformed ({error!r})") from None


def _each(derivation: Derivation) -> Iterable[tuple[str, VectorDescriptors]]:
    return derivation.vectors.values()


def _free_stem(name: str, endings: Iterable[str], taken: set[str]) -> str:
    """The column's name, lengthened until no column is called as what is derived from it."""
    stem, wanted = name, tuple(endings)
    while any(f"{stem}.{ending}" in taken for ending in wanted):
        stem += "'"
    return stem


def _fit_all(tables: Sequence[Table], taken: set[str]) -> dict[str, tuple[str, VectorDescriptors]]:
    fitted: dict[str, tuple[str, VectorDescriptors]] = {}
    for name in sorted({name for table in tables for name in table.vectors})[:DESCRIBED_MAX]:
        parts = [table.vectors[name] for table in tables if name in table.vectors]
        same = [part for part in parts if part.shape[1] == parts[0].shape[1]]
        stem = _free_stem(name, ("norm", "cosine", *(f"pc{i}" for i in range(1, 257))), taken)
        found = fit_vectors(_first(same), stem=stem)
        if found is not None:
            fitted[name] = (stem, found)
    return fitted


def _first(parts: Sequence[Column]) -> Column:
    """The first rows of some parts, no more of them joined than are looked at."""
    held: list[Column] = []
    rows = 0
    for part in parts:
        if rows >= ROWS_MAX:
            break
        held.append(part[: ROWS_MAX - rows])
        rows += len(held[-1])
    return held[0] if len(held) == 1 else np.concatenate(held)


def _joined(tables: Sequence[Table], names: Sequence[str]) -> dict[str, Column]:
    """The first rows of some columns of all tables; a table that lacks one has it missing."""
    joined: dict[str, Column] = {}
    for name in names:
        if not any(name in table.columns for table in tables):
            continue
        parts: list[Column] = []
        rows = 0
        for table in tables:
            take = min(ROWS_MAX - rows, table.rows)
            if take > 0:
                column = table.columns.get(name)
                parts.append(np.full(take, np.nan) if column is None else column[:take])
                rows += take
        joined[name] = _concatenated(parts, rows)
    return joined


def _concatenated(parts: Sequence[Column], rows: int) -> Column:
    if len(parts) == 1:
        return parts[0]
    if {part.dtype.kind for part in parts} <= set("fiub"):
        return np.concatenate(parts) if parts else np.empty(0)
    column = np.empty(rows, dtype=object)  # numpy would make text of numbers beside text
    start = 0
    for part in parts:
        column[start : start + len(part)] = part.tolist()
        start += len(part)
    return column
