"""Estimated quality against weighted recomputation by scikit-learn, and against what came true."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from detectors.performance.estimation import ROWS_MIN, EstimationBuilder, EstimationTable, Estimator
from detectors.performance.intervals import Estimate

Floats = NDArray[np.float64]
Rows = tuple[Any, ...]  # score, predicted, truth


def rows(rng: np.random.Generator, count: int, *, a: float = 0.6, b: float = 1.2) -> Rows:
    """A model whose score 1/4 is right 1/3 of the time: it has to be calibrated."""
    score = rng.beta(a, b, count)
    truth = rng.random(count) < score**0.8
    return score, score > 0.45, truth


def table_of(*parts: Rows, task: Any = "classification", **options: Any) -> EstimationTable:
    builder = EstimationBuilder(task, **options)
    for part in parts:
        builder.update(*part)
    table = builder.finish()
    assert table is not None
    return table


def estimate(table: EstimationTable, score: Any, predicted: Any) -> dict[str, Estimate]:
    estimator = Estimator(table, window_rows=1_000_000, blocks=1)
    estimator.update(score, predicted)
    return estimator.metrics()


def values(found: dict[str, Estimate]) -> dict[str, float]:
    return {name: figure.value for name, figure in found.items()}


def realised(score: Floats, said: Any, true: Any, weight: Floats | None = None) -> dict[str, float]:
    options = {"sample_weight": weight}
    return {
        "roc_auc": sk.roc_auc_score(true, score, **options),
        "pr_auc": sk.average_precision_score(true, score, **options),
        "accuracy": sk.accuracy_score(true, said, **options),
        "precision": sk.precision_score(true, said, **options),
        "recall": sk.recall_score(true, said, **options),
        "specificity": sk.recall_score(~true, ~said, **options),
        "f1": sk.f1_score(true, said, **options),
        "log_loss": sk.log_loss(true, score, **options),
        "brier": sk.brier_score_loss(true, score, **options),
    }


def test_expected_figures_are_those_of_rows_that_are_both_true_and_false_by_their_chance() -> None:
    rng = np.random.default_rng(1)
    table = table_of(rows(rng, 8_000))
    score, said, _ = rows(rng, 3_000, a=0.9)
    found = values(estimate(table, score, said))
    place = table.tables[0].places(score)
    chance = table.calibration()[place]
    twice, both = np.tile(said, 2), np.repeat([True, False], len(score))
    weight = np.concatenate([chance, 1.0 - chance])
    wanted = realised(np.tile(score, 2), twice, both, weight)
    wanted["roc_auc"] = sk.roc_auc_score(both, np.tile(place, 2), sample_weight=weight)
    del wanted["pr_auc"]  # of bins it depends on how ties are read: see the next test
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-9)


def test_the_expected_average_precision_is_that_of_truths_drawn_by_their_chance() -> None:
    rng = np.random.default_rng(2)
    table = table_of(rows(rng, 8_000))
    score, said, _ = rows(rng, 2_000)
    chance = table.calibration()[table.tables[0].places(score)]
    drawn = [sk.average_precision_score(rng.random(len(score)) < chance, score) for _ in range(200)]
    found = estimate(table, score, said)["pr_auc"].value
    assert found == pytest.approx(np.mean(drawn), abs=0.002)


def test_realised_figures_fall_into_the_interval_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(3)
    inside: dict[str, list[bool]] = {}
    for _ in range(25):
        table = table_of(rows(rng, 6_000))
        for _ in range(8):  # another mix of scores than the reference had
            score, said, true = rows(rng, 1_500, a=0.9, b=0.9)
            found = estimate(table, score, said)
            for name, value in realised(score, said, true).items():
                inside.setdefault(name, []).append(found[name].lower <= value <= found[name].upper)
    shares = {name: float(np.mean(listed)) for name, listed in inside.items()}
    assert len(shares) == 9
    assert all(0.88 <= share <= 0.995 for share in shares.values()), shares


def test_several_classes_are_estimated_one_against_the_rest() -> None:
    rng = np.random.default_rng(4)

    def draw(count: int, sharp: float) -> tuple[Floats, Any, Any]:
        score = rng.dirichlet([sharp] * 3, count)
        names = np.array(["ant", "bee", "cat"], dtype=object)
        truth = (score.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
        return score, names[score.argmax(axis=1)], names[truth]

    table = table_of(draw(20_000, 0.7))
    assert (table.basis, table.classes) == ("multiclass", ("ant", "bee", "cat"))
    score, said, true = draw(20_000, 0.5)
    found = estimate(table, score, said)
    wanted = {
        "roc_auc": sk.roc_auc_score(true, score, multi_class="ovr"),
        "accuracy": sk.accuracy_score(true, said),
        "f1": sk.f1_score(true, said, average="macro"),
        "precision": sk.precision_score(true, said, average="macro"),
        "recall": sk.recall_score(true, said, average="macro"),
        "log_loss": sk.log_loss(true, score),
        "brier": ((score - (true[:, None] == np.array(table.classes))) ** 2).sum(axis=1).mean(),
    }
    for name, value in wanted.items():
        assert found[name].lower <= value <= found[name].upper, (name, value, found[name])
        assert found[name].value == pytest.approx(value, abs=0.02)


def test_the_score_of_the_predicted_class_is_turned_into_that_of_the_positive_one() -> None:
    rng = np.random.default_rng(5)
    score, said, true = rows(rng, 8_000)
    said = score >= 0.5
    height = np.where(said, score, 1.0 - score)
    plain, turned = table_of((score, said, true)), table_of((height, said, true))
    assert turned.oriented
    assert not plain.oriented
    assert values(estimate(turned, height, said)) == pytest.approx(
        values(estimate(plain, score, said)), abs=1e-6
    )


def test_one_score_for_many_classes_estimates_accuracy_alone() -> None:
    rng = np.random.default_rng(6)
    said, height = rng.integers(0, 5, 10_000), 0.4 + 0.6 * rng.random(10_000)
    true = np.where(rng.random(10_000) < height, said, (said + 1) % 5)
    table = table_of((height, said, true))
    found = estimate(table, height[:4_000], said[:4_000])
    assert set(found) == {"accuracy"}
    assert found["accuracy"].value == pytest.approx(height[:4_000].mean(), abs=0.01)


def test_two_columns_are_those_of_the_negative_and_the_positive_class() -> None:
    rng = np.random.default_rng(7)
    score, said, true = rows(rng, 3_000)
    both = np.stack([1.0 - score, score], axis=1)
    wanted = values(estimate(table_of((score, said, true)), score, said))
    assert values(estimate(table_of((both, said, true)), both, said)) == pytest.approx(wanted)
    names = np.array(["yes", "no"], dtype=object)  # the positive class is the second that is named
    table = table_of((both, names[1 - said], names[1 - true]), classes=("no", "yes"))
    assert values(estimate(table, both, names[1 - said])) == pytest.approx(wanted)


def test_errors_of_a_regression_follow_the_range_of_the_predictions() -> None:
    rng = np.random.default_rng(8)

    def draw(count: int, centre: float) -> tuple[None, Floats, Floats]:
        said = rng.gamma(4.0, centre / 4.0, count)
        return None, said, said + rng.normal(0, 0.1 * said)

    table = table_of(draw(30_000, 100.0), task="regression")
    inside = dict.fromkeys(("mae", "mse", "rmse"), 0)
    for _ in range(100):
        _, said, true = draw(2_000, 130.0)
        found = estimate(table, None, said)
        wanted = {"mae": np.abs(true - said).mean(), "mse": ((true - said) ** 2).mean()}
        wanted["rmse"] = wanted["mse"] ** 0.5
        for name, value in wanted.items():
            inside[name] += found[name].lower <= value <= found[name].upper
    assert all(count >= 80 for count in inside.values()), inside


def test_how_rows_were_cut_into_chunks_does_not_matter() -> None:
    rng = np.random.default_rng(9)
    score, said, true = rows(rng, 20_000)
    whole = table_of((score, said, true))
    cuts = [0, 1, 1, 700, 16_385, 20_000]
    parts = [(score[a:b], said[a:b], true[a:b]) for a, b in pairwise(cuts)]
    assert table_of(*parts).tree() == whole.tree()
    assert whole.rows == 20_000


@given(cut=st.integers(0, 3_000), seed=st.integers(0, 50))
@settings(max_examples=20)
def test_merged_tables_with_the_same_edges_are_exact(cut: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, said, true = rows(rng, 6_000)
    score = np.asarray(
        np.round(score, 1), dtype=np.float64
    )  # eleven values: every part that is large has the same edges
    split = 1_500 + cut
    one = table_of((score[:split], said[:split], true[:split]))
    two = table_of((score[split:], said[split:], true[split:]))
    assert one.merged(two).tree() == table_of((score, said, true)).tree()


def test_merged_tables_with_other_edges_estimate_the_same_within_a_thousandth() -> None:
    rng = np.random.default_rng(10)
    one, two = rows(rng, 30_000), rows(rng, 10_000, a=1.5)
    joint = table_of(tuple(np.concatenate(pair) for pair in zip(one, two, strict=True)))
    merged = table_of(one).merged(table_of(two))
    assert merged.rows == joint.rows == 40_000
    assert sum(part.sums.sum() for part in merged.tables) == pytest.approx(40_000)
    score, said, _ = rows(rng, 20_000, a=0.8)
    mine, wanted = values(estimate(merged, score, said)), values(estimate(joint, score, said))
    assert mine == pytest.approx(wanted, abs=0.0015)


def test_tables_about_different_things_do_not_merge() -> None:
    rng = np.random.default_rng(11)
    score, said, true = rows(rng, 1_000)
    one = table_of((score, said, true))
    names = np.array(["a", "b"], dtype=object)
    two = table_of((score, names[said.astype(int)], names[true.astype(int)]))
    with pytest.raises(ValueError, match="tables for"):
        one.merged(two)


def test_tables_of_turned_and_plain_scores_do_not_merge() -> None:
    rng = np.random.default_rng(21)
    score, _, true = rows(rng, 5_000)
    said = score >= 0.5
    turned = table_of((np.where(said, score, 1.0 - score), said, true))
    with pytest.raises(ValueError, match="tables for"):
        turned.merged(table_of((score, said, true)))


def test_merged_tables_of_a_regression_keep_the_wider_cap() -> None:
    rng = np.random.default_rng(22)
    said = rng.random(1_000)
    small, large = (
        table_of((None, said, said + rng.normal(0, spread, 1_000)), task="regression")
        for spread in (0.1, 1.0)
    )
    assert small.merged(large).cap == large.merged(small).cap == large.cap > small.cap


def test_arrays_are_the_callers_to_use_again() -> None:
    score, said, true = rows(np.random.default_rng(23), 3_000)
    wanted = table_of((score.copy(), said.astype(float), true.astype(float))).tree()
    builder = EstimationBuilder("classification")
    arrays = [score.copy(), said.astype(float), true.astype(float)]
    builder.update(*arrays)
    for array in arrays:
        array[:] = 0.5
    table = builder.finish()
    assert table is not None
    assert table.tree() == wanted


def test_a_score_beyond_one_has_the_losses_of_one() -> None:
    score, said, true = rows(np.random.default_rng(24), 3_000)
    table = table_of((score, said, true))
    beyond = np.where(score > 0.9, 1e308, score)
    wanted = values(estimate(table, np.minimum(beyond, 1.0), said))
    assert values(estimate(table, beyond, said)) == pytest.approx(wanted)


def test_a_table_comes_back_from_json() -> None:
    rng = np.random.default_rng(12)
    score, said, true = rows(rng, 20_000)
    table = table_of((score, said, true))
    text = json.dumps(table.tree())
    assert len(text) < 20_000
    again = EstimationTable.from_tree(json.loads(text))
    assert again.tree() == table.tree()
    assert estimate(again, score, said) == estimate(table, score, said)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"format": 2},
        {"basis": "hope"},
        {"tables": []},
        {"tables": [{"edges": [0.5, 0.1], "low": 0, "high": 1, "sums": [[0] * 4] * 3}]},
        {"tables": [{"edges": [0.5], "low": 0, "high": 1, "sums": [[0] * 3] * 2}]},
        {"tables": [{"edges": [0.5], "low": 0, "high": 1, "sums": [[float("nan")] * 4] * 2}]},
        {"classes": None},
    ],
)
def test_a_tree_that_cannot_be_is_refused(spoilt: dict[str, Any]) -> None:
    tree = table_of(rows(np.random.default_rng(13), 1_000)).tree()
    with pytest.raises(ValueError, match=r".+"):
        EstimationTable.from_tree(tree | spoilt)


def test_too_little_or_useless_rows_give_no_table() -> None:
    rng = np.random.default_rng(14)
    score, said, true = rows(rng, 2_000)
    few = ROWS_MIN - 1
    for args in (
        (score[:few], said[:few], true[:few]),
        (None, said, true),
        (score, np.ones(2_000), np.ones(2_000)),  # one class alone
        (np.stack([score] * 21, axis=1), said, true),
        (np.stack([score] * 3, axis=1), np.full(2_000, "x"), np.full(2_000, "y")),
    ):
        builder = EstimationBuilder("classification")
        builder.update(*args)
        assert builder.finish() is None
    assert EstimationBuilder("regression").finish() is None


def test_rows_that_say_nothing_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(15)
    score, said, true = rows(rng, 3_000)
    clean = table_of((score, said, true))
    odd = np.array([None, np.nan, [1], {}, np.inf, "", 10**400], dtype=object)
    builder = EstimationBuilder("classification")
    builder.update(score, said.astype(object), true.astype(object))
    builder.update(np.array([np.nan, np.inf, -np.inf]), said[:3], true[:3])
    builder.update(score[:5], odd[:5], true[:5])
    builder.update(np.empty(0), np.empty(0), np.empty(0))
    assert builder.left_out == 8
    table = builder.finish()
    assert table is not None
    assert table.tree() == clean.tree()
    estimator = Estimator(table)
    estimator.update(score, said)
    wanted = estimator.metrics()
    estimator.update(np.array([np.nan, 1e308, -1e308, 0.5]), np.array([1.0, np.nan, np.inf, 7.0]))
    estimator.update(np.zeros((3, 9)), said[:3])
    estimator.update(None, said[:3])
    assert (estimator.metrics(), estimator.left_out) == (wanted, 10)


def test_scores_that_are_no_probabilities_have_no_losses() -> None:
    rng = np.random.default_rng(16)
    score, said, true = rows(rng, 5_000)
    margin = np.log(score / (1 - score)) * 1e6
    margin[0] = 1e308
    found = estimate(table_of((margin, said, true)), margin, said)
    assert {"log_loss", "brier"}.isdisjoint(found)
    assert found["roc_auc"].value == pytest.approx(sk.roc_auc_score(true, score), abs=0.01)


def test_the_second_class_may_come_after_edges_were_chosen() -> None:
    rng = np.random.default_rng(17)
    score, said, true = rows(rng, 40_000)
    truth = true & (np.arange(40_000) > 20_000)
    predicted = said & (np.arange(40_000) > 20_000)
    builder = EstimationBuilder("classification")
    mirrored = EstimationBuilder("classification")
    for start in range(0, 40_000, 1_000):
        part = slice(start, start + 1_000)
        builder.update(score[part], predicted[part], truth[part])
        mirrored.update(1 - score[part], ~predicted[part], ~truth[part])
    one, two = builder.finish(), mirrored.finish()
    assert one is not None
    assert two is not None
    assert one.classes == two.classes == ("0", "1")
    found = values(estimate(one, score[:5_000], said[:5_000]))
    other = values(estimate(two, 1 - score[:5_000], ~said[:5_000]))
    assert other["roc_auc"] == pytest.approx(found["roc_auc"], abs=0.01)
    assert other["accuracy"] == pytest.approx(found["accuracy"], abs=0.01)


@given(cuts=st.lists(st.integers(0, 3_000), max_size=5), restart=st.integers(0, 4))
@settings(max_examples=25)
def test_a_window_goes_on_after_a_restart_as_if_nothing_happened(
    cuts: list[int], restart: int
) -> None:
    rng = np.random.default_rng(18)
    table = table_of(rows(rng, 2_000))
    score, said, _ = rows(rng, 3_000)
    ends = [0, *sorted(cuts), 3_000]
    through, now = (Estimator(table, window_rows=500) for _ in range(2))
    for number, (a, b) in enumerate(pairwise(ends)):
        through.update(score[a:b], said[a:b])
        if number == restart:
            before, now = now, Estimator(table, window_rows=500)
            now.restore(json.loads(json.dumps(before.state(), default=np.ndarray.tolist)))
        now.update(score[a:b], said[a:b])
    assert now.metrics() == through.metrics()
    once = Estimator(table, window_rows=500)
    once.update(score, said)
    assert 500 <= once.rows <= 550
    assert values(once.metrics()) == pytest.approx(values(through.metrics()))


def test_a_state_of_another_table_is_refused() -> None:
    rng = np.random.default_rng(19)
    score, said, true = rows(rng, 2_000)
    one = Estimator(table_of((score, said, true)))
    two = Estimator(table_of((np.round(score, 1), said, true)))
    with pytest.raises(ValueError, match="not those of this table"):
        one.restore(two.state())
    with pytest.raises(ValueError, match="a window of 0 rows"):
        Estimator(one.table, window_rows=0)
