"""The whole job on small rows, and the gates against models that are wrong in every way."""

import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from detectors.reference import Reference
from retrain import artifact, bundle
from retrain.artifact import ArtifactError
from retrain.gates import GateReport, Margins, Verdict
from retrain.pipeline import __main__ as entry
from retrain.pipeline.data import Prepared, prepare
from retrain.pipeline.job import Finished, Job, run
from retrain.pipeline.recipe import Recipe, read_recipe
from retrain.pipeline.tables import DataError
from retrain.pipeline.validate import load_problems, open_model, time_models, validate
from retrain.preprocess import encode_rows
from tests.retrain.pipeline_rows import RECIPE, write_captures, write_recipe
from tests.retrain.test_train import REGRESSION, quiet

# Two whole runs of the pipeline stand behind the first test.
pytestmark = pytest.mark.slow
NOW = 1_800_000_000.0


def do(
    recipe: Recipe, out: Path, captures: Path | None = None, stable: Path | None = None
) -> Finished:
    return run(Job(recipe=recipe, captures=captures, stable=stable, out=out, now=NOW), quiet)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, a first artifact, captures of a drifted world, and a second artifact."""
    home = tmp_path_factory.mktemp("home")
    recipe = read_recipe(write_recipe(home))
    (home / "one").mkdir()
    do(recipe, home / "one")
    write_captures(home / "captures", count=1_500, unit=3.0, new_job=True)
    (home / "two").mkdir()
    do(recipe, home / "two", home / "captures", home / "one" / "artifact")
    return home


@pytest.fixture(scope="module")
def prepared(home: Path) -> Prepared:
    return prepare(read_recipe(home / "recipe.yaml"), home / "captures", now=NOW)


def report_of(directory: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((directory / "report.json").read_text())
    return value


def judge(home: Path, prepared: Prepared, candidate: Path, **margins: Any) -> GateReport:
    return validate(
        candidate,
        home / "one" / "artifact",
        holdout=prepared.holdout,
        recent=prepared.recent,
        margins=Margins(
            **{"rows_min": 100, "holdout_margin": 0.2, "latency_ratio_max": 10.0, **margins}
        ),
    )


def test_a_first_model_is_a_whole_artifact(home: Path) -> None:
    manifest = artifact.load(home / "one" / "artifact")
    assert {entry.path for entry in manifest.files} == set(artifact.ALLOWED)
    assert manifest.parent is None
    assert manifest.version.startswith("2027-01-15T080000Z-")
    assert manifest.training["start"] == "cold: no stable model"
    assert manifest.data["rows"]["recent"] == 0
    report = report_of(home / "one")
    assert report["passed"] is True
    assert report["digest"] == manifest.digest
    names = [entry["gate"] for entry in report["gates"]["measurements"]]
    assert "quality_guessing" in names
    assert "quality_holdout" not in names
    unpacked = bundle.unpack(home / "one" / "artifact.tar.gz", home / "unpacked")
    assert unpacked == manifest
    assert not (home / "one" / ".work").exists()


def test_a_retraining_wins_where_the_world_has_changed(home: Path) -> None:
    report = report_of(home / "two")
    manifest = artifact.load(home / "two" / "artifact")
    assert manifest.parent == artifact.load(home / "one" / "artifact").digest
    assert report["passed"], report["gates"]["words"]
    assert report["training"]["start"] == "warm"
    recent = next(
        entry for entry in report["gates"]["measurements"] if entry["gate"] == "quality_recent"
    )
    assert recent["figures"]["lower"] > 0.05
    assert recent["figures"]["rows"] == 600
    assert report["data"]["rows_captured"]["recent"] == 600
    assert artifact.read_preprocess(home / "two" / "artifact").features[2].categories[-1] == "gig"


def test_the_reference_is_of_the_world_that_comes_last(home: Path) -> None:
    first, second = (
        Reference.from_bytes((home / name / "artifact" / "reference.json").read_bytes())
        for name in ("one", "two")
    )
    assert first.rows == 1_600
    assert second.rows == 1_500 - _account(home / "two")["dropped_also_held_back"]
    medians = [reference.features[1].median for reference in (first, second)]
    assert 2.5 < medians[1] / medians[0] < 3.5
    assert second.prediction is not None
    # Errors are counted on rows that were not trained on, and on those alone.
    assert second.baseline is not None
    assert second.baseline.rows == 600
    assert 0 < second.baseline.errors < 200
    # Of two classes that score is watched which is served: the second's, from nearly 0 on.
    assert second.score is not None
    assert second.score.minimum < 0.3
    assert second.baseline.estimation is not None


def _account(directory: Path) -> dict[str, int]:
    counts = report_of(directory)["data"]["counts"]
    return {"dropped_also_held_back": 0, **counts}


def test_int8_is_taken_only_where_it_wins_and_both_are_reported(home: Path) -> None:
    for name in ("one", "two"):
        comparison = report_of(home / name)["compression"]
        model = home / name / "artifact" / "model.onnx"
        taken = "int8_bytes" if comparison["taken"] == "int8_static" else "float32_bytes"
        assert model.stat().st_size == comparison[taken]
        assert comparison["why"]
        assert {"b1", "b32"} == set(comparison["latency"])
        steps = artifact.load(home / name / "artifact").compression["steps"]
        assert len(steps) == (comparison["taken"] == "int8_static")


def test_int8_that_is_out_of_its_margin_is_left(home: Path, tmp_path: Path) -> None:
    recipe = read_recipe(home / "recipe.yaml")
    strict = dataclasses.replace(recipe, compress=dataclasses.replace(recipe.compress, margin=0.0))
    do(strict, tmp_path)
    comparison = report_of(tmp_path)["compression"]
    assert comparison["taken"] == "float32"
    assert comparison["why"].startswith("int8 ")


def test_a_candidate_that_learnt_the_wrong_thing_fails(home: Path, prepared: Prepared) -> None:
    bad = home / "bad"
    shutil.copytree(home / "two" / "artifact", bad)
    (bad / "golden.npz").unlink()
    model = onnx.load(bad / "model.onnx")
    last = next(node for node in model.graph.node if node.op_type == "Softmax")
    # The two classes change places.
    swap = numpy_helper.from_array(np.array([[0, 1], [1, 0]], np.float32), "swap")
    model.graph.initializer.append(swap)
    place = list(model.graph.node).index(last)
    model.graph.node.insert(place, helper.make_node("MatMul", [last.input[0], "swap"], ["swapped"]))
    last.input[0] = "swapped"
    onnx.save(model, bad / "model.onnx")
    report = judge(home, prepared, bad)
    failed = [entry.gate for entry in report.measurements if entry.verdict is Verdict.FAILED]
    assert failed == ["quality_holdout", "quality_recent"]
    assert not report.passed
    assert "accuracy" in report.words


def test_the_same_model_is_not_worse_than_itself(home: Path, prepared: Prepared) -> None:
    report = judge(home, prepared, home / "one" / "artifact", recent_margin=0.06)
    assert report.passed, report.words


def test_too_few_rows_are_inconclusive_and_do_not_pass(home: Path, prepared: Prepared) -> None:
    report = judge(home, prepared, home / "two" / "artifact", rows_min=601)
    recent = report.measurement("quality_recent")
    assert recent is not None
    assert recent.verdict is Verdict.INCONCLUSIVE
    assert recent.words == "600 labelled rows < minimum 601"
    assert not report.passed


@pytest.mark.parametrize(
    ("margins", "gate"),
    [
        ({"latency_us_max": 0.001}, "latency_b1_absolute"),
        ({"latency_ratio_max": 0.0001}, "latency_b1"),
        ({"size_bytes_max": 10}, "size"),
        ({"size_ratio_max": 0.01}, "size"),
    ],
)
def test_what_costs_too_much_fails(
    home: Path, prepared: Prepared, margins: dict[str, float], gate: str
) -> None:
    report = judge(home, prepared, home / "two" / "artifact", **margins)
    measured = report.measurement(gate)
    assert measured is not None
    assert measured.verdict is Verdict.FAILED
    assert not report.passed


def test_latency_is_measured_in_turns(home: Path) -> None:
    model = open_model(home / "one" / "artifact")
    rows = np.zeros((32, 3), np.float32)
    times = time_models([model, model], rows, rounds=15)
    assert [len(taken) for taken in times] == [15, 15]
    ratio = np.median(np.asarray(times[0]) / np.asarray(times[1]))
    assert 0.5 < ratio < 2
    assert all(value > 1 for taken in times for value in taken)


def altered(home: Path, target: Path, change: str) -> Path:
    """The second model with one thing wrong in its graph."""
    shutil.copytree(home / "two" / "artifact", target)
    model = onnx.load(target / "model.onnx")
    graph = model.graph
    if change == "domain":
        graph.node[0].domain = "com.evil"
    elif change == "external":
        tensor = graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        pair = tensor.external_data.add()
        pair.key, pair.value = "location", "../../etc/passwd"
    elif change == "nan":
        weight = next(entry for entry in graph.initializer if entry.name == "network.body.2.bias")
        weight.CopyFrom(numpy_helper.from_array(np.full(2, np.nan, np.float32), weight.name))
    elif change == "name":
        for node in graph.node:
            node.output[:] = ["z" if name == "y" else name for name in node.output]
        graph.output[0].name = "z"
    # Not by onnx.save, which is too careful to write such a file.
    (target / "model.onnx").write_bytes(model.SerializeToString())
    return target


@pytest.mark.parametrize(
    ("change", "gate", "words"),
    [
        ("domain", "loads", "uses the operator com.evil."),
        ("external", "loads", "outside the file"),
        ("name", "signature", "outputs "),
        ("nan", "golden", "differs from its own golden rows"),
    ],
)
def test_a_graph_that_must_not_be_served_is_named(
    home: Path, prepared: Prepared, tmp_path: Path, change: str, gate: str, words: str
) -> None:
    report = judge(home, prepared, altered(home, tmp_path / "m", change))
    measured = report.measurement(gate)
    assert measured is not None
    assert measured.verdict is Verdict.FAILED
    assert words in measured.words
    assert not report.passed


def test_outputs_that_are_not_finite_fail_also_without_golden_rows(
    home: Path, prepared: Prepared, tmp_path: Path
) -> None:
    candidate = altered(home, tmp_path / "m", "nan")
    (candidate / "golden.npz").unlink()
    report = judge(home, prepared, candidate)
    measured = report.measurement("finite")
    assert measured is not None
    assert measured.verdict is Verdict.FAILED


def test_bytes_that_are_no_model_are_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x80\x04 not a graph")
    assert load_problems(tmp_path / "model.onnx")[0].startswith("model.onnx is no ONNX model")
    (tmp_path / "model.onnx").write_bytes(b"")
    assert load_problems(tmp_path / "model.onnx")


def test_training_and_serving_encode_alike(home: Path, prepared: Prepared) -> None:
    """What the server does with a request is what the gates did with the same row."""
    served = open_model(home / "two" / "artifact")
    columns = {name: values[:20].tolist() for name, values in prepared.recent.columns.items()}
    wire = {name: [[value] for value in values] for name, values in columns.items()}
    one = served.answer(encode_rows(columns, served.preprocess))
    two = served.answer(encode_rows(wire, served.preprocess))
    np.testing.assert_array_equal(one, two)


def test_a_regression_goes_the_whole_way(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, REGRESSION.replace("lr: 0.01", "lr: 0.02")))
    (tmp_path / "out").mkdir()
    got = do(recipe, tmp_path / "out")
    guessing = got.report.measurement("quality_guessing")
    assert guessing is not None
    assert guessing.figures["rows"] > 300
    reference = Reference.from_bytes((tmp_path / "out/artifact/reference.json").read_bytes())
    assert reference.task == "regression"
    assert reference.prediction is not None


def test_a_stable_artifact_that_was_altered_is_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "one" / "artifact", tmp_path / "stable")
    with (tmp_path / "stable" / "model.onnx").open("ab") as file:
        file.write(b"x")
    recipe = read_recipe(home / "recipe.yaml")
    with pytest.raises(ArtifactError, match=r"model\.onnx: has"):
        do(recipe, tmp_path / "out", stable=tmp_path / "stable")


def test_an_artifact_is_never_written_over(home: Path) -> None:
    with pytest.raises(DataError, match="give an --out without an artifact"):
        do(read_recipe(home / "recipe.yaml"), home / "one")


def command(*arguments: object) -> tuple[int, list[Mapping[str, Any]]]:
    """The job's entry in this process: exit code and progress lines."""
    kept, sys.stdout = sys.stdout, io.StringIO()
    try:
        code = entry.main([str(argument) for argument in arguments])
        lines = sys.stdout.getvalue().splitlines()
    finally:
        sys.stdout = kept
    return code, [json.loads(line) for line in lines]


def test_the_gates_alone_judge_an_artifact_from_elsewhere(home: Path, tmp_path: Path) -> None:
    given = ("--recipe", home / "recipe.yaml", "--data", home / "captures", "--now", NOW)
    stable = ("--stable", home / "one" / "artifact")
    code, lines = command(
        "validate", home / "two" / "artifact", *given, *stable, "--out", tmp_path / "o"
    )
    assert code == 0, lines[-1]["words"]
    assert lines[-1]["step"] == "finished"
    assert lines[-1]["passed"] is True
    assert report_of(tmp_path / "o")["passed"] is True
    shutil.copytree(home / "two" / "artifact", tmp_path / "torn")
    (tmp_path / "torn" / "card.md").write_text("better than ever")
    code, lines = command("validate", tmp_path / "torn", *given, *stable)
    assert code == 2
    assert lines[-1]["error"].startswith("card.md: ")


def test_the_entry_says_no_and_says_what_is_wrong(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recipe(tmp_path, RECIPE.replace("recent_share", "recent_shar"))
    code, lines = command("run", tmp_path / "recipe.yaml", "--out", tmp_path / "o")
    assert code == 2
    assert "did you mean recent_share?" in lines[-1]["error"]
    code, lines = command(
        "run", home / "recipe.yaml", "--out", tmp_path / "o", "--data", tmp_path / "none"
    )
    assert code == 2
    assert "set capture.enabled: true" in lines[-1]["error"]
    write_recipe(tmp_path, RECIPE.replace("rows_min: 100", "rows_min: 100000"))
    events = tmp_path / "events.jsonl"
    code, lines = command(
        "run", tmp_path / "recipe.yaml", "--out", tmp_path / "o", "--events", events
    )
    assert code == 1
    assert lines[-1]["passed"] is False
    assert "labelled rows < minimum 100000" in lines[-1]["words"]
    assert [json.loads(line) for line in events.read_text().splitlines()] == lines
    assert "set capture.enabled" in capsys.readouterr().err
