"""`python -m agent`, and the console script `remora`: the same thing.

Import nothing else at the top: `remora --help` must answer at once, and the check for foreign
packages must come before any of our packages that somebody else may own is imported.
"""

import sys
from collections.abc import Sequence

from agent.ownership import ForeignPackageError, refuse_foreign_packages


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status."""
    try:
        refuse_foreign_packages()
    except ForeignPackageError as error:
        sys.stderr.write(f"remora: {error}\n")
        return 2
    from agent.cli.main import run_command

    return run_command(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
