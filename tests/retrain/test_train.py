"""Training on a few hundred rows, for real: what it learns, what it keeps, where it starts from."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from retrain import artifact
from retrain.pipeline import network as networks
from retrain.pipeline.data import Prepared, Rows, prepare
from retrain.pipeline.fit import class_codes, fit, with_unknowns
from retrain.pipeline.recipe import Recipe, read_recipe
from retrain.pipeline.tables import DataError
from retrain.pipeline.train import Trained, train
from retrain.preprocess import Preprocess, Task, encode_rows
from tests.retrain.pipeline_rows import RECIPE, write_captures, write_recipe

REGRESSION = (
    RECIPE.replace("task: classification", "task: regression")
    .replace("target: outcome", "target: income")
    .replace("  - {name: income, kind: numeric}\n", "")
)


def quiet(step: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
    """Progress that nobody reads."""


def change(recipe: Recipe, **settings: object) -> Recipe:
    training = dataclasses.replace(recipe.training, **settings)  # type: ignore[arg-type]  # as given
    return dataclasses.replace(recipe, training=training)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return read_recipe(write_recipe(tmp_path))


@pytest.fixture
def prepared(recipe: Recipe) -> Prepared:
    return prepare(recipe, None, now=0)


def accuracy(trained: Trained, rows: Rows) -> float:
    preprocess = trained.fitted.preprocess
    with torch.no_grad():
        answer = trained.network(torch.from_numpy(encode_rows(rows.columns, preprocess)))
    return float((answer.argmax(1).numpy() == class_codes(rows, preprocess)).mean())


def keep(trained: Trained, recipe: Recipe, directory: Path) -> Path:
    """What a warm start reads of a stable artifact."""
    directory.mkdir()
    networks.save_weights(directory, trained.network, recipe, trained.fitted)
    (directory / artifact.PREPROCESS).write_bytes(
        artifact.canonical_json(trained.fitted.preprocess.as_json())
    )
    return directory


def logits(trained: Trained, rows: Rows) -> Tensor:
    with torch.no_grad():
        x = encode_rows(rows.columns, trained.fitted.preprocess)
        answer: Tensor = trained.network(torch.from_numpy(x))
    return answer


def test_it_learns_what_there_is_to_learn_and_says_how(recipe: Recipe, prepared: Prepared) -> None:
    said: list[tuple[str, int, int]] = []
    got = train(
        recipe, prepared, progress=lambda step, done, total, _: said.append((step, done, total))
    )
    majority = max(prepared.account["class_share"]["holdout"].values())
    assert accuracy(got, prepared.holdout) > majority + 0.2
    assert got.account["validation_loss"] < got.account["validation_loss_before"]
    assert got.account["start"] == "cold: no stable model"
    assert said[-1] == ("train", 12, 12)


def test_the_same_seed_gives_the_same_weights(recipe: Recipe, prepared: Prepared) -> None:
    short = change(recipe, epochs=2)
    one, two = (train(short, prepared, progress=quiet) for _ in range(2))
    assert torch.equal(logits(one, prepared.holdout), logits(two, prepared.holdout))
    other = train(change(short, seed=1), prepared, progress=quiet)
    assert not torch.equal(logits(one, prepared.holdout), logits(other, prepared.holdout))


def test_training_stops_when_validation_no_longer_improves(
    recipe: Recipe, prepared: Prepared
) -> None:
    got = train(change(recipe, epochs=500, patience=2), prepared, progress=quiet)
    assert got.account["epochs"] == got.account["best_epoch"] + 2 < 500


def test_the_best_weights_come_out_even_when_training_diverges(
    recipe: Recipe, prepared: Prepared, tmp_path: Path
) -> None:
    stable = keep(train(recipe, prepared, progress=quiet), recipe, tmp_path / "stable")
    wild = change(recipe, lr=10.0, optimizer="sgd", clip_norm=1e6, epochs=3)
    got = train(wild, prepared, stable=stable, progress=quiet)
    assert got.account["best_epoch"] == 0
    assert got.account["validation_loss"] == got.account["validation_loss_before"] < 0.6


def test_a_time_limit_ends_training_with_what_it_has(recipe: Recipe, prepared: Prepared) -> None:
    got = train(change(recipe, time_s_max=0.0, epochs=50), prepared, progress=quiet)
    assert got.account["epochs"] == 1


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_every_optimizer_learns(recipe: Recipe, prepared: Prepared, optimizer: str) -> None:
    settings = change(recipe, optimizer=optimizer, epochs=4, class_weights="balanced")
    got = train(settings, prepared, progress=quiet)
    assert got.account["validation_loss"] < got.account["validation_loss_before"]


def test_a_warm_start_begins_as_the_function_in_production(
    recipe: Recipe, prepared: Prepared, tmp_path: Path
) -> None:
    first = train(recipe, prepared, progress=quiet)
    stable = keep(first, recipe, tmp_path / "stable")
    # New rows: other means, other spreads, and a category that the stable model does not know.
    write_captures(tmp_path / "c", unit=1.2, new_job=True)
    later = prepare(recipe, tmp_path / "c", now=1e9)
    fitted = fit(recipe, later.train, stable=first.fitted.preprocess)
    assert fitted.scales != first.fitted.scales
    assert fitted.preprocess.features[2].categories == ("clerk", "nurse", "smith", "gig")
    network = networks.build_network(recipe, fitted).eval()
    assert networks.warm_start(network, recipe, fitted, stable) == "warm"
    begun = dataclasses.replace(first, network=network, fitted=fitted)
    # Where age is missing the median stands in for it, and that has moved.
    present = np.asarray([age is not None for age in later.recent.columns["age"]])
    rows = later.recent.take(present)
    assert len(rows) > 300
    expected, got = logits(first, rows), logits(begun, rows)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=2e-3)
    assert torch.equal(got.argmax(1), expected.argmax(1))


def test_a_change_of_unit_is_not_refolded_into_one_giant_weight(
    recipe: Recipe, prepared: Prepared, tmp_path: Path
) -> None:
    first = train(recipe, prepared, progress=quiet)
    stable = keep(first, recipe, tmp_path / "stable")
    write_captures(tmp_path / "c", unit=1_000.0)
    later = prepare(recipe, tmp_path / "c", now=1e9)
    fitted = fit(recipe, later.train, stable=first.fitted.preprocess)
    network = networks.build_network(recipe, fitted)
    assert networks.warm_start(network, recipe, fitted, stable) == "warm"
    greatest = max(float(v.abs().max()) for v in network.body.state_dict().values())
    before = max(float(v.abs().max()) for v in first.network.body.state_dict().values())
    assert greatest < 2.5 * before


def test_a_warm_start_saves_epochs(recipe: Recipe, prepared: Prepared, tmp_path: Path) -> None:
    first = train(recipe, prepared, progress=quiet)
    stable = keep(first, recipe, tmp_path / "stable")
    again = train(
        recipe,
        prepared,
        stable=stable,
        stable_preprocess=first.fitted.preprocess,
        progress=quiet,
    )
    assert again.account["start"] == "warm"
    assert again.account["validation_loss_before"] == pytest.approx(
        first.account["validation_loss"], abs=1e-4
    )


@pytest.mark.parametrize(
    ("change_of", "said"),
    [
        ({"hidden": (17,)}, "cold: the architecture differs"),
        ({"hidden": (16, 16)}, "cold: the architecture differs"),
    ],
)
def test_another_architecture_starts_cold(
    recipe: Recipe,
    prepared: Prepared,
    tmp_path: Path,
    change_of: dict[str, tuple[int, ...]],
    said: str,
) -> None:
    first = train(change(recipe, epochs=1), prepared, progress=quiet)
    stable = keep(first, recipe, tmp_path / "stable")
    model = dataclasses.replace(recipe.model, hidden=change_of["hidden"])
    other = change(dataclasses.replace(recipe, model=model), epochs=1)
    assert train(other, prepared, stable=stable, progress=quiet).account["start"] == said
    off = change(recipe, epochs=1, warm_start=False)
    got = train(off, prepared, stable=stable, progress=quiet)
    assert got.account["start"] == "cold: the recipe says so"
    (stable / artifact.WEIGHTS).write_bytes(b"torn")
    got = train(change(recipe, epochs=1), prepared, stable=stable, progress=quiet)
    assert got.account["start"].startswith("cold: the stable artifact holds no weights")


def test_a_regression_learns_in_the_targets_own_unit(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, REGRESSION))
    prepared = prepare(recipe, None, now=0)
    got = train(change(recipe, epochs=3), prepared, progress=quiet)
    assert got.fitted.preprocess.task is Task.REGRESSION
    served = networks.Served(got.network, got.fitted).eval()
    with torch.no_grad():
        x = encode_rows(prepared.holdout.columns, got.fitted.preprocess)
        answer = served(torch.from_numpy(x)).numpy()
    target = prepared.holdout.target.astype(float)
    assert answer.shape == (len(target), 1)
    assert 0.5 < np.median(answer) / np.median(target) < 2


def test_labels_that_nobody_knew_are_no_class(recipe: Recipe, tmp_path: Path) -> None:
    odd = [("typo" if index == 7 else "paid" if index % 2 else "default") for index in range(800)]
    write_captures(tmp_path / "c", label=odd)
    prepared = prepare(recipe, tmp_path / "c", now=1e9)
    assert fit(recipe, prepared.train).preprocess.classes == ("default", "paid")
    many = [("new" if index % 3 == 0 else "paid") for index in range(800)]
    write_captures(tmp_path / "d", label=many)
    prepared = prepare(recipe, tmp_path / "d", now=1e9)
    stable = fit(recipe, prepare(recipe, None, now=0).train).preprocess
    assert fit(recipe, prepared.train, stable=stable).preprocess.classes == stable.classes
    assert (class_codes(prepared.train, stable) == -1).any()
    got = train(change(recipe, epochs=1), prepared, stable_preprocess=stable, progress=quiet)
    assert np.isfinite(got.account["validation_loss"])


def test_one_class_alone_cannot_be_learnt(recipe: Recipe, tmp_path: Path) -> None:
    alone = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, paths=()))
    write_captures(tmp_path / "c", label=["paid"] * 800)
    prepared = prepare(alone, tmp_path / "c", now=1e9)
    with pytest.raises(DataError, match="1 classes with 5 rows or more"):
        train(recipe, prepared, progress=quiet)


def test_rare_categories_share_the_unknown_bucket(recipe: Recipe, prepared: Prepared) -> None:
    columns = {name: values.copy() for name, values in prepared.train.columns.items()}
    columns["job"][:9] = "astronaut"
    columns["job"][9:19] = "diver"
    fitted = fit(recipe, dataclasses.replace(prepared.train, columns=columns))
    assert fitted.preprocess.features[2].categories == ("clerk", "diver", "nurse", "smith")
    assert "job:unknown" in fitted.columns
    assert "age:missing" in fitted.columns
    assert "income:missing" not in fitted.columns


def test_training_sees_the_unknown_bucket(recipe: Recipe, prepared: Prepared) -> None:
    preprocess: Preprocess = fit(recipe, prepared.train).preprocess
    matrix = encode_rows(prepared.train.columns, preprocess)
    seen = with_unknowns(matrix, preprocess, 0.1, np.random.default_rng(0))
    share = (seen[:, 2] == preprocess.features[2].unknown_code).mean()
    assert 0.05 < share < 0.15
    np.testing.assert_array_equal(seen[:, :2], matrix[:, :2])
