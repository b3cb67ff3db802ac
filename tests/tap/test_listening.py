"""From a block of packets to frames for analysis, and to numbers."""

import json
from typing import Any

import pytest

from agent.edge import channel
from agent.edge.draw import draw
from agent.sampling import edge_keeps
from agent.sources.proxy import to_counters, to_exchange
from agent.tap.filter import FlowSampling
from agent.tap.listening import Listening
from agent.tap.losses import LOSSES
from agent.tap.settings import TapSettings
from agent.wire.packet import ETHERNET
from tests.tap.ringed import block, framed
from tests.wire.wires import SERVER, Connection, ethernet, ipv4, tcp

SALT = b"salt of these tests"


def request(id: str = "", *, body: bytes = b'{"instances": [[1]]}', path: str = "/p") -> bytes:
    named = f"x-request-id: {id}\r\n" if id else ""
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{named}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def response(status: str = "200 OK", *, body: bytes = b'{"predictions": [1]}') -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Ear:
    """A listening tap whose records are collected."""

    def __init__(self, *, flow_weight: float = 1.0, **settings: Any) -> None:
        self.frames: list[bytes] = []
        self.listening = Listening(
            TapSettings(port=SERVER, version="v7", sampling_salt=SALT.hex(), **settings),
            put=lambda parts, size: self.frames.append(self._whole(parts, size)),
            flow_weight=flow_weight,
        )

    def _whole(self, parts: list[bytes], size: int) -> bytes:
        whole = b"".join(parts)
        assert len(whole) == size
        return whole

    def hear(self, *wires: Connection) -> "Ear":
        for wire in wires:
            frames = framed(wire.sent)
            self.listening.block(block(frames), 0, len(frames), ETHERNET)
        return self

    @property
    def records(self) -> list[channel.ExchangeRecord]:
        found = channel.FrameDecoder().feed(b"".join(self.frames))
        return [channel.decode_exchange(payload) for _, payload in found]

    @property
    def lost(self) -> dict[str, int]:
        return {reason: count for reason, count in self.listening.losses.counts.items() if count}


def talk(*ids: str, port: int = 40_000) -> Connection:
    wire = Connection(client_port=port).open()
    for id in ids:
        wire.ask(request(id), 30).answer(response(), 50)
    return wire


def test_exchanges_come_out_as_they_passed() -> None:
    ear = Ear().hear(talk("one"))
    (record,) = ear.records
    exchange = to_exchange(record, source="tap")
    assert (exchange.id, exchange.id_from, exchange.version) == ("one", "x-request-id", "v7")
    assert exchange.request_body == b'{"instances": [[1]]}'
    assert exchange.response_body == b'{"predictions": [1]}'
    assert (exchange.status, exchange.outcome, exchange.weight) == (200, "ok", 1.0)
    assert exchange.uniform
    # Packets are a millisecond apart: two of the handshake, two of the request, two of the answer.
    assert exchange.started_at == pytest.approx(100.003)
    assert exchange.first_byte_s == pytest.approx(0.002)
    assert exchange.first_body_s == pytest.approx(0.002)
    assert exchange.duration_s == pytest.approx(0.003)


def test_a_request_without_id_is_given_one() -> None:
    (first,), (second,) = Ear().hear(talk("")).records, Ear().hear(talk("")).records
    assert len(first.id) == 32
    assert first.id != second.id
    assert channel.ID_ORIGINS[first.id_from] == "minted"


def test_what_is_kept_is_what_the_edge_would_keep() -> None:
    ids = [f"request-{number}" for number in range(300)]
    ear = Ear(sampling_rate=0.3).hear(talk(*ids))
    kept = [record.id.decode() for record in ear.records]
    assert kept == [id for id in ids if edge_keeps(id, rate=0.3, salt=SALT)]
    assert all(record.weight == pytest.approx(1 / 0.3) for record in ear.records)
    assert all(record.draw == draw(record.id, SALT) for record in ear.records)
    assert ear.listening.losses.whole == 300
    assert ear.listening.budget.held == 0


def test_analysis_changes_what_is_kept() -> None:
    ear = Ear().hear(talk("a"))
    ear.listening.told(channel.SAMPLING, {"rate": 0.0, "salt": SALT.hex()})
    ear.hear(talk("b", port=40_001))
    ear.listening.told(channel.ROUTE, {"weight": 1.0})
    assert [record.id for record in ear.records] == [b"a"]
    with pytest.raises(ValueError, match="rate"):
        ear.listening.told(channel.SAMPLING, {"rate": 2.0, "salt": ""})


def test_failures_are_kept_at_a_rate_of_their_own() -> None:
    ear = Ear()
    rates = {"rate": 0.0, "salt": SALT.hex(), "errors": 1.0, "error_codes": ["5xx"]}
    ear.listening.told(channel.SAMPLING, rates)
    wire = Connection().open().ask(request("good")).answer(response())
    wire.ask(request("bad")).answer(response("503 No"))
    ear.hear(wire)
    (record,) = ear.records
    assert (record.id, record.weight, record.uniform) == (b"bad", 1.0, False)
    assert ear.listening.budget.held == 0


def test_a_sample_of_connections_is_weighed_and_is_no_evidence() -> None:
    ear = Ear(flow_weight=4.0, sampling_rate=0.5).hear(talk(*map(str, range(50))))
    assert {(record.weight, record.uniform) for record in ear.records} == {(8.0, False)}


def test_every_exchange_is_counted_whether_kept_or_not() -> None:
    ear = Ear(sampling_rate=0.0, routes=(("predict", "/v1/"),))
    wire = Connection().open().ask(request(path="/v1/m")).answer(response())
    wire.ask(request()).answer(response("404 No")).ask(request())
    ear.hear(wire)
    counters, losses = ear.listening.snapshots(kept=0)
    (_, body), (kind, source) = channel.FrameDecoder().feed(counters + losses)
    routes = {cell.route: cell for cell in to_counters(json.loads(body)).routes}
    assert routes["predict"].codes["2xx"] == 1
    assert (routes["other"].codes["4xx"], routes["other"].in_flight) == (1, 1)
    assert sum(routes["predict"].duration_counts) == 1
    assert kind == channel.SOURCE_COUNTERS
    assert set(json.loads(source)["dropped"]) == {f"tap_{reason}" for reason in LOSSES}


def test_a_client_that_leaves_is_counted_as_such() -> None:
    ear = Ear().hear(Connection().open().ask(request("gone")).reset(from_client=True))
    (record,) = ear.records
    assert channel.OUTCOME_NAMES[record.outcome] == "client_disconnect"
    assert record.response_truncated
    assert record.response == b""
    (cell,) = ear.listening.counters.cells("v7")
    assert cell.in_flight == 0
    assert sum(cell.codes) == 1


def test_cut_bodies_say_so_and_are_no_part_of_statistics() -> None:
    ear = Ear(capture_bytes_max=120).hear(
        Connection().open().ask(request("long", body=b"x" * 500)).answer(response())
    )
    (record,) = ear.records
    assert record.request_truncated
    assert not record.response_truncated
    assert ear.lost == {"truncated": 1}


def test_what_is_no_http_is_counted_by_reason() -> None:
    ear = Ear().hear(
        Connection().open().ask(b"\x16\x03\x01\x00"),
        Connection(client_port=1).open().ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        Connection(client_port=2).open().ask(b"nonsense\r\n\r\n"),
        Connection(client_port=3).answer(response()),
    )
    assert ear.lost == {"tls": 1, "http2": 1, "malformed": 1, "unmatched": 1}


def test_packets_that_are_none_are_counted_by_reason() -> None:
    segment = tcp(40_000, SERVER, 1, 2, 16, b"x")
    frames = [
        (1.0, ethernet(ipv4(segment, fragment=0x2000))),
        (1.0, ethernet(ipv4(segment, protocol=17))),
        (1.0, ethernet(ipv4(segment)[:-1])),
        (1.0, ethernet(bytes(40), 0x0806)),
    ]
    ear = Ear()
    ear.listening.block(block(frames), 0, len(frames), ETHERNET)
    assert ear.lost == {"fragment": 1, "other": 2, "cut": 1}


def test_tags_that_stand_in_the_frame_are_stepped_over() -> None:
    frames = [(at, frame[:12] + b"\x81\0\0\7" + frame[12:]) for at, frame in framed(talk("a").sent)]
    ear = Ear()
    ear.listening.block(block(frames), 0, len(frames), ETHERNET)
    assert [record.id for record in ear.records] == [b"a"]


def test_clocks_that_are_set_back_make_no_negative_times() -> None:
    wire = talk("a")
    for one in wire.sent[-2:]:
        one.at -= 50.0
    (record,) = Ear().hear(wire).records
    assert (record.duration_s, record.first_byte_s) == (0.0, 0.0)


def test_connections_that_are_not_chosen_any_more_end() -> None:
    wires = [Connection(client_port=40_000 + number).open().ask(request()) for number in range(100)]
    ear = Ear(flow_weight=4.0).hear(*wires)
    sampling = FlowSampling(keep=1_024, salt=12_345)
    ear.listening.turn(sampling)
    stay = sum(sampling.keeps(40_000 + number) for number in range(100))
    assert len(ear.listening.flows) == stay
    assert ear.lost == {"rotated": 100 - stay}


def test_completeness_is_of_the_last_minute_and_counts_what_the_kernel_dropped() -> None:
    ear = Ear()
    losses = ear.listening.losses
    shown = [losses.completeness]
    ear.hear(talk(*map(str, range(8))))
    shown.append(losses.completeness)
    losses.counts["unmatched"] += 2
    shown.append(losses.completeness)
    # 34 packets for 8 pairs: 17 dropped ones were four more, of which one shows as a gap as well.
    losses.counts["kernel"] += 17
    losses.counts["gap"] += 1
    shown.append(losses.completeness)
    for _ in range(60):
        losses.tick()
    shown.append(losses.completeness)
    losses.tick()
    shown.append(losses.completeness)
    assert shown == [None, 1.0, 0.8, pytest.approx(8 / 14), pytest.approx(8 / 14), None]
