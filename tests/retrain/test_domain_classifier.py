"""The classifier that tells two sets of rows apart: its area, its interval, what it names."""

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from retrain.pipeline.domain_classifier import area, separate


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the job: on a busy machine OpenMP's threads wait for each other."""
    with threadpool_limits(limits=1):
        yield


def test_the_area_is_that_of_scikit_learn_and_its_variance_that_of_repetition() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [150, 100])
    found = []
    for _ in range(400):
        scores = np.round(rng.normal(size=250) + 0.6 * labels, 1)  # with ties
        found.append(area(scores, labels))
        assert found[-1][0] == pytest.approx(roc_auc_score(labels, scores))
    areas, variances = np.array(found).T
    assert variances.mean() == pytest.approx(areas.var(), rel=0.2)


@pytest.mark.slow
def test_the_interval_covers_chance_where_nothing_differs() -> None:
    covered = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found = separate(
            rng.normal(size=(150, 2)), rng.normal(size=(150, 2)), ["a", "b"], [False] * 2
        )
        covered += not found.differs
    assert covered >= 9


def test_neighbours_that_resemble_each_other_are_no_difference_by_themselves() -> None:
    # a random walk: its own neighbours give each row away, blocks of rows do not
    rng = np.random.default_rng(1)
    walk = np.repeat(rng.normal(size=60), 20)[:, None]
    found = separate(walk[:600], walk[600:], ["walk"], [False])
    assert found.auc < 0.75


@pytest.mark.slow
def test_broken_correlation_is_told_and_both_features_are_named() -> None:
    rng = np.random.default_rng(2)
    plain = rng.normal(size=(900, 3))
    related = rng.normal(size=(900, 3))
    related[:, 1] = 0.9 * related[:, 0] + np.sqrt(1 - 0.81) * related[:, 1]
    found = separate(related, plain, ["a", "b", "c"], [False] * 3)
    assert found.differs
    assert {name for name, _ in found.features[:2]} == {"a", "b"}


def test_columns_that_are_missing_or_constant_do_no_harm() -> None:
    rng = np.random.default_rng(3)
    reference, current = rng.normal(size=(2, 200, 3))
    for side in (reference, current):
        side[:, 0], side[:, 1] = np.nan, 1e300
    found = separate(reference, current, ["none", "same", "noise"], [False] * 3)
    assert dict(found.features)["none"] == 0
    assert dict(found.features)["same"] == 0


def test_too_few_rows_or_columns_are_refused() -> None:
    rows = np.zeros((60, 1))
    with pytest.raises(ValueError, match="at least 50"):
        separate(rows[:49], rows, ["a"], [False])
    with pytest.raises(ValueError, match="no column"):
        separate(rows[:, :0], rows[:, :0], [], [])
