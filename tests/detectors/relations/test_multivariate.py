"""Projections: exact whatever the batches, and only such as stay what they are on unseen rows."""

import json
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.relations.components import fit_projection
from detectors.relations.multivariate import COLUMNS_MAX, STEP, Projection

Columns = dict[str, NDArray[np.float64]]


def correlated(rows: int, *, rho: float, columns: int = 10, seed: int = 0) -> Columns:
    """Independent normal columns, but for `f0` and `f1`."""
    values = np.random.default_rng(seed).normal(size=(columns, rows))
    values[1] = rho * values[0] + np.sqrt(1 - rho**2) * values[1]
    return {f"f{i}": values[i] for i in range(columns)}


@cache
def fitted(rho: float = 0.6, *, rows: int = 8_000, fourier: int = 0) -> Projection:
    projection = fit_projection(correlated(rows, rho=rho), fourier=fourier)
    assert projection is not None
    return projection


def test_a_pair_gives_its_sum_its_difference_and_its_relation() -> None:
    projection = fitted()
    assert projection.outputs == ("pc1", "pc10", "f0~f1")
    for shares in projection.shares().values():
        assert list(shares)[:2] in (["f0", "f1"], ["f1", "f0"])
        assert sum(list(shares.values())[:2]) > 0.9
    assert projection.shares()["f0~f1"] == {"f0": 0.5, "f1": 0.5} | {
        f"f{i}": 0.0 for i in range(2, 10)
    }


def test_projections_are_what_they_say() -> None:
    projection = fitted()
    rows = correlated(50_000, rho=0.6, seed=1)
    common, relation, pair = projection.apply([rows[name] for name in projection.inputs])
    assert np.var(common) == pytest.approx(1.6, rel=0.05)
    assert np.var(relation) == pytest.approx(0.4, rel=0.05)
    x, y = rows["f0"], rows["f1"]
    calm = np.maximum(np.abs(x), np.abs(y)) < 2
    expected = x * y - 0.3 * (x**2 + y**2)
    assert pair[calm] == pytest.approx(expected[calm], abs=0.2)


def test_independent_columns_have_nothing_to_project_on() -> None:
    for seed in range(5):
        assert fit_projection(correlated(2_000, rho=0.0, columns=40, seed=seed)) is None


@pytest.mark.parametrize(("rows", "kept"), [(1_500, 0), (12_000, 2)])
def test_a_component_is_kept_if_unseen_rows_have_its_variance(rows: int, kept: int) -> None:
    # fitted to too few rows, the relation of f0 and f1 takes on noise of the other columns
    seen, unseen = (correlated(n, rho=0.6, columns=100, seed=n) for n in (rows, 40_000))
    projection = fit_projection(seen)
    assert projection is not None
    components = [i for i, name in enumerate(projection.outputs) if name.startswith("pc")]
    assert len(components) == kept
    for i in components:
        before, after = (
            projection.apply([table[name] for name in projection.inputs])[i].var()
            for table in (seen, unseen)
        )
        assert after == pytest.approx(before, rel=0.1)


def test_with_fewer_rows_than_columns_nothing_is_made_up() -> None:
    assert fit_projection(correlated(300, rho=0.0, columns=400)) is None


def test_an_exact_relation_is_found_and_breaks_visibly() -> None:
    rng = np.random.default_rng(3)
    parts = rng.gamma(2, size=(3, 6_000))
    rows = {"a": parts[0], "b": parts[1], "c": parts[2], "total": parts.sum(axis=0)}
    projection = fit_projection(rows)
    assert projection is not None
    last = projection.outputs.index("pc4")
    kept = projection.apply([rows[name] for name in projection.inputs])[last]
    rows["total"] = rng.permutation(rows["total"])
    broken = projection.apply([rows[name] for name in projection.inputs])[last]
    assert np.std(kept) < 0.1 * np.std(broken)


def test_the_order_of_columns_and_a_second_fit_change_nothing() -> None:
    columns = correlated(3_000, rho=0.7)
    first = fit_projection(columns)
    second = fit_projection(dict(reversed(columns.items())))
    assert first is not None
    assert second is not None
    assert json.dumps(first.tree()) == json.dumps(second.tree())


def test_a_fit_survives_whatever_columns_hold() -> None:
    rng = np.random.default_rng(5)
    columns = correlated(2_000, rho=0.8)
    columns |= {
        "constant": np.full(2_000, 7.0),
        "missing": np.full(2_000, np.nan),
        "infinite": np.where(rng.random(2_000) < 0.5, np.inf, -np.inf),
        "huge": rng.choice([-1e308, 1e308, 0.0], 2_000),
        "tiny": rng.random(2_000) * 5e-324,
        "far": 1.7e18 + rng.normal(size=2_000) * 1e15,
        "rare": (rng.random(2_000) < 0.01).astype(np.float64),
    }
    columns["f2"][:10] = [1e308, -1e308, np.inf, -np.inf, np.nan, 5e-324, 0, -0.0, 1e300, 1]
    projection = fit_projection(columns)
    assert projection is not None
    assert not {"constant", "missing", "infinite", "tiny"} & set(projection.inputs)
    assert {"far", "rare", "f2"} <= set(projection.inputs)
    projected = projection.apply([columns[name] for name in projection.inputs])
    assert np.isfinite(projected).all()


def test_one_wild_value_does_not_make_all_others_equal() -> None:
    columns = correlated(4_000, rho=0.7)
    plain = fit_projection(columns)
    columns["f0"][17] = 1e308
    wild = fit_projection(columns)
    assert plain is not None
    assert wild is not None
    assert wild.outputs == plain.outputs
    assert wild.deviations == pytest.approx(plain.deviations, rel=0.05)


@pytest.mark.parametrize("rows", [0, 1, 199])
def test_too_few_rows_give_no_projection(rows: int) -> None:
    assert fit_projection(correlated(rows, rho=0.9)) is None


def test_more_columns_than_the_limit_leave_out_the_last_by_name() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(size=400)
    columns = {f"c{i:04d}": common + rng.normal(size=400) for i in range(COLUMNS_MAX + 40)}
    projection = fit_projection(columns)
    assert projection is not None
    assert projection.inputs == tuple(sorted(columns)[:COLUMNS_MAX])
    assert "pc1" in projection.outputs


def test_sums_are_exact_at_the_limits() -> None:
    width = COLUMNS_MAX
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(8, width))
    weights = np.rint(weights / np.linalg.norm(weights, axis=1, keepdims=True) * 2_048)
    projection = Projection(
        inputs=tuple(f"c{i}" for i in range(width)),
        outputs=tuple(f"pc{i}" for i in range(8)),
        means=(0.0,) * width,
        deviations=(1.0,) * width,
        weights=weights.astype(np.float32),
    )
    values = rng.choice([-9.0, 9.0, 0.1], size=(width, 300))
    exact = weights @ np.clip(np.rint(values * STEP), -4 * STEP, 4 * STEP) / (STEP * 2_048)
    assert (projection.apply(list(values)) == exact).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 900), max_size=6), st.sampled_from([0, 16]))
def test_how_rows_are_cut_into_batches_changes_no_bit(cuts: list[int], fourier: int) -> None:
    projection = fitted(fourier=fourier, rows=2_000)
    rows = correlated(900, rho=0.1, seed=8)
    rows["f3"][::7] = np.nan
    arrays = [rows[name] for name in projection.inputs]
    whole = projection.apply(arrays)
    edges = sorted({0, 900, *cuts})
    parts = [
        projection.apply([array[start:stop] for array in arrays]) for start, stop in pairwise(edges)
    ]
    assert (np.concatenate(parts, axis=1) == whole).all()


def test_fourier_features_are_cosines_and_come_last() -> None:
    projection = fitted(fourier=32)
    assert projection.outputs[-32:] == tuple(f"rff{i}" for i in range(1, 33))
    rows = correlated(4_000, rho=0.6, seed=2)
    features = projection.apply([rows[name] for name in projection.inputs])[-32:]
    assert np.abs(features).max() <= 1
    assert np.abs(features.mean(axis=1)).max() < 0.9
    assert (features.std(axis=1) > 0.1).all()


def test_a_tree_is_exact_through_json() -> None:
    projection = fitted(fourier=8)
    back = Projection.from_tree(json.loads(json.dumps(projection.tree())))
    rows = correlated(500, rho=0.0, seed=4)
    arrays = [rows[name] for name in projection.inputs]
    assert back.tree() == projection.tree()
    assert (back.apply(arrays) == projection.apply(arrays)).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("means", [1.0]),
        ("deviations", [0.0] * 10),
        ("deviations", [float("nan")] * 10),
        ("weights", [[1] * 10]),
        ("weights", [[9_999] * 10] * 2),
        ("pairs", [[0, 10, 3]]),
        ("pairs", [[0, 1, 33]]),
        ("outputs", ["pc1"]),
        ("phases", [0.5] * 9),
        ("inputs", []),
    ],
)
def test_a_tree_that_does_not_fit_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match="projection"):
        Projection.from_tree(fitted().tree() | {key: value})


def test_a_senseless_number_of_fourier_features_is_refused() -> None:
    with pytest.raises(ValueError, match="fourier"):
        fit_projection(correlated(300, rho=0.5), fourier=-1)
