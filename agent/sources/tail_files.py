"""Files that grow, are moved away, cut off and begun anew: which lines are new in them.

A file is known by device, inode and its first bytes, never by its name alone: a name that is
written anew, or an inode that is used again, begins at 0. A file that was moved away is read to
its end. Do not go on in a file without having looked whether it is still the one that was read.
"""

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Final

from agent.sources.checkpoint import Checkpoint, FileKey, Mark
from agent.wire.lines import Line, Lines

PREFIX_BYTES_MAX: Final = 1024
READ_BYTES: Final = 256 * 1024
OPEN_MAX: Final = 128
NEIGHBOURS_MAX: Final = 10_000  # entries of a directory that are looked through
PACKED: Final = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file as the directory shows it now."""

    path: str
    key: FileKey
    size: int
    changed_ns: int
    stranger: bool = False  # of no name that is followed: it must be the one that is missed


class Follower:
    """One open file. `read` gives what was added; `mark` says how far what was taken goes."""

    def __init__(self, path: str, *, line_bytes_max: int, dropped: Counter[str]) -> None:
        """Raises `OSError` when it cannot be opened or is no regular file."""
        # Without waiting: opening a named pipe would block until somebody writes.
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(self._file)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._file)
            raise OSError(f"{path} is no regular file")
        self.path = path
        self.key: FileKey = (status.st_dev, status.st_ino)
        self.changed_at = 0.0  # when something was read from it last
        self.gone = False  # no longer under a name that is followed
        self.newly_known = False  # by the last `read`, which found its first bytes
        self._line_bytes_max = line_bytes_max
        self._dropped = dropped
        self._begin(0)

    def resume(self, mark: Mark) -> bool:
        """Go on where the mark says, if this is the file it is of; else begin at 0."""
        self._prefix_bytes, self._digest = mark.prefix_bytes, mark.digest
        if os.fstat(self._file).st_size >= mark.offset and self._is_same():
            self._lines = Lines(offset=mark.offset, line_bytes_max=self._line_bytes_max)
            return True
        self._begin(0)
        return False

    def skip_to_end(self) -> None:
        """Only what comes from now on."""
        size = os.fstat(self._file).st_size
        middle = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        self._begin(size, skip_first=middle)

    def read(self) -> list[Line]:
        """Whole lines that were added, a bounded number of bytes at once."""
        if os.fstat(self._file).st_size < self._lines.read or not self._is_same():
            self._dropped["file_begun_anew"] += 1
            self._begin(0)
        was_empty, self.newly_known = self._prefix_bytes == 0, False
        data = os.pread(self._file, READ_BYTES, self._lines.read)
        if not data:
            return []
        too_long = self._lines.too_long
        found = self._lines.feed(data)
        if self._lines.too_long > too_long:
            self._dropped["line_too_long"] += self._lines.too_long - too_long
        if self._prefix_bytes < PREFIX_BYTES_MAX:
            self.know_prefix()
        self.newly_known = was_empty
        return found

    @property
    def ended(self) -> int:
        """After the last whole line that was read."""
        return self._lines.ended

    @property
    def at(self) -> int:
        """Where the next byte is read."""
        return self._lines.read

    @property
    def unfinished(self) -> bool:
        """Whether the last line lacks its end."""
        return self._lines.held_bytes > 0

    @property
    def name(self) -> str:
        """The file in a few characters, the same after a restart: for ids of its lines."""
        return self._digest.hex()[:12]

    def mark(self, offset: int) -> Mark:
        return Mark(
            device=self.key[0],
            inode=self.key[1],
            offset=offset,
            prefix_bytes=self._prefix_bytes,
            digest=self._digest,
        )

    def know_prefix(self) -> None:
        """Take the first bytes for what tells this file from others."""
        prefix = os.pread(self._file, PREFIX_BYTES_MAX, 0)
        self._prefix_bytes, self._digest = len(prefix), _digest(prefix)

    def status(self) -> os.stat_result:
        return os.fstat(self._file)

    def close(self) -> None:
        os.close(self._file)

    def _begin(self, offset: int, *, skip_first: bool = False) -> None:
        self._lines = Lines(
            offset=offset, line_bytes_max=self._line_bytes_max, skip_first=skip_first
        )
        self._prefix_bytes, self._digest = 0, _digest(b"")

    def _is_same(self) -> bool:
        if self._prefix_bytes == 0:
            return True
        return _digest(os.pread(self._file, self._prefix_bytes, 0)) == self._digest


class Files:
    """All files of one pattern: those that are open, and how far the others were read.

    Raises `OSError` where the checkpoint cannot be made.
    """

    def __init__(
        self,
        pattern: str,
        *,
        checkpoint: Path,
        start: str,
        rotated_s: float,
        line_bytes_max: int,
        files_max: int,
        dropped: Counter[str],
    ) -> None:
        self._pattern = pattern
        self._checkpoint = Checkpoint(checkpoint)
        self._at_end = start == "end" and self._checkpoint.fresh
        self._rotated_s = rotated_s
        self._line_bytes_max = line_bytes_max
        self._files_max = files_max
        self._dropped = dropped
        self._open: dict[FileKey, Follower] = {}
        self._looked: dict[FileKey, tuple[int, int]] = {}  # size and change when last complete
        self._is_first = True

    def discover(self, now: float) -> None:
        """Look at the directory: what is new is opened, what is gone for long is let go of."""
        found = {file.key: file for file in self._matching()}
        if self._is_first:
            found = {file.key: file for file in self._moved_away(set(found))} | found
        for key, follower in list(self._open.items()):
            follower.gone = key not in found
            if not follower.gone:
                follower.path = found[key].path
        for file in found.values():
            if file.key not in self._open and len(self._open) < OPEN_MAX:
                self._take_up(file, now)
        for key in [key for key in self._checkpoint.marks if key not in found]:
            if key not in self._open:
                self._forget(key)
        self._is_first = False
        self._at_end = False

    def followers(self) -> list[Follower]:
        """Those that are open; files that were moved away first, then in the order of age."""
        return sorted(self._open.values(), key=lambda follower: not follower.gone)

    def read(self, follower: Follower) -> list[Line]:
        """What was added. Raises `OSError`."""
        lines = follower.read()
        if follower.newly_known:
            # Before a line is taken: else it is a stranger, if it is moved while nobody looks.
            self.taken(follower, 0)
        return lines

    def taken(self, follower: Follower, offset: int) -> None:
        """A line was taken that ends there. A checkpoint that cannot be written is counted."""
        try:
            self._checkpoint.put(follower.mark(offset))
        except OSError:
            self._dropped["checkpoint_failed"] += 1

    def rested(self, follower: Follower, now: float) -> None:
        """There is nothing more in it now: let go of it, if it is gone or there are many."""
        waited = now - follower.changed_at >= self._rotated_s
        if follower.gone and waited:
            if follower.unfinished:
                self._dropped["line_unfinished"] += 1
            self._close(follower)
            self._forget(follower.key)
        elif waited and len(self._open) > OPEN_MAX // 2:
            self._close(follower)

    def close(self) -> None:
        for follower in list(self._open.values()):
            self._close(follower)
        self._checkpoint.close()

    def _take_up(self, file: Found, now: float) -> None:
        if self._looked.get(file.key) == (file.size, file.changed_ns):
            return
        try:
            follower = Follower(
                file.path, line_bytes_max=self._line_bytes_max, dropped=self._dropped
            )
        except OSError:
            self._dropped["file_unreadable"] += 1
            return
        if follower.key != file.key:  # replaced between look and opening: the next look tells
            follower.close()
            return
        mark = self._checkpoint.marks.get(file.key)
        resumed = mark is not None and follower.resume(mark)
        if file.stranger and not (resumed and mark is not None and mark.prefix_bytes):
            follower.close()
            return
        if mark is not None and not resumed:
            self._dropped["file_begun_anew"] += 1
        if mark is None and self._at_end:
            follower.skip_to_end()
        if not resumed:
            # From now on it is missed when it is gone, though no line of it was taken yet.
            follower.know_prefix()
            self.taken(follower, follower.ended)
        follower.changed_at = now
        self._open[file.key] = follower

    def _close(self, follower: Follower) -> None:
        status = follower.status()
        if follower.at >= status.st_size:
            self._looked[follower.key] = (status.st_size, status.st_mtime_ns)
        follower.close()
        del self._open[follower.key]

    def _forget(self, key: FileKey) -> None:
        self._looked.pop(key, None)
        try:
            self._checkpoint.forget(key)
        except OSError:
            self._dropped["checkpoint_failed"] += 1

    def _matching(self) -> list[Found]:
        """The files of the pattern, oldest first; of too many, the newest."""
        several = glob.iglob(self._pattern, recursive=True)
        found = [file for path in several if (file := _look(path)) is not None]
        found.sort(key=lambda file: file.changed_ns)
        over = len(found) - self._files_max
        if over > 0:
            if self._is_first:
                self._dropped["too_many_files"] += over
            found = found[over:]
        return found

    def _moved_away(self, known: set[FileKey]) -> Iterator[Found]:
        """Files with a mark that bear another name now: rotated while nobody looked."""
        missing = {key for key in self._checkpoint.marks if key not in known}
        if not missing:
            return
        for directory in {os.path.dirname(path) for path in self._names()}:
            with os.scandir(directory) as entries:
                for entry in islice(entries, NEIGHBOURS_MAX):
                    file = _look(entry.path)
                    if file is not None and file.key in missing:
                        yield replace(file, stranger=True)

    def _names(self) -> Iterator[str]:
        """A file in each directory that the pattern names."""
        directory = os.path.dirname(self._pattern)
        for path in islice(glob.iglob(directory), NEIGHBOURS_MAX):
            if os.path.isdir(path):
                yield os.path.join(path, "")


def _look(path: str) -> Found | None:
    if path.endswith(PACKED):
        return None  # rotated and packed: it was read under its name of before
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    key = (status.st_dev, status.st_ino)
    return Found(path=path, key=key, size=status.st_size, changed_ns=status.st_mtime_ns)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
