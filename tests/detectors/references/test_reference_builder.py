"""Rows to a reference: what is derived, labelled, grouped, copied, and how much memory it takes."""

import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import Monitor, Reference, ReferenceBuilder, build_reference, merge
from detectors.performance.estimation import EstimationTable
from detectors.rows.bins import BINS, MISSING, OUTSIDE


def objects(*values: Any) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def logistic(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A calibrated score, and what came true."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    score = 1 / (1 + np.exp(-x))
    return {"x": x, "p": score, "default": (rng.random(rows) < score).astype(float)}


def test_a_score_and_a_target_are_all_that_a_classifier_needs() -> None:
    rows = logistic(6_000)
    reference = build_reference(rows, score="p", label="default")
    assert reference.feature_names == ("x",)
    assert reference.prediction is not None
    assert (reference.prediction.name, reference.prediction.kind) == ("p", "numeric")
    assert reference.score is None
    assert reference.label is not None
    assert reference.label.kind == "categorical"
    assert reference.label.labels()[:2] in {("0", "1"), ("1", "0")}
    assert reference.task == "classification"
    baseline = reference.baseline
    assert baseline is not None
    assert baseline.rows == 6_000
    assert baseline.errors == np.sum((rows["p"] >= 0.5) != (rows["default"] == 1))
    assert baseline.estimation is not None
    assert EstimationTable.from_tree(baseline.estimation).rows == 6_000
    assert Reference.from_bytes(reference.to_bytes()) == reference


def test_a_class_and_its_score_have_a_profile_each() -> None:
    rows = logistic(3_000)
    rows["said"] = objects(*np.where(rows["p"] >= 0.5, "1", "0"))
    reference = build_reference(rows, prediction="said", score="p", label="default")
    assert reference.prediction is not None
    assert reference.score is not None
    assert (reference.prediction.name, reference.score.name) == ("said", "p")
    only_score = build_reference(logistic(3_000), score="p", label="default").baseline
    assert reference.baseline is not None
    assert only_score is not None
    assert reference.baseline.errors == only_score.errors


def test_rows_without_a_label_are_no_missing_labels() -> None:
    rows = logistic(4_000)
    rows["default"][1_000:] = np.nan
    reference = build_reference(rows, score="p", label="default")
    assert reference.label is not None
    assert reference.label.rows == 1_000
    assert reference.label.counts[MISSING] == 0
    assert reference.baseline is not None
    assert reference.baseline.rows == 1_000


def test_a_regression_has_numbers_as_labels_and_no_errors() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(100, 10, 3_000)
    rows = {"x": rng.normal(size=3_000), "said": truth + rng.normal(size=3_000), "price": truth}
    reference = build_reference(rows, prediction="said", label="price")
    assert reference.task == "regression"
    assert reference.label is not None
    assert reference.label.kind == "numeric"
    assert reference.baseline is not None
    assert reference.baseline.errors == 0
    assert reference.baseline.estimation is not None


def test_types_ranges_and_order_of_columns_are_kept() -> None:
    reference = build_reference(
        {
            "whole": [1.0, 2.0, 3.0],
            "part": [1.0, 2.5, None],
            "flag": [True, False, True],
            "word": ["a", "b", "a"],
            "code": objects(1, 2, "x"),
            "when": np.array(["2024-01-01T10:00", "2024-01-02T11:00", "NaT"], dtype="datetime64"),
            "text_time": ["2024-01-01T10:00:00Z", "2024-01-02 11:00:00", "2024-01-03T12:00"],
        }
    )
    types = {feature.name: feature.type for feature in reference.features}
    assert types == {
        "whole": "integer",
        "part": "number",
        "flag": "boolean",
        "word": "text",
        "code": "integer",
        "when": "timestamp",
        "text_time": "timestamp",
    }
    assert reference.columns == tuple(types)
    whole, *_, clock = reference.features
    assert (whole.minimum, whole.maximum) == (1, 3)
    assert (clock.minimum, clock.maximum) == (36_000, 43_200)


def test_an_integer_column_with_one_fraction_late_is_of_numbers() -> None:
    builder = ReferenceBuilder()
    builder.update({"x": np.arange(20_000.0)})
    assert builder.finish().features[0].type == "integer"
    builder.update({"x": np.array([0.5])})
    assert builder.finish().features[0].type == "number"


def test_relations_between_columns_become_projections() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=5_000)
    rows = {"a": x, "b": x + 0.3 * rng.normal(size=5_000), "c": rng.normal(size=5_000)}
    reference = build_reference(rows)
    assert reference.projections
    assert not {p.name for p in reference.projections} & set(reference.feature_names)
    assert all(p.rows == 5_000 for p in reference.projections)
    bare = build_reference(rows, derive=False)
    assert bare.projections == ()
    assert bare.derivation is None
    again = Reference.from_bytes(reference.to_bytes())
    assert again == reference
    assert again.derivation is not None


def test_long_text_and_vectors_are_no_categories_and_never_malformed_silently() -> None:
    rng = np.random.default_rng(0)
    words = np.array(["loan", "house", "because", "quickly", "seven", "blue"])
    reviews = objects(*(" ".join(rng.choice(words, 12)) for _ in range(600)))
    builder = ReferenceBuilder()
    builder.update({"review": reviews, "vector": rng.normal(size=(600, 8)), "x": np.arange(600.0)})
    reference = builder.finish()
    assert reference.columns == ("review", "x", "vector")
    assert "review" not in reference.feature_names
    assert "vector" not in reference.feature_names
    assert any(feature.startswith("review.") for feature in reference.feature_names)
    assert any(feature.startswith("vector.") for feature in reference.feature_names)
    assert builder.malformed == {}
    bare = ReferenceBuilder(derive=False)
    bare.update({"review": reviews, "vector": rng.normal(size=(600, 8)), "x": np.arange(600.0)})
    assert bare.finish().feature_names == ("x",)
    assert set(bare.malformed) == {"review", "vector"}


def test_text_and_vectors_that_come_as_before_are_news_to_nobody() -> None:
    rng = np.random.default_rng(0)
    words = np.array(["loan", "house", "because", "quickly", "seven", "blue"])

    def rows(count: int) -> dict[str, np.ndarray]:
        reviews = objects(*(" ".join(rng.choice(words, 12)) for _ in range(count)))
        return {"review": reviews, "vector": rng.normal(size=(count, 8))}

    monitor = Monitor(build_reference(rows(3_000)))
    assert [reading for _ in range(5) for reading in monitor.update(rows(500))] == []
    (reading,) = monitor.update({"review": rows(500)["review"]})
    assert reading.explain == "column vector is missing; nothing of it was counted"


def test_a_column_called_like_a_derived_one_stops_nothing() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=5_000)
    rows = {"a": x, "b": x + 0.3 * rng.normal(size=5_000)}
    (name, *_) = (p.name for p in build_reference(rows).projections)
    reference = build_reference({**rows, name: np.arange(5_000.0)})
    assert name in reference.feature_names
    names = [profile.name for profile in reference.profiles()]
    assert len(names) == len(set(names))
    assert reference.projections


def test_segments_are_counted_apart_in_the_bins_of_all() -> None:
    rng = np.random.default_rng(0)
    region = rng.choice(np.array(["N", "S"], dtype=object), 8_000, p=[0.7, 0.3])
    x = rng.normal(size=8_000) + 2.0 * (region == "S")
    word = np.where(rng.random(8_000) < 0.2, "a", "b").astype(object)
    reference = build_reference(
        {"x": x, "word": word, "region": region}, segment="region", ignored=["region"]
    )
    assert reference.segments is not None
    assert reference.segments.names == ("N", "S")
    assert reference.feature_names == ("x", "word")
    north, south_all = (reference.segment(name)[0].counts for name in ("N", "S"))
    total = np.add(north, south_all)
    assert total.tolist() == list(reference.features[0].counts)
    south = {p.name: p for p in reference.segment("S")}
    assert south["x"].rows == np.sum(region == "S")
    assert south["x"].counts[0] < 5 < south["x"].counts[BINS - 1]
    assert south["word"].counts[:2] == (
        np.sum((region == "S") & (word == "b")),
        np.sum((region == "S") & (word == "a")),
    )
    assert Reference.from_bytes(reference.to_bytes()) == reference
    with pytest.raises(KeyError):
        reference.segment("E")


def test_more_than_twenty_segments_share_one() -> None:
    shop = objects(*(f"shop {i % 30:02}" for i in range(3_000)), None)
    reference = build_reference({"x": np.arange(3_001.0), "shop": shop}, segment="shop")
    assert reference.segments is not None
    assert len(reference.segments.names) == 21
    assert reference.segments.names[-1] == "other"
    assert reference.segments.counts[:, 0].sum() == 3_001
    assert "shop" in reference.feature_names  # a segment may be a feature, too


def test_a_segment_expects_new_categories_as_all_rows_do() -> None:
    word = objects(*(f"often {i % 20}" if i % 10 else f"once {i}" for i in range(2_000)))
    group = objects(*("u" if i % 2 else "v" for i in range(2_000)))
    reference = build_reference({"word": word, "g": group}, segment="g")
    (profile, *_), whole = reference.segment("v"), reference.features[0]
    assert profile.rows == 1_000
    assert profile.counts[OUTSIDE] > 0
    share = profile.counts[OUTSIDE] / profile.counts[BINS - 1]
    assert share == pytest.approx(whole.counts[OUTSIDE] / whole.counts[BINS - 1])


def test_rows_that_repeat_are_known() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=30_000)
    x[::4] = np.repeat(x[::8], 2)
    quality = build_reference({"x": x, "y": np.zeros(30_000)}).quality
    assert 0.1 < quality["duplicate_ratio"] < 0.15
    assert build_reference({"x": rng.normal(size=30_000)}).quality["duplicate_ratio"] == 0


LAYOUT = build_reference(
    {
        "x": np.random.default_rng(9).lognormal(size=3_000),
        "word": np.random.default_rng(9).choice(np.array(["a", "b", "c"], dtype=object), 3_000),
        "g": np.random.default_rng(9).choice(np.array(["u", "v"], dtype=object), 3_000),
        "y": np.random.default_rng(9).integers(0, 3, 3_000).astype(float),
        "p": np.random.default_rng(9).random(3_000),
    },
    segment="g",
    score="p",
    label="y",
)


def part_of(rows: dict[str, np.ndarray], start: int, end: int) -> Reference:
    builder = ReferenceBuilder(like=LAYOUT, segment="g", score="p", label="y")
    builder.update({name: column[start:end] for name, column in rows.items()})
    return builder.finish()


def other_rows(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Rows that are distributed quite otherwise than those of the layout."""
    rng = np.random.default_rng(seed)
    return {
        "x": np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(2, 2, rows)),
        "word": rng.choice(np.array(["a", "new", "c", None], dtype=object), rows),
        "g": rng.choice(np.array(["u", "w"], dtype=object), rows),
        "y": rng.integers(0, 2, rows).astype(float),
        "p": rng.random(rows),
    }


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, 2_000), max_size=3), seed=st.integers(0, 5))
def test_parts_with_one_layout_add_exactly(cuts: list[int], seed: int) -> None:
    rows = other_rows(2_000, seed)
    parts = [part_of(rows, a, b) for a, b in pairwise(sorted({0, 2_000, *cuts}))]
    merged = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    whole = part_of(rows, 0, 2_000)
    assert merged.rows == whole.rows == 2_000
    for mine, theirs in zip(merged.profiles(), whole.profiles(), strict=True):
        assert mine.name == theirs.name
        assert mine.counts == theirs.counts
        assert mine.bins == theirs.bins
    assert merged.segments is not None
    assert whole.segments is not None
    assert merged.segments.names == whole.segments.names
    assert set(merged.segments.names) == {"u", "v", "other"}
    assert np.array_equal(merged.segments.counts, whole.segments.counts)
    assert merged.baseline is not None
    assert whole.baseline is not None
    assert merged.baseline.errors == whole.baseline.errors


def test_a_part_counts_what_is_outside_the_layout_as_outside() -> None:
    rows = {"x": np.array([1e9, 1.0, np.inf]), "word": objects("a", "zz", None)}
    part = part_of({**other_rows(3, 0), **rows}, 0, 3)
    x, word = part.features[:2]
    assert x.counts[OUTSIDE] == 2
    assert word.counts[MISSING] == 1
    assert part.rows == 3


def fed(chunks: int) -> int:
    """The peak memory of building from so many chunks of 10,000 rows, in bytes."""
    rng = np.random.default_rng(0)
    builder = ReferenceBuilder(label="y", score="p", segment="g")
    groups = rng.integers(0, 40, 10_000).astype(str).astype(object)
    tracemalloc.start()
    for chunk in range(chunks):
        p = rng.random(10_000)
        ids = objects(*groups[:9_900], *(f"id {chunk} {i}" for i in range(100)))
        rows = {"x": rng.normal(size=10_000), "z": rng.lognormal(size=10_000), "id": ids}
        labelled = {"g": groups, "p": p, "y": (rng.random(10_000) < p).astype(float)}
        builder.update({**rows, **labelled})
    builder.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_fifty_times_the_rows_take_no_more_memory() -> None:
    few = fed(2)
    assert fed(100) < 1.1 * few


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_hardly_any_rows_with_every_role_are_ordinary(rows: int) -> None:
    full = other_rows(10, 0)
    reference = build_reference(
        {name: column[:rows] for name, column in full.items()},
        segment="g",
        score="p",
        label="y",
        timestamps=np.arange(rows),
    )
    assert reference.rows == rows
    assert Reference.from_bytes(reference.to_bytes()) == reference


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.datetimes(),
    st.lists(st.floats(), max_size=3),
    st.sampled_from(["2024-01-01T00:00:00", "9999-99-99T99:99:99", "1e999", b"x", 1j]),
)


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(*[CELLS] * 5), max_size=30), cut=st.integers(0, 30))
def test_whatever_stands_in_any_column_the_reference_is_whole(
    rows: list[tuple[Any, ...]], cut: int
) -> None:
    table = [objects(*column) for column in zip(*rows, strict=True)] or [objects()] * 5
    columns = dict(zip(("x", "p", "said", "y", "g"), table, strict=True))
    builder = ReferenceBuilder(prediction="said", score="p", label="y", segment="g")
    for part in (slice(0, cut), slice(cut, None)):
        builder.update({name: column[part] for name, column in columns.items()})
    reference = builder.finish()
    assert reference.rows == len(rows)
    assert Reference.from_bytes(reference.to_bytes()) == reference
    for name in reference.feature_names:
        if name in columns and name not in builder.malformed:
            (profile,) = [p for p in reference.features if p.name == name]
            # of categories seen once as many again are expected to be new
            assert len(rows) <= profile.rows + 1e-6 <= 2 * len(rows) + 1


def test_columns_that_come_and_go_are_named_and_stop_no_other() -> None:
    builder = ReferenceBuilder(label="y", segment="g")
    builder.update({"x": np.arange(20_000.0), "y": np.zeros(20_000), "g": ["a"] * 20_000})
    builder.update({"late": np.arange(5.0), "x": objects(1, "a", None, [2], np.inf)})
    reference = builder.finish()
    assert "late" in builder.malformed
    (x,) = [p for p in reference.features if p.name == "x"]
    assert x.rows == 20_005
    assert x.counts[MISSING] == 1


def test_times_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 times for 3 rows"):
        ReferenceBuilder().update({"x": [1, 2, 3]}, times=np.zeros(2))


@pytest.mark.slow
def test_five_thousand_columns_are_built_and_some_of_them_come_and_go() -> None:
    rng = np.random.default_rng(0)
    names = [f"f{i}" for i in range(5_000)]
    builder = ReferenceBuilder(derive=False)
    for chunk in range(3):
        values = rng.normal(size=(5_000, 500))
        absent = {f"f{chunk}"}
        builder.update({n: v for n, v in zip(names, values, strict=True) if n not in absent})
    reference = builder.finish()
    assert len(reference.features) == 5_000
    rows = {profile.name: profile.rows for profile in reference.features}
    assert [rows[f"f{i}"] for i in range(4)] == [1_000, 1_000, 1_000, 1_500]
