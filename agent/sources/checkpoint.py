"""How far each file has been read, on disk: a record of fixed size for each, written in place.

A record lies within one sector and carries its own checksum, so that a write is there or is not;
one that is torn all the same counts as absent. Do not move a record on before its line was taken.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

MAGIC: Final = b"remora tail checkpoint 1\n"
RECORD_BYTES: Final = 64
_RECORD: Final = struct.Struct("<QQQI16s")  # device, inode, offset, fingerprint's length, digest
_SUM: Final = struct.Struct("<I")
_USED: Final = _RECORD.size + _SUM.size
FileKey: TypeAlias = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One file, told by more than its inode, and where the next line begins in it."""

    device: int
    inode: int
    offset: int
    prefix_bytes: int  # of the file's beginning that the digest is of
    digest: bytes  # 16 bytes

    @property
    def key(self) -> FileKey:
        return self.device, self.inode


class Checkpoint:
    """The records of one source. Raises `OSError` where the file cannot be made or written."""

    def __init__(self, path: Path) -> None:
        self._file, self.fresh = _opened(path)
        self._slots: dict[FileKey, int] = {}
        self._free: list[int] = []
        self._end = 1  # the first slot is the magic's
        self._marks: dict[FileKey, Mark] = {}
        for slot, mark in _records(self._file):
            self._end = slot + 1
            if mark is None:
                self._free.append(slot)
                continue
            self._slots[mark.key] = slot
            self._marks[mark.key] = mark

    @property
    def marks(self) -> Mapping[FileKey, Mark]:
        return self._marks

    def put(self, mark: Mark) -> None:
        """Note how far a file has been read."""
        slot = self._slots.get(mark.key)
        if slot is None:
            slot = self._free.pop() if self._free else self._end
            self._end = max(self._end, slot + 1)
            self._slots[mark.key] = slot
        self._marks[mark.key] = mark
        fields = (mark.device, mark.inode, mark.offset, mark.prefix_bytes, mark.digest)
        record = _RECORD.pack(*fields)
        data = (record + _SUM.pack(zlib.crc32(record))).ljust(RECORD_BYTES, b"\0")
        os.pwrite(self._file, data, slot * RECORD_BYTES)

    def forget(self, key: FileKey) -> None:
        """The file is gone."""
        slot = self._slots.pop(key, None)
        self._marks.pop(key, None)
        if slot is not None:
            self._free.append(slot)
            os.pwrite(self._file, bytes(RECORD_BYTES), slot * RECORD_BYTES)

    def close(self) -> None:
        os.close(self._file)


def _opened(path: Path) -> tuple[int, bool]:
    """The file, and whether it is a new one. One that makes no sense is set aside."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        file = os.open(path, flags)
    except FileNotFoundError:
        return _made(path), True
    if os.pread(file, len(MAGIC), 0) == MAGIC:
        return file, False
    os.close(file)
    path.replace(path.with_name(path.name + ".unusable"))
    return _made(path), True


def _made(path: Path) -> int:
    """A new one: whole under another name first, so that a crash leaves none or this one."""
    fresh = path.with_name(path.name + ".fresh")
    fresh.unlink(missing_ok=True)
    file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, MAGIC.ljust(RECORD_BYTES, b"\0"), 0)
        os.fsync(file)
        fresh.replace(path)
    except OSError:
        os.close(file)
        raise
    return file


def _records(file: int) -> Iterator[tuple[int, Mark | None]]:
    """Each slot after the first with its record; None for one that is free or torn."""
    slot = 1
    while record := os.pread(file, RECORD_BYTES, slot * RECORD_BYTES):
        yield slot, _mark(record)
        slot += 1


def _mark(record: bytes) -> Mark | None:
    if len(record) < _USED or not any(record):
        return None
    body = record[: _RECORD.size]
    if _SUM.unpack_from(record, _RECORD.size)[0] != zlib.crc32(body):
        return None
    device, inode, offset, prefix_bytes, digest = _RECORD.unpack(body)
    return Mark(device=device, inode=inode, offset=offset, prefix_bytes=prefix_bytes, digest=digest)
