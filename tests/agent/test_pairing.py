"""Two answers to one request: when they agree, and what happens when one never comes."""

import pytest

from agent import pairing
from agent.inference import Inference, Value
from agent.pairing import Pairs
from agent.schema import Schema, TargetKind


def answer(id: str, *predictions: Value) -> Inference:
    return Inference(
        id=id,
        aliases=(),
        at=0.0,
        version="1",
        slot="stable",
        weight=1.0,
        uniform=True,
        latency_s=0.01,
        names=("x",),
        rows=[[0.0] for _ in predictions],
        outputs={"label": list(predictions)},
    )


def schema(target: TargetKind | None) -> Schema:
    return Schema(features=(), prediction="label", score=None, target=target, classes=None)


def compared(target: TargetKind, one: list[Value], two: list[Value]) -> tuple[int, int]:
    pairs = Pairs(tolerance=0.01)
    pairs.take(answer("r", *one), schema(target), shadow=False, now=0.0)
    pairs.take(answer("r", *two), schema(target), shadow=True, now=1.0)
    return pairs.compared, pairs.disagreeing


@pytest.mark.parametrize(
    ("target", "one", "two", "differ"),
    [
        ("class", ["a", "b"], ["a", "b"], False),
        ("class", ["a", "b"], ["a", "c"], True),
        ("class", [1], [1.0], False),
        ("class", [None], ["a"], True),
        ("number", [100.0], [100.9], False),
        ("number", [100.0], [101.1], True),
        ("number", [0.0], [0.0], False),
        ("number", [0.0], [1e-9], True),
        ("number", [float("nan")], [float("nan")], False),
        ("number", [float("nan")], [1.0], True),
        ("number", [float("inf")], [float("inf")], False),
        ("number", [float("inf")], [float("-inf")], True),
    ],
)
def test_classes_agree_by_name_and_numbers_by_a_share_of_the_larger(
    target: TargetKind, one: list[Value], two: list[Value], differ: bool
) -> None:
    assert compared(target, one, two) == (1, int(differ))
    assert compared(target, two, one) == (1, int(differ))


def test_the_order_in_which_the_two_arrive_does_not_matter_and_a_repeat_makes_no_pair() -> None:
    pairs = Pairs(tolerance=0.0)
    for shadow in (True, True, False, False):
        pairs.take(answer("r", "a"), schema("class"), shadow=shadow, now=0.0)
    assert (pairs.compared, pairs.disagreement) == (1, 0.0)


def test_answers_of_another_shape_are_no_pair() -> None:
    pairs = Pairs(tolerance=0.0)
    pairs.take(answer("r", "a", "b"), schema("class"), shadow=False, now=0.0)
    pairs.take(answer("r", "a"), schema("class"), shadow=True, now=0.0)
    assert pairs.disagreement is None
    assert pairs.unpaired == {"shape": 1}


def test_nothing_is_compared_before_it_is_known_what_the_prediction_is() -> None:
    pairs = Pairs(tolerance=0.0)
    pairs.take(answer("r", "a"), schema(None), shadow=False, now=0.0)
    pairs.take(answer("r", "b"), schema(None), shadow=True, now=0.0)
    assert pairs.compared == 0


def test_answers_wait_for_a_while_and_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "WAITING_MAX", 3)
    pairs = Pairs(tolerance=0.0)
    for number in range(4):
        pairs.take(answer(f"s-{number}", "a"), schema("class"), shadow=True, now=0.0)
    assert pairs.unpaired == {"overflow": 1}
    pairs.take(answer("stable", "a"), schema("class"), shadow=False, now=121.0)
    assert pairs.unpaired == {"overflow": 1, "expired": 3}
    # A stable answer that nobody copied is no loss.
    pairs.take(answer("later", "a"), schema("class"), shadow=False, now=300.0)
    assert pairs.unpaired == {"overflow": 1, "expired": 3}


def test_an_answer_of_no_number_to_a_copy_is_told() -> None:
    pairs = Pairs(tolerance=0.0)
    pairs.take(answer("r", float("nan")), schema("number"), shadow=False, now=0.0)
    assert pairs.invalid == 0
    pairs.take(answer("q", float("nan")), schema("number"), shadow=True, now=0.0)
    assert pairs.invalid == 1
