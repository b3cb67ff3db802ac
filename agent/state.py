"""Snapshots: everything detectors, learners and tables know, in one file that is whole or absent.

A snapshot is never more than one interval old, so a restart forgets little; losing one costs
power for a while, never validity. Nothing here unpickles: arrays are npz, the rest is JSON.
"""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog

log = structlog.get_logger("remora.state")

FORMAT: Final = 1
BYTES_MAX: Final = 256 * 1024 * 1024
_TREE: Final = "tree"
_ARRAY: Final = "__array__"
_PAIRS: Final = "__pairs__"  # of a dictionary whose keys could be taken for one of ours
_MAGIC: Final = b"remora-snapshot "


class Snapshot:
    """One snapshot file; `save` replaces it in one step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set_aside = 0  # files that could not be used since the agent started

    def save(self, state: dict[str, Any], *, now: float) -> int:
        """Write JSON-able values and numpy arrays, nested as they are; returns the bytes written.

        Tuples come back as lists, keys as text, numpy's scalars as Python's. Raises `OSError` when
        the disk refuses, `ValueError` for more than `BYTES_MAX`, `TypeError` for what is neither
        JSON nor a plain array; the snapshot before stays as it was.
        """
        arrays: dict[str, Any] = {}
        tree = _taken_apart(state, arrays)
        envelope = {"format": FORMAT, "saved_at": now, "state": tree}
        arrays[_TREE] = np.frombuffer(json.dumps(envelope).encode(), dtype=np.uint8)
        out = io.BytesIO()
        np.savez(out, **arrays)
        body = out.getvalue()
        if len(body) > BYTES_MAX:
            raise ValueError(f"a snapshot of {len(body)} bytes, at most {BYTES_MAX} are read back")
        digest = hashlib.sha256(body).hexdigest().encode()
        temporary = self._path.with_suffix(".new")
        # Names of categories are in it: nobody else's business.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(_MAGIC + digest + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        _sync_directory(self._path.parent)
        return len(body)

    def load(self) -> tuple[dict[str, Any], float] | None:
        """State and when it was saved; None when there is none that can be used."""
        try:
            return self._read()
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
            self._refuse(str(error))
        return None

    def _read(self) -> tuple[dict[str, Any], float]:
        if self._path.stat().st_size > BYTES_MAX + len(_MAGIC) + 65:
            raise ValueError(f"larger than {BYTES_MAX} bytes")
        head, _, body = self._path.read_bytes().partition(b"\n")
        digest = hashlib.sha256(body).hexdigest().encode()
        if head != _MAGIC + digest:
            raise ValueError("its checksum is wrong")
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            envelope = json.loads(arrays[_TREE].tobytes())
            if envelope["format"] != FORMAT:
                raise ValueError(f"format {envelope['format']!r} is not {FORMAT}")
            state = _put_together(envelope["state"], arrays)
        return state, float(envelope["saved_at"])

    def _refuse(self, why: str) -> None:
        """Keep the file for whoever wants to look, and start without it."""
        aside = self._path.with_suffix(".unusable")
        self.set_aside += 1
        log.error("snapshot set aside, detectors start anew", why=why, kept_as=str(aside))
        try:
            os.replace(self._path, aside)
        except OSError as error:
            log.error("snapshot cannot be moved", error=str(error))


def _taken_apart(value: Any, arrays: dict[str, Any]) -> Any:
    """The value with each array replaced by the name it is stored under."""
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("an array of objects would have to be unpickled")
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {_ARRAY: name}
    if isinstance(value, dict):
        parts = {str(key): _taken_apart(item, arrays) for key, item in value.items()}
        return {_PAIRS: list(parts.items())} if {_ARRAY, _PAIRS} & parts.keys() else parts
    if isinstance(value, list | tuple):
        return [_taken_apart(item, arrays) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _put_together(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        pairs = value[_PAIRS] if set(value) == {_PAIRS} else value.items()
        return {key: _put_together(item, arrays) for key, item in pairs}
    if isinstance(value, list):
        return [_put_together(item, arrays) for item in value]
    return value


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
