"""Calls, from the records of the edge's journal: statuses, times, exchanges, and what is lost."""

import gzip
import itertools
import struct
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edge.journal import CLOSED, FROM_CLIENT, FROM_SERVER, KEPT, OPENED, UNTOLD, Record
from agent.exchange import Exchange
from agent.sources import grpc_calls
from agent.sources.grpc_calls import CallEnded
from tests.sources.call_wire import CANCEL, PATH, Wire
from tests.wire.h2 import (
    DATA,
    END_STREAM,
    GOAWAY,
    PREFACE,
    RST,
    Client,
    Server,
    frame,
    message,
)


@pytest.fixture
def wire() -> Wire:
    return Wire().opened()


def test_every_call_is_counted_and_one_that_was_not_kept_gives_no_exchange(wire: Wire) -> None:
    wire.asks(1)
    wire.answers(1)
    assert wire.calls == [
        CallEnded(
            version="7", path=PATH, grpc_status="OK", status=200, outcome="ok", duration_s=1.0,
            first_byte_s=1.0,
        )
    ]  # fmt: skip
    assert wire.begun_paths == [PATH]
    assert wire.exchanges == []


def test_a_kept_call_becomes_an_exchange_of_its_messages(wire: Wire) -> None:
    wire.kept(1)
    wire.asks(1, ("x-request-id", "req-1"), ("authorization", "secret"), ("x-client", "c"))
    wire.answers(1)
    (exchange,) = wire.exchanges
    assert (exchange.method, exchange.path, exchange.status) == ("POST", PATH, 200)
    assert (exchange.request_body, exchange.response_body) == (b"question", b"answer")
    assert (exchange.id, exchange.id_from, exchange.minted) == ("req-1", "x-request-id", False)
    assert exchange.request_headers == {
        "content-type": "application/grpc", "x-request-id": "req-1", "x-client": "c",
    }  # fmt: skip
    assert (exchange.weight, exchange.draw, exchange.uniform) == (4.0, 0.25, True)
    assert not exchange.request_truncated
    assert not exchange.response_truncated
    assert (exchange.version, exchange.duration_s, exchange.first_body_s) == ("7", 1.0, 1.0)


def test_ids_are_taken_in_their_order_of_precedence(wire: Wire) -> None:
    trace = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
    wire.kept(1)
    wire.asks(1, trace, ("ce-id", "event"))
    wire.kept(3)
    wire.asks(3, trace)
    wire.kept(5)
    wire.asks(5, ("traceparent", f"00-{'0' * 32}-{'b' * 16}-01"), ("x-request-id", "not one"))
    for stream in (1, 3, 5):
        wire.answers(stream)
    ids = [(one.id, one.id_from) for one in wire.exchanges]
    assert ids[:2] == [("event", "ce-id"), (f"{'a' * 32}-{'b' * 16}", "traceparent")]
    assert ids[2][1] == "minted"
    assert len(ids[2][0]) == 32


@pytest.mark.parametrize(
    ("number", "name", "status", "outcome"),
    [
        (3, "INVALID_ARGUMENT", 400, "ok"),
        (14, "UNAVAILABLE", 503, "ok"),
        (4, "DEADLINE_EXCEEDED", 504, "timeout"),
        (1, "CANCELLED", 499, "client_disconnect"),
        (99, "UNKNOWN", 500, "ok"),
    ],
)
def test_trailers_alone_are_an_answer(
    wire: Wire, number: int, name: str, status: int, outcome: str
) -> None:
    wire.kept(1)
    wire.asks(1)
    wire.tell(FROM_SERVER, wire.server.refuses(1, number))
    (call,) = wire.calls
    assert (call.grpc_status, call.status, call.outcome) == (name, status, outcome)
    assert wire.exchanges[0].status == status
    assert wire.exchanges[0].response_truncated  # no message came


def test_an_answer_without_a_status_is_unknown(wire: Wire) -> None:
    wire.asks(1)
    head = wire.server.headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    wire.tell(FROM_SERVER, head + frame(DATA, END_STREAM, 1))
    assert wire.calls[0].grpc_status == "UNKNOWN"


def test_a_proxy_in_between_answers_in_http(wire: Wire) -> None:
    wire.asks(1)
    wire.tell(FROM_SERVER, wire.server.headers(1, [(":status", "503")], ends=True))
    assert (wire.calls[0].grpc_status, wire.calls[0].status) == ("UNAVAILABLE", 503)


def test_early_hints_are_not_the_answer(wire: Wire) -> None:
    wire.asks(1)
    wire.tell(FROM_SERVER, wire.server.headers(1, [(":status", "103")]))
    wire.answers(1)
    assert (wire.calls[0].grpc_status, wire.calls[0].first_byte_s) == ("OK", 2.0)


def test_a_client_that_resets_has_left_or_has_waited_long_enough(wire: Wire) -> None:
    wire.asks(1)
    wire.tell(FROM_CLIENT, frame(RST, 0, 1, CANCEL))
    wire.asks(3, ("grpc-timeout", "1S"))
    wire.tell(FROM_CLIENT, frame(RST, 0, 3, CANCEL))
    wire.asks(5, ("grpc-timeout", "1H"))
    wire.tell(FROM_CLIENT, frame(RST, 0, 5, CANCEL))
    assert [(call.grpc_status, call.outcome) for call in wire.calls] == [
        ("CANCELLED", "client_disconnect"),
        ("DEADLINE_EXCEEDED", "timeout"),
        ("CANCELLED", "client_disconnect"),
    ]


def test_a_server_that_resets_says_why(wire: Wire) -> None:
    wire.asks(1)
    wire.tell(FROM_SERVER, frame(RST, 0, 1, b"\0\0\0\x07"))
    assert (wire.calls[0].grpc_status, wire.calls[0].status) == ("UNAVAILABLE", 503)


def test_what_comes_after_the_end_of_a_call_changes_nothing(wire: Wire) -> None:
    wire.asks(1)
    wire.answers(1)
    wire.tell(FROM_CLIENT, frame(RST, 0, 1, CANCEL))
    wire.tell(FROM_SERVER, frame(RST, 0, 1, CANCEL) + frame(GOAWAY, 0, 0, bytes(8)))
    assert len(wire.calls) == 1
    assert not wire.dropped


@pytest.mark.parametrize(
    ("by", "name", "outcome"),
    [
        (1, "UNAVAILABLE", "upstream_unreachable"),
        (0, "CANCELLED", "client_disconnect"),
    ],
)
def test_a_connection_that_ends_ends_its_calls(
    wire: Wire, by: int, name: str, outcome: str
) -> None:
    wire.asks(1)
    wire.tell(CLOSED, stream=by)
    assert [(call.grpc_status, call.outcome) for call in wire.calls] == [(name, outcome)]


def test_streaming_calls_are_counted_and_not_decoded(wire: Wire) -> None:
    wire.kept(1)
    wire.asks(1)
    head = wire.server.headers(1, [(":status", "200"), ("content-type", "application/grpc")])
    wire.tell(FROM_SERVER, head)
    for _ in range(3):
        wire.tell(FROM_SERVER, frame(DATA, 0, 1, message(b"part")))
    wire.tell(FROM_SERVER, wire.server.ends(1, 0))
    assert (wire.calls[0].grpc_status, wire.calls[0].first_byte_s) == ("OK", 1.0)
    assert wire.calls[0].duration_s == 5.0
    assert wire.exchanges == []


def test_many_calls_on_one_connection_end_in_any_order(wire: Wire) -> None:
    for stream in range(1, 41, 2):
        wire.kept(stream)
        wire.asks(stream, ("x-request-id", f"r{stream}"))
    for stream in reversed(range(1, 41, 2)):
        wire.answers(stream)
    assert [one.id for one in wire.exchanges] == [f"r{n}" for n in reversed(range(1, 41, 2))]
    assert len(wire.calls) == 20


def test_a_packed_message_is_unpacked_and_one_that_cannot_be_is_counted(wire: Wire) -> None:
    for stream, packed in ((1, gzip.compress(b"question")), (3, b"no gzip")):
        wire.kept(stream)
        asked = wire.client.asks(stream, PATH, b"", ("grpc-encoding", "gzip"))
        whole = asked[:-14] + frame(DATA, END_STREAM, stream, message(packed, flag=1))
        wire.tell(FROM_CLIENT, whole)
        wire.answers(stream)
    assert [one.request_body for one in wire.exchanges] == [b"question"]
    assert wire.dropped == {"grpc_encoding": 1}


def test_a_message_of_which_the_edge_lost_a_part_says_so(wire: Wire) -> None:
    wire.kept(1)
    asked = wire.client.asks(1, PATH, b"question")
    wire.tell(FROM_CLIENT, asked[: -len(message(b"question")) - 9])
    wire.answers(1)
    assert wire.exchanges[0].request_truncated
    assert not wire.exchanges[0].response_truncated


def test_health_checks_are_counted_and_no_exchanges(wire: Wire) -> None:
    wire.kept(1)
    wire.asks(1, path="/grpc.health.v1.Health/Check")
    wire.answers(1)
    assert len(wire.calls) == 1
    assert wire.exchanges == []


def test_plain_http2_gives_exchanges_as_any_other(wire: Wire) -> None:
    wire.kept(1)
    headers = [(":method", "POST"), (":path", "/v1/models/m:predict?a=b"), ("ce-id", "e")]
    body = frame(DATA, END_STREAM, 1, b'{"instances": [[1]]}')
    wire.tell(FROM_CLIENT, wire.client.headers(1, headers) + body)
    answer = wire.server.headers(1, [(":status", "200"), ("content-type", "application/json")])
    wire.tell(FROM_SERVER, answer + frame(DATA, END_STREAM, 1, b'{"predictions": [0]}'))
    (exchange,) = wire.exchanges
    assert (exchange.path, exchange.query) == ("/v1/models/m:predict", "a=b")
    assert exchange.response_body == b'{"predictions": [0]}'
    assert (wire.calls[0].grpc_status, wire.calls[0].status) == (None, 200)


def test_plain_http2_that_is_reset_counts_as_an_error(wire: Wire) -> None:
    wire.tell(FROM_CLIENT, wire.client.headers(1, [(":method", "GET"), (":path", "/")], ends=True))
    wire.tell(FROM_SERVER, frame(RST, 0, 1, b"\0\0\0\x02"))
    assert (wire.calls[0].status, wire.calls[0].grpc_status) == (500, None)


# What is lost.


def test_a_lost_chunk_of_headers_ends_the_connection_and_nothing_is_guessed(wire: Wire) -> None:
    wire.kept(1)
    wire.asks(1, ("x-tenant", "a"))
    wire.client.asks(3, PATH, b"question", ("x-tenant", "b"))  # the edge could not ship it
    wire.tell(UNTOLD)
    wire.answers(1)
    wire.asks(5, ("x-tenant", "b"))
    wire.answers(5)
    assert wire.calls == []
    assert wire.exchanges == []
    assert wire.lost_paths == [PATH]
    assert wire.dropped == {"http2_call_lost": 1}


def test_headers_that_refer_to_what_was_lost_end_the_connection(wire: Wire) -> None:
    wire.client.asks(1, PATH, b"question", ("x-tenant", "a"))  # never arrives, and nobody says so
    wire.tell(FROM_CLIENT, wire.client.asks(3, PATH, b"question", ("x-tenant", "a")))
    wire.answers(3)
    assert wire.dropped == {"http2_headers_malformed": 1}
    assert wire.calls == []


def test_other_connections_go_on_when_one_is_given_up(wire: Wire) -> None:
    wire.tell(FROM_CLIENT, frame(DATA, 0, 0, b"broken"))
    wire.client, wire.server = Client(), Server()
    wire.opened(2)
    wire.tell(FROM_CLIENT, wire.client.asks(1, PATH, b"q"), connection=2)
    wire.tell(FROM_SERVER, wire.server.answers(1, b"a"), connection=2)
    assert len(wire.calls) == 1
    assert wire.dropped == {"http2_frame_malformed": 1}


def test_records_of_a_connection_that_was_never_opened_are_passed_over() -> None:
    wire = Wire()
    wire.asks(1)
    wire.answers(1)
    wire.tell(CLOSED)
    assert wire.calls == []
    assert not wire.dropped


def test_a_channel_that_ends_loses_the_calls_that_are_open(wire: Wire) -> None:
    wire.asks(1)
    wire.reader.close()
    assert wire.lost_paths == [PATH]


def test_bodies_that_are_held_are_bounded(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "HELD_BYTES_MAX", 20)
    for stream in (1, 3):
        wire.kept(stream)
        wire.asks(stream)
    wire.answers(1)
    wire.answers(3)
    assert wire.dropped["grpc_memory"] > 0
    assert wire.exchanges[-1].request_truncated
    wire.kept(5)
    wire.asks(5)
    wire.tell(FROM_SERVER, wire.server.refuses(5, 3))
    assert wire.exchanges[-1].request_body == b"question"  # what was held was given back


def test_what_a_lost_connection_held_is_given_back(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_calls, "HELD_BYTES_MAX", 40)
    for _ in range(3):
        wire.kept(1)
        wire.asks(1)
        wire.tell(UNTOLD)
        wire.client, wire.server = Client(), Server()
        wire.opened()
    wire.kept(1)
    wire.asks(1)
    wire.answers(1)
    assert not wire.exchanges[0].request_truncated
    assert "grpc_memory" not in wire.dropped


def test_streams_and_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_calls, "STREAMS_MAX", 2)
    monkeypatch.setattr(grpc_calls, "CONNECTIONS_MAX", 2)
    wire = Wire().opened()
    for stream in (1, 3, 5):
        wire.asks(stream)
    assert wire.dropped == {"http2_streams_max": 1}
    for connection in (2, 3):
        wire.tell(OPENED, b"7", connection=connection)
    assert wire.dropped == {
        "http2_streams_max": 1, "http2_connections_max": 1, "http2_call_lost": 2,
    }  # fmt: skip


def conversation() -> list[Record]:
    """Two calls, one kept, as records of one connection."""
    client, server = Client(), Server()
    kept = struct.pack("<Qd?", 0, 1.0, True)
    pieces = [
        (OPENED, 0, b"7"),
        (FROM_CLIENT, 0, client.opening()[len(PREFACE) :]),
        (FROM_SERVER, 0, server.opening()),
        (KEPT, 1, kept),
        (FROM_CLIENT, 0, client.asks(1, PATH, b"question", ("x-request-id", "a"))),
        (FROM_CLIENT, 0, client.asks(3, PATH, b"question", ("x-request-id", "b"))),
        (FROM_SERVER, 0, server.answers(3, b"x") + server.answers(1, b"answer")),
        (CLOSED, 0, b""),
    ]
    return [
        Record(what=what, connection=1, stream=stream, at=1.0, payload=payload)
        for what, stream, payload in pieces
    ]


def results(records: list[Record]) -> tuple[list[CallEnded], list[Exchange], Counter[str]]:
    wire = Wire()
    wire.reader.take(records)
    return wire.calls, wire.exchanges, wire.dropped


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_how_records_were_cut_does_not_matter(cuts: list[int]) -> None:
    pieces = []
    sizes = itertools.cycle(cuts)
    for record in conversation():
        rest = record.payload
        if record.what in (FROM_CLIENT, FROM_SERVER):
            while rest:
                size = next(sizes)
                pieces.append(replace(record, payload=rest[:size]))
                rest = rest[size:]
        else:
            pieces.append(record)
    calls, exchanges, dropped = results(pieces)
    assert not dropped
    assert len(calls) == 2
    assert [(one.id, one.response_body) for one in exchanges] == [("a", b"answer")]


@given(st.data())
def test_nothing_escapes_whatever_records_hold(data: st.DataObject) -> None:
    records = conversation()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(records) - 1))
        change = data.draw(st.sampled_from(["drop", "double", "swap", "damage"]))
        if change == "drop" and len(records) > 1:
            del records[at]
        elif change == "double":
            records.insert(at, records[at])
        elif change == "swap":
            records[0], records[at] = records[at], records[0]
        elif records[at].what in (FROM_CLIENT, FROM_SERVER) and records[at].payload:
            payload = bytearray(records[at].payload)
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
            records[at] = replace(records[at], payload=bytes(payload))
    wire = Wire()
    wire.reader.take(records)
    wire.reader.close()
    assert len(wire.begun_paths) == len(wire.calls) + len(wire.lost_paths)
