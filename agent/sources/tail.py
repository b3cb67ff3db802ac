"""The source `tail`: lines that are added to log files become exchanges and rows.

A line is taken, and only then the checkpoint moves on: whatever ends this process, the next one
begins at the first line that was not taken. At most the one line whose taking was interrupted is
seen twice. Do not await between the two.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
import structlog

from agent.admin.view import Refused
from agent.config import TailSource
from agent.decoders.decoder import DecodeLimits
from agent.sources.sampler import Sampler, keep_all
from agent.sources.source import Emit, SourceName
from agent.sources.tail_files import Files, Follower
from agent.sources.tail_formats import Context, LineError, LoggedRequest, bento_roles, format_of
from agent.wire.lines import Line

log = structlog.get_logger("remora.tail")

# How long lines are taken before others get their turn of the event loop.
TURN_S: Final = 0.01
SCHEMA_BYTES_MAX: Final = 1024 * 1024
LABELS_AT_ONCE: Final = 1_000
TakeLabels: TypeAlias = Callable[[bytes, str], Awaitable[Mapping[str, Any]]]
OnRequest: TypeAlias = Callable[[LoggedRequest], None]


class Tail:
    """Follows the files of one pattern, from `run` to its end."""

    name: SourceName = "tail"

    def __init__(
        self,
        source: TailSource,
        *,
        state_dir: Path,
        take_labels: TakeLabels,
        limits: DecodeLimits | None = None,
        sampler: Sampler | None = None,
        on_request: OnRequest | None = None,
    ) -> None:
        self._source = source
        self._checkpoint = state_dir / checkpoint_name(source)
        self._take_labels = take_labels
        self._on_request = on_request
        self._format = format_of(source, limits or DecodeLimits(), sampler or keep_all())
        self._labels: list[Mapping[str, Any]] = []
        self._roles: dict[str, Mapping[str, str]] = {}
        self._dropped: Counter[str] = Counter()
        self.requests = 0  # of access logs
        self.lines = 0

    @property
    def dropped(self) -> Mapping[str, int]:
        return self._dropped

    @property
    def completeness(self) -> float | None:
        """A log does not say what it leaves out."""
        return None

    async def run(self, emit: Emit) -> None:
        """Follow until cancelled. Raises `OSError` when the checkpoint cannot be made."""
        files = Files(
            self._source.path,
            checkpoint=self._checkpoint,
            start=self._source.start,
            rotated_s=self._source.rotated_s,
            line_bytes_max=self._source.line_bytes_max,
            files_max=self._source.files_max,
            dropped=self._dropped,
        )
        try:
            while True:
                files.discover(time.monotonic())
                self._roles.clear()
                while await self._turn(files, emit):
                    pass
                await asyncio.sleep(self._source.poll_s)
        finally:
            files.close()

    async def _turn(self, files: Files, emit: Emit) -> bool:
        """A bounded number of bytes of each file; whether there was anything."""
        any_added = False
        for follower in files.followers():
            before = follower.at
            try:
                lines = files.read(follower)
            except OSError as error:
                self._dropped["file_unreadable"] += 1
                log.warning("a log cannot be read", path=follower.path, why=str(error))
                continue
            if follower.at == before:
                files.rested(follower, time.monotonic())
                continue
            any_added = True
            follower.changed_at = time.monotonic()
            await self._take_all(files, follower, lines, emit)
        await self._give_labels()
        return any_added

    async def _take_all(
        self, files: Files, follower: Follower, lines: Sequence[Line], emit: Emit
    ) -> None:
        turn_ends_at = time.monotonic() + TURN_S
        for line in lines:
            self._take(follower, line, emit)
            files.taken(follower, line.end)
            if time.monotonic() >= turn_ends_at:
                await asyncio.sleep(0)
                turn_ends_at = time.monotonic() + TURN_S
        files.taken(follower, follower.ended)  # past lines that were too long
        await asyncio.sleep(0)

    def _take(self, follower: Follower, line: Line, emit: Emit) -> None:
        self.lines += 1
        context = Context(
            # The same line has the same id whenever it is read.
            id=f"tail-{follower.name}-{line.end}",
            now=time.time(),
            roles=self._roles_of(follower),
        )
        try:
            said = self._format.read(line.data, context)
        except LineError as error:
            self._dropped[error.reason] += 1
            return
        except Exception:
            # Bytes from outside found a fault of ours: it costs this line, not the file.
            self._dropped["line_failed"] += 1
            log.exception("a line could not be read", path=follower.path)
            return
        for taken in said.taken:
            emit(taken)
        self._labels += said.labels
        if said.request is not None:
            self.requests += 1
            if self._on_request is not None:
                self._on_request(said.request)

    def _roles_of(self, follower: Follower) -> Mapping[str, str]:
        """Roles of the columns, from the schema that BentoML's monitor writes beside its data."""
        if self._source.format != "bentoml":
            return {}
        path = Path(follower.path)
        worker = path.name.split(".")[1:2] or ["0"]
        schema = str(path.parent.parent / "schema" / f"schema.{worker[0]}.log")
        if schema not in self._roles:
            self._roles[schema] = bento_roles(_end_of(schema))
        return self._roles[schema]

    async def _give_labels(self) -> None:
        while self._labels:
            some, self._labels = self._labels[:LABELS_AT_ONCE], self._labels[LABELS_AT_ONCE:]
            try:
                await self._take_labels(orjson.dumps(some), "application/json")
            except (Refused, orjson.JSONEncodeError):
                self._dropped["labels_refused"] += len(some)


def checkpoint_name(source: TailSource) -> str:
    """One for each pattern, whatever its place among the sources."""
    about = f"{source.format}\0{source.path}"
    return f"tail-{blake2b(about.encode(), digest_size=6).hexdigest()}.checkpoint"


def _end_of(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - SCHEMA_BYTES_MAX))
            return file.read(SCHEMA_BYTES_MAX)
    except OSError:
        return b""
