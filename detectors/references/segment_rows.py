"""Counts of the reference by the value of one column, in the bins of the whole reference."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.reference import NAME_CHARACTERS_MAX, SEGMENT_OTHER, SEGMENTS_MAX, Segments
from detectors.rows.binning import Binner
from detectors.rows.bins import BINS, WIDTH, Bins, CategoryBins, NumericBins
from detectors.rows.columns import Column, category_keys

_MISSING = "missing"


class SegmentRows:
    """Counts rows per segment: the 20 most frequent of the first rows, all others together."""

    def __init__(self, column: str, names: Sequence[str], features: int) -> None:
        self.column = column
        self._names = [name for name in names if name != SEGMENT_OTHER][:SEGMENTS_MAX]
        self._place = {name: place for place, name in enumerate(self._names)}
        self._counts = np.zeros((len(self._names) + 1, features, WIDTH), dtype=np.int64)

    def add(
        self,
        values: Column,
        columns: Mapping[str, Column],
        binner: Binner,
        times: NDArray[np.float64] | None = None,
    ) -> None:
        """Count the next rows, whose segments are `values`."""
        others = len(self._names)
        names = segment_names(values).tolist()
        place = np.fromiter((self._place.get(name, others) for name in names), np.int64, len(names))
        for segment in np.unique(place).tolist():
            rows = place == segment
            part = {name: column[rows] for name, column in columns.items()}
            at = None if times is None else times[rows]
            self._counts[segment] += binner.count(part, int(np.count_nonzero(rows)), at)

    def finish(
        self,
        features: Sequence[int],
        moved: Mapping[int, NDArray[np.int64] | None],
    ) -> Segments:
        """Give the segments of some features, by their place in the binner.

        `moved` gives, for a feature whose final bins stand in another order, each counted bin's
        final place; None if its bins could not be kept: it then has no counts.
        """
        counts = np.zeros((len(self._counts), len(features), WIDTH), dtype=np.int64)
        for row, feature in enumerate(features):
            if feature not in moved:
                counts[:, row] = self._counts[:, feature]
            elif (places := moved[feature]) is not None:
                for b, final in enumerate(places.tolist()):
                    counts[:, row, final] += self._counts[:, feature, b]
        names = [*self._names, SEGMENT_OTHER]
        if not counts[-1].any():
            names, counts = names[:-1], counts[:-1]
        counts.setflags(write=False)
        return Segments(column=self.column, names=tuple(names), counts=counts)


def final_places(counted: Bins, final: Bins) -> NDArray[np.int64] | None:
    """Give where each counted bin's rows are in the final bins, [18]; None if they cannot be told
    apart there.
    """
    places = np.arange(WIDTH)
    if isinstance(counted, NumericBins) and isinstance(final, NumericBins):
        same = counted.edges == final.edges and not final.phases
        return places if same else None
    if isinstance(counted, CategoryBins) and isinstance(final, CategoryBins):
        if not set(final.top) <= set(counted.top):
            return None
        places[: len(counted.top)] = [
            final.top.index(digest) if digest in final.top else BINS - 1 for digest in counted.top
        ]
        return places
    return None


def segment_names(values: Column) -> NDArray[np.object_]:
    """Give each row's segment by name; rows without a value are a segment of their own."""
    keys = category_keys(values)
    known = {key: _MISSING if key is None else key[:NAME_CHARACTERS_MAX] for key in set(keys)}
    names = np.empty(len(keys), dtype=object)
    names[:] = [known[key] for key in keys]
    return names


def most_frequent(arrays: Sequence[Column]) -> list[str]:
    """Give the names of the 20 most frequent segments, equal ones by name."""
    counted: Counter[str] = Counter()
    for values in arrays:
        counted.update(segment_names(values).tolist())
    return sorted(counted, key=lambda name: (-counted[name], name))[:SEGMENTS_MAX]
