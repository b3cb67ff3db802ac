"""Which id labels are joined by, and which others lead to the same inference."""

from collections.abc import Callable
from typing import Any

import pytest

from agent.exchange import Exchange
from agent.inference import acceptable_id, identify
from agent.sampling import SamplingTally, kept

Post = Callable[..., Exchange]


@pytest.mark.parametrize(
    ("id_from", "body_ids", "expected"),
    [
        ("minted", (), ("edge", ())),
        ("minted", ("mine", None), ("mine", ("edge",))),
        ("traceparent", ("mine",), ("mine", ("edge",))),
        ("minted", (None, "servers"), ("servers", ("edge",))),
        ("minted", ("mine", "mine"), ("mine", ("edge",))),
        ("minted", ("mine", "servers"), ("mine", ("servers", "edge"))),
        ("x-request-id", ("mine",), ("edge", ("mine",))),
        ("ce-id", ("mine",), ("edge", ("mine",))),
        ("minted", ("not an id", 5, ["x"], "", "é", "x" * 129), ("edge", ())),
        ("minted", ("edge",), ("edge", ())),
    ],
)
def test_the_id_somebody_chose_wins(
    post: Post, id_from: str, body_ids: tuple[Any, ...], expected: tuple[str, tuple[str, ...]]
) -> None:
    exchange = post("/", b"", b"", id="edge", id_from=id_from, minted=id_from == "minted")
    assert identify(exchange, *body_ids) == expected


def test_an_id_with_a_line_break_is_none() -> None:
    assert not acceptable_id("abc\n")
    assert acceptable_id("A-z.0_9:" * 16)


@pytest.mark.parametrize(("weight", "counts"), [(1.0, 1.0), (20.0, 20.0)])
def test_a_sound_weight_is_kept_as_it_is(post: Post, weight: float, counts: float) -> None:
    keeping = kept(post("/", b"", b"", weight=weight))
    assert (keeping.weight, keeping.uniform) == (counts, True)


@pytest.mark.parametrize("weight", [0.0, -1.0, 0.5, float("nan"), float("inf")])
def test_rows_with_an_impossible_weight_are_no_evidence(post: Post, weight: float) -> None:
    keeping = kept(post("/", b"", b"", weight=weight))
    assert (keeping.weight, keeping.uniform) == (1.0, False)


def test_the_rate_in_force_is_rows_over_what_they_stand_for() -> None:
    tally = SamplingTally()
    assert tally.rate == 1.0
    tally.add(rows=10, weight=1.0)
    tally.add(rows=10, weight=9.0)
    assert tally.rate == 0.2
