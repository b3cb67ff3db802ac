"""Refuses to start when another distribution owns one of our package names.

`agent`, `detectors`, `retrain` and `exporters` are plain words: another distribution may install
packages of the same names over ours, and half of each would run. Every start pays for this check
(a few milliseconds), so it looks at folders first and reads lists of files only where it must.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path

OUR_DISTRIBUTION = "remora"
OUR_PACKAGES = ("agent", "detectors", "retrain", "exporters")

# What a package looks like in a folder of installed distributions, and its name.
_ENTRIES = {entry: name for name in OUR_PACKAGES for entry in (name, f"{name}.py")}
_ROOT = Path(__file__).resolve().parent.parent
_MEND = "install Remora in an environment of its own (a venv, pipx, its image)"


class ForeignPackageError(RuntimeError):
    """Somebody else's code would run under our name; the message is one line for the operator."""


def refuse_foreign_packages(path: Sequence[str] | None = None) -> None:
    """Raise `ForeignPackageError` unless our packages are ours and nobody else's.

    `path` is where installed distributions are looked for: `sys.path` unless given.

    >>> refuse_foreign_packages()
    """
    for folder in sys.path if path is None else path:
        # Only where a package of our name lies can a distribution have put one. An editable
        # Remora lies nowhere but in its checkout, which has no distributions to read.
        present = [name for name in _ENTRIES if Path(folder, name).exists()]
        for distribution in distributions(path=[folder]) if present else ():
            _refuse_claim(distribution, present)
    for package in OUR_PACKAGES:
        _refuse_shadow(package)


def _refuse_claim(distribution: Distribution, present: Sequence[str]) -> None:
    """A distribution that lists one of the entries as its own must be us."""
    # Searching the text is ten times as fast as letting importlib parse it into paths. Installs
    # older than wheels have no RECORD, but name their packages in top_level.txt.
    record = distribution.read_text("RECORD")
    if record is None:
        top_level = (distribution.read_text("top_level.txt") or "").split()
        claimed = [entry for entry in present if _ENTRIES[entry] in top_level]
    else:
        lines = "\n" + record
        # A file of the package's folder, or the module itself: then a comma and its hash follow.
        claimed = [
            entry
            for entry in present
            if f"\n{entry}{',' if entry.endswith('.py') else '/'}" in lines
        ]
    if not claimed:
        return
    name = distribution.metadata["Name"]
    if name.lower() != OUR_DISTRIBUTION:
        raise ForeignPackageError(
            f"package {_ENTRIES[claimed[0]]!r} is also owned by the distribution {name!r}"
            f" {distribution.version}: run `pip uninstall {name}` and reinstall Remora, or {_MEND}"
        )


def _refuse_shadow(package: str) -> None:
    """What Python imports under our name must lie beside this very file.

    Catches what no list of files shows: a foreign package on PYTHONPATH or behind a .pth file.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ForeignPackageError(f"package {package!r} has no code: reinstall Remora, or {_MEND}")
    if Path(spec.origin).resolve().parent.parent != _ROOT:
        raise ForeignPackageError(
            f"package {package!r} is taken by {spec.origin}, which is not Remora's:"
            f" take its folder off the import path, or {_MEND}"
        )
