"""Commands as people run them: a process of its own, no terminal, a scrubbed environment."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a scrubbed environment, without a terminal."""
    clean = {k: v for k, v in os.environ.items() if not k.upper().startswith("REMORA_")}
    return subprocess.run(
        [sys.executable, "-m", "agent", *map(str, arguments)],
        env={**clean, **environ},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def refused(*arguments: str | Path, status: int = 2, **environ: str) -> str:
    """The one line of a command that fails, and fails as it should."""
    done = run(*arguments, **environ)
    assert done.returncode == status, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture(scope="session")
def remora() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`remora("status", "--json", REMORA_X="1")` runs it and returns what came out."""
    return run


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """`refusal("status", status=3)` is the one line with which it fails."""
    return refused
