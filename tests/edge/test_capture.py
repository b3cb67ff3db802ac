"""What analysis gets to see, and that its absence, slowness or death never touches traffic."""

import asyncio
import gc

import pytest

from agent.edge import channel
from agent.edge.capture import Capture
from agent.edge.capture_cost import TIMED_CALLS, trimmed_mean
from agent.edge.counters import Counters
from agent.edge.draw import DRAWS, draw
from agent.edge.settings import EdgeSettings
from tests.edge.house import OK, House, Peer, Server

POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


async def talk(client: Peer, upstream: Server, request: bytes = POST, times: int = 1) -> bytes:
    """Requests and answers through the edge; the last answer."""
    answer = b""
    for _ in range(times):
        await client.send(request)
        server = upstream.peers[-1] if upstream.peers else await upstream.accept()
        await server.exactly(len(request))
        await server.send(OK)
        answer = await client.until(b"\r\n\r\nok")
    return answer


async def test_an_exchange_arrives_whole(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, version="7", sampling_rate=1.0)
    analysis = house.analysis()
    client = await house.client()
    request = POST.replace(b"Host: a", b"Host: a\r\nx-request-id: r-1\r\nCookie: secret")
    await talk(client, upstream, request)
    exchange = await analysis.exchange()
    assert (exchange.id, exchange.minted, exchange.id_from) == ("r-1", False, "x-request-id")
    assert (exchange.version, exchange.slot, exchange.source) == ("7", "stable", "proxy")
    assert (exchange.method, exchange.path) == ("POST", "/v1/models/m:predict")
    assert (exchange.request_body, exchange.response_body) == (b"hello", b"ok")
    assert "cookie" not in exchange.request_headers
    assert not exchange.request_truncated
    assert not exchange.response_truncated
    assert (exchange.status, exchange.outcome, exchange.weight) == (200, "ok", 1.0)
    assert 0.0 <= (exchange.first_byte_s or -1.0) <= exchange.duration_s < 10.0


async def test_the_id_in_the_answer_is_the_id_of_the_exchange(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0)
    analysis = house.analysis()
    client = await house.client()
    answer = await talk(client, upstream)
    exchange = await analysis.exchange()
    assert exchange.minted
    assert f"x-remora-request-id: {exchange.id}\r\n".encode() in answer


async def test_capture_is_cut_and_says_so_but_traffic_is_not(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0, capture_bytes_max=200)
    analysis = house.analysis()
    client = await house.client()
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    await client.send(request)
    server = await upstream.accept()
    assert await server.exactly(len(request)) == request
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"y" * 100_000)
    await client.head()
    assert await client.exactly(100_000) == b"y" * 100_000
    exchange = await analysis.exchange()
    assert exchange.request_truncated
    assert exchange.response_truncated
    assert 0 < len(exchange.request_body) < 200
    assert 0 < len(exchange.response_body) < 200


async def test_sampling_keeps_its_share_and_weighs_it(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    edge.capture.set_sampling(rate=0.25, salt=b"s")
    kept = [edge.capture.begin(b"id-%d" % number) for number in range(4_000)]
    tapes = [tape for tape in kept if tape is not None]
    assert abs(len(tapes) - 1_000) < 4 * (4_000 * 0.25 * 0.75) ** 0.5
    assert {tape.rates.weight for tape in tapes} == {4.0}
    edge.capture.set_sampling(rate=0.5, salt=b"s")
    for number, tape in enumerate(kept):
        if tape is not None:
            assert edge.capture.begin(b"id-%d" % number) is not None


async def test_sampling_says_nothing_about_the_slot(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    edge.capture.set_sampling(rate=0.5, salt=edge.router.salt)
    ids = [b"id-%d" % number for number in range(4_000)]
    both = sum(edge.capture.begin(id) is not None and edge.router.hash(id) < 1 << 63 for id in ids)
    assert abs(both - 1_000) < 4 * (4_000 * 0.25 * 0.75) ** 0.5


async def test_the_rate_is_changed_from_analysis(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    analysis = house.analysis()
    analysis.channel.send_sampling(rate=1.0, salt=b"other")
    await house.until(lambda: edge.router.salt == b"other")
    client = await house.client()
    await talk(client, upstream)
    assert (await analysis.exchange()).request_body == b"hello"


async def test_an_analysis_that_never_reads_costs_exchanges_and_nothing_else(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0, outbox_bytes_max=10_000, flush_records=4)
    house.channel_end(buffer_bytes=2_048)
    client = await house.client()
    await talk(client, upstream, times=500)
    assert edge.counters.drops["channel_full"] > 300
    assert edge.counters.kept + edge.counters.drops["channel_full"] == 500
    assert edge.counters.cells("1")[0].codes[1] == 500
    assert edge.capture.held_bytes == 0


async def test_an_analysis_that_reads_again_gets_whole_records(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0, outbox_bytes_max=20_000, flush_records=4)
    end = house.channel_end(buffer_bytes=2_048)
    client = await house.client()
    await talk(client, upstream, times=200)
    decoder = channel.FrameDecoder()
    frames: list[tuple[int, bytes]] = []
    while sum(kind == channel.EXCHANGE for kind, _ in frames) < edge.counters.kept:
        data = await asyncio.get_running_loop().sock_recv(end, 1_000)
        frames += decoder.feed(data)
    for kind, payload in frames:
        if kind == channel.EXCHANGE:
            assert channel.decode_exchange(payload).request == POST


async def test_a_new_channel_starts_with_counters_and_whole_records(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0, outbox_bytes_max=20_000)
    house.channel_end(buffer_bytes=2_048)
    client = await house.client()
    await talk(client, upstream, times=100)
    analysis = house.analysis()
    snapshot = await analysis.snapshot()
    assert snapshot.start_id == edge.counters.start_id
    assert snapshot.drops["channel_replaced"] > 0
    (route,) = snapshot.routes
    assert route.codes["2xx"] == 100
    assert sum(route.duration_counts) == sum(route.first_byte_counts) == 100
    await talk(client, upstream)
    assert (await analysis.exchange()).request_body == b"hello"
    assert analysis.channel.malformed == {}


async def test_an_analysis_that_dies_is_no_reason_to_fail_a_request(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0)
    end = house.channel_end()
    client = await house.client()
    await talk(client, upstream)
    end.close()
    await talk(client, upstream, times=20)
    await house.until(lambda: edge.counters.drops["channel_closed"] > 0)
    assert edge.counters.cells("1")[0].codes[1] == 21


async def test_an_analysis_that_talks_nonsense_is_left(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    for nonsense in (
        b"\xff\xff\xff\xff\x01",
        channel.frame(channel.ROUTE, b"not json"),
        channel.frame(channel.ROUTE, b"{}"),
        channel.frame(channel.SAMPLING, b'{"rate": 7, "salt": ""}'),
    ):
        before = edge.counters.drops["channel_broken"]
        house.channel_end().sendall(nonsense)
        await house.until(lambda before=before: edge.counters.drops["channel_broken"] > before)
    client = await house.client()
    await talk(client, upstream)


async def test_counters_come_every_interval(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, counters_s=0.01)
    analysis = house.analysis()
    first = await analysis.snapshot()
    client = await house.client()
    await talk(client, upstream)
    while not (snapshot := await analysis.snapshot()).routes:
        assert snapshot.at >= first.at
    assert snapshot.routes[0].codes["2xx"] == 1
    assert snapshot.upstream_connects == 1
    assert snapshot.client_connections == 1


async def test_errors_in_capture_never_touch_traffic(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> bytes:
        raise RuntimeError("capture is broken")

    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0, capture_bytes_max=10)
    house.analysis()
    client = await house.client()
    monkeypatch.setattr("agent.edge.capture.exchange_head", fails)
    await talk(client, upstream)
    monkeypatch.undo()
    monkeypatch.setattr(Capture, "fit", fails)
    await talk(client, upstream)
    monkeypatch.undo()
    monkeypatch.setattr("agent.edge.capture.Tape", fails)
    await talk(client, upstream)
    assert edge.counters.drops["capture_failed"] >= 3


async def test_capture_has_a_limit_over_all_exchanges(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0, capture_total_bytes_max=50)
    analysis = house.analysis()
    first, second = await house.client(), await house.client()
    await first.send(POST)
    one = await upstream.accept()
    await one.until(b"hello")
    await talk_to_new(second, upstream)
    await one.send(OK)
    await first.until(b"\r\n\r\nok")
    assert edge.counters.drops["capture_memory"] == 1
    assert edge.capture.held_bytes == 0
    await house.until(lambda: analysis.channel.malformed["head_incomplete"] == 1)


async def talk_to_new(client: Peer, upstream: Server) -> None:
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    await server.send(OK)
    await client.until(b"\r\n\r\nok")


async def test_a_request_that_failed_is_told_without_a_response(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0)
    analysis = house.analysis()
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    server.close()
    await client.head()
    exchange = await analysis.exchange()
    assert (exchange.outcome, exchange.status) == ("upstream_unreachable", 0)
    assert exchange.first_byte_s is None
    assert exchange.request_body == b"hello"


async def test_connections_leave_no_cycles_behind(house: House) -> None:
    """The edge runs without the garbage collector: whatever is left in a cycle is lost memory."""
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0)
    house.analysis()
    client = await house.client()
    await talk(client, upstream)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            client = await house.client()
            await talk(client, upstream)
            client.close()
            await house.until(lambda: len(edge.clients) <= 1)
        await house.settle()
        from agent.edge.proxy import Client

        # By type alone: isinstance would ask lazy objects of other libraries for their class.
        assert sum(type(found) is Client for found in gc.get_objects()) <= 2
    finally:
        gc.enable()


# Strategies beyond the uniform rate.


ERROR = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"


async def ask(client: Peer, upstream: Server, id: bytes, answer: bytes) -> None:
    request = POST.replace(b"Host: a", b"Host: a\r\nx-request-id: " + id)
    await client.send(request)
    server = upstream.peers[-1] if upstream.peers else await upstream.accept()
    await server.exactly(len(request))
    await server.send(answer)
    await client.until(answer[-2:])


async def test_what_failed_is_kept_though_nothing_else_is(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=0.0)
    analysis = house.analysis()
    analysis.channel.send_sampling(rate=0.0, salt=b"s", errors=1.0, error_codes=["5xx"])
    await house.until(lambda: edge.capture.on)
    client = await house.client()
    for number in range(20):
        await ask(client, upstream, b"fine-%d" % number, OK)
    await ask(client, upstream, b"bad", ERROR)
    exchange = await analysis.exchange()
    assert (exchange.id, exchange.status, exchange.request_body) == ("bad", 500, b"hello")
    assert (exchange.weight, exchange.uniform) == (1.0, False)
    assert exchange.draw > 0.0
    assert (edge.counters.kept, edge.capture.held_bytes) == (1, 0)


async def test_an_answer_that_came_in_pieces_is_judged_by_its_status(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    analysis = house.analysis()
    edge.capture.set_sampling(rate=0.0, salt=b"s", errors=1.0, error_codes=["5xx"])
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.exactly(len(POST))
    await server.send(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n")
    await client.until(b"no\r\n")
    await server.send(b"0\r\n\r\n")
    assert (await analysis.exchange()).response_body == b"no"
    await talk(client, upstream)
    assert (edge.counters.kept, edge.capture.held_bytes) == (1, 0)


async def test_a_server_that_is_gone_is_a_failure_as_well(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    analysis = house.analysis()
    codes = ["5xx", "upstream_unreachable"]
    edge.capture.set_sampling(rate=0.0, salt=b"s", errors=1.0, error_codes=codes)
    client = await house.client()
    await client.send(POST)
    server = await upstream.accept()
    await server.until(b"hello")
    server.close()
    await client.head()
    exchange = await analysis.exchange()
    assert (exchange.outcome, exchange.uniform) == ("upstream_unreachable", False)


async def test_each_rule_compares_its_rate_with_the_same_draw(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    salt = b"s"
    rates = {"rate": 0.1, "also": 0.4, "errors": 0.8}
    edge.capture.set_sampling(salt=salt, error_codes=["5xx"], **rates)
    house.analysis()
    sent: list[channel.ExchangeRecord] = []

    def put(parts: list[bytes], size: int) -> None:
        sent.append(channel.decode_exchange(b"".join(parts)[channel.FRAME_HEAD_BYTES :]))

    edge.outbox.put = put  # type: ignore[method-assign]
    for number in range(2_000):
        id = b"id-%d" % number
        u = draw(id, salt) / DRAWS
        for code, rate in ((1, 0.4), (4, 0.8)):
            sent.clear()
            tape = edge.capture.begin(id, b"")
            assert (tape is not None) == (u < 0.8)
            if tape is None:
                continue
            edge.capture.keep(tape, 0, b"1", id, 0, 0, 0.0, None, 0.0, False, code)
            assert bool(sent) == (u < rate)
            for record in sent:
                assert record.draw / DRAWS == u
                assert record.uniform == (u < 0.1)
                assert record.weight == 1 / rate
    assert edge.capture.held_bytes == 0


async def test_what_capturing_costs_is_measured_by_the_calls_after_a_snapshot(
    house: House,
) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream, sampling_rate=1.0)
    analysis = house.analysis()
    edge.outbox.send_counters()
    client = await house.client()
    await talk(client, upstream, times=TIMED_CALLS + 20)
    assert edge.capture.begin == edge.capture._begin
    assert edge.capture.keep == edge.capture._keep
    while (snapshot := await analysis.snapshot()).kept <= TIMED_CALLS:
        edge.outbox.send_counters()
    assert 0.0 < snapshot.capture_s < 1.0


def test_nothing_is_reckoned_for_requests_that_nobody_looked_at() -> None:
    settings = EdgeSettings.of({"sampling_salt": "00"})
    capture = Capture(settings, Counters(()), outbox=None)  # type: ignore[arg-type]
    cost = capture.cost
    assert cost.total_s(requests=0, kept=0, sent_s=0.0) == 0.0
    for number in range(TIMED_CALLS):
        capture.begin(b"%d" % number)
    whole = cost.total_s(requests=1_000, kept=0, sent_s=0.5) - 0.5
    assert 0.0 < whole < 0.1
    capture.set_sampling(rate=0.0, salt=b"s")
    assert cost.total_s(requests=9_000, kept=0, sent_s=0.5) == whole + 0.5
    capture.set_sampling(rate=1.0, salt=b"s")
    assert cost.total_s(requests=10_000, kept=0, sent_s=0.5) == pytest.approx(2 * whole + 0.5)


def test_interrupted_calls_are_left_out_of_the_mean() -> None:
    assert trimmed_mean([2e-6] * 40 + [5e-3]) == pytest.approx(2e-6)
    assert trimmed_mean([0.0, 0.0, 1.0]) == 0.0
