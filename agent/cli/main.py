"""`remora`: the closed catalog of commands, and what each kind of failure exits with.

0 done; 1 the command ran and the answer is no; 2 the request or configuration is wrong;
3 something it depends on is unreachable; 130 interrupted; 70 a defect of Remora. What a person can
mend is said in one line; a defect shows its traceback only when REMORA_TRACEBACK is set.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from agent.cli.client import NotPossibleError
from agent.cli.parser import Parser
from agent.errors import BadInputError, ConfigError, UnreachableError, one_line

# In the order of `remora --help`. A new group of commands is one module and one line here.
GROUPS: Final = (
    "run",
    "check",
    "reference",
    "replay",
    "explain",
    "watch",
    "ledger",
    "labels",
    "release",
    "retrain",
    "demo",
)

DONE: Final = 0
NO: Final = 1
WRONG: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130
DEFECT: Final = 70  # EX_SOFTWARE of sysexits.h: no answer at all, so that CI cannot read it as one


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="remora",
        description="Watches a machine-learning model in production, finds drift, has it"
        " retrained, and rolls the new model out or back.",
        epilog="example:\n  remora run --upstream http://127.0.0.1:8000",
    )
    parser.add_argument(
        "--version",
        dest="print_version",  # commands have a `version` of their own
        action="store_true",
        help="print the version and exit",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for group in GROUPS:
        importlib.import_module(f"agent.cli.{group}").add(subparsers)
    return parser


def run_command(arguments: Sequence[str]) -> int:
    """Runs one command line; the exit status."""
    try:
        parser = build_parser()
        parsed = parser.parse_args(arguments)
        if parsed.print_version:
            return _print_version()
        if parsed.command is None:
            parser.error("no command given")
        status: int = parsed.run(parsed)
        # A reader that went away (`remora ledger | head`) shows here rather than at exit.
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # argparse ends so, after --help as well
        return stop.code if isinstance(stop.code, int) else WRONG
    except ConfigError as error:
        for problem in error.problems:
            _say(str(problem))
        return WRONG
    except BadInputError as error:
        _say(str(error))
        return WRONG
    except UnreachableError as error:
        _say(str(error))
        return UNREACHABLE
    except NotPossibleError as error:
        _say(str(error))
        return NO
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if os.environ.get("REMORA_TRACEBACK"):
            raise
        _say(
            f"{type(error).__name__}: {error}: this is a defect of Remora; set REMORA_TRACEBACK=1"
            " to see where, and report it"
        )
        return DEFECT


def _print_version() -> int:
    from importlib.metadata import version

    print(f"remora {version('remora')}")
    return DONE


def _say(message: str) -> None:
    sys.stderr.write(f"remora: {one_line(message)}\n")
