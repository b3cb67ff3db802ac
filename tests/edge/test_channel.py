"""The format of the channel: what goes in comes out, however the bytes were cut."""

import asyncio
import itertools
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edge import channel
from agent.edge.channel import ChannelError, ExchangeRecord, FrameDecoder, OutcomeRecord
from agent.exchange import Exchange
from agent.sources.proxy import EdgeChannel, EdgeCounters, Outcome, Route, Upstream, to_exchange

SECONDS = st.floats(0, 1e9, allow_nan=False)
RECORDS = st.builds(
    ExchangeRecord,
    slot=st.integers(0, 1),
    outcome=st.integers(0, 3),
    id_from=st.integers(0, 3),
    id=st.binary(max_size=128),
    version=st.binary(max_size=255),
    request=st.binary(max_size=300),
    request_truncated=st.booleans(),
    response=st.binary(max_size=300),
    response_truncated=st.booleans(),
    started_at=SECONDS,
    first_byte_s=st.none() | SECONDS,
    duration_s=SECONDS,
    weight=st.floats(1, 1e6),
)
SINGLE = st.floats(0, 1e6, width=32)
OUTCOMES = st.builds(
    OutcomeRecord,
    outcome=st.integers(0, 3),
    status=st.integers(0, 599),
    duration_s=SINGLE,
    first_byte_s=st.none() | SINGLE,
    key=st.integers(0, 2**64 - 1),
    at=SECONDS,
)
RECORD = ExchangeRecord(
    slot=0,
    outcome=0,
    id_from=0,
    id=b"id-1",
    version=b"7",
    request=b"POST /v1?x=1 HTTP/1.1\r\nAuthorization: secret\r\nContent-Type: a/b\r\n"
    b"X-User: u\r\nContent-Length: 2\r\n\r\n{}",
    request_truncated=False,
    response=b"HTTP/1.1 200 OK\r\nSet-Cookie: c\r\nContent-Type: a/c\r\n"
    b"Content-Length: 2\r\n\r\n[]",
    response_truncated=False,
    started_at=5.0,
    first_byte_s=0.5,
    duration_s=1.0,
    weight=10.0,
)


@given(RECORDS)
def test_an_exchange_record_comes_back(record: ExchangeRecord) -> None:
    ((kind, payload),) = FrameDecoder().feed(channel.encode_exchange(record))
    assert kind == channel.EXCHANGE
    assert channel.decode_exchange(payload) == record


@given(st.integers(0, 1), st.binary(max_size=255), st.lists(OUTCOMES, max_size=5))
def test_outcomes_come_back(slot: int, version: bytes, records: list[OutcomeRecord]) -> None:
    encoded = b"".join(map(channel.encode_outcome, records))
    ((kind, payload),) = FrameDecoder().feed(channel.outcomes_frame(slot, version, encoded))
    assert kind == channel.OUTCOMES
    assert channel.decode_outcomes(payload) == (slot, version, records)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=6),
    st.lists(st.integers(0, 400), max_size=20),
)
def test_how_the_frames_were_cut_does_not_matter(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(channel.frame(kind, payload) for kind, payload in frames)
    decoder = FrameDecoder()
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = []
    for start, end in itertools.pairwise(places):
        found += decoder.feed(stream[start:end])
    assert found == frames


@given(st.binary(max_size=200))
def test_noise_is_a_channel_error_or_nothing(noise: bytes) -> None:
    for decode in (channel.decode_exchange, channel.decode_outcomes):
        try:
            decode(noise)
        except ChannelError:
            pass


def test_a_frame_over_the_limit_is_refused_at_its_head() -> None:
    decoder = FrameDecoder(payload_bytes_max=10)
    assert decoder.feed(channel.frame(1, b"x" * 10)) == [(1, b"x" * 10)]
    with pytest.raises(ChannelError, match="11 bytes > 10"):
        decoder.feed(channel.frame(1, b"x" * 11)[:5])


def test_only_allowed_headers_become_part_of_an_exchange() -> None:
    exchange = to_exchange(RECORD, headers_also=["X-User", "Authorization"])
    assert exchange.request_headers == {"content-type": "a/b", "x-user": "u"}
    assert exchange.response_headers == {"content-type": "a/c"}
    assert (exchange.method, exchange.path, exchange.query) == ("POST", "/v1", "x=1")
    assert (exchange.request_body, exchange.response_body) == (b"{}", b"[]")
    assert (exchange.id, exchange.minted, exchange.weight) == ("id-1", False, 10.0)


class Heard:
    def __init__(self, sock: socket.socket) -> None:
        self.exchanges: list[Exchange] = []
        self.outcomes: list[Outcome] = []
        self.counters: list[EdgeCounters] = []
        self.channel = EdgeChannel(
            sock, self.exchanges.append, self.outcomes.extend, self.counters.append
        )


async def test_malformed_captures_are_counted_and_the_reading_goes_on() -> None:
    ours, theirs = socket.socketpair()
    heard = Heard(theirs)
    bad = channel.exchange_head(
        slot=0,
        outcome=0,
        id_from=0,
        id=b"x",
        version=b"1",
        request_bytes=4,
        request_truncated=False,
        response_bytes=0,
        response_truncated=False,
        started_at=0.0,
        first_byte_s=None,
        duration_s=0.0,
        weight=1.0,
    )
    ours.sendall(bad + b"junk" + channel.frame(200, b"from the future"))
    ours.sendall(channel.encode_exchange(RECORD))
    ours.close()
    async with asyncio.timeout(5):
        await heard.channel.run()
    assert heard.channel.closed
    assert heard.channel.malformed == {"head_incomplete": 1}
    assert [exchange.id for exchange in heard.exchanges] == ["id-1"]


async def test_a_receiver_that_fails_loses_only_that_exchange() -> None:
    ours, theirs = socket.socketpair()
    seen: list[str] = []

    def take(exchange: Exchange) -> None:
        seen.append(exchange.id)
        if len(seen) == 1:
            raise RuntimeError("the first one is too much")

    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    edge = EdgeChannel(theirs, take, lambda _: None, lambda _: None)
    ours.sendall(channel.encode_exchange(RECORD) * 2)
    ours.close()
    async with asyncio.timeout(5):
        await edge.run()
    assert seen == ["id-1", "id-1"]
    assert edge.malformed == {"receiver": 1}


async def test_a_broken_frame_ends_the_channel() -> None:
    ours, theirs = socket.socketpair()
    heard = Heard(theirs)
    ours.sendall(b"\xff\xff\xff\xff\x01")
    async with asyncio.timeout(5):
        await heard.channel.run()
    assert heard.channel.malformed == {"channel": 1}
    ours.close()


async def test_what_was_sent_before_reading_began_arrives() -> None:
    ours, theirs = socket.socketpair()
    heard = Heard(theirs)
    stable = Upstream(address="127.0.0.1:1", version="1")
    heard.channel.send_route(Route(generation=3, stable=stable))
    heard.channel.send_sampling(rate=0.5, salt=b"\x01")
    reading = asyncio.get_running_loop().create_task(heard.channel.run())
    decoder = FrameDecoder()
    frames: list[tuple[int, bytes]] = []
    ours.setblocking(False)
    while len(frames) < 2:
        frames += decoder.feed(await asyncio.get_running_loop().sock_recv(ours, 65_536))
    assert [kind for kind, _ in frames] == [channel.ROUTE, channel.SAMPLING]
    assert json.loads(frames[0][1])["candidate"] is None
    told = json.loads(frames[1][1])
    assert (told["rate"], told["salt"], told["errors"]) == (0.5, "01", 0.0)
    ours.close()
    await reading
