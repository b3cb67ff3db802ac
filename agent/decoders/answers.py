"""What a model said, in the shapes that servers write it, as outputs of n entries each.

Do not raise over an answer that merely fits no column: its features are still worth watching.
Only entries that cannot be matched with the rows make an exchange undecodable.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeAlias

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason
from agent.decoders.tabular import are_alike, flat_object, picked, require_names
from agent.inference import Value

Entries: TypeAlias = Sequence[Value | Sequence[Value]]


def outputs_of(name: str, said: Any, rows: int, limits: DecodeLimits) -> dict[str, Entries]:
    """The outputs in `said`, which answers `rows` rows; empty when it fits in no column.

    `said` may be n scalars (one output called `name`), n vectors of scores, n objects (an
    output for each member), an object of n-entry columns, or for one row the bare answer.

    Raises:
        DecodeError: rows_mismatch, wrong_type, too_many_columns, too_deep.
    """
    if isinstance(said, dict):
        return _outputs_of_columns(said, rows, limits)
    if not isinstance(said, list):
        if rows != 1:
            raise DecodeError(DecodeReason.ROWS_MISMATCH, f"one answer for {rows} rows")
        return {name: [said]}
    if len(said) != rows:
        raise DecodeError(DecodeReason.ROWS_MISMATCH, f"{len(said)} answers for {rows} rows")
    kinds = set(map(type, said))
    if dict not in kinds:
        entries = entries_of(said, limits)
        return {name: entries} if entries is not None else {}
    if kinds != {dict}:
        return {}
    return _outputs_of_objects(said, limits)


def entries_of(said: Sequence[Any], limits: DecodeLimits) -> Entries | None:
    """n answers as scalars or flat vectors; None when some hold objects.

    Vectors of length one are their only entry: `[[0.3], [0.7]]` says the same as `[0.3, 0.7]`.

    Raises:
        DecodeError: too_deep, too_many_columns.
    """
    kinds = set(map(type, said))
    if list not in kinds:
        return None if dict in kinds else said
    vectors: Sequence[Any] = said
    inside = set(map(type, chain.from_iterable(said))) if kinds == {list} else {list}
    if list in inside:
        vectors = [_flat_vector(entry, limits) for entry in said]
        inside = set(map(type, chain.from_iterable(vectors)))
    if dict in inside:
        return None
    lengths = set(map(len, vectors))
    if max(lengths) > limits.columns_max:
        raise DecodeError(DecodeReason.TOO_MANY_COLUMNS, f"an answer of {max(lengths)} values")
    return list(chain.from_iterable(vectors)) if lengths == {1} else vectors


def _flat_vector(entry: Any, limits: DecodeLimits) -> list[Any]:
    """An answer as a flat list, whatever the depth of its arrays."""
    vector: list[Any] = entry if isinstance(entry, list) else [entry]
    for _ in range(limits.depth_max):
        if len(vector) > limits.columns_max:
            raise DecodeError(DecodeReason.TOO_MANY_COLUMNS, f"an answer of {len(vector)} values")
        if list not in set(map(type, vector)):
            return vector
        nested = (value if isinstance(value, list) else [value] for value in vector)
        vector = list(chain.from_iterable(nested))
    raise DecodeError(DecodeReason.TOO_DEEP, f"an answer nested over {limits.depth_max} deep")


def _outputs_of_objects(said: Sequence[dict[str, Any]], limits: DecodeLimits) -> dict[str, Entries]:
    """n objects: one output for each name; a member that is an array stays a vector."""
    if are_alike(said) and said[0]:
        alike = tuple(said[0])
        require_names(alike, len(said), limits)
        return dict(zip(alike, zip(*picked(said, alike), strict=True), strict=True))
    members: list[dict[str, Any]] = []
    for entry in said:
        lists = {name: value for name, value in entry.items() if isinstance(value, list)}
        others = {name: value for name, value in entry.items() if name not in lists}
        members.append({**flat_object(others, limits), **lists})
    names = dict.fromkeys(chain.from_iterable(members))
    if not names:
        return {}
    require_names(tuple(names), len(said), limits)
    outputs: dict[str, Entries] = {}
    for name in names:
        entries = entries_of([entry.get(name) for entry in members], limits)
        if entries is not None:
            outputs[name] = entries
    return outputs


def _outputs_of_columns(
    said: dict[str, Any], rows: int, limits: DecodeLimits
) -> dict[str, Entries]:
    """An object of columns; for one row a bare object is taken as well."""
    columns = {
        name: values
        for name, values in said.items()
        if isinstance(values, list) and len(values) == rows
    }
    if not columns and rows == 1:
        return _outputs_of_objects([said], limits)
    if not columns:
        raise DecodeError(DecodeReason.ROWS_MISMATCH, f"no member has {rows} entries")
    require_names(tuple(columns), rows, limits)
    outputs: dict[str, Entries] = {}
    for name, values in columns.items():
        entries = entries_of(values, limits)
        if entries is not None:
            outputs[name] = entries
    return outputs
