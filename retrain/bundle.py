"""An artifact as one `.tar.gz`, and back.

An archive comes from a build server and is hostile until `unpack` has returned: only plain files
of known names are taken out, nothing is extracted by tarfile itself, and every byte is counted
while it is decompressed. The target directory appears whole and verified, or not at all.
"""

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from retrain import artifact
from retrain.artifact import ArtifactError, Manifest

COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """`unpacked_bytes_max` counts decompressed bytes, headers and all: a bomb stops there."""

    files_max: int = artifact.FILES_MAX
    unpacked_bytes_max: int = 1 << 30


def pack(directory: Path, archive: Path) -> None:
    """Writes a verified artifact as `.tar.gz`; the same artifact gives the same bytes.

    Raises ArtifactError if the directory does not verify.
    """
    manifest = artifact.load(directory)
    names = sorted([artifact.MANIFEST, *(entry.path for entry in manifest.files)])
    partial = archive.with_name(archive.name + ".partial")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = (directory / name).stat().st_size
            info.mode = 0o644
            with (directory / name).open("rb") as file:
                tar.addfile(info, file)
    partial.replace(archive)


def unpack(archive: Path, into: Path, limits: UnpackLimits | None = None) -> Manifest:
    """Takes the artifact out of `archive` into the new directory `into`, and verifies it.

    Raises ArtifactError if a member is refused, a limit is passed, or the whole does not verify;
    FileExistsError if `into` exists.
    """
    if into.exists():
        raise FileExistsError(into)
    into.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is one rename on one file system.
    scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=into.parent))
    try:
        _extract(archive, scratch, limits or UnpackLimits())
        manifest = artifact.load(scratch)
        scratch.chmod(0o755)
        scratch.rename(into)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _sync_directory(into.parent)
    return manifest


class _Bounded:
    """The decompressed stream, which refuses to give more bytes than it was allowed."""

    def __init__(self, source: gzip.GzipFile, bytes_max: int) -> None:
        self._source = source
        self._left = bytes_max

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left + 1 if size < 0 else min(size, self._left + 1)
        chunk = self._source.read(wanted)
        self._left -= len(chunk)
        if self._left < 0:
            raise ArtifactError("archive: unpacks to more bytes than allowed")
        return chunk


def _extract(archive: Path, into: Path, limits: UnpackLimits) -> None:
    seen: set[str] = set()
    try:
        with gzip.open(archive, "rb") as zipped:
            stream = _Bounded(zipped, limits.unpacked_bytes_max)
            # "r|" reads forward only: no seeking, so the bound counts each byte once.
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
                for member in tar:
                    _refuse(member, seen)
                    seen.add(member.name)
                    if len(seen) > limits.files_max:
                        raise ArtifactError(f"archive: more than {limits.files_max} files")
                    source = tar.extractfile(member)
                    if source is None:  # not a file; _refuse has ruled it out
                        raise ArtifactError(f"archive: {member.name[:80]!r} has no content")
                    _write(source, into / member.name)
            # To the very end: gzip proves its own length and checksum only there.
            while stream.read(COPY_BYTES):
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ArtifactError(f"archive: cannot be read: {error}") from error


def _refuse(member: tarfile.TarInfo, seen: set[str]) -> None:
    name = member.name
    if not member.isreg():
        raise ArtifactError(f"archive: {name[:80]!r} is a link, directory or device")
    if member.issparse():
        raise ArtifactError(f"archive: {name[:80]!r} is sparse")
    if "/" in name or "\\" in name or name in {"", ".", ".."}:
        raise ArtifactError(f"archive: {name[:80]!r} is a path; an artifact is flat")
    problem = artifact.name_problem(name)
    if problem is not None:
        raise ArtifactError(f"archive: {problem}")
    if name in seen:
        raise ArtifactError(f"archive: {name!r} comes twice")


def _write(source: IO[bytes], path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(source, file, COPY_BYTES)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
