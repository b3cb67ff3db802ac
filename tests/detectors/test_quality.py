"""Realised quality against plain re-computation; its intervals against simulation."""

import json
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.quality import CLASSES_MAX, Quality

Pairs = list[tuple[Any, Any]]  # predicted, truth


def of(pairs: Pairs, task: Any = "classification", **options: Any) -> Quality:
    quality = Quality(task=task, **options)
    quality.update(pairs)
    return quality


def values(quality: Quality) -> dict[str, float]:
    return {name: estimate.value for name, estimate in quality.metrics().items()}


def plain_classification(pairs: Pairs, weights: list[float]) -> dict[str, float]:
    """As a textbook has it, one row at a time."""
    total = sum(weights)
    found = {"accuracy": sum(w for (p, t), w in zip(pairs, weights, strict=True) if p == t) / total}
    classes = sorted({name for pair in pairs for name in pair})
    if len(classes) < 2:
        return found
    each: dict[str, list[float]] = {"precision": [], "recall": [], "f1": []}
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
    return found | {metric: sum(v) / len(v) for metric, v in each.items() if v}


CLASSES = st.sampled_from(["a", "b", "c"])
ROWS = st.lists(st.tuples(CLASSES, CLASSES, st.sampled_from([1.0, 2.0, 7.5])), min_size=1)


@given(rows=ROWS)
def test_classification_agrees_with_plain_arithmetic(rows: list[tuple[str, str, float]]) -> None:
    quality = Quality(task="classification")
    for predicted, truth, weight in rows:
        quality.update([(predicted, truth)], weight=weight)
    expected = plain_classification([(p, t) for p, t, _ in rows], [w for *_, w in rows])
    assert values(quality) == pytest.approx(expected)
    for estimate in quality.metrics().values():
        assert 0.0 <= estimate.lower <= estimate.value <= estimate.upper <= 1.0
        assert estimate.rows == len(rows)


@given(
    rows=st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from([1.0, 3.0])),
        min_size=1,
    )
)
def test_regression_agrees_with_plain_arithmetic(rows: list[tuple[float, float, float]]) -> None:
    quality = Quality(task="regression")
    for predicted, truth, weight in rows:
        quality.update([(predicted, truth)], weight=weight)
    said, true, weight_ = (np.array(column) for column in zip(*rows, strict=True))
    error = said - true
    got = values(quality)
    assert got["rmse"] == pytest.approx(math.sqrt(np.average(error**2, weights=weight_)))
    assert got["mae"] == pytest.approx(np.average(abs(error), weights=weight_))
    large = abs(true) > 1e-9
    if large.any():
        ratio = np.average(abs(error[large] / true[large]), weights=weight_[large])
        assert got["mape"] == pytest.approx(ratio)
    else:
        assert "mape" not in got


def test_the_window_is_the_newest_rows() -> None:
    quality = Quality(task="classification", window_rows=100, blocks=10)
    quality.update([("a", "b")] * 500)
    assert 100 <= quality.rows <= 110
    quality.update([("a", "a")] * 110)
    assert values(quality)["accuracy"] == 1.0
    assert quality.rows_total == 610


@given(
    steps=st.lists(
        st.one_of(st.tuples(CLASSES, CLASSES), st.tuples(st.integers(0, 60), CLASSES)),
        max_size=80,
    )
)
def test_corrections_agree_with_plain_recomputation(steps: list[Any]) -> None:
    """Also of rows that left the window: these change nothing."""
    quality = Quality(task="classification", window_rows=20, blocks=4)
    blocks: deque[list[int]] = deque([[]], maxlen=5)  # keys by block of 5 rows
    rows: dict[int, tuple[str, str]] = {}
    for step in steps:
        if isinstance(step[0], str):
            key = len(rows)
            rows[key] = (step[0], step[1])
            quality.update([rows[key]], keys=[key])
            blocks[-1].append(key)
            if len(blocks[-1]) == 5:
                blocks.append([])
        elif step[0] in rows:
            key, (predicted, old) = step[0], rows[step[0]]
            inside = any(key in block for block in blocks)
            assert quality.correct(predicted, old, step[1], key=key) is inside
            rows[key] = (predicted, step[1])
    kept = [rows[key] for block in blocks for key in block]
    assert quality.rows == len(kept)
    expected = plain_classification(kept, [1.0] * len(kept)) if kept else {}
    assert values(quality) == pytest.approx(expected)


def test_a_corrected_number_leaves_no_trace() -> None:
    quality = Quality(task="regression")
    quality.update([(1.0, 500.0), (2.0, 2.5)], weight=3.0, keys=[1, 2])
    assert quality.correct(1.0, 500.0, 1.5, weight=3.0, key=1)
    assert values(quality)["rmse"] == pytest.approx(0.5)
    assert quality.correct(1.0, 1.5, math.nan, weight=3.0, key=1)
    assert quality.rows == 1
    assert not quality.correct(1.0, 1.5, 2.0, key=99)


def test_rows_that_say_nothing_are_passed_by() -> None:
    quality = of([(None, "a"), ("a", None), (float("nan"), "a")])
    assert (quality.rows, quality.metrics()) == (0, {})
    odd: Pairs = [("x", 1.0), (1.0, math.inf), (1e300, -1e300), (10**400, 1.0), (None, 2.0)]
    assert of(odd, task="regression").metrics() == {}


def test_one_class_alone_has_an_accuracy() -> None:
    assert set(of([("a", "a")] * 3).metrics()) == {"accuracy"}


def test_classes_have_a_limit() -> None:
    quality = of([(f"c{n}", f"c{n}") for n in range(5_000)])
    state = quality.state()
    assert len(state["classes"]) == CLASSES_MAX
    assert sum(len(block["confusion"]) for block in state["blocks"]) <= 26 * (CLASSES_MAX + 1)


@given(rows=ROWS, cut=st.integers(0, 100))
def test_a_restart_changes_nothing(rows: list[tuple[str, str, float]], cut: int) -> None:
    def feed(quality: Quality, start: int, stop: int) -> None:
        for key, (predicted, truth, weight) in list(enumerate(rows))[start:stop]:
            quality.update([(predicted, truth)], weight=weight, keys=[key])
            quality.correct(predicted, truth, "b", weight=weight, key=key - 3)

    through = Quality(task="classification", window_rows=8, blocks=4)
    feed(through, 0, len(rows))
    before = Quality(task="classification", window_rows=8, blocks=4)
    feed(before, 0, cut)
    after = Quality(task="classification", window_rows=8, blocks=4)
    after.restore(json.loads(json.dumps(before.state())))
    feed(after, cut, len(rows))
    assert after.metrics() == through.metrics()
    assert after.state() == through.state()


# Intervals: how often they hold what they are meant to hold.


def coverage(
    make: Callable[[np.random.Generator], Quality], truth: dict[str, float], runs: int = 300
) -> dict[str, float]:
    hits = dict.fromkeys(truth, 0)
    for seed in range(runs):
        metrics = make(np.random.default_rng(seed)).metrics()
        for name, value in truth.items():
            hits[name] += metrics[name].lower <= value <= metrics[name].upper
    return {name: count / runs for name, count in hits.items()}


def outcomes(rng: np.random.Generator, rows: int) -> Pairs:
    """Two classes: truth "1" in 30 %, found in 80 % of these, said wrongly in 10 % of the others.

    Accuracy .87, recall .8, precision .24 / .31, f1 2 * .24 / (.3 + .31).
    """
    truth = rng.random(rows) < 0.3
    said = np.where(truth, rng.random(rows) < 0.8, rng.random(rows) < 0.1)
    return [(str(int(p)), str(int(t))) for p, t in zip(said, truth, strict=True)]


TRUTH = {"accuracy": 0.87, "recall": 0.8, "precision": 0.24 / 0.31, "f1": 0.48 / 0.61}


@pytest.mark.parametrize("rows", [60, 1_000])
def test_intervals_of_shares_cover(rows: int) -> None:
    found = coverage(lambda rng: of(outcomes(rng, rows)), TRUTH, runs=300 if rows < 100 else 150)
    assert all(share >= 0.91 for share in found.values()), found


def test_intervals_of_weighted_rows_cover() -> None:
    def make(rng: np.random.Generator) -> Quality:
        """Rows of truth "1" are kept always, the others one time in five."""
        quality = Quality(task="classification")
        for pair in outcomes(rng, 600):
            if pair[1] == "1":
                quality.update([pair])
            elif rng.random() < 0.2:
                quality.update([pair], weight=5.0)
        return quality

    found = coverage(make, {name: TRUTH[name] for name in ("accuracy", "f1")}, runs=200)
    assert all(share >= 0.9 for share in found.values()), found


def test_intervals_of_many_classes_cover() -> None:
    def make(rng: np.random.Generator) -> Quality:
        truth = rng.integers(0, 4, 400)
        said = np.where(rng.random(400) < 0.7, truth, rng.integers(0, 4, 400))
        return of([(str(p), str(t)) for p, t in zip(said, truth, strict=True)])

    # A row is right with .7 + .3 / 4; classes are alike, so every mean is the same.
    right = 0.775
    found = coverage(make, dict.fromkeys(("accuracy", "precision", "recall", "f1"), right), 200)
    assert all(share >= 0.91 for share in found.values()), found


@pytest.mark.parametrize("rows", [100, 1_000])
def test_intervals_of_errors_cover(rows: int) -> None:
    def make(rng: np.random.Generator) -> Quality:
        truth = rng.normal(50, 10, rows)
        said = truth + rng.normal(0, 2, rows)
        return of(list(zip(said.tolist(), truth.tolist(), strict=True)), task="regression")

    found = coverage(make, {"rmse": 2.0, "mae": 2.0 * math.sqrt(2 / math.pi)}, runs=200)
    assert all(share >= 0.9 for share in found.values()), found
