"""`remora ledger [verify]`: what was decided, and whether the hash chain holds.

With `--state DIR` the file is read beside or without a running agent, never written.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.client import AdminClient, add_admin, rows_of
from agent.cli.output import plain, print_json, print_table, when
from agent.cli.parser import Subparsers, add_command, add_json
from agent.cli.rows import count, positive
from agent.errors import BadInputError, UnreachableError

if TYPE_CHECKING:
    from retrain.ledger import Ledger

LEDGER_FILE = "decisions.db"


def add(subparsers: Subparsers) -> None:
    """Registers `ledger`; `verify` is a word after it."""
    parser = add_command(
        subparsers,
        "ledger",
        ledger,
        purpose="what was decided and why; `verify` checks the hash chain",
        example="remora ledger verify --state /var/lib/remora",
    )
    parser.add_argument(
        "action", metavar="verify", nargs="?", choices=("verify",), help="check the hash chain"
    )
    parser.add_argument("--state", metavar="DIR", type=Path, help="read a state directory instead")
    parser.add_argument(
        "--after", metavar="ID", type=count, default=0, help="entries after this one (default 0)"
    )
    parser.add_argument(
        "--limit", metavar="N", type=positive, default=100, help="at most so many (default 100)"
    )
    add_admin(parser)
    add_json(parser)


def ledger(args: argparse.Namespace) -> int:
    """Prints entries, or verifies."""
    if args.action == "verify":
        return _verify(args)
    if args.state is not None:
        with _Opened(args.state) as book:
            entries = book.entries(after=args.after, limit=args.limit)
            answer: Any = {"entries": [asdict(entry) for entry in entries], "head": book.head()}
    else:
        answer = AdminClient(args).get("/api/v1/ledger", after=args.after, limit=args.limit)
    rows = rows_of(answer, "entries")
    if args.json:
        print_json(answer)
        return 0
    columns = ("id", "at", "kind", "subject", "actor", "reason")
    print_table(
        "Ledger",
        columns,
        ([when(row.get(c)) if c == "at" else plain(row.get(c)) for c in columns] for row in rows),
    )
    return 0


def _verify(args: argparse.Namespace) -> int:
    if args.state is not None:
        with _Opened(args.state) as book:
            found: Any = asdict(book.verify()) | {"head": book.head()}
    else:
        found = AdminClient(args).get("/api/v1/ledger/verify")
    if not isinstance(found, dict) or not isinstance(found.get("ok"), bool):
        raise UnreachableError(f"{args.admin} does not answer as a Remora agent does")
    if args.json:
        print_json(found)
    elif found["ok"]:
        print(f"the chain holds: {plain(found.get('entries'))} entries")
    else:
        print(f"the chain is broken at entry {plain(found.get('broken_at'))}")
    return 0 if found["ok"] else 1


class _Opened:
    """The ledger of a state directory, read-only; its errors in one line."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LEDGER_FILE

    def __enter__(self) -> "Ledger":
        from retrain.ledger import Ledger, LedgerError

        try:
            self._ledger = Ledger(self._path, read_only=True)
        except LedgerError as error:
            raise BadInputError(f"--state: {error}") from None
        return self._ledger

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from retrain.ledger import LedgerError

        self._ledger.close()
        if isinstance(error, LedgerError):
            raise BadInputError(f"--state: {error}") from None
