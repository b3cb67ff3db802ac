"""From traffic to training rows: ticks captured, labels joined, exported, and read by a recipe."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from agent import training_data as training_data_module
from agent.capture import CaptureWriter
from agent.labels import Label, LabelStore
from agent.schema import objects
from agent.training_data import ROWS_FILE, TrainingData
from retrain.pipeline.data import prepare
from retrain.pipeline.recipe import read_recipe
from tests.agent.ticks import tick
from tests.retrain.pipeline_rows import rows as loans
from tests.retrain.pipeline_rows import write_recipe

NOW = 10_000.0


class Line:
    """Capture, label store and export on one directory."""

    def __init__(self, directory: Path) -> None:
        self.captures = directory / "captures"
        self.out = directory / "out"
        self.writer = CaptureWriter(
            self.captures, bytes_max=2**30, retention_s=1e9, redact=(), clock=lambda: NOW
        )
        self.labels = LabelStore(directory / "labels.db", ttl_s=1e9, pending_s=1e9, rows_max=10_000)
        self.data = TrainingData(self.labels, self.captures, clock=lambda: NOW)

    def rows(self, ids: list[str], labels: list[Any], **changes: Any) -> None:
        """One captured tick, and the labels of its rows that have one."""
        batch = tick(ids, **changes)
        self.writer.write(batch)
        self.labels.remember(batch, NOW)
        known = zip(batch.ids, batch.row_numbers.tolist(), labels, strict=True)
        self.labels.take(
            [Label(request_id=i, row=r, label=v) for i, r, v in known if v is not None], NOW
        )

    def exported(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in (self.out / ROWS_FILE).read_bytes().splitlines()]


@pytest.fixture
def line(tmp_path: Path) -> Any:
    made = Line(tmp_path)
    yield made
    made.labels.close()


async def test_rows_with_a_label_are_exported_with_it(line: Line) -> None:
    line.rows(["a", "a", "b"], ["no", None, "yes"])
    assert line.data.window() == {
        "captures": str(line.captures), "labelled_rows": 2, "until": NOW,
    }  # fmt: skip
    assert await line.data.export(line.out) == 2
    assert {(row["request_id"], row["row"], row["label"]) for row in line.exported()} == {
        ("a", 0, "no"),
        ("b", 0, "yes"),
    }


async def test_a_correction_is_what_is_learnt_from(line: Line) -> None:
    line.rows(["a"], ["no"])
    line.labels.take([Label(request_id="a", label="yes")], NOW)
    await line.data.export(line.out)
    assert [row["label"] for row in line.exported()] == ["yes"]


async def test_rows_of_an_ambiguous_id_teach_nothing(line: Line) -> None:
    line.rows(["a", "b"], ["no", "no"], at=1.0)
    line.rows(["a"], [None], at=2.0)
    await line.data.export(line.out)
    assert [row["request_id"] for row in line.exported()] == ["b"]


async def test_nothing_to_export_is_said(line: Line) -> None:
    with pytest.raises(ValueError, match=r"capture\.enabled"):
        await TrainingData(line.labels, None).export(line.out)
    assert await line.data.export(line.out) == 0
    line.rows(["a"], [None])
    assert await line.data.export(line.out) == 0
    assert line.exported() == []


async def test_the_newest_rows_are_exported_when_there_are_too_many(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_data_module, "ROWS_MAX", 3)
    for number in range(4):
        line.rows([f"{number}-{row}" for row in range(2)], ["yes", "yes"])
        line.writer.close()  # a segment each
    await line.data.export(line.out)
    assert [row["request_id"] for row in line.exported()] == ["3-1", "3-0", "2-1"]


async def test_older_rows_are_left_out_on_request(line: Line) -> None:
    line.rows(["old"], ["yes"], at=1.0)
    line.rows(["new-1", "new-2"], ["yes", "no"], at=50.0)
    assert await line.data.export(line.out, since=50.0) == 2
    assert {row["request_id"] for row in line.exported()} == {"new-1", "new-2"}


async def test_a_column_has_one_type_whatever_clients_sent(line: Line) -> None:
    line.rows(["a", "b"], [1, True], columns={"x": np.array([1.0, 2.5]), "y": np.ones(2)})
    line.rows(["c", "d"], ["1", 2.5], columns={"x": objects(["low", None]), "z": np.ones(2)})
    await line.data.export(line.out)
    by_id = {row["request_id"]: row for row in line.exported()}
    assert {id: row["label"] for id, row in by_id.items()} == {
        "a": "1", "b": "true", "c": "1", "d": "2.5",
    }  # fmt: skip
    assert {id: row["x"] for id, row in by_id.items()} == {
        "a": "1", "b": "2.5", "c": "low", "d": None,
    }  # fmt: skip
    assert by_id["a"]["y"] == 1.0
    assert sorted(path.name for path in line.out.iterdir()) == [ROWS_FILE]


async def test_labels_of_one_type_stay_what_they_are(line: Line) -> None:
    line.rows(["a", "b"], [1, 2.5])
    await line.data.export(line.out)
    assert {row["label"] for row in line.exported()} == {1, 2.5}


@pytest.mark.parametrize("spelling", ["text", "mixed"])
async def test_a_recipe_reads_what_was_exported(line: Line, tmp_path: Path, spelling: str) -> None:
    recipe = read_recipe(write_recipe(tmp_path / "recipe"))
    made = loans(800, 5)
    cells = {
        "age": np.array([np.nan if v is None else v for v in made["age"]]),
        "income": np.array(made["income"]),
        "job": objects(made["job"]),
    }
    labels: list[Any] = made["outcome"]
    if spelling == "mixed":
        labels = [value if n % 2 else 1 for n, value in enumerate(labels)]
    for start in range(0, 800, 100):
        part = slice(start, start + 100)
        line.rows(
            [f"r-{n}" for n in range(start, start + 100)],
            [None if n % 4 == 0 else value for n, value in enumerate(labels[part])],
            columns={name: column[part] for name, column in cells.items()},
            at=1_000.0 + start + np.arange(100),
        )
    assert await line.data.export(line.out) == 600
    got = prepare(recipe, line.out, now=1e9)
    counts = dict(got.account["counts"])
    assert counts["captured_read"] == counts["captured_kept"] == 600
    assert len(got.recent) == 240  # .4 of them
    assert got.recent.at.min() > np.nanmax(np.concatenate([got.train.at, got.validation.at]))
    expected = {"paid", "default"} | ({"1"} if spelling == "mixed" else set())
    assert set(got.recent.target) == expected
    kept = {row["at"]: row for row in line.exported()}
    for at, job in zip(got.recent.at, got.recent.columns["job"], strict=True):
        assert kept[at]["job"] == job
