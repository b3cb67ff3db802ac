"""argparse, with mistakes said in one line and an example under every command's help.

How a command is registered: a module `agent/cli/<group>.py` has `add(subparsers)`, which calls
`add_command` for each of its commands; `run` gets the parsed arguments and returns the exit
status. It may raise ConfigError, BadInputError or UnreachableError. Nothing heavy may be
imported at the top of such a module: all of them are imported to answer `remora --help`.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]

_CHOICE = re.compile(r"invalid choice: '(?P<given>.*)' \(choose from (?P<known>.*)\)\Z", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line and exits 2."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)  # `--re` must not come to mean something else
        super().__init__(*arguments, **options)

    def error(self, message: str) -> NoReturn:
        """One line on standard error, exit 2."""
        from agent.errors import one_line

        if found := _CHOICE.search(message):
            known = re.findall(r"[A-Za-z0-9][A-Za-z0-9_-]*", found["known"])
            near = difflib.get_close_matches(found["given"], known, n=1)
            mend = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            message = f"there is no {found['given']!r}: {mend}"
        sys.stderr.write(one_line(f"{self.prog}: {message}: see {self.prog} --help") + "\n")
        sys.exit(2)


def add_command(
    subparsers: Subparsers, name: str, run: Run, *, purpose: str, example: str
) -> Parser:
    """A command with its one-line purpose and an example that can be pasted."""
    parser = subparsers.add_parser(
        name, help=purpose, description=_sentence(purpose), epilog=f"example:\n  {example}"
    )
    parser.set_defaults(run=run)
    return parser


def add_group(subparsers: Subparsers, name: str, *, purpose: str, example: str) -> Subparsers:
    """A command that only has commands below it, like `reference build`."""
    parser = subparsers.add_parser(
        name, help=purpose, description=_sentence(purpose), epilog=f"example:\n  {example}"
    )
    return parser.add_subparsers(
        title="commands", metavar="COMMAND", dest=f"{name}_command", required=True
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, for commands whose result a machine may want."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _sentence(purpose: str) -> str:
    return purpose[:1].upper() + purpose[1:] + "."
