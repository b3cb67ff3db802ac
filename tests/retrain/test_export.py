"""The exported graph says what the network says, also to rows as life sends them at its worst."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from retrain.pipeline import export as exporting
from retrain.pipeline.data import prepare
from retrain.pipeline.export import Exported, export, odd_rows, open_session, write_golden
from retrain.pipeline.network import Served
from retrain.pipeline.recipe import Recipe, read_recipe
from retrain.pipeline.tables import DataError
from retrain.pipeline.train import Trained, train
from retrain.preprocess import Matrix, encode_rows
from tests.retrain.pipeline_rows import RECIPE, write_recipe
from tests.retrain.test_train import REGRESSION, change, quiet

OWN_MODEL = """
from torch import nn

def build(columns, outputs):
    return nn.Sequential(nn.Linear(columns, 8), nn.Tanh(), nn.Linear(8, outputs))

def wrong(columns, outputs):
    return nn.Linear(columns, outputs + 1)

number = 3
"""


def trained_on(directory: Path, text: str = RECIPE) -> tuple[Recipe, Trained, Matrix]:
    recipe = change(read_recipe(write_recipe(directory, text)), epochs=2)
    prepared = prepare(recipe, None, now=0)
    trained = train(recipe, prepared, progress=quiet)
    return recipe, trained, encode_rows(prepared.train.columns, trained.fitted.preprocess)


def exported(trained: Trained, rows: Matrix, path: Path) -> Exported:
    every = np.concatenate([rows[:200], odd_rows(trained.fitted.preprocess)])
    return export(trained.network, trained.fitted, every, path)


def test_the_graph_agrees_with_the_network_and_takes_any_batch(tmp_path: Path) -> None:
    _, trained, rows = trained_on(tmp_path)
    got = exported(trained, rows, tmp_path / "model.onnx")
    assert got.account["parity_difference_max"] < 1e-5
    assert got.account["exporter"] == "torch legacy"
    spec = got.signature.inputs[0]
    assert (spec.name, spec.dtype, spec.shape) == ("x", "float32", ("b", 3))
    assert got.signature.outputs[0].shape == ("b", 2)
    assert got.opset == 17
    session = open_session(tmp_path / "model.onnx")
    for count in (0, 1, 7, 300):
        answer = session.run(None, {"x": rows[:count]})[0]
        assert answer.shape == (count, 2)
        np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)


def test_preprocessing_is_in_the_graph(tmp_path: Path) -> None:
    _, trained, rows = trained_on(tmp_path)
    exported(trained, rows, tmp_path / "model.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert {"IsNaN", "Where", "Equal", "Clip", "Gemm", "Softmax"} <= kinds
    session = open_session(tmp_path / "model.onnx")
    row = rows[:1].copy()
    missing, median = row.copy(), row.copy()
    # Income was never missing in training, so there is no flag: the median stands in for it.
    missing[0, 1], median[0, 1] = np.nan, trained.fitted.scales[1].median
    answers = [session.run(None, {"x": x})[0] for x in (row, missing, median)]
    np.testing.assert_allclose(answers[1], answers[2], atol=1e-6)
    assert not np.allclose(answers[0], answers[1])


def test_nothing_makes_the_graph_say_nan(tmp_path: Path) -> None:
    _, trained, rows = trained_on(tmp_path)
    exported(trained, rows, tmp_path / "model.onnx")
    answer = open_session(tmp_path / "model.onnx").run(
        None, {"x": odd_rows(trained.fitted.preprocess)}
    )[0]
    assert np.isfinite(answer).all()


def test_a_regression_answers_in_its_own_unit(tmp_path: Path) -> None:
    _, trained, rows = trained_on(tmp_path, REGRESSION)
    got = exported(trained, rows, tmp_path / "model.onnx")
    assert got.signature.outputs[0].shape == ("b", 1)


def test_a_module_of_the_user_is_built_in_the_job_and_exported(tmp_path: Path) -> None:
    tmp_path.joinpath("own.py").write_text(OWN_MODEL)
    text = RECIPE.replace("{hidden: [16], dropout: 0.0}", "{factory: 'own.py:build'}")
    _, trained, rows = trained_on(tmp_path, text)
    got = exported(trained, rows, tmp_path / "model.onnx")
    assert got.account["parity_difference_max"] < 1e-5
    for name, reason in (
        ("own.py:wrong", r"gives \(2, 3\) for 2 rows"),
        ("own.py:number", "has no callable number"),
        ("own.py:absent", "has no callable absent"),
        ("gone.py:build", "no such file"),
    ):
        with pytest.raises(DataError, match=reason):
            trained_on(tmp_path, text.replace("own.py:build", name))


def test_a_link_does_not_lead_a_factory_out_of_the_recipes_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(OWN_MODEL)
    inner = tmp_path / "recipes"
    inner.mkdir()
    (inner / "own.py").symlink_to(tmp_path / "elsewhere.py")
    text = RECIPE.replace("{hidden: [16], dropout: 0.0}", "{factory: 'own.py:build'}")
    with pytest.raises(DataError, match="no such file beside the recipe"):
        trained_on(inner, text)


def test_a_graph_that_disagrees_is_not_let_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trained, rows = trained_on(tmp_path)
    write = exporting._write

    def other_weights(served: Served, example: object, path: Path) -> str:
        first = next(served.network.body.parameters())
        kept = first.detach().clone()
        first.data.add_(0.1)
        said = write(served, example, path)  # type: ignore[arg-type]  # passed on as it came
        first.data.copy_(kept)
        return said

    monkeypatch.setattr(exporting, "_write", other_weights)
    with pytest.raises(DataError, match="graph and network differ by"):
        exported(trained, rows, tmp_path / "model.onnx")


@pytest.mark.slow
def test_the_other_exporter_gives_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    _, trained, rows = trained_on(tmp_path)
    real = torch.onnx.export

    def without_legacy(*arguments: object, dynamo: bool, **options: object) -> object:
        if not dynamo:
            raise RuntimeError("gone")
        return real(*arguments, dynamo=True, **options)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(torch.onnx, "export", without_legacy)
    got = exported(trained, rows, tmp_path / "model.onnx")
    assert got.account["exporter"] == "torch dynamo"
    assert got.signature.inputs[0].shape == ("b", 3)
    assert got.account["parity_difference_max"] < 1e-5


def test_golden_rows_hold_the_models_own_answers(tmp_path: Path) -> None:
    _, trained, rows = trained_on(tmp_path)
    exported(trained, rows, tmp_path / "model.onnx")
    write_golden(tmp_path / "model.onnx", rows[:10])
    with np.load(tmp_path / "golden.npz", allow_pickle=False) as golden:
        assert golden["x"].shape == (10, 3)
        again = open_session(tmp_path / "model.onnx").run(None, {"x": golden["x"]})[0]
        np.testing.assert_array_equal(golden["y"], again)


def test_odd_rows_are_odd_in_every_feature(tmp_path: Path) -> None:
    _, trained, _ = trained_on(tmp_path)
    rows = odd_rows(dataclasses.replace(trained.fitted.preprocess))
    assert np.isnan(rows[0]).all()
    assert (rows[1:, 2] == trained.fitted.preprocess.features[2].unknown_code).all()
