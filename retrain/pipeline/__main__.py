"""The job's entry: `python -m retrain.pipeline run RECIPE --out DIR` and `... validate CANDIDATE`.

Runs in a process of its own. Progress goes to standard output, one JSON object a line
(`{"step", "done", "total", "metrics"}`, at the end `{"step": "finished", ...}`) and to --events.
Exit codes: 0 the gates passed; 1 they did not; 2 recipe or data are wrong, in one line.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from retrain import artifact
from retrain.artifact import ArtifactError
from retrain.pipeline.recipe import RecipeError, read_recipe


class _Events:
    """Writes progress as it comes; a reader that went away does not stop the job."""

    def __init__(self, extra: Path | None) -> None:
        self._sinks: list[IO[str]] = [sys.stdout]
        if extra is not None:
            extra.parent.mkdir(parents=True, exist_ok=True)
            self._sinks.append(extra.open("a", encoding="utf-8"))

    def close(self) -> None:
        for sink in self._sinks:
            if sink is not sys.stdout:
                sink.close()

    def progress(self, step: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self.write({"step": step, "done": done, "total": total, "metrics": finite})

    def write(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value) + "\n"
        for sink in list(self._sinks):
            try:
                sink.write(line)
                sink.flush()
            except (OSError, ValueError):  # a closed pipe: nobody reads any more
                self._sinks.remove(sink)


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    events = _Events(arguments.events)
    try:
        return _main(arguments, events)
    finally:
        events.close()


def _main(arguments: argparse.Namespace, events: _Events) -> int:
    try:
        # Importing torch takes seconds: a wrong recipe is told at once.
        recipe = read_recipe(arguments.recipe)
        if arguments.command == "run":
            return _run(arguments, recipe, events)
        return _validate(arguments, recipe, events)
    except (RecipeError, ArtifactError) as error:
        return _refuse(events, str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        return _refuse(events, f"{error.name} is not installed: pip install 'remora[retrain]'")
    except ValueError as error:
        from retrain.pipeline.tables import DataError

        if isinstance(error, DataError):
            return _refuse(events, str(error))
        raise


_EXTRA = frozenset({"torch", "onnx", "onnxruntime", "onnxscript", "pyarrow", "safetensors"})


def _refuse(events: _Events, line: str) -> int:
    events.write({"step": "refused", "done": 0, "total": 0, "metrics": {}, "error": line})
    sys.stderr.write(line + "\n")
    return 2


def _run(arguments: argparse.Namespace, recipe: Any, events: _Events) -> int:
    from retrain.pipeline.job import Job, run

    job = Job(
        recipe=recipe,
        captures=arguments.data,
        stable=arguments.stable,
        out=arguments.out,
        now=arguments.now if arguments.now is not None else time.time(),
        trigger=json.loads(arguments.trigger),
    )
    finished = run(job, events.progress)
    events.write(
        {
            "step": "finished",
            "done": 1,
            "total": 1,
            "metrics": {},
            "passed": finished.report.passed,
            "digest": finished.manifest.digest,
            "words": finished.report.words,
        }
    )
    return 0 if finished.report.passed else 1


def _validate(arguments: argparse.Namespace, recipe: Any, events: _Events) -> int:
    """Gates of an artifact that came from elsewhere, on rows that this process splits itself."""
    from retrain.pipeline.data import prepare
    from retrain.pipeline.job import write_json
    from retrain.pipeline.validate import validate

    manifest = artifact.load(arguments.candidate)
    if arguments.stable is not None:
        artifact.load(arguments.stable)
    now = arguments.now if arguments.now is not None else time.time()
    prepared = prepare(recipe, arguments.data, now=now)
    events.progress("prepare", 1, 1, {"rows": len(prepared.holdout)})
    report = validate(
        arguments.candidate,
        arguments.stable,
        holdout=prepared.holdout,
        recent=prepared.recent,
        margins=recipe.gates,
    )
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        summary = {"digest": manifest.digest, "passed": report.passed, "gates": report.as_json()}
        write_json(arguments.out / "report.json", summary)
    events.write(
        {
            "step": "finished",
            "done": 1,
            "total": 1,
            "metrics": {},
            "passed": report.passed,
            "digest": manifest.digest,
            "words": report.words,
        }
    )
    return 0 if report.passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m retrain.pipeline", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train, compress, validate, package")
    run.add_argument("recipe", type=Path)
    run.add_argument("--out", type=Path, required=True, help="where artifact/ and report.json go")
    run.add_argument("--trigger", default="{}", help="JSON for the manifest: what asked for this")
    validate = commands.add_parser("validate", help="the gates alone, for an artifact")
    validate.add_argument("candidate", type=Path)
    validate.add_argument("--recipe", type=Path, required=True)
    validate.add_argument("--out", type=Path, help="where report.json goes")
    for command in (run, validate):
        command.add_argument("--data", type=Path, help="captured rows: a directory of *.parquet")
        command.add_argument("--stable", type=Path, help="the artifact in production")
        command.add_argument("--events", type=Path, help="progress is appended here as well")
        command.add_argument("--now", type=float, help="UNIX seconds instead of the clock")
    return parser


if __name__ == "__main__":
    # Numerical libraries that read these at import would start a thread for each core.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    sys.exit(main())
