"""Descriptors of vectors: norm, cosine, components; a broken vector is missing."""

import json
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.relations.embeddings import VectorDescriptors, fit_vectors

Vectors = NDArray[np.float32]


def vectors(rows: int, *, seed: int = 0, width: int = 24) -> Vectors:
    """Vectors around a common direction that vary most along two others."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(rows, width)) + 3 * rng.normal(size=(rows, 1)) * np.eye(width)[1]
    mixed += 2 * rng.normal(size=(rows, 1)) * (np.arange(width) % 2)
    mixed[:, 0] += 8
    single: Vectors = mixed.astype(np.float32)
    return single


@cache
def fitted() -> VectorDescriptors:
    found = fit_vectors(vectors(3_000), stem="embedding")
    assert found is not None
    return found


def test_norm_and_cosine_are_what_they_say() -> None:
    found = fitted()
    some = vectors(200, seed=1)
    described = found.describe(some)
    wide = some.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    assert described[0] == pytest.approx(norms, rel=1e-6)
    assert described[1] == pytest.approx(wide @ np.array(found.direction) / norms, abs=1e-6)
    assert np.linalg.norm(found.direction) == pytest.approx(1, abs=1e-4)


def test_components_are_named_after_the_column_and_lead() -> None:
    found = fitted()
    assert found.projections
    assert all(name.startswith("embedding.pc") for name in found.projections)
    spread = found.describe(vectors(3_000, seed=2))[2:].std(axis=1)
    assert (spread > 1.1).all()


def test_a_vector_that_is_not_whole_is_missing() -> None:
    some = vectors(5, seed=3)
    some[1, 7], some[2, 0], some[3] = np.nan, np.inf, 0
    described = fitted().describe(some)
    assert np.isnan(described[:, [1, 2]]).all()
    assert np.isfinite(described[:, [0, 3, 4]]).all()
    assert described[0, 3] == described[1, 3] == 0


def test_vectors_of_another_width_are_all_missing() -> None:
    found = fitted()
    described = found.describe(vectors(4, width=9))
    assert described.shape == (2 + len(found.projections), 4)
    assert np.isnan(described).all()


def test_huge_vectors_have_a_norm() -> None:
    some = np.full((1, 24), 3e38, dtype=np.float32)
    assert np.isinf(fitted().describe(some)[0, 0])  # beyond float32: counted as outside
    assert fitted().describe(some / np.float32(100))[0, 0] == pytest.approx(
        3e36 * np.sqrt(24), rel=1e-6
    )


@pytest.mark.parametrize(
    "none", [np.empty((0, 4)), np.full((9, 4), np.nan), np.zeros((9, 4)), np.ones(5)]
)
def test_without_a_whole_vector_there_is_nothing_to_fit(none: NDArray[np.float64]) -> None:
    assert fit_vectors(none.astype(np.float32), stem="v") is None


def test_one_vector_has_a_direction_and_no_components() -> None:
    found = fit_vectors(vectors(1), stem="v")
    assert found is not None
    assert found.projections == ()
    assert found.describe(vectors(1))[1, 0] == pytest.approx(1, abs=1e-4)


def test_wide_vectors_enter_with_the_coordinates_that_vary_most() -> None:
    rng = np.random.default_rng(4)
    wide = (rng.normal(size=(400, 900)) * 0.1).astype(np.float32)
    wide[:, 300:340] += 5 * rng.normal(size=(400, 1)).astype(np.float32)
    found = fit_vectors(wide, stem="v")
    assert found is not None
    assert set(range(300, 340)) <= set(found.places)
    assert len(found.places) <= 256


def test_a_tree_is_exact_and_what_is_none_is_refused() -> None:
    found = fitted()
    tree = json.loads(json.dumps(found.tree()))
    back = VectorDescriptors.from_tree(tree)
    some = vectors(50, seed=5)
    assert back.tree() == found.tree()
    assert (back.describe(some) == found.describe(some)).all()
    for wrong in ({"width": 3}, {"direction": [float("inf")] * 24}, {"places": [24]}):
        with pytest.raises(ValueError, match="vectors"):
            VectorDescriptors.from_tree(tree | wrong)
