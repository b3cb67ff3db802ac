"""A recipe is read whole or refused in one line that names the file, the key and the mend."""

from pathlib import Path

import pytest
import yaml

from retrain.pipeline.recipe import RecipeError, parse_recipe, read_recipe
from retrain.preprocess import Kind, Task
from tests.retrain.pipeline_rows import RECIPE

ROOT = Path(__file__).resolve().parents[2]


def parse(text: str) -> object:
    return parse_recipe(yaml.safe_load(text), name="r.yaml", directory=Path())


def test_a_recipe_says_what_it_says_and_defaults_fill_the_rest() -> None:
    recipe = parse_recipe(yaml.safe_load(RECIPE), name="r.yaml", directory=Path("d"))
    assert recipe.task is Task.CLASSIFICATION
    assert [feature.kind for feature in recipe.features] == [
        Kind.NUMERIC,
        Kind.NUMERIC,
        Kind.CATEGORICAL,
    ]
    assert recipe.model.hidden == (16,)
    assert recipe.training.clip_norm == 1.0
    assert recipe.training.warm_start is True
    assert recipe.compress.kind == "int8_static"
    assert recipe.path("train.parquet") == Path("d/train.parquet")


def test_the_fingerprint_is_of_the_content_not_of_its_layout() -> None:
    one = parse_recipe(yaml.safe_load(RECIPE), name="r", directory=Path())
    two = parse_recipe(
        yaml.safe_load(
            "# a comment\n"
            + RECIPE.replace("{hidden: [16], dropout: 0.0}", "\n  dropout: 0.0\n  hidden: [16]")
        ),
        name="s",
        directory=Path("elsewhere"),
    )
    other = parse_recipe(yaml.safe_load(RECIPE.replace("[16]", "[17]")), name="r", directory=Path())
    assert one.sha256 == two.sha256 != other.sha256


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("epochs:", "epoch:"), "r.yaml: training.epoch: unknown key: did you mean epochs?"),
        (("holdout_margin:", "holdout_marign:"), "gates.holdout_marign: unknown key: did you mean"),
        (("line: loans", "lime: loans"), "r.yaml: lime: unknown key: did you mean line?"),
        (("line: loans\n", ""), "r.yaml: recipe: add the key 'line'"),
        (("task: classification", "task: ranking"), "write classification or regression"),
        (("kind: categorical", "kind: text"), "features[2].kind: is 'text': write numeric or"),
        (("target: outcome", "target: age"), "target: age is a feature as well"),
        (("name: income", "name: age"), "features: age stands twice"),
        (("name: income", "name: label"), "features: label is a column that captures have"),
        (("epochs: 12", "epochs: many"), "training.epochs: is 'many': write a whole number"),
        (("epochs: 12", "epochs: true"), "training.epochs: is True: write a whole number"),
        (("epochs: 12", "epochs: 0"), "training.epochs: is 0: write a number from 1 to 10000"),
        (("lr: 0.01", "lr: .nan"), "training.lr: is nan: write a number"),
        (("hidden: [16]", "hidden: 16"), "model.hidden: is 16: write a list"),
        (("hidden: [16]", "hidden: [-1]"), "model.hidden: is -1"),
        (("hidden: [16]", "factory: ../m.py:f"), "model.factory: is '../m.py:f': write file.py"),
        (("hidden: [16]", "factory: /m.py:f"), "model.factory: is '/m.py:f': write file.py"),
        (("hidden: [16]", "factory: m.pkl:f"), "model.factory: is 'm.pkl:f': write file.py"),
        (("holdout_share: 0.25", "holdout_share: 0"), "gates need rows of their own"),
        (("model: {", "directory: x\nmodel: {"), "directory: unknown key"),
    ],
)
def test_mistakes_are_told_in_one_line(change: tuple[str, str], line: str) -> None:
    assert change[0] in RECIPE
    with pytest.raises(RecipeError) as caught:
        parse(RECIPE.replace(*change))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_recipe_at_all_is_refused(tmp_path: Path) -> None:
    for text, reason in (("- 1", "not a mapping"), ("a: [", "not YAML"), ("", "not a mapping")):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=reason):
            read_recipe(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "absent.yaml")


def test_every_example_is_a_recipe() -> None:
    examples = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))
    assert examples
    for path in examples:
        assert read_recipe(path).features
