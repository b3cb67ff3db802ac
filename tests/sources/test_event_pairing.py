"""Halves that meet, that do not, and that come again: against a plain model, in its own time."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.sources.event_pairing import Half, Pair, Pairing, Side
from agent.wire.cloudevents import CloudEvent

SIDES: st.SearchStrategy[Side] = st.sampled_from(["request", "response"])


def half(id: str, side: Side, at: float, data: bytes = b"") -> Half:
    event = CloudEvent(
        id=id, type="t", source="s", time=None, content_type="", extensions={}, data=data
    )
    return Half(key=(id,), side=side, event=event, arrived_at=at)


def pairing(**changes: float) -> Pairing:
    settings = {"bytes_max": 1_000_000, "halves_max": 100, **changes}
    return Pairing(
        wait_s=changes.get("wait_s", 60.0),
        bytes_max=int(settings["bytes_max"]),
        halves_max=int(settings["halves_max"]),
    )


@given(st.lists(st.tuples(st.sampled_from("abc"), SIDES), max_size=60))
def test_in_any_order_each_exchange_is_made_once(order: list[tuple[str, Side]]) -> None:
    store = pairing()
    pairs = [store.take(half(id, side, n), n) for n, (id, side) in enumerate(order)]
    made = Counter(pair.request.key[0] for pair in pairs if pair is not None)
    both = {id for id, _ in order if {(id, "request"), (id, "response")} <= set(order)}
    assert made == Counter(both)
    assert store.dropped["duplicate_event"] == len(order) - 2 * len(both) - store.waiting


@given(
    st.lists(st.tuples(st.integers(0, 8), SIDES, st.floats(0, 30), st.integers(0, 800))),
    st.integers(1, 5),
)
def test_every_half_is_paired_waits_or_is_counted_and_limits_hold(
    steps: list[tuple[int, Side, float, int]], most: int
) -> None:
    store, now = pairing(halves_max=most, bytes_max=2_000), 0.0
    for taken, (id, side, pause, size) in enumerate(steps, start=1):
        now += pause
        pair: Pair | None = store.take(half(str(id), side, now, bytes(size)), now)
        assert pair is None or (pair.request.side, pair.response.side) == ("request", "response")
        assert store.waiting <= most
        assert store.held_bytes <= 2_000
        assert taken == 2 * store.paired + store.waiting + sum(store.dropped.values())
    store.expire(now + 61)
    assert (store.waiting, store.held_bytes) == (0, 0)
    assert store.completeness is None or 0.0 <= store.completeness <= 1.0


def test_a_request_that_stays_alone_is_counted_as_such() -> None:
    store = pairing(wait_s=10)
    store.take(half("a", "request", 0), 0)
    store.take(half("b", "response", 5), 5)
    store.expire(9.9)
    assert store.waiting == 2
    store.expire(15)
    assert store.dropped == {"unmatched_request": 1, "unmatched_response": 1}
    assert store.completeness == 0.0


def test_before_anything_was_heard_completeness_is_not_known() -> None:
    assert pairing().completeness is None


def test_an_exchange_that_is_sent_again_as_a_whole_is_not_made_again() -> None:
    store = pairing()
    asked, said = half("a", "request", 0), half("a", "response", 0)
    again = [asked, said, asked, said]
    assert [store.take(one, 0) is not None for one in again] == [False, True, False, False]
    assert store.dropped == {"duplicate_event": 2}
