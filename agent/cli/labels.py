"""`remora labels import|export`: labels in bulk to a running agent, and the rows worth labelling.

An import may be interrupted and run again: a label that is known has no effect. Batches are bounded
by count, so that an agent is never asked to read more than it takes.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.cli.client import AdminClient, add_admin, rows_of
from agent.cli.output import plain, print_json, print_table
from agent.cli.parser import Subparsers, add_command, add_group, add_json
from agent.cli.rows import positive, progress, require_columns
from agent.errors import BadInputError, UnreachableError

if TYPE_CHECKING:
    from agent.tables import Columns

BATCH_ROWS: Final = 5_000
OUTCOMES: Final = (
    "joined",
    "pending",
    "not_sampled",
    "unmatched",
    "late",
    "corrected",
    "unchanged",
)
COLUMNS: Final = ("request_id", "row", "prediction", "score", "version", "at", "why")


def add(subparsers: Subparsers) -> None:
    """Registers `labels import` and `labels export`."""
    group = add_group(
        subparsers,
        "labels",
        purpose="labels in bulk, and the rows worth labelling",
        example="remora labels import june.parquet --label defaulted",
    )
    importing = add_command(
        group,
        "import",
        import_labels,
        purpose="labels of a file to a running agent; may be repeated, known ones have no effect",
        example="remora labels import june.parquet --id request_id --label defaulted",
    )
    importing.add_argument("data", metavar="FILE", type=Path, help="Parquet, CSV or JSON Lines")
    for flag, meaning in (
        ("id", "the request's id (default request_id)"),
        ("row", "the row of the request (default row where there is one, else 0)"),
        ("label", "what turned out true (default label)"),
        ("at", "when it was known (default at where there is one)"),
    ):
        importing.add_argument(f"--{flag}", metavar="COL", help=meaning)
    exporting = add_command(
        group,
        "export",
        export_rows,
        purpose="the rows worth labelling: half of them uncertain, half drawn at random",
        example="remora labels export --out to-label.csv --limit 200",
    )
    exporting.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="CSV, or JSON Lines by its name"
    )
    exporting.add_argument(
        "--limit", metavar="N", type=positive, default=100, help="at most so many (default 100)"
    )
    for parser in (importing, exporting):
        add_admin(parser)
        add_json(parser)


def import_labels(args: argparse.Namespace) -> int:
    """Sends a file in batches; 1 when any label was rejected."""
    client = AdminClient(args)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    with progress("importing") as advance:
        for batch, empty in _batches(args):
            counts["empty"] += empty
            if batch:
                _add(client.post("/api/v1/labels", batch), counts, reasons)
            advance(len(batch) + empty)
    if not sum(counts.values()):
        raise BadInputError(f"{args.data}: holds no rows: nothing to import")
    found = {name: counts[name] for name in (*OUTCOMES, "empty", "rejected")}
    if args.json:
        print_json({**found, "reasons": dict(reasons)})
    else:
        rows = [(name, f"{count:,}") for name, count in found.items() if count]
        print_table("Labels", ("outcome", "rows"), rows)
        for reason, count in reasons.most_common():
            print(f"rejected: {plain(reason)} ({count:,})")
    return 1 if counts["rejected"] else 0


def _add(answer: Any, counts: Counter[str], reasons: Counter[str]) -> None:
    if not isinstance(answer, dict) or not isinstance(answer.get("rejected_total"), int):
        raise UnreachableError("the answer counts no labels: is --admin a Remora agent?")
    for name in OUTCOMES:
        counts[name] += int(answer.get(name, 0))
    counts["rejected"] += answer["rejected_total"]
    reasons.update(str(one.get("reason")) for one in answer.get("rejected", ()))


def _batches(args: argparse.Namespace) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Labels as the endpoint takes them, and how many rows of each batch hold none."""
    from agent.tables import read_columns

    for columns in read_columns(args.data, chunk_rows=BATCH_ROWS):
        names = _names(columns, args)
        lists = {key: columns[name].tolist() for key, name in names.items()}
        rows = [
            dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)
        ]
        made = [_label(row) for row in rows if not _is_missing(row["label"])]
        yield made, len(rows) - len(made)


def _names(columns: "Columns", args: argparse.Namespace) -> dict[str, str]:
    """Key of a label to the column that holds it."""
    names = {"request_id": args.id or "request_id", "label": args.label or "label"}
    for key, given in (("row", args.row), ("at", args.at)):
        if given is not None or key in columns:
            names[key] = given or key
    require_columns(columns, names.values(), args.data)
    return names


def _label(row: dict[str, Any]) -> dict[str, object]:
    """One label; a whole number may have become a float on its way through a file."""
    made: dict[str, object] = {"request_id": str(row["request_id"]), "label": _plain(row["label"])}
    if not _is_missing(row.get("row")):
        made["row"] = _plain(row["row"])
    if not _is_missing(row.get("at")):
        at = row["at"]
        made["at"] = at.isoformat() if isinstance(at, datetime) else at
    return made


def _plain(value: Any) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | bool) else str(value)


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def export_rows(args: argparse.Namespace) -> int:
    """Writes the rows to a file with an empty column `label`, which `import` reads."""
    import csv
    import json

    answer = AdminClient(args).get("/api/v1/labels/wanted", limit=min(args.limit, 1_000))
    rows = rows_of(answer, "rows")
    try:
        with args.out.open("w", encoding="utf-8", newline="") as file:
            if args.out.suffix in (".jsonl", ".ndjson"):
                file.writelines(json.dumps({**row, "label": None}) + "\n" for row in rows)
            else:
                written = csv.writer(file)
                written.writerow([*COLUMNS, "label"])
                written.writerows([*(row.get(name) for name in COLUMNS), ""] for row in rows)
    except OSError as error:
        raise BadInputError(f"--out {args.out}: cannot be written ({error.strerror})") from None
    if args.json:
        print_json({"rows": len(rows), "out": str(args.out)})
    else:
        print(f"{len(rows):,} rows to {args.out}")
    return 0
