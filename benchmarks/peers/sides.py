"""Contenders of a benchmark of detection: processes in environments of their own that take turns.

The one thing not to break: a peer is measured as its users run it, but it never phones home.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("contender.py")

#: Every peer's own word for "send nothing about me".
SILENT: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "NML_DISABLE_USAGE_LOGGING": "1",
    "WHYLOGS_NO_ANALYTICS": "True",
    "DISABLE_DEEPCHECKS_ANONYMOUS_TELEMETRY": "True",
    "DISABLE_LATEST_VERSION_CHECK": "True",
    "HF_HUB_OFFLINE": "1",
}


class MissingPeer(Exception):
    """A peer's environment is not there; the message says how to make it."""


def python_of(peer: str) -> Path:
    """Give the interpreter that has the peer. Raises MissingPeer."""
    home = ROOT / ".venv-peers" / peer
    if not (home / ".installed").exists():
        raise MissingPeer(f"no environment for {peer}: make .venv-peers/{peer}/.installed")
    return home / "bin" / "python"


def version_of(python: Path, package: str) -> str:
    """Give the installed version of a package."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def quiet_environment() -> dict[str, str]:
    """Give the environment in which peers run."""
    return {**os.environ, **SILENT}


class Side:
    """One contender in a process of its own, which runs a round whenever it is told to."""

    def __init__(self, name: str, python: Path, arguments: Sequence[str]) -> None:
        self.name = name
        # What it says goes into a file: a pipe that nobody reads would fill up.
        self._files = ExitStack()
        folder = self._files.enter_context(tempfile.TemporaryDirectory())
        self._said = Path(folder) / "said.txt"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [python, SCRIPT, name, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=quiet_environment(),
            )
        self.ready: Mapping[str, Any] = self._answer()

    def round(self) -> float:
        """Run one round; give its CPU time in seconds."""
        stdin: IO[str] | None = self._process.stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()
        return float(self._answer()["cpu_s"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._files.close()

    def _answer(self) -> Mapping[str, Any]:
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"{self.name} ended early:\n{self._said.read_text()[-2_000:]}")
        answer: Mapping[str, Any] = json.loads(line)
        return answer


@contextmanager
def sides(
    wanted: Mapping[str, Path], rows: Path, windows: Mapping[str, int]
) -> Iterator[list[Side]]:
    """Start contenders on the rows of a file, one after the other."""
    with ExitStack() as stack:
        started = []
        for name, python in wanted.items():
            side = Side(name, python, [str(rows), str(windows[name])])
            stack.callback(side.close)
            started.append(side)
        yield started


def own_python() -> Path:
    """Give the interpreter that runs Remora."""
    return Path(sys.executable)
