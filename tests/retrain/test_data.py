"""Which rows are trained on, which are kept for the gates, and what became of the others."""

import dataclasses
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrain.pipeline.data import Prepared, Rows, prepare, row_hashes
from retrain.pipeline.recipe import DataRecipe, Recipe, read_recipe
from retrain.pipeline.tables import DataError
from tests.retrain.pipeline_rows import rows, write_captures, write_recipe, write_training

Change = Callable[..., Recipe]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return read_recipe(write_recipe(tmp_path))


def with_data(recipe: Recipe, **changes: Any) -> Recipe:
    data: DataRecipe = dataclasses.replace(recipe.data, **changes)
    return dataclasses.replace(recipe, data=data)


def hashes(*parts: Rows) -> set[int]:
    return {value for part in parts for value in part.hashes.tolist()}


def counts(prepared: Prepared) -> dict[str, int]:
    return dict(prepared.account["counts"])


def test_every_row_is_accounted_for(recipe: Recipe, tmp_path: Path) -> None:
    write_captures(tmp_path / "c", label=[None, "paid"] * 400)
    got = prepare(recipe, tmp_path / "c", now=1e9)
    kept = sum(got.account["rows"].values())
    assert counts(got)["captured_read"] == 800
    assert counts(got)["dropped_unlabelled"] == 400
    assert kept == 1_600 + 400
    assert got.account["rows"]["recent"] == 160  # .4 of 400
    assert len(got.train) + len(got.validation) == kept - 160 - got.account["rows"]["holdout"]


def test_gate_rows_are_never_trained_on(recipe: Recipe, tmp_path: Path) -> None:
    # Half of the captures repeat rows of the training set, on either side of every border.
    original = rows(1_600, 1)
    repeated = {name: values[:400] for name, values in original.items() if name != "outcome"}
    fresh = rows(400, 9)
    mixed = {name: [*values, *fresh[name]] for name, values in repeated.items()}
    changes: dict[str, Any] = {n: v[::2] + v[1::2] for n, v in mixed.items()}
    write_captures(tmp_path / "c", **changes)
    got = prepare(recipe, tmp_path / "c", now=1e9)
    assert counts(got)["dropped_also_held_back"] > 50
    held = hashes(got.holdout, got.recent)
    assert len(held) > 300
    assert not held & hashes(got.train, got.validation)
    assert not hashes(got.train) & hashes(got.validation)


def test_the_holdout_is_frozen_whatever_is_added_or_reordered(
    recipe: Recipe, tmp_path: Path
) -> None:
    before = prepare(recipe, None, now=0)
    table = rows(1_600, 1)
    more = rows(300, 77)
    order = np.random.default_rng(3).permutation(1_900)
    text = "age,income,job,outcome\n"
    mixed = {name: [*values, *more[name]] for name, values in table.items()}
    for index in order:
        cells = [mixed[name][index] for name in ("age", "income", "job", "outcome")]
        text += ",".join("" if cell is None else str(cell) for cell in cells) + "\n"
    (tmp_path / "more.csv.gz").write_bytes(gzip.compress(text.encode()))
    after = prepare(with_data(recipe, paths=("more.csv.gz",)), None, now=0)
    assert hashes(before.holdout) < hashes(after.holdout)
    assert not hashes(before.holdout) & hashes(after.train, after.validation)
    assert 0.2 < len(before.holdout) / 1_600 < 0.3


def test_a_frozen_file_is_the_holdout_and_its_rows_leave_the_training_set(
    recipe: Recipe, tmp_path: Path
) -> None:
    write_training(tmp_path / "frozen.parquet", count=300, seed=1)
    write_training(tmp_path / "all.parquet", count=1_000, seed=1)
    recipe = with_data(recipe, holdout="frozen.parquet", paths=("all.parquet", "frozen.parquet"))
    got = prepare(recipe, None, now=0)
    assert len(got.holdout) == 300
    assert counts(got)["dropped_also_held_back"] >= 300
    assert not hashes(got.holdout) & hashes(got.train, got.validation)


def test_the_recent_window_is_the_newest_rows_whatever_file_they_are_in(
    recipe: Recipe, tmp_path: Path
) -> None:
    write_captures(tmp_path / "c", seed=2, count=300, at=[5_000.0 + i for i in range(300)])
    write_captures(tmp_path / "c", seed=3, count=300, at=[1_000.0 + i for i in range(300)])
    got = prepare(recipe, tmp_path / "c", now=1e9)
    assert len(got.recent) == 240
    assert got.recent.at.min() == 5_060.0
    trained = np.concatenate([got.train.at, got.validation.at])
    assert np.nanmax(trained) < got.recent.at.min()


def test_rows_younger_than_the_label_lag_are_left_out(recipe: Recipe, tmp_path: Path) -> None:
    write_captures(tmp_path / "c")
    got = prepare(with_data(recipe, label_lag_s=100.0), tmp_path / "c", now=1_799.5)
    assert counts(got)["dropped_label_lag"] == 100
    assert got.recent.at.max() == 1_699.0


def test_times_may_be_written_in_any_of_the_usual_ways(recipe: Recipe, tmp_path: Path) -> None:
    moments = [datetime.fromtimestamp(1_000 + index, UTC) for index in range(800)]
    for name, values in (
        ("moments", moments),
        ("text", [moment.isoformat() for moment in moments]),
        ("zulu", [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in moments]),
    ):
        write_captures(tmp_path / name, at=values)
        got = prepare(recipe, tmp_path / name, now=1e9)
        assert got.account["window"] == ["1970-01-01T00:16:40Z", "1970-01-01T00:29:59Z"]


def test_one_prediction_captured_twice_counts_once(recipe: Recipe, tmp_path: Path) -> None:
    write_captures(tmp_path / "c", request_id=[f"r{index // 2}" for index in range(800)])
    assert counts(prepare(recipe, tmp_path / "c", now=1e9))["dropped_duplicate"] == 400
    # The same request with two rows is two predictions.
    write_captures(
        tmp_path / "d",
        request_id=[f"r{index // 2}" for index in range(800)],
        row=[index % 2 for index in range(800)],
    )
    assert "dropped_duplicate" not in counts(prepare(recipe, tmp_path / "d", now=1e9))


def test_one_row_sent_over_and_over_does_not_own_the_model(recipe: Recipe, tmp_path: Path) -> None:
    write_captures(
        tmp_path / "c",
        age=[33.0] * 800,
        income=[1.0] * 800,
        job=["clerk"] * 800,
        label=["paid"] * 800,
        at=[1_000.0] * 800,
    )
    write_captures(tmp_path / "c", seed=5, at=[2_000.0 + i for i in range(800)])
    got = prepare(recipe, tmp_path / "c", now=1e9)
    assert counts(got)["dropped_repeated"] == 700
    assert (np.asarray(got.train.columns["age"]) == 33.0).sum() <= 100


def test_captured_rows_weigh_their_share_up_to_a_bound(recipe: Recipe, tmp_path: Path) -> None:
    write_captures(tmp_path / "c")
    got = prepare(recipe, tmp_path / "c", now=1e9)
    pool = np.concatenate([got.train.weight, got.validation.weight])
    captured = np.concatenate([got.train.captured, got.validation.captured])
    assert pool[captured].sum() / pool.sum() == pytest.approx(0.7)
    bounded = prepare(with_data(recipe, repeat_weight_max=2.0), tmp_path / "c", now=1e9)
    weights = bounded.train.weight
    assert weights.max() / weights.min() == pytest.approx(2.0)


def test_captures_that_hold_nothing_to_train_on_are_refused_with_the_mend(
    recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"set capture\.enabled: true"):
        prepare(recipe, tmp_path / "absent", now=1e9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"set capture\.enabled: true"):
        prepare(recipe, tmp_path / "empty", now=1e9)
    write_captures(tmp_path / "c", label=[None] * 800)
    with pytest.raises(DataError, match="800 captured rows and none with a label"):
        prepare(recipe, tmp_path / "c", now=1e9)


def test_files_that_do_not_fit_are_left_out_and_counted(recipe: Recipe, tmp_path: Path) -> None:
    write_captures(tmp_path / "c", seed=2)
    write_captures(tmp_path / "c", seed=3, income=None)
    (tmp_path / "c" / "torn.parquet").write_bytes(b"PAR1 and no more")
    got = prepare(recipe, tmp_path / "c", now=1e9)
    assert counts(got)["files_left_out"] == 2
    assert counts(got)["captured_read"] == 800


def test_the_original_set_must_fit(recipe: Recipe, tmp_path: Path) -> None:
    for name, reason in (
        ("absent.csv", "no such file"),
        ("train.xlsx", "unknown kind of file"),
        ("torn.parquet", "cannot be read"),
        ("narrow.csv", "has no column 'job'"),
    ):
        (tmp_path / "train.xlsx").write_bytes(b"x")
        (tmp_path / "torn.parquet").write_bytes(b"PAR1")
        (tmp_path / "narrow.csv").write_text("age,income,outcome\n1,2,paid\n")
        with pytest.raises(DataError, match=reason):
            prepare(with_data(recipe, paths=(name,)), None, now=0)


def test_the_hash_of_a_row_does_not_know_how_the_file_spelt_it(recipe: Recipe) -> None:
    one: dict[str, list[Any]] = {"age": [39, -0.0], "income": ["10.5", None], "job": ["3", "clerk"]}
    two: dict[str, list[Any]] = {"age": ["39.0", 0], "income": [10.5, "?"], "job": [3.0, b"clerk"]}

    def hashed(columns: dict[str, list[Any]]) -> list[int]:
        arrays = {name: np.array(values, dtype=object) for name, values in columns.items()}
        return [int(value) for value in row_hashes(recipe, arrays)]

    assert hashed(one) == hashed(two)
    assert len(set(hashed(one))) == 2


def test_json_lines_give_the_same_rows_as_parquet(recipe: Recipe, tmp_path: Path) -> None:
    table = rows(1_600, 1)
    lines = [
        json.dumps({name: values[index] for name, values in table.items()})
        for index in range(1_600)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n")
    got = prepare(with_data(recipe, paths=("t.jsonl",)), None, now=0)
    assert got.account["fingerprint"] == prepare(recipe, None, now=0).account["fingerprint"]


def test_rows_max_keeps_what_was_captured(recipe: Recipe, tmp_path: Path) -> None:
    write_captures(tmp_path / "c")
    got = prepare(with_data(recipe, rows_max=600), tmp_path / "c", now=1e9)
    assert len(got.train) + len(got.validation) == 600
    assert sum(got.account["rows_captured"][name] for name in ("train", "validation")) == 480
