"""`remora retrain`: what it refuses before a job starts, and one job from end to end."""

import json
from pathlib import Path

import pytest

from agent.cli import retrain
from agent.cli.parser import Parser
from agent.errors import BadInputError
from retrain.pipeline.recipe import read_recipe
from tests.retrain.pipeline_rows import RECIPE, write_captures, write_recipe


def remora(*arguments: object) -> int:
    parser = Parser(prog="remora")
    retrain.add(parser.add_subparsers(dest="command"))
    parsed = parser.parse_args(["retrain", *(str(argument) for argument in arguments)])
    status: int = parsed.run(parsed)
    return status


def test_init_writes_a_recipe_that_is_one_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert remora("init") == 0
    assert read_recipe(tmp_path / "recipe.yaml").line == "my-model"
    with pytest.raises(BadInputError, match=r"recipe\.yaml: exists"):
        remora("init")


def test_what_is_absent_is_named_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInputError, match=r"no such file: `remora retrain init` writes one"):
        remora(tmp_path / "recipe.yaml")
    (tmp_path / "out" / "artifact").mkdir(parents=True)
    with pytest.raises(BadInputError, match="give another --out"):
        remora(write_recipe(tmp_path), "--out", tmp_path / "out")
    monkeypatch.setattr(retrain, "EXTRA", ("torch", "no_such_package_at_all"))
    with pytest.raises(BadInputError, match=r"pip install 'remora\[retrain\]'"):
        remora(tmp_path / "recipe.yaml", "--out", tmp_path / "fresh")


@pytest.mark.slow
def test_a_job_from_the_command_line_to_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path)
    assert remora(recipe, "--out", tmp_path / "one") == 0
    told = capsys.readouterr()
    assert "all 4 required gates passed" in told.out
    assert "quality_guessing" in told.out
    assert "remora: training: " in told.err
    write_captures(tmp_path / "captures")
    stable = tmp_path / "one" / "artifact"
    given = (recipe, "--data", tmp_path / "captures", "--stable", stable, "--json")
    assert remora(*given, "--out", tmp_path / "two") == 0
    assert json.loads(capsys.readouterr().out)["training"]["start"] == "warm"


@pytest.mark.slow
def test_no_is_one_and_a_mistake_is_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace("rows_min: 100", "rows_min: 100000"))
    assert remora(recipe, "--out", tmp_path / "one") == 1
    assert "labelled rows < minimum 100000" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(BadInputError, match=r"set capture\.enabled: true"):
        remora(recipe, "--data", tmp_path / "none", "--out", tmp_path / "two")
