"""Shares, sticky keys, leases and routes; what the counters and outcomes say about them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edge.counters import BOUNDS_S, VERSIONS_MAX, Cell, Counters
from agent.edge.pool import Pool
from agent.edge.routing import CANDIDATE, ROUTE_BYTES_MAX, STABLE, Router, Routes
from agent.sources.proxy import Route, Upstream
from tests.edge.house import OK, House

A, B = "127.0.0.1:1001", "127.0.0.1:1002"


def new_router(salt: bytes = b"salt") -> Router:
    router = Router(
        new_pool=lambda address: Pool(address, idle_s=4.0, idle_max=8),
        counters=Counters(("other",)),
        salt=salt,
    )
    router.set_stable(address=A, version="1")
    return router


def route(generation: int, weight: float, *, lease_s: float = 30.0) -> dict[str, object]:
    return {
        "generation": generation,
        "stable": {"address": A, "version": "1"},
        "candidate": {"address": B, "version": "2"},
        "weight": weight,
        "lease_s": lease_s,
    }


KEYS = [b"client-%d" % number for number in range(10_000)]


@pytest.mark.parametrize("weight", [0.0, 0.01, 0.25, 0.5, 1.0])
def test_the_candidate_gets_its_share(weight: float) -> None:
    router = new_router()
    router.route(route(1, weight), 0.0)
    chosen = sum(router.pick(key, 0.0).code == CANDIDATE for key in KEYS)
    spread = 4 * (len(KEYS) * weight * (1 - weight)) ** 0.5
    assert abs(chosen - len(KEYS) * weight) <= spread


def test_a_client_keeps_its_slot_while_the_weight_grows() -> None:
    router = new_router()
    moved: set[bytes] = set()
    for generation, weight in enumerate((0.01, 0.1, 0.5, 1.0)):
        router.route(route(generation, weight), 0.0)
        now = {key for key in KEYS if router.pick(key, 0.0).code == CANDIDATE}
        assert moved <= now
        moved = now
    assert len(moved) == len(KEYS)


def test_another_salt_moves_other_clients() -> None:
    first, second = new_router(b"one"), new_router(b"two")
    for router in (first, second):
        router.route(route(1, 0.5), 0.0)
    same = sum(first.pick(key, 0.0).code == second.pick(key, 0.0).code for key in KEYS)
    assert abs(same - len(KEYS) / 2) < 4 * (len(KEYS) / 4) ** 0.5


def test_an_older_generation_changes_nothing() -> None:
    router = new_router()
    router.route(route(5, 1.0), 0.0)
    router.route(route(4, 0.0), 0.0)
    assert router.weight(0.0) == 1.0
    assert router.generation == 5


def test_the_share_falls_to_nothing_when_the_lease_is_not_renewed() -> None:
    router = new_router()
    router.route(route(1, 1.0, lease_s=10.0), 100.0)
    assert router.pick(b"k", 110.0).code == CANDIDATE
    assert router.pick(b"k", 110.1).code == STABLE
    assert router.weight(110.1) == 0.0
    router.route(route(1, 1.0, lease_s=10.0), 120.0)
    assert router.pick(b"k", 121.0).code == CANDIDATE


def test_promotion_keeps_the_connections_of_the_candidate() -> None:
    router = new_router()
    router.route(route(1, 1.0), 0.0)
    candidate = router.candidate
    assert candidate is not None
    pool, old = candidate.pool, router.stable.pool
    router.route(
        {**route(2, 0.0), "stable": {"address": B, "version": "2"}, "candidate": None}, 0.0
    )
    assert router.stable.pool is pool
    assert router.weight(0.0) == 0.0
    assert old.closed
    assert not pool.closed


@pytest.mark.parametrize(
    "broken",
    [
        {"generation": "x"},
        {"stable": {"address": "nowhere", "version": "1"}},
        {"candidate": {"address": "nowhere", "version": "1"}},
        {"weight": None},
        {"lease_s": "soon"},
        {"stable": {}},
    ],
)
def test_a_broken_route_changes_nothing(broken: dict[str, object]) -> None:
    router = new_router()
    router.route(route(1, 0.5), 0.0)
    with pytest.raises((KeyError, TypeError, ValueError)):
        router.route({**route(2, 1.0), **broken}, 0.0)
    assert (router.generation, router.weight(0.0)) == (1, 0.5)


def test_routes_are_matched_in_order_and_remembered_up_to_a_limit() -> None:
    routes = Routes((("a", "/a"), ("b", "/b.*z"), ("a", "/c")))
    assert routes.names == ("other", "a", "b")
    assert [routes.index(path) for path in (b"/a/1", b"/b/z", b"/b/y", b"/c", b"/")] == [
        1,
        2,
        0,
        1,
        0,
    ]
    for number in range(10_000):
        routes.index(b"/x%d" % number)
    assert len(routes._known) <= 4_096


def test_a_route_is_searched_anywhere_in_a_path_and_long_paths_cost_no_more() -> None:
    routes = Routes((("predict", "predict|infer"), ("end", "x$"), ("slow", ".*.*y")))
    assert routes.names[routes.index(b"/v1/models/m:predict")] == "predict"
    assert routes.names[routes.index(b"/v2/models/m/infer")] == "predict"
    long = b"/" + b"x" * 60_000
    assert routes.names[routes.index(long + b"infer")] == "end"
    assert max(map(len, routes._known)) == ROUTE_BYTES_MAX


@given(st.floats(0, 1e6, allow_nan=False))
def test_a_duration_is_counted_once_under_its_bound(duration_s: float) -> None:
    cell = Cell()
    cell.finished(0, 200, duration_s, None)
    (bucket,) = [index for index, count in enumerate(cell.duration) if count]
    assert bucket == len(BOUNDS_S) or duration_s <= BOUNDS_S[bucket]
    assert bucket == 0 or duration_s > BOUNDS_S[bucket - 1]
    assert sum(cell.first_byte) == 0


def test_versions_without_end_do_not_grow_the_counters() -> None:
    counters = Counters(("other",))
    busy = counters.cells("busy")[0]
    busy.in_flight = 1
    for number in range(10 * VERSIONS_MAX):
        counters.cells(str(number))
    assert len(counters._versions) == VERSIONS_MAX
    assert counters.cells("busy")[0] is busy


async def test_the_client_key_decides_and_outcomes_of_both_slots_are_told(house: House) -> None:
    stable, candidate = house.upstream(), house.upstream()
    edge = await house.start(stable, client_key="X-User")
    analysis = house.analysis()
    analysis.channel.send_route(
        Route(
            generation=1,
            stable=Upstream(address=stable.address, version="1"),
            candidate=Upstream(address=candidate.address, version="2"),
            weight=0.5,
        )
    )
    await house.until(lambda: edge.router.candidate is not None)
    seen: dict[bytes, bytes] = {}
    client = await house.client()
    for round_number in range(2):
        for number in range(8):
            user = b"user-%d" % number
            await client.send(b"GET / HTTP/1.1\r\nx-user: " + user + b"\r\n\r\n")
            slot = edge.router.pick(user, 0.0)
            server = stable if slot.code == STABLE else candidate
            peer = server.peers[0] if server.peers else await server.accept()
            await peer.head()
            await peer.send(OK)
            answer = await client.until(b"\r\n\r\nok")
            version = answer.split(b"x-remora-version: ")[1][:1]
            assert seen.setdefault(user, version) == version
            outcome = await analysis.outcome()
            assert outcome.version.encode() == version
            assert outcome.slot == ("stable" if version == b"1" else "candidate")
            assert (outcome.status, outcome.outcome) == (200, "ok")
            assert outcome.key == edge.router.hash(user)
            assert 0 <= (outcome.first_byte_s or 0.0) <= outcome.duration_s
        assert round_number in (0, 1)
    assert set(seen.values()) == {b"1", b"2"}


async def test_without_a_candidate_there_are_no_outcomes(house: House) -> None:
    upstream = house.upstream()
    edge = await house.start(upstream)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    server = await upstream.accept()
    await server.head()
    await server.send(OK)
    await client.until(b"\r\n\r\nok")
    assert edge.router.slots_with_outcomes() == []


async def test_a_bake_is_watched_though_nobody_is_routed_to_the_old_model(house: House) -> None:
    stable, before = house.upstream(), house.upstream()
    edge = await house.start(stable)
    analysis = house.analysis()
    analysis.channel.send_route(
        Route(
            generation=1,
            stable=Upstream(address=stable.address, version="2"),
            candidate=Upstream(address=before.address, version="1"),
            weight=0.0,
        )
    )
    await house.until(lambda: edge.router.candidate is not None)
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    server = await stable.accept()
    await server.head()
    await server.send(OK)
    await client.until(b"\r\n\r\nok")
    outcome = await analysis.outcome()
    assert (outcome.slot, outcome.version) == ("stable", "2")


async def test_outcomes_of_a_slot_that_was_replaced_keep_its_version(house: House) -> None:
    stable, candidate = house.upstream(), house.upstream()
    edge = await house.start(stable)
    edge.router.route(
        {
            "generation": 1,
            "stable": {"address": stable.address, "version": "1"},
            "candidate": {"address": candidate.address, "version": "2"},
            "weight": 1.0,
            "lease_s": 30.0,
        },
        1e9,  # a lease that does not run out during the test
    )
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    server = await candidate.accept()
    await server.head()
    edge.router.route(
        {
            "generation": 2,
            "stable": {"address": stable.address, "version": "1"},
            "candidate": None,
            "weight": 0.0,
            "lease_s": 30.0,
        },
        0.0,
    )
    edge.router.expire(0.0)
    await server.send(OK)
    assert b"x-remora-version: 2" in await client.until(b"\r\n\r\nok")
    analysis = house.analysis()
    outcome = await analysis.outcome()
    assert (outcome.slot, outcome.version) == ("candidate", "2")
