"""Flags of the commands that read data files, and what the columns named by them mean."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from agent.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.tables import BadLines, Columns
    from detectors.reference import Task


Outcome: TypeAlias = "tuple[str | float | None, str | float | None]"

SCORE_THRESHOLD = 0.5  # where a score is all there is, this is the class that it stands for


def add_column_flags(parser: argparse.ArgumentParser) -> None:
    """Which column is what. A column that is named here is no feature."""
    add = parser.add_argument
    add("--target", metavar="COL", help="the label: what turned out true")
    add("--prediction", metavar="COL", help="what the model said")
    add("--score", metavar="COL", help="the model's score for the positive class, 0 to 1")
    add("--timestamp", metavar="COL", help="when the row was seen")
    add(
        "--task",
        choices=("classification", "regression"),
        help="what the model does (default: judged by the target)",
    )
    add("--ignore", metavar="COL", action="append", default=[], help="no feature; may be repeated")
    add("--tick-rows", metavar="N", type=positive, help="rows per tick (default 1000)")
    add("--missing", metavar="WORDS", help="that mean missing in CSV (default ,NA,NaN,nan,null,?)")
    add(
        "--skip-bad",
        metavar="N",
        type=count,
        default=0,
        help="leave out up to N lines that cannot be read (default 0: the first one stops)",
    )


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def count(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def bad_lines(args: argparse.Namespace) -> "BadLines":
    """What `--skip-bad` allows; lines that are left out are said on standard error."""
    from agent.tables import BadLines

    return BadLines(allowed=args.skip_bad, said=lambda text: print(text, file=sys.stderr))


def missing_words(args: argparse.Namespace) -> frozenset[str]:
    """What `--missing` says, or the usual words."""
    from agent.tables import MISSING_TOKENS

    if args.missing is None:
        return MISSING_TOKENS
    return frozenset(word.strip() for word in args.missing.split(","))


def special_columns(args: argparse.Namespace) -> list[str]:
    """The columns that the flags name, each once."""
    named = [args.target, args.prediction, args.score, args.timestamp, *args.ignore]
    return list(dict.fromkeys(name for name in named if name is not None))


def require_columns(columns: "Columns", names: Iterable[str], path: Path) -> None:
    """Raises BadInputError for a name that the file does not have, naming the nearest."""
    import difflib

    for name in names:
        if name not in columns:
            near = difflib.get_close_matches(name, list(columns), n=1)
            mend = (
                f"did you mean {near[0]!r}?" if near else f"it has {', '.join(list(columns)[:12])}"
            )
            raise BadInputError(f"{path}: has no column {name!r}: {mend}")


def task_of(columns: "Columns", args: argparse.Namespace) -> "Task | None":
    """What the model does, judged by its target; None without one.

    Words and few whole numbers are classes; `--task` says otherwise.
    """
    from detectors.references.baseline_rows import guess_task

    if args.task is not None or args.target is None:
        task: Task | None = args.task
        return task
    return guess_task(columns[args.target], scored=args.score is not None)


def outcomes(columns: "Columns", args: argparse.Namespace, task: "Task") -> list[Outcome]:
    """(what the model said, what turned out true) of each row, None where missing.

    Classes become their names, so that 1, 1.0 and "1" are one class in every kind of file.
    """
    from detectors.performance.quality import class_name
    from detectors.rows.columns import number_of

    truths = columns[args.target].tolist()
    if args.prediction is not None:
        said = columns[args.prediction].tolist()
    else:
        scores = (number_of(value) for value in columns[args.score].tolist())
        said = [None if s != s else float(s >= SCORE_THRESHOLD) for s in scores]
    read = class_name if task == "classification" else number_of
    return [
        (None if _is_missing(s) else read(s), None if _is_missing(t) else read(t))
        for s, t in zip(said, truths, strict=True)
    ]


def has_outcomes(args: argparse.Namespace) -> bool:
    """Whether the flags name both what the model said and what turned out true."""
    return args.target is not None and (args.prediction is not None or args.score is not None)


def _is_missing(value: object) -> bool:
    return value is None or value != value


def times_of(column: "NDArray[Any]") -> "NDArray[np.float64]":
    """Unix seconds: numbers as they are, ISO 8601 texts read (UTC unless they say), else NaN."""
    import numpy as np

    if column.dtype.kind == "f":
        return column
    times = np.full(len(column), np.nan)
    for index, value in enumerate(column.tolist()):
        if isinstance(value, int | float):
            times[index] = value
            continue
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
            times[index] = zoned.timestamp()
    return times


@contextmanager
def progress(title: str) -> Iterator[Any]:
    """A counter of rows on a terminal's standard error; nothing elsewhere. Call it with rows."""
    if not sys.stderr.isatty():
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn(title),
        TextColumn("{task.completed:,.0f} rows"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda rows: bar.advance(task, rows)
