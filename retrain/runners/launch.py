"""Puts a job's limits on this very process and becomes the job: `launch.py LIMITS -- ARGV...`.

Between fork and exec of a process with threads only the kernel may be asked for anything, so the
runner starts this file instead of giving asyncio a function to call there. It is run by path, and
imports the standard library only.
"""

import ctypes
import json
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """LIMITS is JSON: nice, address_bytes_max, file_bytes_max (null: none), parent (a pid)."""
    limits, separator, command = json.loads(argv[0]), argv[1], argv[2:]
    if separator != "--" or not command:
        sys.exit("launch: no command")
    os.nice(int(limits["nice"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, value in (
        (resource.RLIMIT_AS, limits["address_bytes_max"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes_max"]),
    ):
        if value is not None:
            _, hard = resource.getrlimit(kind)
            bound = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
            resource.setrlimit(kind, (bound, bound))
    _die_with(int(limits["parent"]))
    os.execvp(command[0], command)  # noqa: S606  # becoming the command is what this file is for


def _die_with(parent: int) -> None:
    """A job whose agent was killed must not go on and write what nobody waits for (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit("launch: the agent is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
