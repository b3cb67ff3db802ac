"""Realised quality against plain re-computation and scikit-learn."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from detectors.performance.intervals import Estimate
from detectors.performance.quality import CLASSES_MAX, Quality

Pairs = list[tuple[Any, Any]]  # predicted, truth
Floats = NDArray[np.float64]


def feed(quality: Quality, pairs: Pairs, **options: Any) -> Quality:
    quality.update([p for p, _ in pairs], [t for _, t in pairs], **options)
    return quality


def of(pairs: Pairs, task: Any = "classification", **options: Any) -> Quality:
    return feed(Quality(task=task, **options), pairs)


def values(quality: Quality) -> dict[str, float]:
    return {name: estimate.value for name, estimate in quality.metrics().items()}


def holds(estimate: Estimate, value: float) -> bool:
    return estimate.lower <= value <= estimate.upper


def plain_classification(pairs: Pairs, weights: list[float]) -> dict[str, float]:
    """As a textbook has it, one row at a time."""
    total = sum(weights)
    found = {"accuracy": sum(w for (p, t), w in zip(pairs, weights, strict=True) if p == t) / total}
    classes = sorted({name for pair in pairs for name in pair})
    if len(classes) < 2:
        return found
    each: dict[str, list[float]] = {"precision": [], "recall": [], "f1": [], "specificity": []}
    for name in classes[-1:] if len(classes) == 2 else classes:
        rows = list(zip(pairs, weights, strict=True))
        hit = sum(w for (p, t), w in rows if p == t == name)
        said = sum(w for (p, _), w in rows if p == name)
        true = sum(w for (_, t), w in rows if t == name)
        if said:
            each["precision"].append(hit / said)
        if true:
            each["recall"].append(hit / true)
        if said + true:
            each["f1"].append(2 * hit / (said + true))
        if len(classes) == 2 and total > true:
            each["specificity"].append((total - said - true + hit) / (total - true))
    return found | {metric: sum(v) / len(v) for metric, v in each.items() if v}


CLASSES = st.sampled_from(["a", "b", "c"])
ROWS = st.lists(st.tuples(CLASSES, CLASSES, st.sampled_from([1.0, 2.0, 7.5])), min_size=1)


@given(rows=ROWS)
def test_classification_agrees_with_plain_arithmetic(rows: list[tuple[str, str, float]]) -> None:
    quality = Quality(task="classification")
    for predicted, truth, weight in rows:
        quality.update([predicted], [truth], weight=weight)
    expected = plain_classification([(p, t) for p, t, _ in rows], [w for *_, w in rows])
    assert values(quality) == pytest.approx(expected)
    for estimate in quality.metrics().values():
        if estimate.kind != "none":
            assert 0.0 <= estimate.lower <= estimate.value <= estimate.upper <= 1.0
        assert estimate.rows <= len(rows)


def scored(rng: np.random.Generator, rows: int) -> tuple[Floats, Any, Any]:
    score = np.round(rng.beta(0.8, 1.2, rows), 2)  # ties
    return score, score > 0.4, rng.random(rows) < score**1.3


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_of_scores_are_those_of_scikit_learn(weighted: bool) -> None:
    rng = np.random.default_rng(1)
    score, said, true = scored(rng, 3_000)
    weight = rng.choice([1.0, 4.0], 3_000) if weighted else np.ones(3_000)
    quality = Quality(task="classification")
    quality.update(said, true, score=score, weight=weight)
    options = {"sample_weight": weight}
    clipped = np.clip(score, 1e-6, 1 - 1e-6)
    assert values(quality) == pytest.approx(
        {
            "accuracy": sk.accuracy_score(true, said, **options),
            "precision": sk.precision_score(true, said, **options),
            "recall": sk.recall_score(true, said, **options),
            "f1": sk.f1_score(true, said, **options),
            "specificity": sk.recall_score(~true, ~said, **options),
            "roc_auc": sk.roc_auc_score(true, score, **options),
            "pr_auc": sk.average_precision_score(true, score, **options),
            "log_loss": sk.log_loss(true, clipped, **options),
            "brier": sk.brier_score_loss(true, score, **options),
            "calibration_error": plain_calibration_error(score, true, weight),
        },
        abs=1e-5,
    )
    kinds = {name: figure.kind for name, figure in quality.metrics().items()}
    bounded = {"accuracy", "precision", "recall", "f1", "specificity", "log_loss", "brier"}
    wanted = "asymptotic" if weighted else "betting"
    assert kinds == dict.fromkeys(bounded, wanted) | {
        "roc_auc": "asymptotic",
        "pr_auc": "asymptotic",
        "calibration_error": "none",
    }


def plain_calibration_error(score: Floats, true: Any, weight: Floats) -> float:
    total = 0.0
    for low in np.arange(15) / 15:
        here = (score >= low) & ((score < low + 1 / 15) | (low > 0.93))
        total += abs((weight[here] * (true[here] - score[here])).sum())
    return float(total / weight.sum())


def test_figures_of_many_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    score = rng.dirichlet([0.6] * 3, 4_000)
    names = np.array(["ant", "bee", "cat"], dtype=object)
    true = names[(score.cumsum(axis=1) > rng.random((4_000, 1))).argmax(axis=1)]
    said = names[score.argmax(axis=1)]
    quality = Quality(task="classification")
    quality.update(said, true, score=score)
    found = values(quality)
    one_hot = true[:, None] == names
    wanted = {
        "accuracy": sk.accuracy_score(true, said),
        "f1": sk.f1_score(true, said, average="macro"),
        "precision": sk.precision_score(true, said, average="macro"),
        "recall": sk.recall_score(true, said, average="macro"),
        "roc_auc": sk.roc_auc_score(true, score, multi_class="ovr"),
        "pr_auc": sk.average_precision_score(one_hot, score),
        "log_loss": -np.log(np.maximum(score[one_hot], 1e-6)).mean(),
        "brier": ((score - one_hot) ** 2).sum(axis=1).mean(),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)
    each = quality.metrics_by_class()
    assert {name: figures["recall"].value for name, figures in each.items()} == pytest.approx(
        dict(zip(names, sk.recall_score(true, said, average=None), strict=True))
    )


def test_the_score_of_the_predicted_class_is_understood() -> None:
    score, _, true = scored(np.random.default_rng(3), 2_000)
    said = score >= 0.5
    plain, turned = Quality(task="classification"), Quality(task="classification")
    plain.update(said, true, score=score)
    turned.update(said, true, score=np.where(said, score, 1 - score))
    assert values(turned) == pytest.approx(values(plain))
    both = Quality(task="classification")
    both.update(said, true, score=np.stack([1 - score, score], axis=1))
    assert values(both) == pytest.approx(values(plain))


def test_one_score_among_many_classes_says_how_well_it_is_calibrated() -> None:
    rng = np.random.default_rng(4)
    said, score = rng.integers(0, 4, 5_000), 0.5 + 0.5 * rng.random(5_000)
    true = np.where(rng.random(5_000) < score - 0.1, said, (said + 1) % 4)
    quality = Quality(task="classification")
    quality.update(said, true, score=score)
    found = values(quality)
    assert found["calibration_error"] == pytest.approx(0.1, abs=0.02)
    assert "roc_auc" not in found


def test_rows_without_a_score_count_for_all_else() -> None:
    score, said, true = scored(np.random.default_rng(5), 1_000)
    quality = Quality(task="classification")
    quality.update(said, true)
    assert "roc_auc" not in quality.metrics()
    quality.update(said, true, score=np.where(np.arange(1_000) % 2 == 0, score, np.nan))
    quality.update(said[:3], true[:3], score=np.ones((3, 7)))  # other scores than before
    found = quality.metrics()
    assert (found["accuracy"].rows, found["roc_auc"].rows) == (2_003, 500)
    assert found["roc_auc"].value == pytest.approx(sk.roc_auc_score(true[::2], score[::2]))


def test_scores_that_are_no_probabilities_are_only_ranked() -> None:
    score, said, true = scored(np.random.default_rng(6), 1_000)
    quality = Quality(task="classification")
    quality.update(said, true, score=score * 1e300 - 5.0)
    found = values(quality)
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(true, score))
    assert {"log_loss", "brier", "calibration_error"}.isdisjoint(found)


@given(
    rows=st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from([1.0, 3.0])),
        min_size=1,
    )
)
def test_regression_agrees_with_plain_arithmetic(rows: list[tuple[float, float, float]]) -> None:
    quality = Quality(task="regression", quantile=0.9)
    said, true, weight_ = (np.array(column) for column in zip(*rows, strict=True))
    quality.update(said, true, weight=weight_)
    error = said - true
    got = values(quality)
    assert got["rmse"] == pytest.approx(math.sqrt(np.average(error**2, weights=weight_)))
    assert got["mae"] == pytest.approx(np.average(abs(error), weights=weight_))
    assert got["pinball"] == pytest.approx(
        sk.mean_pinball_loss(true, said, alpha=0.9, sample_weight=weight_)
    )
    large = abs(true) > 1e-9
    if large.any():
        ratio = np.average(abs(error[large] / true[large]), weights=weight_[large])
        assert got["mape"] == pytest.approx(ratio)
    else:
        assert "mape" not in got


def test_a_range_of_errors_gives_the_mean_error_an_interval_by_betting() -> None:
    rng = np.random.default_rng(7)
    said = rng.normal(size=2_000)
    true = said + rng.normal(size=2_000)
    true[0] = 1e6
    within = Quality(task="regression", error_max=4.0)
    within.update(said, true)
    mae = within.metrics()["mae"]
    assert mae.kind == "betting"
    assert mae.value == pytest.approx(np.minimum(abs(said - true), 4.0).mean())
    assert holds(mae, math.sqrt(2 / math.pi))
    assert of([(1.0, 2.0)] * 50, task="regression").metrics()["mae"].kind == "asymptotic"


def test_the_window_is_the_newest_rows() -> None:
    quality = Quality(task="classification", window_rows=100)
    for _ in range(500):
        quality.update(["a"], ["b"])
        assert min(quality.rows_total, 50) < quality.rows + 1 <= 101
    quality.update(["a"] * 100, ["a"] * 100)
    assert values(quality)["accuracy"] == 1.0
    quality.update(["a"] * 1_000, ["b"] * 900 + ["a"] * 100)
    assert values(quality)["accuracy"] == 1.0
    assert quality.rows_total == 1_600


@given(
    steps=st.lists(
        st.one_of(st.tuples(CLASSES, CLASSES), st.tuples(st.integers(0, 60), CLASSES)),
        max_size=80,
    )
)
def test_corrections_agree_with_plain_recomputation(steps: list[Any]) -> None:
    """Also of rows that left the window: these change nothing."""
    quality = Quality(task="classification", window_rows=20)
    rows: list[tuple[str, str]] = []
    for step in steps:
        if isinstance(step[0], str):
            feed(quality, [step], keys=[len(rows)])
            rows.append(step)
        elif step[0] < len(rows):
            key, (predicted, old) = step[0], rows[step[0]]
            inside = key >= len(rows) - 20
            assert quality.correct(predicted, old, step[1], key=key) is inside
            rows[key] = (predicted, step[1])
    begin = max(0, -(-(len(rows) - 20) // 10) * 10)
    kept = rows[begin:]
    assert quality.rows == len(kept)
    expected = plain_classification(kept, [1.0] * len(kept)) if kept else {}
    assert values(quality) == pytest.approx(expected)


def test_a_correction_keeps_the_score_and_the_weight_of_its_row() -> None:
    score, said, true = scored(np.random.default_rng(8), 500)
    weight = np.where(said, 1.0, 3.0)
    keys = np.arange(500) - 250
    corrected, right = Quality(task="classification"), Quality(task="classification")
    wrong = true.copy()
    wrong[:100] = ~wrong[:100]
    corrected.update(said, wrong, score=score, weight=weight, keys=keys)
    right.update(said, true, score=score, weight=weight)
    for row in range(100):
        assert corrected.correct(
            bool(said[row]), bool(wrong[row]), bool(true[row]), key=int(keys[row])
        )
    assert corrected.metrics() == right.metrics()


def test_a_corrected_number_leaves_no_trace() -> None:
    quality = Quality(task="regression")
    quality.update([1.0, 2.0], [500.0, 2.5], weight=3.0, keys=[1, 2])
    assert quality.correct(1.0, 500.0, 1.5, key=1)
    assert values(quality)["rmse"] == pytest.approx(0.5)
    assert quality.correct(1.0, 1.5, math.nan, key=1)
    assert quality.rows == 1
    assert not quality.correct(1.0, 1.5, 2.0, key=99)


def test_without_a_key_the_newest_such_row_is_corrected() -> None:
    quality = of([("a", "b"), ("a", "b"), ("a", "c")])
    assert quality.correct("a", "b", "a")
    assert quality.state()["true"].tolist() == [1, 0, 2]
    assert not quality.correct("c", "b", "a")


def test_rows_that_say_nothing_are_left_out_and_counted() -> None:
    quality = of([(None, "a"), ("a", None), (float("nan"), "a"), ([1], "a"), ({}, {})])
    assert (quality.rows, quality.metrics(), quality.left_out) == (0, {}, 5)
    odd: Pairs = [("x", 1.0), (1.0, math.inf), (1e300, -1e300), (10**400, 1.0), (None, 2.0)]
    assert of(odd, task="regression").metrics() == {}
    for weight in (0.0, -1.0, math.nan, math.inf):
        quality.update(["a"], ["a"], weight=weight)
    assert (quality.metrics(), quality.left_out) == ({}, 9)
    quality.update([], [])
    assert not quality.metrics()
    assert not quality.metrics_by_class()


def test_one_class_alone_has_an_accuracy() -> None:
    assert set(of([("a", "a")] * 3).metrics()) == {"accuracy"}


def test_a_model_that_is_always_right_is_not_known_to_be() -> None:
    score = np.linspace(0, 1, 400)
    quality = Quality(task="classification")
    quality.update(score > 0.5, score > 0.5, score=score)
    found = quality.metrics()
    for name in ("accuracy", "precision", "recall", "f1", "roc_auc", "pr_auc"):
        assert found[name].value == pytest.approx(1.0)
        assert 0.9 < found[name].lower < 0.999, name


def test_senseless_arguments_are_refused() -> None:
    senseless: list[dict[str, Any]] = [{"window_rows": 1}, {"error_max": 0.0}, {"quantile": 1.0}]
    for options in senseless:
        with pytest.raises(ValueError, match=r".+"):
            Quality(task="regression", **options)
    quality = Quality(task="classification")
    with pytest.raises(ValueError, match="different lengths"):
        quality.update(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="different lengths"):
        quality.update(["a"], ["a"], keys=[1, 2])
    with pytest.raises(ValueError, match="different lengths"):
        quality.update(["a"], ["a"], score=np.ones(3))


def test_classes_have_a_limit() -> None:
    quality = of([(f"c{n}", f"c{n}") for n in range(5_000)])
    assert len(quality.state()["names"]) == CLASSES_MAX + 1
    assert len(quality.metrics_by_class()) <= CLASSES_MAX + 1


def as_json(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(state, default=np.ndarray.tolist))
    return found


@given(rows=ROWS, cut=st.integers(0, 100))
@settings(max_examples=50)
def test_a_restart_changes_nothing(rows: list[tuple[str, str, float]], cut: int) -> None:
    def go_on(quality: Quality, start: int, stop: int) -> None:
        for key, (predicted, truth, weight) in list(enumerate(rows))[start:stop]:
            score = np.array([len(predicted + truth) / 7.0 + key % 2 / 2.0])
            quality.update([predicted], [truth], weight=weight, keys=[key], score=score)
            quality.correct(predicted, truth, "b", key=key - 3)

    through = Quality(task="classification", window_rows=8)
    go_on(through, 0, len(rows))
    before = Quality(task="classification", window_rows=8)
    go_on(before, 0, cut)
    after = Quality(task="classification", window_rows=8)
    after.restore(as_json(before.state()))
    go_on(after, cut, len(rows))
    assert repr(after.metrics()) == repr(through.metrics())  # NaN is not NaN
    assert as_json(after.state()) == as_json(through.state()) or not rows


def test_a_state_that_does_not_fit_is_refused() -> None:
    state = of([("a", "b")]).state()
    spoilt_ones: list[dict[str, Any]] = [
        {"task": "regression"},
        {"window_rows": 7},
        {"names": []},
        {"said": [0, 0]},
        {"rows_total": None},
        {"weight": None},
        {"score_columns": 0},
    ]
    for spoilt in spoilt_ones:
        with pytest.raises(ValueError, match=r".+"):
            Quality(task="classification").restore(state | spoilt)
