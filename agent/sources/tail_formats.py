"""What a line says, in each of the formats that servers write: rows, exchanges, or only a request.

Pure, with the time as an argument. A line that cannot be read raises `LineError` with a reason from
a closed set; a line that is no inference and is not meant to be one gives nothing.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

import orjson

from agent.config import TailSource
from agent.decoders.body import parsed
from agent.decoders.decoder import DecodeError, DecodeLimits
from agent.decoders.path import Missing, Path, parse_path
from agent.exchange import Exchange
from agent.inference import Inference, acceptable_id
from agent.sources.grpc_calls import CallEnded
from agent.sources.rows import RowSettings, take_rows
from agent.sources.sampler import Sampler
from agent.wire.cloudevents import moment

LINE_REASONS: Final = ("line_not_json", "line_malformed", "line_without_answer")
SECONDS_MAX: Final = 1e11


class LineError(ValueError):
    """A line that says nothing. The caller counts it by reason and moves on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason  # of LINE_REASONS or RowReason: a closed set


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """A line of an access log: that there was a request, and how it went."""

    path: str
    status: int
    duration_s: float
    at: float | None

    def as_call(self, version: str) -> CallEnded:
        """The same, as requests are counted that no edge has seen."""
        return CallEnded(
            version=version,
            path=self.path,
            grpc_status=None,
            status=self.status,
            outcome="ok",
            duration_s=self.duration_s,
            first_byte_s=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one line was worth."""

    taken: Sequence[Exchange | Inference] = ()
    labels: Sequence[Mapping[str, Any]] = ()
    request: LoggedRequest | None = None


@dataclass(slots=True, kw_only=True)
class Context:
    """Of the line that is being read: an id for it where it names none, and now."""

    id: str = ""
    now: float = 0.0
    # Of BentoML's monitor that writes the file: column to role, from the schema beside it.
    roles: Mapping[str, str] = field(default_factory=dict)


class Format(Protocol):
    def read(self, line: bytes, context: Context) -> Said:
        """Raises `LineError`."""
        ...


def format_of(source: TailSource, limits: DecodeLimits, sampler: Sampler) -> Format:
    """The reader of the configured format."""
    rows = RowLines(source, limits, sampler)
    if source.format == "sagemaker":
        return SageMakerLines(limits, sampler)
    if source.format == "torchserve":
        return TorchServeLines(rows)
    if source.exchange is not None:
        return ExchangeLines(source, limits, sampler)
    return rows


class RowLines:
    """A line is a row: json_lines and BentoML's monitor."""

    def __init__(self, source: TailSource, limits: DecodeLimits, sampler: Sampler) -> None:
        self._limits = limits
        self._sampler = sampler
        self._names = source.rows
        self._is_bento = source.format == "bentoml"

    def read(self, line: bytes, context: Context) -> Said:
        entry = _json(line, self._limits)
        if self._is_bento and isinstance(entry, dict):
            entry = self._by_role(entry, context.roles)
        settings = RowSettings(
            names=self._names,
            limits=self._limits,
            mint=lambda: context.id,
            local_time=self._is_bento,
            # What Python's logging and BentoML's tracing add to each record.
            ignored=_BENTO_EXTRAS if self._is_bento else frozenset(),
        )
        taken = take_rows([(0, entry)], settings, self._sampler, now=context.now)
        if taken.refused:
            raise LineError(taken.refused[0][1].value, "not a row")
        return Said(taken=taken.inferences, labels=taken.labels)

    def _by_role(self, entry: dict[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
        """The record with its prediction and label where a row has them, by the schema's roles."""
        names = self._names
        found = dict(entry)
        for role, name in (("prediction", names.prediction), ("target", names.label)):
            column = next((column for column, its in roles.items() if its == role), None)
            if column is not None and column in found and name not in found:
                found[name] = found.pop(column)
        return found


_BENTO_EXTRAS: Final = frozenset({"trace_id", "taskName", "message", "span_id"})


class ExchangeLines:
    """A line of JSON holds the bodies of a request and its response, at configured paths."""

    def __init__(self, source: TailSource, limits: DecodeLimits, sampler: Sampler) -> None:
        paths = source.exchange
        assert paths is not None
        self._limits = limits
        self._sampler = sampler
        self._path = paths.path
        self._request, self._response = parse_path(paths.request), parse_path(paths.response)
        names = ("id", "at", "status", "duration_s", "version")
        self._others = {
            name: parse_path(text) for name in names if (text := getattr(paths, name)) is not None
        }

    def read(self, line: bytes, context: Context) -> Said:
        entry = _json(line, self._limits)
        asked, said = _found(entry, self._request), _found(entry, self._response)
        if asked is None or said is None:
            raise LineError("line_without_answer", "no request or no response in it")
        about = {name: _found(entry, path) for name, path in self._others.items()}
        version = about.get("version")
        exchange = _exchange(
            path=self._path,
            id=about.get("id"),
            context=context,
            at=_at(about.get("at")),
            request=(_body(asked), _content_type(asked)),
            response=(_body(said), _content_type(said)),
            status=_whole(about.get("status"), 200),
            duration_s=_seconds(about.get("duration_s")),
            version=str(version) if acceptable_id(str(version)) and version is not None else "",
        )
        return _sampled(exchange, self._sampler)


class SageMakerLines:
    """SageMaker's data capture: both bodies of an invocation, each in its own encoding."""

    def __init__(self, limits: DecodeLimits, sampler: Sampler) -> None:
        self._limits = limits
        self._sampler = sampler

    def read(self, line: bytes, context: Context) -> Said:
        entry = _json(line, self._limits)
        captured = entry.get("captureData") if isinstance(entry, dict) else None
        about = entry.get("eventMetadata") if isinstance(entry, dict) else None
        if not isinstance(captured, dict) or not isinstance(about, dict):
            raise LineError("line_malformed", "no captureData and eventMetadata")
        asked, said = captured.get("endpointInput"), captured.get("endpointOutput")
        if not isinstance(asked, dict) or not isinstance(said, dict):
            raise LineError("line_without_answer", "only one side was captured")
        chosen = about.get("inferenceId")
        exchange = _exchange(
            path="/invocations",
            id=chosen if acceptable_id(chosen) else about.get("eventId"),
            context=context,
            at=moment(_text(about.get("inferenceTime"))),
            request=_captured(asked),
            response=_captured(said),
        )
        return _sampled(exchange, self._sampler)


class TorchServeLines:
    """TorchServe's access log, and rows that a handler printed as JSON into the model's log.

    The access log holds no bodies: of a request it says path, status and milliseconds.
    """

    def __init__(self, rows: RowLines) -> None:
        self._rows = rows

    def read(self, line: bytes, context: Context) -> Said:
        found = _ACCESS.search(line)
        if found is not None:
            return Said(
                request=LoggedRequest(
                    path=found["path"].partition(b"?")[0].decode("utf-8", "replace"),
                    status=int(found["status"]),
                    duration_s=int(found["ms"]) / 1_000,
                    at=_local(line[:23]),
                )
            )
        printed = _PRINTED.search(line)
        if printed is None:
            return Said()  # a log has lines of all kinds
        context.now = _local(line[:23]) or context.now
        return self._rows.read(line[printed.end() - 1 :], context)


_ACCESS: Final = re.compile(
    rb'/\S+ "(?:GET|POST|PUT|DELETE|OPTIONS|HEAD|gRPC) (?P<path>\S{1,2048}) HTTP/[0-9.]{1,3}" '
    rb"(?P<status>[1-5][0-9]{2}) (?P<ms>[0-9]{1,9})\s*$"
)
_PRINTED: Final = re.compile(rb"\bMODEL_LOG - \{")

Body: TypeAlias = tuple[bytes, str]


def _exchange(
    *,
    path: str,
    id: object,
    context: Context,
    at: float | None,
    request: Body,
    response: Body,
    status: int = 200,
    duration_s: float = 0.0,
    version: str = "",
) -> Exchange:
    named = acceptable_id(id)
    return Exchange(
        id=str(id) if named else context.id,
        minted=not named,
        id_from="x-request-id" if named else "minted",
        source="tail",
        version=version,
        slot="stable",
        method="POST",
        path=path,
        query="",
        request_headers={"content-type": request[1]} if request[1] else {},
        request_body=request[0],
        request_truncated=False,
        status=status,
        response_headers={"content-type": response[1]} if response[1] else {},
        response_body=response[0],
        response_truncated=False,
        started_at=context.now if at is None else at,
        first_byte_s=None,
        duration_s=duration_s,
        outcome="ok",
        weight=1.0,
    )


def _sampled(exchange: Exchange, sampler: Sampler) -> Said:
    if not sampler.keeps(exchange.id):
        return Said()
    return Said(taken=(sampler.weigh(exchange),))


def _captured(side: Mapping[str, Any]) -> Body:
    """The body of one side. Raises `LineError`."""
    data, encoding = side.get("data"), side.get("encoding", "")
    if isinstance(data, dict | list):
        data = _dumped(data)  # some containers' JSON is captured as it is
    if not isinstance(data, str):
        raise LineError("line_malformed", "data is no text")
    content_type = _text(side.get("observedContentType"))
    if encoding != "BASE64":
        return _encoded(data), content_type or _TYPES.get(str(encoding), "")
    try:
        return base64.b64decode(data, validate=True), content_type
    except ValueError:
        raise LineError("line_malformed", "data is no base64") from None


_TYPES: Final = {"CSV": "text/csv", "JSON": "application/json"}


def _json(line: bytes, limits: DecodeLimits) -> Any:
    try:
        return parsed(line, limits)
    except DecodeError as error:
        raise LineError("line_not_json", error.detail) from None


def _found(entry: Any, path: Path) -> Any:
    try:
        return path.find(entry)
    except Missing:
        return None


def _body(value: Any) -> bytes:
    return _encoded(value if isinstance(value, str) else _dumped(value))


def _dumped(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, RecursionError):
        raise LineError("line_malformed", "a body that cannot be written") from None


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise LineError("line_malformed", "half a surrogate in a body") from None


def _content_type(value: Any) -> str:
    is_text = isinstance(value, str) and value.lstrip()[:1] not in ("{", "[")
    return "text/plain" if is_text else "application/json"


def _text(value: Any) -> str:
    return value[:256] if isinstance(value, str) else ""


def _at(value: Any) -> float | None:
    if isinstance(value, str):
        return moment(value)
    return _seconds(value) or None


def _seconds(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < SECONDS_MAX else 0.0


def _whole(value: Any, default: int) -> int:
    is_status = isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600
    return value if is_status else default


def _local(text: bytes) -> float | None:
    """The time that log4j writes: of the machine it runs on, with a comma before milliseconds."""
    try:
        return datetime.fromisoformat(text.decode("ascii").replace(",", ".")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def bento_roles(schema_log: bytes) -> dict[str, str]:
    """Column to role, from what BentoML's monitor wrote beside its data: the last whole line."""
    for line in reversed(schema_log.split(b"\n")):
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        columns = found.get("columns") or found.get("schema") if isinstance(found, dict) else None
        if isinstance(columns, list):
            return {
                str(column.get("name")): str(column.get("role"))
                for column in columns
                if isinstance(column, dict)
            }
    return {}
