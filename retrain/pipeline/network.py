"""The network: raw encoded rows in, probabilities or numbers out, preprocessing inside.

Preprocessing is part of the module, so the exported graph takes what `encode_rows` gives and there
is no second place where a mean could be subtracted. Weights are read and written as safetensors.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from retrain import artifact
from retrain.pipeline.fit import CLIP, Fitted
from retrain.pipeline.recipe import ModelRecipe, Recipe
from retrain.pipeline.tables import DataError
from retrain.preprocess import Kind, Task

ARCH_SCHEMA = "remora.arch/1"
# A feature whose spread changed by more than this has changed its unit or its meaning: there is no
# function worth keeping, and refolding it would leave one weight that dwarfs the others, which
# int8 pays for (1.2 points of accuracy on Adult with hours that became minutes).
REFOLD_MAX = 2.0


class Columns(nn.Module):
    """[n, d] encoded rows to [n, columns]: impute, standardise, clip, one-hot. No parameters."""

    def __init__(self, fitted: Fitted) -> None:
        super().__init__()
        numeric, wide, codes, missing = [], [], [], []
        for index, feature in enumerate(fitted.preprocess.features):
            if feature.kind is Kind.NUMERIC:
                numeric.append(index)
                continue
            for code in range(len(feature.categories) + 2):
                wide.append(index)
                codes.append(code)
                missing.append(feature.missing_code)
        scales = fitted.scales
        flagged = [i for i, scale in zip(numeric, scales, strict=True) if scale.has_missing]
        # Plain booleans, so that the exporter traces one graph and has nothing to warn about.
        self.has_numeric, self.has_flagged, self.has_wide = bool(numeric), bool(flagged), bool(wide)
        for name, values in (("numeric", numeric), ("flagged", flagged), ("wide", wide)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        for name, numbers in (
            ("codes", codes),
            ("missing_codes", missing),
            ("median", [scale.median for scale in scales]),
            ("mean", [scale.mean for scale in scales]),
            ("std", [scale.std for scale in scales]),
            ("log_mean", [scale.log_mean for scale in scales]),
            ("log_std", [scale.log_std for scale in scales]),
        ):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32), persistent=False)

    numeric: Tensor
    flagged: Tensor
    wide: Tensor
    codes: Tensor
    missing_codes: Tensor
    median: Tensor
    mean: Tensor
    std: Tensor
    log_mean: Tensor
    log_std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        if self.has_numeric:
            values = x.index_select(1, self.numeric)
            values = torch.where(torch.isnan(values), self.median, values)
            logs = torch.sign(values) * torch.log(1 + torch.abs(values))
            parts.append(torch.clamp((values - self.mean) / self.std, -CLIP, CLIP))
            parts.append(torch.clamp((logs - self.log_mean) / self.log_std, -CLIP, CLIP))
        if self.has_flagged:
            parts.append(torch.isnan(x.index_select(1, self.flagged)).to(x.dtype))
        if self.has_wide:
            # One gather of the repeated columns and one comparison: one-hot for all features.
            cells = x.index_select(1, self.wide)
            cells = torch.where(torch.isnan(cells), self.missing_codes, cells)
            parts.append((cells == self.codes).to(x.dtype))
        return torch.cat(parts, dim=1)


class Network(nn.Module):
    """`forward`: [n, d] to [n, k] logits, or [n, 1] in standardised units of the target."""

    def __init__(self, fitted: Fitted, body: nn.Module) -> None:
        super().__init__()
        self.columns = Columns(fitted)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(self.columns(x))
        return answer


class Served(nn.Module):
    """What is exported: [n, d] to `y`, [n, k] probabilities or [n, 1] in the target's unit."""

    def __init__(self, network: Network, fitted: Fitted) -> None:
        super().__init__()
        self.network = network
        self.classify = fitted.preprocess.task is Task.CLASSIFICATION
        self.mean, self.std = fitted.target_mean, fitted.target_std

    def forward(self, x: Tensor) -> Tensor:
        answer = self.network(x)
        return torch.softmax(answer, dim=1) if self.classify else answer * self.std + self.mean


def build_network(recipe: Recipe, fitted: Fitted) -> Network:
    """Raises DataError if a factory of the user does not give a module that fits."""
    columns, outputs = len(fitted.columns), fitted.outputs
    model = recipe.model
    if model.factory is None:
        return Network(fitted, mlp(columns, outputs, model))
    body = _from_factory(recipe, model.factory, columns, outputs)
    network = Network(fitted, body).eval()
    with torch.no_grad():
        shape = tuple(network(torch.zeros(2, len(fitted.preprocess.features))).shape)
    if shape != (2, outputs):
        raise DataError(f"model.factory: gives {shape} for 2 rows: return [n, {outputs}]")
    return network


def mlp(columns: int, outputs: int, model: ModelRecipe) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = columns
    for hidden in model.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        if model.dropout:
            layers.append(nn.Dropout(model.dropout))
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def save_weights(directory: Path, network: Network, recipe: Recipe, fitted: Fitted) -> None:
    """weights.safetensors and arch.json: what the next warm start begins from."""
    state = {name: value.contiguous() for name, value in network.body.state_dict().items()}
    save_file(state, directory / artifact.WEIGHTS)
    (directory / artifact.WEIGHTS).chmod(0o644)  # safetensors writes for its owner alone
    arch = {
        "schema": ARCH_SCHEMA,
        "kind": recipe.model.kind if recipe.model.factory is None else "factory",
        "factory": recipe.model.factory,
        "hidden": list(recipe.model.hidden),
        "dropout": recipe.model.dropout,
        "columns": list(fitted.columns),
        "outputs": fitted.outputs,
        **fitted.as_json(),
    }
    (directory / artifact.ARCH).write_bytes(artifact.canonical_json(arch))


def warm_start(network: Network, recipe: Recipe, fitted: Fitted, stable: Path) -> str:
    """Takes over the stable artifact's weights where the architecture is equal.

    The first layer is carried over by the names of its columns and refolded for the new scales, so
    that the network starts as the very function that is in production (up to clips and medians),
    also where a category was added: that one starts as the unknown did.
    Returns what was done, for the manifest and the terminal.
    """
    try:
        arch = json.loads((stable / artifact.ARCH).read_bytes())
        before = Fitted.from_json(arch, artifact.read_preprocess(stable))
        state = load_file(stable / artifact.WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        return f"cold: the stable artifact holds no weights to start from ({type(error).__name__})"
    kind = recipe.model.kind if recipe.model.factory is None else "factory"
    if (arch.get("schema"), arch.get("kind")) != (ARCH_SCHEMA, kind):
        return "cold: the stable model is of another kind"
    own = network.body.state_dict()
    same = {name: value.shape for name, value in own.items()}
    if kind == "factory":
        # Nothing is known about where a user's module uses which column.
        if {name: value.shape for name, value in state.items()} != same or (
            before.columns != fitted.columns
        ):
            return "cold: the architecture differs"
        network.body.load_state_dict(state)
        return "warm"
    if arch["hidden"] != list(recipe.model.hidden) or before.outputs != fitted.outputs:
        return "cold: the architecture differs"
    state["0.weight"], state["0.bias"] = _refold(state["0.weight"], state["0.bias"], before, fitted)
    _rescale_target(state, before, fitted)
    if {name: value.shape for name, value in state.items()} != same:
        return "cold: the architecture differs"
    network.body.load_state_dict(state)
    return "warm"


def _refold(weight: Tensor, bias: Tensor, before: Fitted, after: Fitted) -> tuple[Tensor, Tensor]:
    """[h, old columns] to [h, new columns], and the bias, for the same function of the raw row."""
    place = {name: index for index, name in enumerate(before.columns)}
    old = dict(zip([f.name for f in before.numeric], before.scales, strict=True))
    new = dict(zip([f.name for f in after.numeric], after.scales, strict=True))
    made = torch.zeros(weight.shape[0], len(after.columns))
    shift = bias.clone()
    for index, name in enumerate(after.columns):
        if name in place:
            column = weight[:, place[name]]
        elif "=" in name and (unknown := _unknown(name, after)) in place:
            column = weight[:, place[unknown]]
        else:
            continue
        feature, _, part = name.rpartition(":")
        if feature in new and feature in old and part in ("plain", "log"):
            a, b = old[feature].centre_and_spread(part), new[feature].centre_and_spread(part)
            ratio = b[1] / a[1]
            if 1 / REFOLD_MAX <= ratio <= REFOLD_MAX:
                shift = shift + column * ((b[0] - a[0]) / a[1])
                column = column * ratio
        made[:, index] = column
    return made, shift


def _unknown(column: str, fitted: Fitted) -> str:
    for feature in fitted.preprocess.features:
        if column.startswith(f"{feature.name}="):
            return f"{feature.name}:unknown"
    return ""


def _rescale_target(state: dict[str, Tensor], before: Fitted, after: Fitted) -> None:
    """The last layer speaks in units of the target's spread, which was measured again."""
    last = max(int(name.partition(".")[0]) for name in state)
    ratio = before.target_std / after.target_std
    offset = (before.target_mean - after.target_mean) / after.target_std
    state[f"{last}.weight"] = state[f"{last}.weight"] * ratio
    state[f"{last}.bias"] = state[f"{last}.bias"] * ratio + offset


def _from_factory(recipe: Recipe, factory: str, columns: int, outputs: int) -> nn.Module:
    """Code of the user. It runs here, in the job, and nowhere in the agent."""
    file, _, attribute = factory.partition(":")
    path = recipe.path(file).resolve()
    if not path.is_relative_to(recipe.directory.resolve()) or not path.is_file():
        raise DataError(f"model.factory: {file}: no such file beside the recipe")
    spec = importlib.util.spec_from_file_location("recipe_model", path)
    if spec is None or spec.loader is None:
        raise DataError(f"model.factory: {file}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    build: Any = getattr(module, attribute, None)
    if not callable(build):
        raise DataError(f"model.factory: {file} has no callable {attribute}")
    body = build(columns, outputs)
    if not isinstance(body, nn.Module):
        raise DataError(f"model.factory: {factory} gave {type(body).__name__}: return a Module")
    return body
