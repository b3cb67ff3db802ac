"""Heads that are alike are not read again: what a template lets through is what reading gives."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.edge.framing import Refused, RequestFraming
from agent.edge.heads import HeadReader
from agent.edge.templates import Templates
from tests.edge.house import OK, House

TRACE = b"00-%032x-%016x-01"
LINES = st.lists(
    st.sampled_from(
        [
            b"Content-Type: application/json",
            b"Accept: */*",
            b"Connection: keep-alive",
            b"Connection: x-hop",
            b"x-hop: 1",
            b"X-Remora-Version: forged",
            b"ce-id: ours",
            b"x-user: ann",
        ]
    ),
    max_size=4,
    unique=True,
)


def request(lines: list[bytes], id: bytes, trace: bytes, body: bytes) -> bytes:
    head = [b"POST /v1/models/m:predict HTTP/1.1", b"Host: a", *lines]
    if id:
        head.insert(2, b"x-request-id: " + id)
    if trace:
        head.append(b"traceparent: " + trace)
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", b""]) + body


def framing(templates: Templates | None = None) -> RequestFraming:
    return RequestFraming(HeadReader("x-user", lambda _: 0), templates)


def facts(piece: bytes, head: Any) -> tuple[object, ...]:
    return piece, head.id, head.id_from, head.key, head.keep, head.plain, head.line.path


def anew(data: bytes) -> tuple[object, ...] | None:
    """What somebody who has never seen such a head makes of it; None when it is no whole request"""
    reader = framing()
    try:
        head, piece = reader.begin(data, data.find(b"\r\n\r\n"))
    except Refused:
        return None
    return facts(piece, head) if reader.complete and not reader.rest else None


IDS = st.one_of(st.just(b""), st.from_regex(rb"[A-Za-z0-9._:-]{1,20}", fullmatch=True))
TRACES = st.one_of(
    st.just(b""), st.builds(lambda a, b: TRACE % (a, b), st.integers(0, 9), st.integers(0, 9))
)
SPOILS = st.tuples(
    st.integers(0, 300),
    st.integers(0, 2),
    st.sampled_from(
        [b"", b"\r\n", b"\n", b" ", b":", b"0", b"-", b"\x00", b"\r\nContent-Length: 1", b"5", b"x"]
    ),
)


@given(LINES, IDS, TRACES, st.lists(st.tuples(IDS, TRACES, st.binary(max_size=12)), max_size=5))
def test_what_a_template_lets_through_is_what_reading_gives(
    lines: list[bytes], id: bytes, trace: bytes, others: list[tuple[bytes, bytes, bytes]]
) -> None:
    ours = framing(Templates())
    first = request(lines, id, trace, b"hello")
    ours.begin(first, first.find(b"\r\n\r\n"))
    for other_id, other_trace, body in others:
        data = request(lines, other_id, other_trace, body)
        if ours.alike is None:
            return
        piece = ours.alike(data)
        if piece is not None:
            assert facts(piece, ours.kin) == anew(data)


@settings(max_examples=400)
@given(LINES, IDS, TRACES, st.lists(SPOILS, min_size=1, max_size=3))
def test_a_spoilt_request_is_let_through_only_if_reading_lets_it_through(
    lines: list[bytes], id: bytes, trace: bytes, spoils: list[tuple[int, int, bytes]]
) -> None:
    ours = framing(Templates())
    data = request(lines, id, trace, b"hello")
    ours.begin(data, data.find(b"\r\n\r\n"))
    if ours.alike is None:
        return
    for at, size, spoil in spoils:
        at %= len(data) + 1
        data = data[:at] + spoil + data[at + size :]
    piece = ours.alike(data)
    if piece is not None:
        assert facts(piece, ours.kin) == anew(data)


VARIED = [
    ([b"Content-Type: application/json"], [b"a1", b"a2-longer", b"a3"], [b"", b"", b""]),
    ([b"Connection: keep-alive", b"Accept: */*"], [b"", b"", b""], [b"", b"", b""]),
    ([], [b"", b"", b""], [TRACE % (1, 1), TRACE % (2, 2), TRACE % (3, 3)]),
    ([b"x-user: ann"], [b"a", b"b", b"c"], [TRACE % (1, 1), TRACE % (2, 2), TRACE % (3, 3)]),
]


@pytest.mark.parametrize(("lines", "ids", "traces"), VARIED)
def test_what_clients_send_has_a_template(
    lines: list[bytes], ids: list[bytes], traces: list[bytes]
) -> None:
    ours = framing(Templates())
    bodies = (b"one", b"twelve bytes", b"")
    each = list(zip(ids, traces, bodies, strict=True))
    first = request(lines, *each[0])
    ours.begin(first, first.find(b"\r\n\r\n"))
    assert ours.alike is not None
    for one in each[1:]:
        data = request(lines, *one)
        piece = ours.alike(data)
        assert piece is not None
        assert facts(piece, ours.kin) == anew(data)


@pytest.mark.parametrize(
    "change",
    [
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5", b"Content-Length: 4"),
        (b"Content-Length: 5", b"Content-Length: 05"),
        (b"Content-Length: 5", b"Content-Length: +5"),
        (b"Content-Length: 5", b"Content-Length: 5 "),
        (b"Content-Length: 5", b"Content-Length: "),
        (b"x-request-id: one", b"x-request-id: "),
        (b"x-request-id: one", b"x-request-id: a b"),
        (b"x-request-id: one", b"x-request-id: " + b"a" * 129),
        (b"Host: a", b"Host: b"),
        (b"POST", b"PUT"),
    ],
)
def test_anything_else_is_read_anew(change: tuple[bytes, bytes]) -> None:
    ours = framing(Templates())
    data = request([], b"one", b"", b"hello")
    ours.begin(data, data.find(b"\r\n\r\n"))
    assert ours.alike is not None
    assert ours.alike(data.replace(*change)) is None
    assert ours.alike(data) == data


def test_templates_are_few_and_made_more_and_more_rarely() -> None:
    templates = Templates(learn_every=2)
    for number in range(2_000):
        ours = framing(templates)
        data = request([b"x-number: %d" % number], b"one", b"", b"hello")
        ours.begin(data, data.find(b"\r\n\r\n"))
    assert len(templates._templates) == 16
    assert templates._made < 60


def test_a_client_that_never_repeats_itself_is_left_alone() -> None:
    templates = Templates()
    ours = framing(templates)
    for number in range(1_000):
        data = request([b"x-number: %d" % number], b"one", b"", b"hello")
        ours.begin(data, data.find(b"\r\n\r\n"))
    assert templates._strange + templates._made < 12


async def test_each_request_has_its_own_id_again_and_again(house: House) -> None:
    upstream = house.upstream()
    await house.start(upstream, sampling_rate=1.0)
    analysis = house.analysis()
    client = await house.client()
    server = None
    same = request([], b"same", b"", b"same")
    each = [request([], b"id-%d" % n, b"", b"x" * n) for n in range(5)]
    for data in (same, *each, same, same, each[0]):  # a repeat after its text was another's
        await client.send(data)
        server = server or await upstream.accept()
        assert await server.exactly(len(data)) == data
        await server.send(OK)
        id = data.split(b"x-request-id: ")[1].split(b"\r\n")[0]
        assert b"\r\nx-remora-request-id: %b\r\n" % id in await client.until(b"\r\n\r\nok")
        exchange = await analysis.exchange()
        assert (exchange.id.encode(), exchange.id_from) == (id, "x-request-id")
        assert exchange.request_body == data.split(b"\r\n\r\n", 1)[1]
