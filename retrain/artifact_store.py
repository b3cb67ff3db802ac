"""Artifacts by digest on disk: `<state>/artifacts/sha256-<hex>/`, complete or absent.

A copy is made in `tmp/`, flushed, and renamed: a directory under its digest is whole, or the name
is not there. Who may use one is not asked here: call `artifact.verify` before serving it.
"""

import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ArtifactStore:
    """Content-addressed directories below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "tmp"
        self._tmp.mkdir(parents=True, exist_ok=True)
        # What a crash left half copied is worth nothing.
        for left in self._tmp.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def path(self, digest: str) -> Path:
        """Where the artifact is or would be. Raises ValueError for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is no sha256 digest")
        return self.root / digest.replace(":", "-")

    def add(self, source: Path, digest: str) -> Path:
        """Copy the files of `source`, which the caller has verified to have this digest.

        Files only, no links: what a link points to is not covered by the digest. Adding what is
        there already does nothing. Raises ValueError for a link or a folder, OSError when the
        disk refuses.
        """
        target = self.path(digest)
        if target.exists():
            return target
        copy = self._tmp / uuid.uuid4().hex
        copy.mkdir()
        try:
            for entry in sorted(source.iterdir()):
                if entry.is_symlink() or not entry.is_file():
                    raise ValueError(f"{entry} is no plain file")
                shutil.copyfile(entry, copy / entry.name)
                _flush(copy / entry.name)
            _flush(copy)
            copy.rename(target)
        except FileExistsError:
            pass  # somebody else was faster with the same bytes
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        _flush(self.root)
        return target

    def digests(self) -> list[str]:
        names = (entry.name.replace("-", ":", 1) for entry in self.root.iterdir())
        return sorted(name for name in names if _DIGEST.fullmatch(name))

    def remove_all_but(self, keep: Collection[str]) -> list[str]:
        """Remove what is not to be kept; the digests that went."""
        gone = [digest for digest in self.digests() if digest not in keep]
        self._remove(gone)
        return gone

    def _remove(self, digests: Iterable[str]) -> None:
        for digest in digests:
            # Out of its name first: half an artifact must not be found under its digest.
            away = self._tmp / uuid.uuid4().hex
            self.path(digest).rename(away)
            shutil.rmtree(away, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
