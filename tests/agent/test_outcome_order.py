"""Outcomes come slot by slot and leave in the order in which their requests finished."""

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from agent.outcome_order import InOrder
from agent.sources.proxy import Outcome


def outcome(at: float, slot: Literal["stable", "candidate"] = "stable") -> Outcome:
    return Outcome(
        slot=slot, version=slot, outcome="ok", status=200, duration_s=0.1, first_byte_s=None,
        key=0, at=at,
    )  # fmt: skip


def test_a_minute_of_stable_and_then_a_minute_of_the_candidate_are_one_minute_of_both() -> None:
    order = InOrder()
    order.add(outcome(float(at)) for at in range(60))
    assert order.take() == []  # the candidate's half may still be on its way
    order.add(outcome(at + 0.5, "candidate") for at in range(60))
    ready = order.take() + order.take()
    assert [one.slot for one in ready] == ["stable", "candidate"] * 60


def test_nothing_is_kept_for_ever() -> None:
    order = InOrder()
    order.add([outcome(1.0)])
    assert order.take() == []
    assert [one.at for one in order.take()] == [1.0]
    assert order.take() == []


@given(st.lists(st.lists(st.floats(0, 100), max_size=5), max_size=8))
def test_every_outcome_leaves_once(frames: list[list[float]]) -> None:
    order = InOrder()
    left: list[float] = []
    for frame in frames:
        order.add(outcome(at) for at in frame)
        left += [one.at for one in order.take()]
    left += [one.at for one in order.take_all()]
    assert sorted(left) == sorted(at for frame in frames for at in frame)
