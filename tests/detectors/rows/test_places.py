"""The bin of a row is the bin it is counted in."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors import build_reference
from detectors.rows.binning import WIDTH, Binner
from detectors.rows.places import places

RNG = np.random.default_rng(0)
COLUMNS: dict[str, NDArray[Any]] = {
    "normal": RNG.normal(size=3_000),
    "few": RNG.integers(0, 5, 3_000),
    "heavy": RNG.lognormal(0, 4, 3_000),
    "huge": RNG.normal(size=3_000) * 1e300,
    "text": RNG.choice(np.array([*"abcdefghijklmnopqrst", None], dtype=object), 3_000),
}
REFERENCE = build_reference(COLUMNS, kinds={"text": "categorical"})


@settings(deadline=None)
@given(
    st.sampled_from(list(COLUMNS)),
    st.lists(st.one_of(st.floats(), st.none(), st.sampled_from(["a", "z", 1, True])), max_size=30),
    st.booleans(),
)
def test_rows_are_placed_where_they_are_counted(name: str, odd: list[Any], own: bool) -> None:
    profile = next(p for p in REFERENCE.features if p.name == name)
    column = COLUMNS[name][:500] if own else np.empty(len(odd), dtype=object)
    if not own:
        column[:] = odd
    counted = Binner([(name, profile.bins)]).count({name: column}, len(column))[0]
    placed = np.bincount(places(column, profile.bins), minlength=WIDTH)
    assert placed.tolist() == counted.tolist()
