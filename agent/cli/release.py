"""`remora trigger`, `rollout`, `rollback`: release control by hand. Asks before it acts."""

import argparse
import sys

from agent.cli.client import AdminClient, add_admin, rows_of, segment
from agent.cli.output import plain, print_facts, print_json, print_table, when
from agent.cli.parser import Subparsers, add_command, add_group, add_json
from agent.errors import BadInputError


def add(subparsers: Subparsers) -> None:
    """Registers the commands."""
    parser = add_command(
        subparsers,
        "trigger",
        trigger,
        purpose="ask for a retraining now",
        example='remora trigger --reason "new product line" --token-file operator.token',
    )
    parser.add_argument("--reason", metavar="TEXT", default="by hand", help="why, for the ledger")
    parser.add_argument("--policy", metavar="NAME", help="the trigger of the configuration to fire")
    _add_client_flags(parser)
    _add_rollout(subparsers)
    parser = add_command(
        subparsers,
        "rollback",
        rollback,
        purpose="back to the version before, or to the one named",
        example="remora rollback --to 6 --yes --token-file operator.token",
    )
    parser.add_argument("--to", metavar="VERSION", help="version or digest (default: that before)")
    parser.add_argument("--reason", metavar="TEXT", default="by hand", help="why, for the ledger")
    _add_client_flags(parser, asks=True)
    _add_quarantine(subparsers)


def _add_quarantine(subparsers: Subparsers) -> None:
    group = add_group(
        subparsers,
        "quarantine",
        purpose="artifacts that failed in production and are not tried again by themselves",
        example="remora quarantine list",
    )
    parser = add_command(
        group,
        "list",
        quarantine_list,
        purpose="what is in quarantine, and why",
        example="remora quarantine list --json",
    )
    _add_client_flags(parser)
    parser = add_command(
        group,
        "release",
        quarantine_release,
        purpose="let an artifact be tried again",
        example="remora quarantine release 3f9a --yes --token-file operator.token",
    )
    parser.add_argument("digest", metavar="DIGEST", help="of the artifact")
    _add_client_flags(parser, asks=True)


def _add_rollout(subparsers: Subparsers) -> None:
    group = add_group(
        subparsers,
        "rollout",
        purpose="start, promote, abort, pause or resume a rollout",
        example="remora rollout start 7 --strategy canary",
    )
    parser = add_command(
        group,
        "start",
        start,
        purpose="put a candidate of the registry on trial",
        example="remora rollout start 7 --strategy canary --token-file operator.token",
    )
    parser.add_argument("candidate", metavar="CANDIDATE", help="its version or digest")
    parser.add_argument(
        "--strategy",
        choices=("canary", "immediate", "shadow"),
        help="default: the configuration's",
    )
    _add_client_flags(parser, asks=True)
    actions = (
        ("promote", promote, "make the candidate stable now"),
        ("abort", abort, "end the trial; all traffic goes to stable"),
        ("pause", pause, "keep the candidate at its weight until resumed"),
        ("resume", resume, "go on with a rollout that is held or paused"),
    )
    for name, run, purpose in actions:
        parser = add_command(
            group, name, run, purpose=purpose, example=f"remora rollout {name} 3 --yes"
        )
        parser.add_argument("id", metavar="ID", help="of the rollout (see `remora rollouts`)")
        parser.add_argument("--reason", metavar="TEXT", default="by hand", help="for the ledger")
        _add_client_flags(parser, asks=name in ("promote", "abort"))


def trigger(args: argparse.Namespace) -> int:
    """Asks for a retraining."""
    return _done(args, "/api/v1/trigger", {"reason": args.reason, "policy": args.policy})


def start(args: argparse.Namespace) -> int:
    """Starts a rollout."""
    _ask(args, f"Give traffic to the candidate {plain(args.candidate)}?")
    body = {"candidate": args.candidate, "strategy": args.strategy}
    return _done(args, "/api/v1/rollouts", body)


def promote(args: argparse.Namespace) -> int:
    """Promotes."""
    _ask(args, f"Promote the candidate of rollout {plain(args.id)} without waiting for evidence?")
    return _act(args, "promote")


def abort(args: argparse.Namespace) -> int:
    """Aborts."""
    _ask(args, f"Abort rollout {plain(args.id)}?")
    return _act(args, "abort")


def pause(args: argparse.Namespace) -> int:
    """Pauses."""
    return _act(args, "pause")


def resume(args: argparse.Namespace) -> int:
    """Resumes."""
    return _act(args, "resume")


def rollback(args: argparse.Namespace) -> int:
    """Rolls back."""
    _ask(args, f"Roll back to {plain(args.to or 'the version before')}?")
    return _done(args, "/api/v1/rollback", {"to": args.to, "reason": args.reason})


def quarantine_list(args: argparse.Namespace) -> int:
    """Prints the quarantine."""
    rows = rows_of(AdminClient(args).get("/api/v1/quarantine"), "quarantine")
    if args.json:
        print_json(rows)
    else:
        cells = ((r.get("digest"), when(r.get("at")), r.get("reason")) for r in rows)
        print_table("Quarantine", ("digest", "since", "reason"), cells)
    return 0


def quarantine_release(args: argparse.Namespace) -> int:
    """Releases."""
    _ask(args, f"Let the artifact {plain(args.digest)} be tried again?")
    return _done(args, f"/api/v1/quarantine/{segment(args.digest)}/release", {})


def _act(args: argparse.Namespace, action: str) -> int:
    return _done(args, f"/api/v1/rollouts/{segment(args.id)}/{action}", {"reason": args.reason})


def _done(args: argparse.Namespace, path: str, body: dict[str, object]) -> int:
    given = {key: value for key, value in body.items() if value is not None}
    answer = AdminClient(args).post(path, given)
    if args.json or not isinstance(answer, dict):
        print_json(answer)
    else:
        print_facts(
            {key: value for key, value in answer.items() if not isinstance(value, dict | list)}
        )
    return 0


def _ask(args: argparse.Namespace, question: str) -> None:
    """Goes on only when a person says yes. Raises BadInputError where nobody can be asked."""
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise BadInputError(f"{question} There is no terminal to ask on: add --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadInputError("nothing was done: answer y, or add --yes")


def _add_client_flags(parser: argparse.ArgumentParser, *, asks: bool = False) -> None:
    if asks:
        parser.add_argument("--yes", action="store_true", help="do not ask")
    add_admin(parser)
    add_json(parser)
