"""Areas by group against scikit-learn, and slopes against what one more row does."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from detectors.performance.ranking import (
    average_precision,
    average_precision_slopes,
    mixed_average_precision,
    roc_auc,
    roc_auc_slopes,
)

Floats = NDArray[np.float64]
GROUPS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


def columns(groups: list[tuple[int, int]]) -> tuple[Floats, Floats]:
    positive, negative = np.array(groups, dtype=np.float64).T
    assume(positive.sum() > 0 and negative.sum() > 0)
    return positive, negative


@given(groups=GROUPS)
def test_areas_are_those_of_scikit_learn_where_a_group_is_a_tie(
    groups: list[tuple[int, int]],
) -> None:
    positive, negative = columns(groups)
    score = np.tile(np.arange(len(groups)), 2)
    truth, weight = np.repeat([1, 0], len(groups)), np.concatenate([positive, negative])
    assert roc_auc(positive, negative) == pytest.approx(
        roc_auc_score(truth, score, sample_weight=weight)
    )
    assert average_precision(positive, negative) == pytest.approx(
        average_precision_score(truth, score, sample_weight=weight)
    )


@given(groups=GROUPS)
def test_slopes_are_what_a_little_more_of_a_group_does(groups: list[tuple[int, int]]) -> None:
    positive, negative = columns(groups)
    for figure, slopes in (
        (roc_auc, roc_auc_slopes),
        (average_precision, average_precision_slopes),
    ):
        before = float(figure(positive, negative))
        ups, downs = slopes(positive, negative)
        for place in range(len(groups)):
            more = np.eye(len(groups))[place] * 1e-6
            if positive[place] + negative[place] > 0:
                up = (float(figure(positive + more, negative)) - before) / 1e-6
                down = (float(figure(positive, negative + more)) - before) / 1e-6
                assert ups[place] == pytest.approx(up, abs=1e-4)
                assert downs[place] == pytest.approx(down, abs=1e-4)


def test_mixed_groups_have_the_precision_of_rows_in_random_order() -> None:
    rng = np.random.default_rng(1)
    positive, negative = np.array([20.0, 60.0, 120.0]), np.array([300.0, 90.0, 10.0])
    group = np.repeat([0, 1, 2, 0, 1, 2], np.concatenate([positive, negative]).astype(int))
    truth = np.repeat([1, 0], [200, 400])
    drawn = [average_precision_score(truth, group + rng.random(600)) for _ in range(300)]
    area, _ = mixed_average_precision(positive, negative)
    assert area == pytest.approx(np.mean(drawn), abs=0.002)


@given(groups=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_slopes_of_mixed_groups_are_what_a_negative_turned_positive_does(
    groups: list[tuple[int, int]],
) -> None:
    positive, negative = columns(groups)
    _, slopes = mixed_average_precision(positive, negative)
    for place in range(len(groups)):
        step = np.eye(len(groups))[place] * 1e-6
        # Towards fewer where that is possible: at no positives the figure is not smooth both ways.
        back = step if positive[place] > 0 else 0 * step
        up, _ = mixed_average_precision(positive + step, negative - step)
        down, _ = mixed_average_precision(positive - back, negative + back)
        width = 2e-6 if positive[place] > 0 else 1e-6
        assert slopes[place] == pytest.approx((up - down) / width, abs=1e-4)


def test_a_group_without_rows_neither_counts_nor_slopes() -> None:
    positive, negative = np.array([3.0, 0.0, 5.0]), np.array([4.0, 0.0, 1.0])
    area, slopes = mixed_average_precision(positive, negative)
    wanted, others = mixed_average_precision(positive[[0, 2]], negative[[0, 2]])
    assert area == pytest.approx(wanted)
    assert slopes.tolist() == pytest.approx([others[0], 0.0, others[1]])


def test_bins_of_scores_miss_the_exact_area_by_at_most_half_the_pairs_within_bins() -> None:
    rng = np.random.default_rng(2)
    score = rng.random(5_000)
    truth = rng.random(5_000) < score
    for bins in (4, 16, 64, 256):
        place = (score * bins).astype(int)
        positive = np.bincount(place[truth], minlength=bins).astype(float)
        negative = np.bincount(place[~truth], minlength=bins).astype(float)
        bound = (positive * negative).sum() / positive.sum() / negative.sum() / 2
        error = abs(float(roc_auc(positive, negative)) - roc_auc_score(truth, score))
        assert error <= bound
        assert bound < 1.0 / bins


def test_one_kind_of_rows_alone_has_no_area() -> None:
    assert np.isnan(roc_auc(np.array([1.0]), np.array([0.0])))
    assert np.isnan(average_precision(np.array([0.0]), np.array([1.0])))
