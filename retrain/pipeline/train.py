"""The training loop: weighted sampling, early stopping on a validation split, clipped gradients.

Epoch 0 is the untrained network, measured like the others: a warm start that training only makes
worse comes out as it went in.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrain.pipeline import network as networks
from retrain.pipeline.data import Prepared, Rows
from retrain.pipeline.fit import Fitted, class_codes, fit, with_unknowns
from retrain.pipeline.network import Network
from retrain.pipeline.recipe import Recipe, TrainingRecipe
from retrain.pipeline.tables import DataError
from retrain.preprocess import Preprocess, Task, encode_rows

# Called with (step, done, total, metrics) as work goes on.
Progress = Callable[[str, int, int, Mapping[str, float]], None]
UNKNOWN_SHARE = 0.01
EVALUATION_ROWS = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The best weights seen, and how training went (`account` goes into the manifest)."""

    network: Network
    fitted: Fitted
    account: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tensors:
    """x: [n, d] encoded rows. y: [n] int64 codes or [n, 1] float32. weight: [n] float32."""

    x: Tensor
    y: Tensor
    weight: Tensor


def train(
    recipe: Recipe,
    prepared: Prepared,
    *,
    stable: Path | None = None,
    stable_preprocess: Preprocess | None = None,
    progress: Progress,
) -> Trained:
    """Trains in this process. Raises DataError if the rows cannot be trained on."""
    settings = recipe.training
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    fitted = fit(recipe, prepared.train, stable=stable_preprocess)
    network = networks.build_network(recipe, fitted)
    start = "cold: no stable model"
    if stable is not None:
        start = "cold: the recipe says so"
        if settings.warm_start:
            start = networks.warm_start(network, recipe, fitted, stable)
    train_rows = _tensors(prepared.train, fitted)
    validation = _tensors(prepared.validation, fitted)
    loss = _loss(recipe, fitted, train_rows)
    account = _loop(network, fitted, train_rows, validation, loss, settings, progress)
    return Trained(network=network.eval(), fitted=fitted, account={"start": start, **account})


def _loop(
    network: Network,
    fitted: Fitted,
    rows: _Tensors,
    validation: _Tensors,
    loss: nn.Module,
    settings: TrainingRecipe,
    progress: Progress,
) -> dict[str, Any]:
    optimizer = _optimizer(network, settings)
    steps = max(1, len(rows.x) // settings.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * steps)
    rng = np.random.default_rng(settings.seed)
    weight = rows.weight.double().numpy()
    share = weight / weight.sum()
    began, cpu_began = time.monotonic(), time.process_time()
    best = first = evaluate(network, validation.x, validation.y, validation.weight, loss)
    best_state, best_epoch, epoch = _copy(network), 0, 0
    for epoch in range(1, settings.epochs + 1):
        network.train()
        order = rng.choice(len(rows.x), size=steps * settings.batch, p=share)
        seen = with_unknowns(rows.x.numpy()[order], fitted.preprocess, UNKNOWN_SHARE, rng)
        x, y = torch.from_numpy(seen), rows.y[torch.from_numpy(order)]
        for start in range(0, len(x), settings.batch):
            stop = start + settings.batch
            optimizer.zero_grad(set_to_none=True)
            value = loss(network(x[start:stop]), y[start:stop]).mean()
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
        now = evaluate(network, validation.x, validation.y, validation.weight, loss)
        if now < best:
            best, best_state, best_epoch = now, _copy(network), epoch
        progress("train", epoch, settings.epochs, {"validation_loss": now, "best": best})
        late = time.monotonic() - began > settings.time_s_max
        if late or epoch - best_epoch >= settings.patience:
            break
    network.load_state_dict(best_state)
    progress("train", settings.epochs, settings.epochs, {"validation_loss": best, "best": best})
    return {
        "epochs": epoch,
        "best_epoch": best_epoch,
        "validation_loss_before": round(first, 6),
        "validation_loss": round(best, 6),
        "cpu_seconds": round(time.process_time() - cpu_began, 2),
        "seconds": round(time.monotonic() - began, 2),
        "parameters": sum(value.numel() for value in network.parameters()),
    }


def evaluate(network: Network, x: Tensor, y: Tensor, weight: Tensor, loss: nn.Module) -> float:
    """Mean loss over rows, weighted; infinite where the network gives what is not finite."""
    network.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(x), EVALUATION_ROWS):
            part = slice(start, start + EVALUATION_ROWS)
            total += float((loss(network(x[part]), y[part]) * weight[part]).sum())
    mean = total / float(weight.sum())
    return mean if np.isfinite(mean) else float("inf")


def _tensors(rows: Rows, fitted: Fitted) -> _Tensors:
    preprocess = fitted.preprocess
    matrix = encode_rows(rows.columns, preprocess)
    weight = rows.weight.astype(np.float32)
    if preprocess.task is Task.REGRESSION:
        target = (rows.target.astype(np.float64) - fitted.target_mean) / fitted.target_std
        column = target.astype(np.float32)[:, None]
        return _as_tensors(matrix, column, weight)
    codes = class_codes(rows, preprocess)
    known = codes >= 0
    if not known.any():
        raise DataError(f"no row has one of the classes {', '.join(preprocess.classes[:5])}")
    return _as_tensors(matrix[known], codes[known], weight[known])


def _as_tensors(x: NDArray[Any], y: NDArray[Any], weight: NDArray[Any]) -> _Tensors:
    return _Tensors(x=torch.from_numpy(x), y=torch.from_numpy(y), weight=torch.from_numpy(weight))


class _Unreduced(nn.Module):
    """[n] loss of each row, whatever the shape that torch gives."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, answer: Tensor, target: Tensor) -> Tensor:
        value: Tensor = self.inner(answer, target)
        return value.flatten()


def _loss(recipe: Recipe, fitted: Fitted, rows: _Tensors) -> nn.Module:
    if recipe.task is Task.REGRESSION:
        # Huber: one sensor that once said 1e9 must not own the gradient.
        return _Unreduced(nn.HuberLoss(reduction="none"))
    if recipe.training.class_weights == "none":
        return _Unreduced(nn.CrossEntropyLoss(reduction="none"))
    counts = torch.bincount(rows.y, minlength=fitted.outputs).clamp(min=1).float()
    weight = len(rows.y) / (fitted.outputs * counts)
    return _Unreduced(nn.CrossEntropyLoss(weight=weight, reduction="none"))


def _optimizer(network: Network, settings: TrainingRecipe) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    decay = settings.weight_decay
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=settings.lr, weight_decay=decay, momentum=0.9)
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=settings.lr, weight_decay=decay)
        case _:
            return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=decay)


def _copy(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}
