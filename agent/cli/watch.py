"""`remora status`, `findings`, `rollouts`, `model`: what a running agent knows."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from agent.cli.client import AdminClient, NotPossibleError, add_admin, rows_of
from agent.cli.output import fact, plain, print_json, print_table, print_tree, when
from agent.cli.parser import Subparsers, add_command, add_group, add_json
from agent.cli.rows import positive
from agent.cli.status import print_status

DIGEST_SHOWN = 12


def add(subparsers: Subparsers) -> None:
    """Registers the commands."""
    parser = add_command(
        subparsers,
        "status",
        status,
        purpose="a running agent at a glance",
        example="remora status --admin http://127.0.0.1:9311",
    )
    add_admin(parser)
    add_json(parser)
    parser = add_command(
        subparsers,
        "findings",
        findings,
        purpose="changes of state, newest first",
        example="remora findings --state drift --limit 20 --json",
    )
    parser.add_argument("--kind", metavar="KIND", help="of this kind alone, such as data_drift")
    parser.add_argument("--state", metavar="STATE", help="into this state alone, such as drift")
    parser.add_argument("--subject", metavar="NAME", help="about this feature, metric or detector")
    parser.add_argument("--limit", metavar="N", type=positive, default=50, help="at most (50)")
    add_admin(parser)
    add_json(parser)
    parser = add_command(
        subparsers,
        "rollouts",
        rollouts,
        purpose="candidates on trial and what became of earlier ones, newest first",
        example="remora rollouts",
    )
    add_admin(parser)
    add_json(parser)
    group = add_group(
        subparsers,
        "model",
        purpose="versions in the registry",
        example="remora model list",
    )
    parser = add_command(
        group, "list", model_list, purpose="all versions", example="remora model list --json"
    )
    add_admin(parser)
    add_json(parser)
    parser = add_command(
        group, "show", model_show, purpose="one version", example="remora model show 7"
    )
    parser.add_argument("version", metavar="VERSION", help="version or digest (8 characters do)")
    add_admin(parser)
    add_json(parser)


def status(args: argparse.Namespace) -> int:
    """Prints the status."""
    answer = AdminClient(args).get("/api/v1/status")
    if args.json or not isinstance(answer, dict):
        print_json(answer)
        return 0
    print_status(answer)
    return 0


def findings(args: argparse.Namespace) -> int:
    """Prints state-change events."""
    answer = AdminClient(args).get(
        "/api/v1/findings",
        limit=args.limit,
        kind=args.kind,
        state=args.state,
        subject=args.subject,
    )
    rows = rows_of(answer, "findings")
    if args.json:
        print_json(rows)
        return 0
    columns = ("at", "state", "kind", "subject", "version", "explain")
    print_table("Findings", columns, (_cells(row, columns, time="at") for row in rows))
    return 0


def rollouts(args: argparse.Namespace) -> int:
    """Prints rollouts."""
    rows = rows_of(AdminClient(args).get("/api/v1/rollouts"), "rollouts")
    if args.json:
        print_json(rows)
        return 0
    columns = ("id", "candidate", "stable", "state", "weight", "started_at", "because")
    print_table("Rollouts", columns, (_rollout_cells(row, columns) for row in rows))
    return 0


def model_list(args: argparse.Namespace) -> int:
    """Prints the registry."""
    rows = rows_of(AdminClient(args).get("/api/v1/versions"), "versions")
    if args.json:
        print_json(rows)
        return 0
    columns = ("version", "digest", "state", "stable", "created", "quarantined")
    print_table(
        "Versions",
        columns,
        (
            [when(row.get(c)) if c == "created" else plain(row.get(c)) for c in columns]
            for row in rows
        ),
    )
    return 0


def model_show(args: argparse.Namespace) -> int:
    """Prints one version of the registry."""
    rows = rows_of(AdminClient(args).get("/api/v1/versions"), "versions")
    wanted = str(args.version)
    found = [row for row in rows if str(row.get("version")) == wanted]
    if not found and len(wanted) >= 8:
        found = [row for row in rows if str(row.get("digest")).startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(str(row.get("version")) for row in rows[:10]) or "none"
        raise NotPossibleError(f"no single version {wanted!r} in the registry: it has {known}")
    if args.json:
        print_json(found[0])
    else:
        print_tree(found[0])
    return 0


def _rollout_cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    # An agent of an earlier version tells the reason alone.
    row = {**row, "because": row.get("because") or row.get("reason")}
    # Two whole digests would leave no room for it; --json has them.
    row |= {arm: _brief(row.get(arm)) for arm in ("candidate", "stable")}
    return _cells(row, columns, time="started_at")


def _brief(digest: object) -> str:
    text = plain(digest)
    # A model that Remora did not start has its address for a digest: that is told whole.
    return text if ":" in text else text[:DIGEST_SHOWN]


def _cells(row: Mapping[str, Any], columns: Sequence[str], *, time: str) -> list[str]:
    return [when(row.get(c)) if c == time else fact(c, row.get(c)) for c in columns]
