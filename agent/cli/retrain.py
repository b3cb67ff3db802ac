"""`remora retrain` and `remora retrain init`: the embedded pipeline, as a job of its own.

Nothing of torch is imported here: the job does that, and this command shows what it says.
"""

import argparse
import asyncio
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import plain, print_facts, print_json, print_table
from agent.cli.parser import Subparsers, add_command, add_json
from agent.errors import BadInputError

if TYPE_CHECKING:
    from retrain.runners.local import JobEnd, JobHandle

INIT = "init"
# What the extra brings; the first that is absent tells that the extra is.
EXTRA = ("torch", "onnx", "onnxruntime", "pyarrow", "safetensors")
TITLES = {
    "prepare": "rows",
    "train": "training",
    "export": "export",
    "compress": "compression",
    "validate": "gates",
    "package": "package",
}
TEMPLATE = """\
# A recipe of Remora: what to train, on what, and what it must show.
# Paths are relative to this file. Unknown keys are errors.
line: my-model              # the name under which versions of this model follow each other
task: classification        # or regression
target: outcome             # the column of the training set that is to be predicted
features:
  - {name: age, kind: numeric}
  - {name: colour, kind: categorical}
model:
  kind: mlp                 # or factory: model.py:build, called as build(columns, outputs)
  hidden: [64, 32]
  dropout: 0.1
training:
  epochs: 20
  batch: 256
  lr: 0.002
  patience: 4               # epochs without a better validation loss before it stops
  warm_start: true          # from the weights of the model in production, where they fit
data:
  paths: [train.csv]        # .parquet, .csv, .tsv or .jsonl; .gz where it is text
  holdout_share: 0.15       # frozen by row hash, never trained on
  recent_share: 0.3         # the newest captured rows, kept for the gates
  recent_weight: 0.7        # share of what training sees that captured rows make up
compress:
  kind: int8_static         # or none; taken only where it is smaller and passes the gates
gates:
  holdout_margin: 0.02      # how much worse than the stable model on the world as it was
  recent_margin: 0.01       # and on the world as it is
"""


def add(subparsers: Subparsers) -> None:
    """Registers `retrain`."""
    parser = add_command(
        subparsers,
        "retrain",
        run,
        purpose="run the embedded pipeline: prepare, train, compress, validate, package",
        example="remora retrain recipe.yaml --data captures/ --stable artifact/ --out candidate/\n"
        "  remora retrain init    # writes recipe.yaml to start from",
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="the recipe, or `init`")
    parser.add_argument(
        "--data", metavar="PATH", type=Path, help="captured rows: Parquet file or directory"
    )
    parser.add_argument("--stable", metavar="DIR", type=Path, help="the artifact in production")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("candidate"), help="default: candidate"
    )
    parser.add_argument(
        "--time-limit", metavar="SECONDS", type=float, default=3600.0, help="default: 3600"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Exit 0: the gates passed; 1: they did not; 2: the recipe, the data or the extra."""
    if args.recipe == INIT:
        return _init(Path("recipe.yaml"))
    recipe = Path(args.recipe)
    if not recipe.is_file():
        raise BadInputError(f"{recipe}: no such file: `remora retrain init` writes one")
    _refuse_without_extra()
    out: Path = args.out
    if (out / "artifact").exists():
        raise BadInputError(f"{out}/artifact: exists: give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"{out}: cannot be made ({error.strerror}): give another --out"
        ) from error
    end = asyncio.run(_job(args, recipe.resolve(), out.resolve()))
    if end.returncode == 2:
        raise BadInputError(str(end.last.get("error") or end.stderr_tail))
    report = out / "report.json"
    if end.returncode not in (0, 1) or not report.is_file():
        said = end.stderr_tail.strip().rpartition("\n")[2]
        sys.stderr.write(
            plain(f"remora: the job failed ({end.ending}, {end.returncode}): {said}") + "\n"
        )
        return 1
    summary = json.loads(report.read_text(encoding="utf-8"))
    if args.json:
        print_json(summary)
    else:
        _show(summary, out)
    return end.returncode


def _init(path: Path) -> int:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise BadInputError(f"{path}: exists: move it away or edit it") from None
    print(f"{path} written: name your features and data, then `remora retrain {path}`")
    return 0


def _refuse_without_extra() -> None:
    if any(importlib.util.find_spec(name) is None for name in EXTRA):
        raise BadInputError("remora retrain needs the extra: pip install 'remora[retrain]'")


async def _job(args: argparse.Namespace, recipe: Path, out: Path) -> "JobEnd":
    from retrain.runners.local import JobLimits, LocalRunner, pipeline_argv

    argv = [str(recipe), "--out", str(out)]
    for flag, path in (("--data", args.data), ("--stable", args.stable)):
        if path is not None:
            argv += [flag, str(path.resolve())]
    handle = await LocalRunner().start(
        pipeline_argv("run", *argv), cwd=out, limits=JobLimits(time_s_max=args.time_limit)
    )
    try:
        await _follow(handle)
        return await handle.wait()
    except asyncio.CancelledError:
        await handle.cancel()
        raise


async def _follow(handle: "JobHandle") -> None:
    """Progress bars on standard error of a terminal, one line for each step elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if not sys.stderr.isatty():
        async for event in handle.events():
            if event.get("done") == event.get("total") and event["step"] in TITLES:
                sys.stderr.write(f"remora: {TITLES[event['step']]}{_metrics(event)}\n")
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, Any] = {}
        async for event in handle.events():
            step = event["step"]
            if step not in TITLES:
                continue
            if step not in bars:
                bars[step] = progress.add_task(TITLES[step], total=1, said="")
            progress.update(
                bars[step], total=event["total"], completed=event["done"], said=_metrics(event)
            )


def _metrics(event: Mapping[str, Any]) -> str:
    metrics = event.get("metrics") or {}
    said = ", ".join(f"{name.replace('_', ' ')} {plain(value)}" for name, value in metrics.items())
    return f": {said}" if said else ""


def _show(summary: Mapping[str, Any], out: Path) -> None:
    gates = summary["gates"]
    print_table(
        "gates",
        ("gate", "verdict", "figures"),
        [(entry["gate"], entry["verdict"], entry["words"]) for entry in gates["measurements"]],
    )
    compression = summary["compression"]
    facts: dict[str, object] = {
        "artifact": out / "artifact",
        "digest": summary["digest"],
        "verdict": gates["words"],
        "start": summary["training"]["start"],
        "weights": f"{compression['taken']} ({compression.get('why', 'compression is off')})",
    }
    if "int8_bytes" in compression:
        facts["bytes"] = f"{compression['float32_bytes']} float32, {compression['int8_bytes']} int8"
        for batch, taken in compression["latency"].items():
            facts[f"latency {batch}"] = (
                f"{taken['float32_us']} us float32, {taken['int8_us']} us int8 (CPU time per call)"
            )
    facts["seconds"] = summary["seconds"]
    print_facts(facts)
