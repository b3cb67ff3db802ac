"""Names, kinds, prediction and score: given, learnt by majority, or found by their usual names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from agent.inference import Inference
from agent.schema import (
    CLASS_SCORES_MAX,
    Feature,
    Schema,
    SchemaSettings,
    category,
    choose_outputs,
    class_scores,
    feature_names,
    outcome,
)
from agent.schema_learning import SchemaLearner


def inference(
    rows: Any, names: Sequence[str] | None = None, outputs: Mapping[str, Any] | None = None
) -> Inference:
    return Inference(
        id="r-1",
        aliases=(),
        at=0.0,
        version="v1",
        slot="stable",
        weight=1.0,
        uniform=True,
        latency_s=0.01,
        names=tuple(names) if names is not None else None,
        rows=np.array(rows, dtype=float) if names is None else rows,
        outputs=outputs or {},
    )


def learnt(*given: Inference, settings: SchemaSettings | None = None) -> Schema:
    learner = SchemaLearner(settings)
    for one in given:
        learner.observe(one)
    return learner.schema


def test_positional_features_take_known_names_when_there_are_as_many() -> None:
    given = inference([[1, 2, 3]])
    assert feature_names(given, ("a", "b", "c")) == ("a", "b", "c")
    assert feature_names(given, ("a", "b")) == ("f0", "f1", "f2")
    assert feature_names(given, None) == ("f0", "f1", "f2")
    assert feature_names(inference([[1]], names=["x"]), ("a",)) == ("x",)


def test_kinds_go_by_majority_and_whole_numbers_stay_numeric() -> None:
    text = "I have been waiting for this parcel for more than two weeks now"
    rows = [
        [41, "clerk", True, text, 1, None],
        [2.5, "nurse", False, text, 0, None],
        ["?", 3, None, text, 1, None],
    ]
    schema = learnt(inference(rows, ["age", "job", "own", "note", "code", "void"]))
    assert schema.kinds == {
        "age": "numeric",
        "job": "categorical",
        "own": "boolean",
        "note": "text",
        "code": "numeric",
        "void": "numeric",
    }


def test_a_column_that_was_missing_at_first_gets_its_kind_later() -> None:
    first = inference([[None]], ["job"])
    later = inference([["clerk"], ["nurse"]], ["job"])
    assert learnt(first, later).kinds == {"job": "categorical"}
    nan_cells = inference([[float("nan")]], ["job"])
    assert learnt(nan_cells, nan_cells, nan_cells, later).kinds == {"job": "categorical"}


def test_columns_keep_the_order_of_their_first_appearance() -> None:
    schema = learnt(inference([[1, 2]], ["b", "a"]), inference([[1, 2]], ["c", "b"]))
    assert schema.names == ("b", "a", "c")


def test_what_is_given_is_never_overruled() -> None:
    settings = SchemaSettings(
        features=("age", "code"),
        kinds={"code": "categorical"},
        sensitive=frozenset({"age"}),
        prediction="p",
        target="number",
    )
    schema = learnt(
        inference([[1, 2, 3]], ["code", "age", "extra"], {"p": [1], "label": ["x"]}),
        settings=settings,
    )
    assert schema.features == (
        Feature(name="age", kind="numeric", sensitive=True),
        Feature(name="code", kind="categorical"),
    )
    assert (schema.prediction, schema.target) == ("p", "number")


def test_a_settled_schema_does_not_change_and_survives_a_restart() -> None:
    learner = SchemaLearner(rows_max=2)
    learner.observe(inference([[1, 2], [3, 4], [5, 6]], outputs={"y": [0, 1, 999.5]}))
    assert learner.settled
    before = learner.schema
    assert before.target == "class"  # the third row came too late
    learner.observe(inference([["x"]], ["new"]))
    assert learner.schema is before
    restored = SchemaLearner(rows_max=2)
    restored.restore(orjson.loads(orjson.dumps(learner.state())))
    assert (restored.schema, restored.settled) == (before, True)


def test_an_unsettled_schema_is_learnt_again_after_a_restart() -> None:
    learner = SchemaLearner()
    learner.observe(inference([[1, 2]]))
    restored = SchemaLearner()
    restored.restore(orjson.loads(orjson.dumps(learner.state())))
    assert (restored.rows, restored.schema.features) == (0, ())


def test_columns_beyond_the_limit_are_not_learnt() -> None:
    learner = SchemaLearner(columns_max=3)
    for number in range(10):
        learner.observe(inference([[1]], [f"c{number}"]))
    assert learner.schema.names == ("c0", "c1", "c2")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["predictions"], ("predictions", None)),
        (["probabilities"], ("probabilities", None)),
        (["proba", "predict"], ("predict", "proba")),
        (["predict_proba", "predict"], ("predict", "predict_proba")),
        (["output_label", "output_probability"], ("output_label", "output_probability")),
        (["score", "label"], ("label", "score")),
        (["out.score", "out.label"], ("out.label", "out.score")),
        (["Label", "Confidence"], ("Label", "Confidence")),
        (["output-0", "output-1"], ("output-0", None)),
        (["score", "verdict"], ("verdict", "score")),
        ([], (None, None)),
    ],
)
def test_prediction_and_score_are_found_by_their_usual_names(
    names: list[str], expected: tuple[str | None, str | None]
) -> None:
    assert choose_outputs(dict.fromkeys(names, ()), SchemaSettings()) == expected


def test_configured_outputs_win() -> None:
    outputs: dict[str, Any] = {"label": (), "b": (), "c": ()}
    assert choose_outputs(outputs, SchemaSettings(prediction="b", score="c")) == ("b", "c")
    assert choose_outputs({"label": ()}, SchemaSettings(score="label")) == ("label", None)


@pytest.mark.parametrize(
    ("entries", "target"),
    [
        (["a", "b"], "class"),
        ([True, False], "class"),
        ([0, 1, 2], "class"),
        ([0.0, 1.0], "class"),
        ([[0.1, 0.9], [0.8, 0.2]], "class"),
        ([0.25, 0.75], "number"),
        ([120000, 3500], "number"),
        ([1.0, 2.0, 2.5], "number"),
        ([[3.5, 10.0], [2.0, 7.0]], None),
        ([None, None], None),
    ],
)
def test_the_kind_of_target_is_learnt(entries: list[Any], target: str | None) -> None:
    rows = [[1.0]] * len(entries)
    assert learnt(inference(rows, outputs={"y": entries})).target == target


def of_class(**more: Any) -> Schema:
    return Schema(features=(), prediction="y", target="class", **more)


def test_a_vector_of_probabilities_is_its_most_probable_class() -> None:
    said: dict[str, Any] = {"y": [[0.1, 0.9], [0.8, 0.2], [None, None], []]}
    prediction, score = outcome(of_class(), said)
    assert prediction is not None
    assert prediction.tolist() == ["1", "0", None, None]
    np.testing.assert_array_equal(score, [0.9, 0.2, np.nan, np.nan])  # always the second's
    of_three: dict[str, Any] = {"y": [[0.1, 0.7, 0.2], [0.8, 0.1, 0.1]]}
    np.testing.assert_array_equal(outcome(of_class(), of_three)[1], [0.7, 0.8])
    prediction, _ = outcome(of_class(classes=("no", "yes")), said)
    assert prediction is not None
    assert prediction.tolist() == ["yes", "no", None, None]


def test_a_label_with_its_scores_beside_it() -> None:
    said: dict[str, Any] = {"y": [1, "b", None], "s": [[0.2, 0.8], 0.6, None]}
    prediction, score = outcome(of_class(score="s"), said)
    assert prediction is not None
    assert prediction.tolist() == ["1", "b", None]
    np.testing.assert_array_equal(score, [0.8, 0.6, np.nan])


def test_a_lone_probability_is_cut_at_the_threshold_and_kept_as_score() -> None:
    prediction, score = outcome(of_class(threshold=0.3), {"y": [0.29, 0.3, 1.0]})
    assert prediction is not None
    assert prediction.tolist() == ["0", "1", "1"]
    np.testing.assert_array_equal(score, [0.29, 0.3, 1.0])


def test_amounts_are_float_and_what_is_none_is_missing() -> None:
    schema = Schema(features=(), prediction="y", target="number")
    prediction, score = outcome(schema, {"y": [1, 2.5, None, "x"]})
    np.testing.assert_array_equal(prediction, [1.0, 2.5, np.nan, np.nan])
    assert score is None


def test_several_numbers_at_once_are_no_prediction() -> None:
    schema = Schema(features=(), prediction="y", target="number")
    assert outcome(schema, {"y": [[1.0, 2.0]]}) == (None, None)
    assert outcome(of_class(), {}) == (None, None)


def test_the_same_label_has_one_name_however_it_was_written() -> None:
    assert {category(1), category(1.0), category("1")} == {"1"}
    assert {category(None), category(float("nan"))} == {None}
    assert category(float("inf")) == "inf"
    assert category(0.1) == "0.1"


def test_scores_of_more_than_two_classes_are_kept_apart() -> None:
    of_three: dict[str, Any] = {"y": [[0.1, 0.7, 0.2], [0.8, 0.2], None, [0.3, None, 0.3]]}
    found = class_scores(of_class(), of_three)
    nan = np.nan
    np.testing.assert_array_equal(found, [[0.1, 0.7, 0.2], [nan] * 3, [nan] * 3, [0.3, nan, 0.3]])
    beside: dict[str, Any] = {"y": ["a", "b"], "s": [[0.1, 0.7, 0.2], [0.8, 0.1, 0.1]]}
    found = class_scores(of_class(score="s"), beside)
    assert found is not None
    assert found.shape == (2, 3)
    assert class_scores(of_class(), {"y": [[0.1, 0.9]]}) is None
    assert class_scores(of_class(), {"y": [[0.1] * (CLASS_SCORES_MAX + 1)]}) is None
    number = Schema(features=(), prediction="y", target="number")
    assert class_scores(number, {"y": [[1.0, 2.0, 3.0]]}) is None
    assert class_scores(of_class(), {"y": ["a", 0.5, None]}) is None
