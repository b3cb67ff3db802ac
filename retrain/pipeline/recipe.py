"""A recipe: what to train, on what, and what it must show, in one YAML file.

The recipe is read in the job and by `remora retrain`, so this file imports nothing heavy.
Unknown keys are refused and the nearest known one is named: a misspelt margin that silently
falls back to its default would admit what it was written to keep out.
"""

import difflib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from retrain.artifact import canonical_json
from retrain.gates import Margins
from retrain.preprocess import Kind, Task

RECIPE_BYTES_MAX = 1 << 20
OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop")
COMPRESSIONS = ("int8_static", "none")
CLASS_WEIGHTS = ("none", "balanced")
# Columns that captures have besides the features.
RESERVED = frozenset(
    {
        *("prediction", "score", "label", "request_id", "row", "at", "version", "tick"),
        *("tick_at", "tick_share", "tick_evidence", "sampling_weight"),
    }
)
Record = TypeVar("Record")


class RecipeError(ValueError):
    """One line that names the file, the key and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRecipe:
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecipe:
    """`kind: mlp` with `hidden` layers, or `factory: file.py:callable` beside the recipe, called as
    `callable(columns: int, outputs: int) -> torch.nn.Module` in the job process only.
    """

    kind: str = "mlp"
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.1
    factory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """patience: epochs without a better validation loss before training stops.

    clip_norm: gradients longer than this are shortened to it. time_s_max: training stops after the
    epoch that passes it, and keeps the best weights so far.
    """

    epochs: int = 20
    batch: int = 256
    lr: float = 2e-3
    optimizer: str = "adamw"
    weight_decay: float = 1e-4
    patience: int = 4
    clip_norm: float = 1.0
    seed: int = 0
    threads: int = 1
    warm_start: bool = True
    class_weights: str = "none"
    validation_share: float = 0.1
    time_s_max: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """paths: the original training set, relative to the recipe.

    recent_weight: share of what training sees that captured rows make up, bounded by
    `repeat_weight_max` times the weight of an original row.
    holdout: a file of frozen rows, or none: then `holdout_share` of the original set by row hash.
    recent_share: the newest part of the captured, labelled rows, kept from training for the gates.
    label_lag_s: captured rows younger than this are left out; labels that come fast are not like
    the others. repeats_max: no row with its label counts more often than this.
    reference_rows: the newest captured rows make the artifact's reference profile, this many at
    most, recent window first: what the model will be served is like what came last. Without
    captures it is made of the original rows. tick_rows: as `detect.tick_rows` of the agent.
    sensitive: features whose categories are never named.
    """

    paths: tuple[str, ...] = ()
    recent_weight: float = 0.7
    repeat_weight_max: float = 20.0
    holdout: str | None = None
    holdout_share: float = 0.15
    recent_share: float = 0.3
    recent_rows_max: int = 5_000
    label_lag_s: float = 0.0
    repeats_max: int = 100
    rows_max: int = 200_000
    category_rows_min: int = 10
    categories_max: int = 200
    reference_rows: int = 10_000
    tick_rows: int = 1_000
    sensitive: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressRecipe:
    """margin: how much accuracy int8 may lose against float32 on the holdout and still be taken."""

    kind: str = "int8_static"
    calibration_rows: int = 512
    margin: float = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    line: str
    task: Task
    target: str
    features: tuple[FeatureRecipe, ...]
    model: ModelRecipe = field(default_factory=ModelRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    compress: CompressRecipe = field(default_factory=CompressRecipe)
    gates: Margins = field(default_factory=Margins)
    directory: Path = Path()
    sha256: str = ""

    def path(self, name: str) -> Path:
        """A path of the recipe, relative to where the recipe lies."""
        return self.directory / name


def read_recipe(path: Path) -> Recipe:
    """Raises RecipeError."""
    try:
        if path.stat().st_size > RECIPE_BYTES_MAX:
            raise RecipeError(f"{path}: larger than {RECIPE_BYTES_MAX} bytes: not a recipe")
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}): name a file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise RecipeError(f"{path}: not YAML: {where}") from error
    return parse_recipe(value, name=str(path), directory=path.parent)


def parse_recipe(value: object, *, name: str, directory: Path) -> Recipe:
    """`name` stands in messages; `directory` is what relative paths start from."""
    if not isinstance(value, Mapping):
        raise RecipeError(f"{name}: not a mapping: start from `remora retrain init`")
    given = dict(value)
    for key in ("directory", "sha256"):
        if key in given:
            raise RecipeError(f"{name}: {key}: unknown key: remove it")
    recipe = _record(Recipe, given, name, "")
    _validate(recipe, name)
    fingerprint = hashlib.sha256(canonical_json(_plain(value))).hexdigest()
    made: dict[str, Any] = {entry.name: getattr(recipe, entry.name) for entry in fields(Recipe)}
    return Recipe(**{**made, "directory": directory, "sha256": fingerprint})


def _record(kind: type[Record], value: object, name: str, at: str) -> Record:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{name}: {at or 'recipe'}: is {_said(value)}: write a mapping")
    hints = get_type_hints(kind)
    unknown = [str(key) for key in value if key not in hints]
    if unknown:
        near = difflib.get_close_matches(unknown[0], hints, n=1)
        mend = f"did you mean {near[0]}?" if near else f"known: {', '.join(hints)}"
        raise RecipeError(f"{name}: {_dotted(at, unknown[0])}: unknown key: {mend}")
    made = {
        str(key): _value(hints[str(key)], entry, name, _dotted(at, str(key)))
        for key, entry in value.items()
    }
    try:
        return kind(**made)
    except TypeError as error:
        absent = str(error).rpartition(": ")[2]
        raise RecipeError(f"{name}: {at or 'recipe'}: add the key {absent}") from error


def _value(hint: Any, value: object, name: str, at: str) -> Any:
    """`value` as the type that the dataclass field says, or RecipeError."""
    if get_origin(hint) is UnionType:
        if value is None and NoneType in get_args(hint):
            return None
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{name}: {at}: is {_said(value)}: write a list")
        item = get_args(hint)[0]
        return tuple(_value(item, entry, name, f"{at}[{i}]") for i, entry in enumerate(value))
    if hint in (Kind, Task):
        allowed = [member.value for member in hint]
        if value not in allowed:
            raise RecipeError(f"{name}: {at}: is {_said(value)}: write {' or '.join(allowed)}")
        return hint(value)
    if hint in _SCALARS:
        return _SCALARS[hint](value, name, at)
    return _record(hint, value, name, at)


def _text(value: object, name: str, at: str) -> str:
    if not isinstance(value, str) or not value:
        raise RecipeError(f"{name}: {at}: is {_said(value)}: write text")
    return value


def _truth(value: object, name: str, at: str) -> bool:
    if not isinstance(value, bool):
        raise RecipeError(f"{name}: {at}: is {_said(value)}: write true or false")
    return value


def _whole(value: object, name: str, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecipeError(f"{name}: {at}: is {_said(value)}: write a whole number")
    return value


def _number(value: object, name: str, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise RecipeError(f"{name}: {at}: is {_said(value)}: write a number")
    return float(value)


_SCALARS: dict[Any, Callable[[object, str, str], Any]] = {
    str: _text,
    bool: _truth,
    int: _whole,
    float: _number,
}


def _validate(recipe: Recipe, name: str) -> None:
    def refuse(at: str, mend: str) -> None:
        raise RecipeError(f"{name}: {at}: {mend}")

    names = [feature.name for feature in recipe.features]
    if not names:
        refuse("features", "is empty: name at least one")
    twice = next((entry for entry in names if names.count(entry) > 1), None)
    if twice is not None:
        refuse("features", f"{twice} stands twice: remove one")
    reserved = next((entry for entry in names if entry in RESERVED), None)
    if reserved is not None:
        refuse("features", f"{reserved} is a column that captures have themselves: rename it")
    if recipe.target in names:
        refuse("target", f"{recipe.target} is a feature as well: a model must not see its answer")
    for at, given, known in (
        ("model.kind", recipe.model.kind, ("mlp",)),
        ("training.optimizer", recipe.training.optimizer, OPTIMIZERS),
        ("training.class_weights", recipe.training.class_weights, CLASS_WEIGHTS),
        ("compress.kind", recipe.compress.kind, COMPRESSIONS),
    ):
        if given not in known:
            refuse(at, f"is {given!r}: write {' or '.join(known)}")
    for at, number, low, high in _ranges(recipe):
        if not low <= number <= high:
            refuse(at, f"is {number:g}: write a number from {low:g} to {high:g}")
    if recipe.model.factory is not None:
        _validate_factory(recipe.model.factory, refuse)
    if recipe.data.holdout is None and recipe.data.holdout_share == 0:
        refuse("data.holdout_share", "is 0 without data.holdout: gates need rows of their own")


def _validate_factory(factory: str, refuse: Callable[[str, str], None]) -> None:
    file, _, attribute = factory.partition(":")
    inside = not Path(file).is_absolute() and ".." not in Path(file).parts
    if not (inside and file.endswith(".py") and attribute.isidentifier()):
        refuse("model.factory", f"is {factory!r}: write file.py:callable, beside the recipe")


def _ranges(recipe: Recipe) -> list[tuple[str, float, float, float]]:
    training, data = recipe.training, recipe.data
    hidden = [("model.hidden", float(width), 1, 65_536) for width in recipe.model.hidden]
    return [
        *hidden,
        ("model.dropout", recipe.model.dropout, 0, 0.95),
        ("training.epochs", training.epochs, 1, 10_000),
        ("training.batch", training.batch, 1, 1 << 20),
        ("training.lr", training.lr, 1e-8, 10),
        ("training.weight_decay", training.weight_decay, 0, 10),
        ("training.patience", training.patience, 1, 10_000),
        ("training.clip_norm", training.clip_norm, 1e-6, 1e6),
        ("training.threads", training.threads, 1, 256),
        ("training.validation_share", training.validation_share, 0.01, 0.5),
        ("training.time_s_max", training.time_s_max, 0.1, 1e7),
        ("data.recent_weight", data.recent_weight, 0, 0.99),
        ("data.repeat_weight_max", data.repeat_weight_max, 1, 1e6),
        ("data.holdout_share", data.holdout_share, 0, 0.5),
        ("data.recent_share", data.recent_share, 0.01, 0.9),
        ("data.recent_rows_max", data.recent_rows_max, 1, 1e7),
        ("data.label_lag_s", data.label_lag_s, 0, 1e9),
        ("data.repeats_max", data.repeats_max, 1, 1e9),
        ("data.rows_max", data.rows_max, 100, 1e8),
        ("data.category_rows_min", data.category_rows_min, 1, 1e6),
        ("data.categories_max", data.categories_max, 2, 10_000),
        ("data.reference_rows", data.reference_rows, 100, 1e7),
        ("data.tick_rows", data.tick_rows, 1, 1e6),
        ("compress.calibration_rows", recipe.compress.calibration_rows, 16, 65_536),
        ("compress.margin", recipe.compress.margin, 0, 1),
        ("gates.holdout_margin", recipe.gates.holdout_margin, 0, 1),
        ("gates.recent_margin", recipe.gates.recent_margin, 0, 1),
        ("gates.rows_min", recipe.gates.rows_min, 10, 1e9),
        ("gates.latency_rounds_min", recipe.gates.latency_rounds_min, 3, 1_000),
    ]


def _plain(value: Any) -> Any:
    """What YAML may hold and JSON may not (a date, a key that is no text) as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, str | int | float | bool | NoneType) else str(value)


def _dotted(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _said(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
