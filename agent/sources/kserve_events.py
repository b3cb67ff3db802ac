"""What KServe's logger (and Seldon's) sends, as halves of exchanges and as whole exchanges.

The events name no path, carry the request's content type on the response too, and hide the
request's headers in an attribute: all of that is undone here and nowhere else. Do not take the
content type of a response at its word.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.exchange import Exchange, IdOrigin
from agent.inference import acceptable_id
from agent.sources.event_pairing import Half, Pair, Side
from agent.sources.source import kept_headers
from agent.wire.cloudevents import CloudEvent, EventError, EventLimits, json_attribute, unpacked

_TYPE: Final = re.compile(r"\.inference\.(request|response)$")
_LOOK_BYTES: Final = 4096
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
_HEADERS_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How events are read: which components count, and what a canary is called."""

    components: frozenset[str]
    canary_version: str
    mint: Callable[[], str]


def side_of(event: CloudEvent) -> Side | None:
    """Request or response by the event's type; None for an event about something else."""
    found = _TYPE.search(event.type)
    if found is None:
        return None
    return "request" if found[1] == "request" else "response"


def counts(event: CloudEvent, components: frozenset[str]) -> bool:
    """Whether the component that sent it is one to be watched; a nameless one is."""
    component = event.extensions.get("component", "")
    return not component or component in components


def half_of(event: CloudEvent, side: Side, now: float) -> Half:
    """The half, under the key that both halves share.

    A transformer and its predictor may pass one id on: the component belongs to the key. Seldon
    gives each event an id of its own, and names the exchange in `requestid`.
    """
    names = ("namespace", "inferenceservicename", "component", "endpoint", "modelid")
    about = (event.extensions.get(name, "") for name in names)
    key = (event.extensions.get("requestid") or event.id, *about)
    return Half(key=key, side=side, event=event, arrived_at=now)


def exchange_of(pair: Pair, reading: Reading) -> Exchange:
    """The exchange whose two halves have met."""
    asked, said = pair.request.event, pair.response.event
    headers = _request_headers(asked, said)
    id, id_from = _identity(headers, pair.request.key[0], reading.mint)
    started_at = asked.time if asked.time is not None else pair.request.arrived_at
    ended_at = said.time if said.time is not None else pair.response.arrived_at
    is_canary = asked.extensions.get("endpoint", "") == "canary"
    return Exchange(
        id=id,
        minted=id_from == "minted",
        id_from=id_from,
        source="push",
        version=reading.canary_version if is_canary else "",
        slot="candidate" if is_canary else "stable",
        method="POST",
        path=path_of(asked, said),
        query="",
        request_headers=headers,
        request_body=asked.data,
        request_truncated=False,
        status=200,  # no other answer is ever sent as an event
        response_headers={"content-type": _response_type(said)},
        response_body=said.data,
        response_truncated=False,
        started_at=started_at,
        first_byte_s=None,
        duration_s=max(0.0, ended_at - started_at),
        outcome="ok",
        weight=1.0,
    )


def path_of(asked: CloudEvent, said: CloudEvent) -> str:
    """The path that such a request must have had: events do not say, decoders want to know."""
    about = asked.extensions
    name = _NAME.sub("_", about.get("modelid") or about.get("inferenceservicename") or "model")
    look, answer = asked.data[:_LOOK_BYTES], said.data[:_LOOK_BYTES]
    v2 = f"/v2/models/{name}/infer"
    if b'"instances"' in look:
        return f"/v1/models/{name}:predict"
    if b'"inputs"' in look and (b'"datatype"' in look or b'"outputs"' in answer):
        return v2
    if b'"messages"' in look:
        return "/openai/v1/chat/completions"
    if b'"prompt"' in look:
        return "/openai/v1/completions"
    if b'"input"' in look and b'"embedding"' in answer:
        return "/openai/v1/embeddings"
    if b'"predictions"' in answer:
        return f"/v1/models/{name}:predict"
    if b'"outputs"' in answer:
        return v2
    return "/"


def _request_headers(asked: CloudEvent, said: CloudEvent) -> dict[str, str]:
    """The content type, the headers that KServe was told to pass on, and who it is about."""
    headers: dict[str, str] = {}
    passed = json_attribute(asked.extensions.get("metadata") or said.extensions.get("metadata"))
    if isinstance(passed, dict):
        for name, values in list(passed.items())[:_HEADERS_MAX]:
            value = values[0] if isinstance(values, list) and values else values
            if isinstance(value, str):
                headers[name.lower()] = value
    # The body is unpacked already, and its type stands in an attribute of its own.
    headers.pop("content-encoding", None)
    if asked.content_type:
        headers["content-type"] = asked.content_type
    return kept_headers(headers)


def _identity(
    headers: Mapping[str, str], key_id: str, mint: Callable[[], str]
) -> tuple[str, IdOrigin]:
    chosen = headers.get("x-request-id")
    if acceptable_id(chosen):
        return str(chosen), "x-request-id"
    if acceptable_id(key_id):
        return key_id, "ce-id"
    return mint(), "minted"


def _response_type(said: CloudEvent) -> str:
    """KServe writes the request's content type on the response: JSON is told by its first byte."""
    if said.data.lstrip()[:1] in (b"{", b"["):
        return "application/json"
    return said.content_type or "application/octet-stream"


def is_record(value: Any) -> bool:
    """Whether this is one of the JSON records that KServe writes to a blob store, or several."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and "reqType" in first and "bytes" in first


def event_of_record(record: Any, limits: EventLimits) -> CloudEvent:
    """A blob store's record as the event it would have been. Raises `EventError`."""
    if not is_record(record) or isinstance(record, list):
        raise EventError("event_malformed", "no record of KServe's logger")
    id, type, data = record.get("id"), record["reqType"], record["bytes"] or ""
    if not (isinstance(id, str) and id and isinstance(type, str) and isinstance(data, str)):
        raise EventError("event_malformed", "id, reqType and bytes must be text")
    try:
        body = base64.b64decode(data, validate=True)
    except ValueError:
        raise EventError("event_data", "bytes is no base64") from None
    about = {
        "inferenceservicename": record.get("inferenceService"),
        "namespace": record.get("namespace"),
        "component": record.get("component"),
        "endpoint": record.get("endpoint"),
    }
    content_type = record.get("contentType")
    return CloudEvent(
        id=id,
        type=type,
        source="",
        time=None,
        content_type=content_type if isinstance(content_type, str) else "",
        extensions={name: value for name, value in about.items() if isinstance(value, str)},
        data=unpacked(body, "", limits.data_bytes_max),
    )
