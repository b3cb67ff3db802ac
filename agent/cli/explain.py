"""`remora explain`: what tells current rows from reference rows, by a classifier in a job.

The rows are read and drawn from here, in constant memory; scikit-learn is imported by the job
alone. A question of a person: nothing here decides anything.
"""

import argparse
import asyncio
import importlib.util
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import plain, print_facts, print_json, print_table
from agent.cli.parser import Subparsers, add_command, add_json
from agent.cli.rows import bad_lines, missing_words, positive, require_columns
from agent.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agent.tables import Columns
    from retrain.runners.local import JobEnd

EXTRA = "sklearn"
ROWS_MAX = 10_000
COLUMNS_MAX = 500
ADDRESS_BYTES_MAX = 8 << 30
SHOWN_MAX = 10


def add(subparsers: Subparsers) -> None:
    """Registers `explain`."""
    parser = add_command(
        subparsers,
        "explain",
        run,
        purpose="say what tells current rows from reference rows, by a classifier",
        example="remora explain today.parquet --against training.csv --ignore customer_id",
    )
    add_argument = parser.add_argument
    add_argument("current", metavar="CURRENT", type=Path, help=".parquet, .csv or .jsonl")
    add_argument(
        "--against", metavar="ROWS", type=Path, required=True, help="rows of the reference"
    )
    add_argument(
        "--ignore", metavar="COL", action="append", default=[], help="leave out; may be repeated"
    )
    add_argument(
        "--rows",
        metavar="N",
        type=positive,
        default=ROWS_MAX,
        help=f"rows drawn from each file, evenly (default {ROWS_MAX})",
    )
    add_argument("--missing", metavar="WORDS", help="that mean missing in CSV")
    add_argument("--time-limit", metavar="SECONDS", type=float, default=600.0, help="default: 600")
    add_json(parser)
    parser.set_defaults(skip_bad=0)


def run(args: argparse.Namespace) -> int:
    """Exit 0 with an answer, whatever it is; 1 if the job failed; 2: the files or the extra."""
    import numpy as np

    if importlib.util.find_spec(EXTRA) is None:
        raise BadInputError("remora explain needs the extra: pip install 'remora[explain]'")
    if not args.time_limit > 0:
        raise BadInputError(f"--time-limit {args.time_limit:g}: must be above 0")
    current, against = _drawn(args.current, args), _drawn(args.against, args)
    for columns, path in ((current, args.current), (against, args.against)):
        require_columns(columns, args.ignore, path)
    names, left_out = _shared(current, against, args.ignore)
    categorical, matrices = _encoded(names, against, current)
    with tempfile.TemporaryDirectory(prefix="remora-explain-") as folder:
        file = Path(folder) / "rows.npz"
        described = np.array(json.dumps({"names": names, "categorical": categorical}))
        np.savez(file, reference=matrices[0], current=matrices[1], described=described)
        end = asyncio.run(_job(file, args.time_limit))
    if end.last.get("step") == "refused":
        raise BadInputError(str(end.last["error"]))
    if end.ending.value == "timeout":
        raise BadInputError(f"no answer within {args.time_limit:g} s: give fewer --rows")
    if end.returncode or end.last.get("step") != "finished":
        said = end.stderr_tail.strip().rpartition("\n")[2]
        sys.stderr.write(plain(f"remora: the job failed ({end.returncode}): {said}") + "\n")
        return 1
    answer = {**end.last["separation"], "left_out": left_out}
    if args.json:
        print_json(answer)
    else:
        _show(answer)
    return 0


def _drawn(path: Path, args: argparse.Namespace) -> "Columns":
    """At most `--rows` rows in their order: of files with more, every second, fourth, and so on."""
    import numpy as np

    from agent.tables import CHUNK_ROWS, read_columns

    held: list[Columns] = []
    step, seen, rows = 1, 0, 0
    reading = read_columns(path, missing=missing_words(args), bad_lines=bad_lines(args))
    for chunk in reading:
        length = len(next(iter(chunk.values()))) if chunk else 0
        first = -seen % step
        held.append({name: column[first::step] for name, column in chunk.items()})
        seen += length
        rows += len(range(first, length, step))
        if rows > args.rows + CHUNK_ROWS:
            held, rows, step = _halved(held), (rows + 1) // 2, step * 2
    if not rows:
        raise BadInputError(f"{path}: has no rows")
    names = dict.fromkeys(name for chunk in held for name in chunk)
    drawn = {name: np.concatenate([_column(chunk, name) for chunk in held]) for name in names}
    places = np.linspace(0, rows - 1, min(rows, args.rows)).astype(np.int64)
    return {name: column[places] for name, column in drawn.items()}


def _halved(chunks: "list[Columns]") -> "list[Columns]":
    """Every second row of all chunks together, joined, so that memory stays what it is."""
    import numpy as np

    names = dict.fromkeys(name for chunk in chunks for name in chunk)
    whole = {name: np.concatenate([_column(chunk, name) for chunk in chunks]) for name in names}
    return [{name: column[::2] for name, column in whole.items()}]


def _column(chunk: "Columns", name: str) -> "NDArray[Any]":
    import numpy as np

    if name in chunk:
        return chunk[name].astype(object) if chunk[name].dtype != np.float64 else chunk[name]
    rows = len(next(iter(chunk.values()))) if chunk else 0
    return np.full(rows, None, dtype=object)


def _shared(
    current: "Columns", against: "Columns", ignored: list[str]
) -> tuple[list[str], dict[str, str]]:
    """Names of the columns compared, and why others are not."""
    left_out = dict.fromkeys(ignored, "asked for by --ignore")
    left_out |= {name: "not among the reference rows" for name in current if name not in against}
    left_out |= {name: "not among the current rows" for name in against if name not in current}
    names = [name for name in current if name in against and name not in left_out]
    left_out |= dict.fromkeys(names[COLUMNS_MAX:], f"beyond the first {COLUMNS_MAX}")
    if not names:
        raise BadInputError("the two files have no column in common: give files of the same model")
    return names[:COLUMNS_MAX], left_out


def _encoded(
    names: list[str], against: "Columns", current: "Columns"
) -> "tuple[list[bool], tuple[NDArray[np.float64], NDArray[np.float64]]]":
    """Matrices [rows, columns] of the two sides: numbers, or numbered categories; NaN missing."""
    import numpy as np

    from detectors.rows.columns import category_keys, guess_kind, key_counts, numbers
    from retrain.pipeline.domain_classifier import CATEGORIES_MAX

    categorical: list[bool] = []
    sides: tuple[list[Any], list[Any]] = ([], [])
    for name in names:
        columns = (against[name], current[name])
        is_category = "categorical" in {guess_kind(column) for column in columns}
        categorical.append(is_category)
        if not is_category:
            for side, column in zip(sides, columns, strict=True):
                side.append(np.clip(numbers(column).astype(np.float64), -1e300, 1e300))
            continue
        counts: dict[str, int] = {}
        for column in columns:
            for key, count in key_counts(column).items():
                if key is not None:
                    counts[key] = counts.get(key, 0) + count
        top = sorted(counts, key=lambda key: (-counts[key], key))[: CATEGORIES_MAX - 1]
        codes: dict[str | None, float] = {key: float(code) for code, key in enumerate(top)}
        for side, column in zip(sides, columns, strict=True):
            keys = category_keys(column)
            known = (np.nan if k is None else codes.get(k, CATEGORIES_MAX - 1.0) for k in keys)
            side.append(np.fromiter(known, np.float64, len(keys)))
    return categorical, (np.column_stack(sides[0]), np.column_stack(sides[1]))


async def _job(file: Path, time_s_max: float) -> "JobEnd":
    from retrain.runners.local import JobLimits, LocalRunner

    argv = [sys.executable, "-P", "-m", "retrain.pipeline.domain_classifier", str(file)]
    limits = JobLimits(time_s_max=time_s_max, address_bytes_max=ADDRESS_BYTES_MAX)
    handle = await LocalRunner().start(argv, cwd=file.parent, limits=limits)
    try:
        return await handle.wait()
    except asyncio.CancelledError:
        await handle.cancel()
        raise


def _show(answer: Mapping[str, Any]) -> None:
    print_facts(
        {
            "answer": answer["explain"],
            "rows": f"{answer['rows_current']:,} current, {answer['rows_reference']:,} reference",
            "left out": "; ".join(f"{n}: {why}" for n, why in answer["left_out"].items()) or "none",
        }
    )
    print_table(
        "what it looks at",
        ("feature", "AUC lost when permuted"),
        [(name, plain(loss)) for name, loss in answer["features"][:SHOWN_MAX]],
    )
