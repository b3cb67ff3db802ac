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

_ROOT = Path(__file__).resolve().parent.parent
_MEND = "install Remora in an environment of its own (a venv, pipx, its image)"


class ForeignPackageError(RuntimeError):
    """Somebody else's code would run under our name; the message is one line for the operator."""


def refuse_foreign_packages(path: Sequence[str] | None = None) -> None:
    """Raise `ForeignPackageError` unless our packages are ours and nobody else's.

    `path` is where installed distributions are looked for: `sys.path` unless given.

    >>> refuse_foreign_packages()
    """
    # Only a folder that holds a package of one of our names can hold a distribution that put it
    # there. An editable Remora has no such folder but its own checkout, which lists no files.
    folders = [folder for folder in (sys.path if path is None else path) if _is_home(Path(folder))]
    for distribution in distributions(path=folders):
        package = _claimed_by(distribution)
        if package is None:
            continue
        name = distribution.metadata["Name"]
        if name.lower() != OUR_DISTRIBUTION:
            raise ForeignPackageError(
                f"package {package!r} is also owned by the distribution {name!r}"
                f" {distribution.version}: run `pip uninstall {name}` and reinstall Remora,"
                f" or {_MEND}"
            )
    for package in OUR_PACKAGES:
        _refuse_shadow(package)


def _is_home(folder: Path) -> bool:
    return any(
        (folder / name).exists() or (folder / f"{name}.py").exists() for name in OUR_PACKAGES
    )


def _claimed_by(distribution: Distribution) -> str | None:
    """The first of our package names that a distribution says it installed."""
    # Searching the text is ten times as fast as letting importlib parse it into paths. Installs
    # older than wheels have no RECORD, but name their packages in top_level.txt.
    record = distribution.read_text("RECORD")
    if record is None:
        top_level = (distribution.read_text("top_level.txt") or "").split()
        return next((package for package in OUR_PACKAGES if package in top_level), None)
    lines = "\n" + record
    for package in OUR_PACKAGES:
        if f"\n{package}/" in lines or f"\n{package}.py," in lines:
            return package
    return None


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
