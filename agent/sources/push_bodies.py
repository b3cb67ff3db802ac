"""What is made of the bodies that are pushed: events paired into exchanges, rows into inferences.

No sockets and no waiting here but for giving the event loop its turns: `push.py` reads bodies and
answers. Whatever is taken goes into `queue`, and `Room` was asked before: keep nothing beside it.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, TypeAlias

import orjson

from agent.admin.view import Refused
from agent.config import PushSource
from agent.decoders.body import parsed
from agent.decoders.decoder import DecodeError, DecodeLimits
from agent.edge.minting import Minter
from agent.exchange import Exchange
from agent.inference import Inference
from agent.sources.arrow_rows import ARROW_STREAM, arrow_entries
from agent.sources.event_pairing import Half, Pairing
from agent.sources.kserve_events import (
    Reading,
    counts,
    event_of_record,
    exchange_of,
    half_of,
    is_record,
    side_of,
)
from agent.sources.push_door import Room
from agent.sources.rows import RowReason, RowSettings, Taken, take_rows
from agent.sources.sampler import Sampler
from agent.wire.cloudevents import (
    BATCH,
    STRUCTURED,
    CloudEvent,
    EventError,
    EventLimits,
    parse_events,
    parsed_json,
    unpacked,
)

ROWS_AT_ONCE: Final = 1_000
REJECTED_SHOWN_MAX: Final = 100
_LINES_TYPES: Final = ("ndjson", "jsonl", "jsonlines")
_STATUS: Final[Mapping[str, int]] = {
    "event_too_large": 413,
    "too_many_events": 413,
    "event_encoding": 415,
}
Json: TypeAlias = dict[str, Any]
# The body and its content type as they came; the counts to answer with. May raise `Refused`.
TakeLabels: TypeAlias = Callable[[bytes, str], Awaitable[Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Work for analysis, and the room it takes."""

    taken: Exchange | Inference
    bytes: int


class Bodies:
    """Bodies in, work for analysis in `queue`; what is lost on the way is counted in `dropped`."""

    def __init__(
        self,
        source: PushSource,
        *,
        limits: DecodeLimits,
        sampler: Sampler,
        take_labels: TakeLabels,
        room: Room,
    ) -> None:
        minter = Minter()

        def mint() -> str:
            return minter.mint().decode()

        self._reading = Reading(
            components=frozenset(source.components),
            canary_version=source.canary_version,
            mint=mint,
        )
        self._limits = EventLimits(data_bytes_max=source.body_bytes_max)
        self._row_limits = replace(limits, body_bytes_max=source.body_bytes_max)
        self._rows = RowSettings(names=source.rows, limits=limits, mint=mint)
        self._sampler = sampler
        self._take_labels = take_labels
        self._room = room
        # Of bodies of rows one is taken apart at a time: as objects they are ten times as big.
        self._one_at_a_time = asyncio.Lock()
        self.pairing = Pairing(
            wait_s=source.pair_s, bytes_max=source.pair_bytes_max, halves_max=source.pair_max
        )
        self.queue: deque[Waiting] = deque()
        self.dropped: Counter[str] = Counter()

    # Events.

    def take_events(self, body: bytes, headers: Mapping[str, str]) -> Json:
        """The events of one request; raises `Refused` where there are none, or no room."""
        try:
            events, bad = self._events(body, headers)
        except EventError as error:
            self.dropped[error.reason] += 1
            raise Refused(_STATUS.get(error.reason, 400), str(error)[:300]) from None
        self.dropped.update(problem.reason for problem in bad)
        now = time.time()
        for place, event in enumerate(events):
            if self._room.full:
                # Sent again as a whole: what was taken before is known by its id then.
                self.dropped["shed"] += len(events) - place
                raise Refused(429, "too much is waiting for analysis: send it again later")
            self._take_event(event, now)
        return {"events": len(events), "rejected": len(bad)}

    def _events(
        self, body: bytes, headers: Mapping[str, str]
    ) -> tuple[list[CloudEvent], list[EventError]]:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if "ce-id" in headers or kind in (BATCH, STRUCTURED):
            return parse_events(body, headers, self._limits)
        data = unpacked(body, headers.get("content-encoding", ""), self._limits.data_bytes_max)
        # Only KServe's own records, made for a blob store, come without an event around them.
        if b'"reqType"' not in data:
            raise EventError("event_malformed", "no ce- header, and no content type of an event")
        value = parsed_json(data, self._limits)
        records = value if isinstance(value, list) else [value]
        if not is_record(value):
            raise EventError("event_malformed", "no record of KServe's logger")
        if len(records) > self._limits.events_max:
            raise EventError("too_many_events", f"more than {self._limits.events_max}")
        return self._of_records(records)

    def _of_records(self, records: Sequence[Any]) -> tuple[list[CloudEvent], list[EventError]]:
        events: list[CloudEvent] = []
        bad: list[EventError] = []
        room = self._limits.data_bytes_max
        for record in records:
            try:
                event = event_of_record(record, replace(self._limits, data_bytes_max=room))
            except EventError as error:
                bad.append(error)
                continue
            room -= len(event.data)
            events.append(event)
        return events, bad

    def _take_event(self, event: CloudEvent, now: float) -> None:
        side = side_of(event)
        if side is None:
            self.dropped["event_other_type"] += 1
            return
        if not counts(event, self._reading.components):
            self.dropped["event_other_component"] += 1
            return
        half: Half = half_of(event, side, now)
        pair = self.pairing.take(half, now)
        if pair is None:
            return
        exchange = exchange_of(pair, self._reading)
        if self._sampler.keeps(exchange.id):
            size = pair.request.event.size + pair.response.event.size
            self._wait(self._sampler.weigh(exchange), size)

    def _wait(self, taken: Exchange | Inference, size: int) -> None:
        self._room.bytes += size
        self._room.items += 1
        self.queue.append(Waiting(taken=taken, bytes=size))

    # Rows.

    async def take_rows(self, body: bytes, headers: Mapping[str, str]) -> Json:
        """The rows of one request, all or none; raises `Refused`."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        async with self._one_at_a_time:
            if self._room.full:
                self.dropped["shed"] += 1
                raise Refused(429, "too much is waiting for analysis: send it again later")
            try:
                body = unpacked(
                    body, headers.get("content-encoding", ""), self._limits.data_bytes_max
                )
            except EventError as error:
                self.dropped[error.reason] += 1
                raise Refused(_STATUS.get(error.reason, 400), str(error)[:300]) from None
            taken = await self._rows_of(self._entries(body, kind))
        accepted = sum(inference.row_count for inference in taken.inferences)
        share = len(body) // (len(taken.inferences) or 1) + 512
        for inference in taken.inferences:
            self._wait(inference, share)
        self.dropped.update(reason.value for _, reason in taken.refused)
        answer: Json = {
            "rows": accepted,
            "sampled_out": taken.sampled_out,
            "rejected": [
                {"index": place, "reason": reason.value}
                for place, reason in taken.refused[:REJECTED_SHOWN_MAX]
            ],
            "rejected_total": len(taken.refused),
        }
        if taken.labels:
            answer["labels"] = await self._labelled(taken.labels)
        return answer

    async def _rows_of(self, entries: Sequence[Any]) -> Taken:
        """In turns, so that others are served meanwhile."""
        taken = Taken()
        now = time.time()
        numbered = iter(enumerate(entries))
        while part := list(islice(numbered, ROWS_AT_ONCE)):
            some = take_rows(part, self._rows, self._sampler, now=now)
            taken.inferences += some.inferences
            taken.labels += some.labels
            taken.refused += some.refused
            taken.sampled_out += some.sampled_out
            await asyncio.sleep(0)
        return taken

    def _entries(self, body: bytes, kind: str) -> Sequence[Any]:
        """The rows of a body, as plain values; raises `Refused`."""
        rows_max = self._row_limits.rows_max
        if kind == ARROW_STREAM:
            entries = arrow_entries(body, rows_max=rows_max)
        elif not body.strip():
            raise Refused(400, "the body is empty: send a row, an array of them or JSON Lines")
        else:
            entries = self._json_entries(body, kind)
        if len(entries) > rows_max:
            raise Refused(413, f"more than {rows_max} rows in one body: send several")
        return entries

    def _json_entries(self, body: bytes, kind: str) -> Sequence[Any]:
        if not any(name in kind for name in _LINES_TYPES):
            try:
                whole = parsed(body, self._row_limits)
                return whole if isinstance(whole, list) else [whole]
            except DecodeError as error:
                if b"\n" not in body.strip():
                    raise Refused(400, f"the body is no JSON: {error}"[:300]) from None
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) > self._row_limits.rows_max:
            return lines
        entries = [self._line(line) for line in lines]
        if all(entry is RowReason.NOT_JSON for entry in entries):
            raise Refused(400, "the body is no JSON: send a row, an array of them or JSON Lines")
        return entries

    def _line(self, line: bytes) -> Any:
        """A line's row; what is none is refused with the rows, by its place."""
        try:
            return parsed(line, self._row_limits)
        except DecodeError:
            return RowReason.NOT_JSON

    async def _labelled(self, labels: Sequence[Json]) -> Json:
        try:
            return await self._take_labels(orjson.dumps(labels), "application/json")
        except (Refused, orjson.JSONEncodeError) as error:
            self.dropped["labels_refused"] += len(labels)
            return {"error": str(error.reason if isinstance(error, Refused) else error)[:300]}
