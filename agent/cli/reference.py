"""`remora reference build|show|merge|accept`: what the current window is compared against."""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.client import AdminClient, add_admin
from agent.cli.output import plain, print_facts, print_json, print_table
from agent.cli.parser import Subparsers, add_command, add_group, add_json
from agent.cli.profile import read_reference, write_whole
from agent.cli.rows import (
    add_column_flags,
    bad_lines,
    errors_of,
    has_outcomes,
    missing_words,
    progress,
    require_columns,
    special_columns,
    task_of,
    times_of,
)
from agent.errors import BadInputError

if TYPE_CHECKING:
    from detectors import FeatureProfile, Reference

CHUNK_ROWS = 10_000
# A shift of one standard deviation is what a person sees in two histograms side by side.
SHIFT_SEEN_MAX = 1.0


def add(subparsers: Subparsers) -> None:
    """Registers the group."""
    group = add_group(
        subparsers,
        "reference",
        purpose="build, show, merge or accept a reference profile",
        example="remora reference build train.csv --target label --out reference.json",
    )
    parser = add_command(
        group,
        "build",
        build,
        purpose="a reference profile from Parquet, CSV or JSON Lines, in constant memory",
        example="remora reference build train.parquet --target label --out reference.json",
    )
    parser.add_argument("data", metavar="DATA", nargs="+", type=Path, help="files in order of time")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="profile to write")
    parser.add_argument(
        "--unordered",
        action="store_true",
        help="rows are in no order of time: leave self-calibration out",
    )
    add_column_flags(parser)
    add_json(parser)
    parser = add_command(
        group,
        "show",
        show,
        purpose="what a profile holds, what will be visible with it and what will not",
        example="remora reference show reference.json",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a profile")
    add_json(parser)
    parser = add_command(
        group,
        "merge",
        merge,
        purpose="one profile out of two of the same columns",
        example="remora reference merge january.json february.json --out both.json",
    )
    parser.add_argument("parts", metavar="FILE", nargs=2, type=Path, help="the two profiles")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="profile to write")
    add_json(parser)
    parser = add_command(
        group,
        "accept",
        accept,
        purpose="confirm the reference that a running agent has learnt from traffic",
        example="remora reference accept --token-file operator.token",
    )
    add_admin(parser)
    add_json(parser)


def build(args: argparse.Namespace) -> int:
    """Reads the rows, writes the profile, says what it is good for."""
    with progress("reading") as advance:
        reference, ordered, malformed = _build(args, advance)
    write_whole(args.out, reference.to_bytes())
    for name, why in malformed.items():
        print(f"{plain(name)}: {plain(why)}", file=sys.stderr)
    if args.timestamp is not None and not ordered:
        print(
            f"rows are not in the order of {plain(args.timestamp)}: built without"
            " self-calibration; sort them for fewer false alarms on autocorrelated data",
            file=sys.stderr,
        )
    _present(reference, args.json, heading={"written to": str(args.out)})
    return 0


def show(args: argparse.Namespace) -> int:
    """Prints a profile."""
    _present(read_reference(args.file), args.json, heading={"file": str(args.file)})
    return 0


def merge(args: argparse.Namespace) -> int:
    """Merges two profiles."""
    from detectors import ProfileError
    from detectors import merge as merged

    first, second = (read_reference(part) for part in args.parts)
    try:
        reference = merged(first, second)
    except ProfileError as error:
        raise BadInputError(f"{args.parts[0]} and {args.parts[1]}: {error}") from None
    write_whole(args.out, reference.to_bytes())
    _present(reference, args.json, heading={"written to": str(args.out)})
    return 0


def accept(args: argparse.Namespace) -> int:
    """Asks the agent to take its learnt reference for good."""
    answer = AdminClient(args).post("/api/v1/reference/accept", {})
    if args.json:
        print_json(answer)
    else:
        print("accepted: from now on drift from this reference counts")
    return 0


def _build(args: argparse.Namespace, advance: Any) -> tuple["Reference", bool, dict[str, str]]:
    """One pass; a second one when timestamps turn out to be in no order."""
    from detectors import ProfileError

    try:
        builder = None if args.unordered else _fed(args, advance, ordered=True)
        ordered = builder is not None
        builder = builder or _fed(args, advance, ordered=False)
        assert builder is not None
        reference: Reference = builder.finish()
    except ProfileError as error:
        raise BadInputError(f"{args.data[0]}: {error}") from None
    if not reference.rows:
        raise BadInputError(f"{args.data[0]}: holds no rows: nothing to build from")
    if not reference.features:
        raise BadInputError(f"{args.data[0]}: no column is left as a feature: name fewer of them")
    return reference, ordered, builder.malformed


def _fed(args: argparse.Namespace, advance: Any, *, ordered: bool) -> Any:
    """A builder that was given every row; None when `ordered` and timestamps go backwards."""
    from detectors import ReferenceBuilder

    special = special_columns(args)
    output = args.prediction or args.score
    last = -math.inf
    builder = None
    for path, columns in _chunks(args):
        require_columns(columns, special, path)
        if args.timestamp is not None:
            last, rising = _rises(columns[args.timestamp], last)
            if not rising and ordered:
                return None
        if builder is None:
            task = task_of(columns, args)
            builder = ReferenceBuilder(
                tick_rows=args.tick_rows or 1_000, ordered=ordered, prediction=output, task=task
            )
        errors = None
        if has_outcomes(args) and task == "classification":
            errors = errors_of(columns, args, task)
        features = {n: c for n, c in columns.items() if n not in special or n == output}
        builder.update(features, errors=errors)
        advance(len(next(iter(columns.values()), ())))
    return ReferenceBuilder() if builder is None else builder


def _chunks(args: argparse.Namespace) -> Iterator[tuple[Path, dict[str, Any]]]:
    from agent.tables import read_columns

    bad, missing = bad_lines(args), missing_words(args)
    for path in args.data:
        for columns in read_columns(path, chunk_rows=CHUNK_ROWS, missing=missing, bad_lines=bad):
            yield path, columns


def _rises(column: Any, last: float) -> tuple[float, bool]:
    import numpy as np

    times = times_of(column)
    times = times[np.isfinite(times)]
    if not len(times):
        return last, True
    rising = bool(times[0] >= last) and bool(np.all(np.diff(times) >= 0))
    return float(times[-1]), rising


def _present(reference: "Reference", as_json: bool, *, heading: dict[str, object]) -> None:
    shifts = _shifts(reference)
    rows = [_feature_facts(profile, shifts) for profile in reference.features]
    facts: dict[str, object] = heading | {
        "digest": reference.digest,
        "rows": reference.rows,
        "rows per tick": reference.tick_rows,
        "calibrated to order": reference.ordered,
        "accepted": reference.accepted,
    }
    if reference.baseline is not None:
        facts["errors in labelled rows"] = (
            f"{reference.baseline.errors} of {reference.baseline.rows}"
        )
    unseen = _unseen(reference, shifts)
    if as_json:
        output = None
        if reference.prediction is not None:
            output = _feature_facts(reference.prediction, shifts)
        print_json(facts | {"features": rows, "prediction": output, "not_visible": unseen})
        return
    print_facts(facts)
    if reference.prediction is not None:
        rows.append(_feature_facts(reference.prediction, shifts) | {"kind": "prediction"})
    print_table(
        "Visible: the smallest lasting shift that can be seen",
        ("feature", "kind", "missing", "range", "detectable shift (standard deviations)"),
        (
            (r["name"], r["kind"], f"{r['missing_ratio']:.1%}", r["range"], r["detectable_shift"])
            for r in rows
        ),
    )
    for line in unseen:
        print(f"not visible: {line}")


def _shifts(reference: "Reference") -> dict[str, float]:
    from detectors import DriftDetector

    shifts = DriftDetector(reference).detectable_shift()
    if reference.prediction is not None:
        shifts |= DriftDetector(reference, kind="prediction_drift").detectable_shift()
    return shifts


def _feature_facts(profile: "FeatureProfile", shifts: dict[str, float]) -> dict[str, Any]:
    from detectors.binning import MISSING

    limits = profile.limits()
    if limits:
        span = f"{limits[0]:.6g} to {limits[-1]:.6g}"
    else:
        known = 0 if profile.keys is None else len(profile.keys.counts)
        span = f"{known} categories"
    return {
        "name": profile.name,
        "kind": profile.kind,
        "missing_ratio": profile.counts[MISSING] / max(profile.rows, 1.0),
        "range": span,
        "detectable_shift": shifts.get(profile.name),
        "rows_per_independent_row": profile.phi,
    }


def _unseen(reference: "Reference", shifts: dict[str, float]) -> list[str]:
    """What no alarm will come from, in words."""
    lines = []
    blind = [name for name, shift in shifts.items() if not shift <= SHIFT_SEEN_MAX]
    if blind:
        lines.append(
            f"shifts of less than {SHIFT_SEEN_MAX:g} standard deviation in"
            f" {', '.join(plain(name) for name in blind[:12])}"
            f"{' and others' if len(blind) > 12 else ''}: more rows, or rows over a longer time"
        )
    if reference.prediction is None:
        lines.append("prediction drift: name the model's output by --prediction or --score")
    if reference.baseline is None:
        lines.append(
            "concept drift against this data: give --target beside --prediction or --score"
        )
    lines.append("changes in how features go together while each by itself stays as it is")
    return lines
