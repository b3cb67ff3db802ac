"""A few rows of each predicted class of a tick, chosen evenly: what is captured when it may be few.

Among the n rows of a class the k with the smallest hashes stay, so each stays with probability k/n,
and which of them does not depend on what they contain. That probability multiplies into the one
with which the row came here. The hash is of request id and row, apart from the draw that has
already chosen among exchanges: among kept ones that draw is not evenly spread any more.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Places of rows in the batch, rising, and for how many each of them stands."""

    places: NDArray[np.int64]
    weight: NDArray[np.float64]


def all_rows(batch: Batch) -> Chosen:
    """Every row, as it came."""
    return Chosen(places=np.arange(batch.rows), weight=batch.weight)


def choose(batch: Batch, *, rows_max: int, salt: bytes) -> Chosen:
    """At most `rows_max` rows of each predicted class. Numbers and no prediction are one class."""
    classes: dict[Any, list[int]] = {}
    by_name = batch.prediction is not None and batch.prediction.dtype.kind == "O"
    names = batch.prediction.tolist() if by_name and batch.prediction is not None else None
    for place in range(batch.rows):
        classes.setdefault(None if names is None else names[place], []).append(place)
    weight = batch.weight.astype(float)
    places: list[int] = []
    for found in classes.values():
        if len(found) > rows_max:
            weight[found] *= len(found) / rows_max
            found = sorted(found, key=lambda place: _hash(batch, place, salt))[:rows_max]
        places += found
    rising = np.array(sorted(places), dtype=np.int64)
    return Chosen(places=rising, weight=weight[rising])


def _hash(batch: Batch, place: int, salt: bytes) -> bytes:
    name = f"{batch.ids[place]}:{batch.row_numbers[place]}".encode()
    return blake2b(name, digest_size=8, salt=salt[: blake2b.SALT_SIZE], person=b"few").digest()
