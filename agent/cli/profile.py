"""Reference profiles as files: read with one-line errors, written whole or not at all."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BadInputError

if TYPE_CHECKING:
    from detectors import Reference

REFERENCE_BYTES_MAX = 256 << 20


def read_reference(path: Path) -> "Reference":
    """The profile in the file. Raises BadInputError naming file and mend."""
    from detectors import ProfileError, Reference

    try:
        with path.open("rb") as file:
            content = file.read(REFERENCE_BYTES_MAX + 1)
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be read ({error.strerror}): make it by `remora reference build`"
        ) from None
    if len(content) > REFERENCE_BYTES_MAX:
        raise BadInputError(f"{path}: is longer than {REFERENCE_BYTES_MAX} bytes: the right file?")
    try:
        return Reference.from_bytes(content)
    except ProfileError as error:
        raise BadInputError(f"{path}: {error}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Writes the file so that nobody ever reads half of it. Raises BadInputError."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BadInputError(
            f"{path}: cannot be written ({error.strerror}): name a file in a directory of yours"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise BadInputError(f"{path}: cannot be written ({error.strerror})") from None
