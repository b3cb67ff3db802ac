"""CloudEvents: the three modes say the same, nothing but `EventError` escapes, bombs stay small."""

import base64
import gzip
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.cloudevents import (
    BATCH,
    STRUCTURED,
    CloudEvent,
    EventError,
    EventLimits,
    json_attribute,
    moment,
    parse_events,
)

LIMITS = EventLimits(data_bytes_max=10_000, nan_bytes_max=1_000, events_max=5)
TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "content-type",
            "content-encoding",
            "ce-id",
            "ce-type",
            "ce-specversion",
            "ce-time",
            "ce-x",
        ]
    ),
    st.sampled_from(
        [
            "",
            "1.0",
            "0.3",
            BATCH,
            STRUCTURED,
            "gzip",
            "deflate",
            "br",
            "%",
            "%7B",
            '"q\\"',
            "\udc80",
        ]
    )
    | st.text(max_size=20),
)


def only(body: bytes, headers: dict[str, str]) -> CloudEvent:
    events, bad = parse_events(body, headers, LIMITS)
    assert not bad
    (event,) = events
    return event


@given(TOKENS, TOKENS, st.binary(max_size=50), st.booleans())
def test_binary_and_structured_mode_say_the_same(
    id: str, type: str, data: bytes, packed: bool
) -> None:
    if data.startswith(b"\x1f\x8b"):
        return
    event = {"specversion": "1.0", "id": id, "type": type, "source": "/a", "datacontenttype": "t/x"}
    encoded = {**event, "data_base64": base64.b64encode(data).decode(), "traceparent": "00-1"}
    structured = only(json.dumps(encoded).encode(), {"content-type": STRUCTURED})
    quoted = {name: value.replace("%", "%25") for name, value in (("id", id), ("type", type))}
    headers = {
        "ce-specversion": "1.0",
        "ce-id": quoted["id"] if not id.startswith('"') else f'"{_escaped(quoted["id"])}"',
        "ce-type": quoted["type"] if not type.startswith('"') else f'"{_escaped(quoted["type"])}"',
        "ce-source": "/a",
        "ce-traceparent": "00-1",
        "content-type": "t/x",
    }
    body = gzip.compress(data) if packed else data
    assert only(body, headers) == structured


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@given(JSON)
def test_data_that_is_json_is_handed_on_as_json(value: Any) -> None:
    event = {"specversion": "1.0", "id": "1", "type": "t", "source": "s", "data": value}
    data = only(json.dumps(event).encode(), {"content-type": STRUCTURED}).data
    assert (json.loads(data) if data else None) == value


@given(st.binary(max_size=200), HEADERS)
def test_whatever_the_bytes_are_nothing_else_escapes(body: bytes, headers: dict[str, str]) -> None:
    try:
        events, _ = parse_events(body, headers, LIMITS)
    except EventError:
        return
    assert all(event.id and event.type for event in events)


@given(st.lists(JSON, max_size=4), st.sampled_from(["", "gzip"]))
def test_whatever_stands_in_a_batch_nothing_else_escapes(entries: Any, encoding: str) -> None:
    body = json.dumps(entries).encode()
    headers = {"content-type": BATCH, "content-encoding": encoding}
    events, bad = parse_events(gzip.compress(body) if encoding else body, headers, LIMITS)
    assert len(events) + len(bad) == len(entries)


EVENT = {"specversion": "1.0", "id": "1", "type": "t", "source": "s"}


def test_one_bad_event_of_a_batch_costs_no_other() -> None:
    entries = [EVENT, 7, {**EVENT, "id": ""}, {**EVENT, "data_base64": "!"}, {**EVENT, "id": "2"}]
    events, bad = parse_events(json.dumps(entries).encode(), {"content-type": BATCH}, LIMITS)
    assert [event.id for event in events] == ["1", "2"]
    assert [error.reason for error in bad] == ["event_malformed", "event_malformed", "event_data"]


@pytest.mark.parametrize("wrap", [gzip.compress, zlib.compress])
def test_a_bomb_is_refused_before_it_is_unpacked(wrap: Any) -> None:
    bomb = wrap(b"\0" * 30_000_000)
    headers = {"ce-id": "1", "ce-type": "t", "ce-specversion": "1.0"}
    encoding = "gzip" if wrap is gzip.compress else "deflate"
    for said in (encoding, "" if encoding == "gzip" else encoding):
        tracemalloc.start()
        try:
            with pytest.raises(EventError) as caught:
                parse_events(bomb, {**headers, "content-encoding": said}, LIMITS)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
        assert caught.value.reason == "event_too_large"


def test_the_events_of_a_batch_share_one_limit() -> None:
    packed = base64.b64encode(gzip.compress(b"\0" * 6_000)).decode()
    entries = [{**EVENT, "id": str(n), "data_base64": packed} for n in range(4)]
    events, bad = parse_events(json.dumps(entries).encode(), {"content-type": BATCH}, LIMITS)
    assert (len(events), {error.reason for error in bad}) == (1, {"event_too_large"})


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"{", STRUCTURED, "event_not_json"),
        (b"[" * 5_000 + b"]" * 5_000, STRUCTURED, "event_not_json"),
        (b"[]", STRUCTURED, "event_malformed"),
        (b"{}", BATCH, "event_malformed"),
        (b"[" + b"1," * 6 + b"1]", BATCH, "too_many_events"),
        (b'{"specversion": "2.0", "id": "1", "type": "t"}', STRUCTURED, "event_version"),
        (b'{"specversion": "1.0", "id": "1"}', STRUCTURED, "event_malformed"),
        (b'{"data": NaN, "x": "' + b"x" * 2_000 + b'"}', STRUCTURED, "event_too_large"),
        (b"{}", "application/json", "event_malformed"),
    ],
)
def test_what_is_no_event_has_its_reason(body: bytes, kind: str, reason: str) -> None:
    with pytest.raises(EventError) as caught:
        parse_events(body, {"content-type": kind}, LIMITS)
    assert caught.value.reason == reason


def test_nan_in_the_data_stays_nan() -> None:
    body = b'{"specversion": "1.0", "id": "1", "type": "t", "data": {"x": NaN}}'
    assert only(body, {"content-type": STRUCTURED}).data == b'{"x": NaN}'


def test_extensions_hold_json_raw_or_percent_encoded() -> None:
    headers = {"ce-id": "1", "ce-type": "t", "ce-specversion": "1.0"}
    for text in ('{"X-A": ["100%"]}', "%7B%22X-A%22%3A%20%5B%22100%25%22%5D%7D"):
        event = only(b"", {**headers, "ce-metadata": text})
        assert json_attribute(event.extensions["metadata"]) == {"X-A": ["100%"]}


def test_times_of_go_have_nanoseconds_and_times_without_a_zone_are_none() -> None:
    assert moment("2026-08-21T10:00:00.123456789Z") == 1787306400.123456
    assert moment("2026-08-21T10:00:00") is None
