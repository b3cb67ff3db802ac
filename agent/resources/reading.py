"""Where the kernel's figures are read, and what one look at them gives.

The roots are injected, so that recorded trees stand in for a machine that has what this one lacks.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the file systems of the kernel are mounted."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")


@dataclass(slots=True)
class Look:
    """What one reader found, and why it did not find the rest."""

    values: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def number_in(path: Path) -> float | None:
    """The one number of a file of the kernel; None for a word like max, or no file.

    Raises PermissionError, which is a reason of its own.
    """
    try:
        return float(path.read_text(encoding="ascii").strip())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def table_in(path: Path) -> dict[str, float]:
    """A file of `name number` lines; empty where there is none. Raises PermissionError."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    found: dict[str, float] = {}
    for line in lines:
        name, _, text = line.partition(" ")
        try:
            found[name] = float(text)
        except ValueError:
            continue
    return found
