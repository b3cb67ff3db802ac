"""Copies and requests are two things: what of each counts when, and who is sent copies."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.config import load_config
from agent.desired_route import desired_route
from agent.release_rules import outcomes_of
from agent.rollout_evidence import RolloutEvidence
from agent.sources.proxy import Outcome
from retrain.rollout import Rollout, RolloutPolicy, State
from retrain.rollout_messages import BeginStep

ROLLOUT = Rollout(
    id="r1",
    candidate="new",
    stable="old",
    candidate_slot="B",
    stable_slot="A",
    policy=RolloutPolicy(shadow=0.25),
    state=State.SHADOW,
)
NAMES = cast(Any, SimpleNamespace(label=lambda digest: digest))


def outcome(version: str, at: float, *, shadow: bool = False) -> Outcome:
    return Outcome(
        slot="candidate" if version == "new" else "stable",
        version=version,
        outcome="ok",
        status=200,
        duration_s=0.01,
        first_byte_s=0.01,
        key=1,
        at=at,
        shadow=shadow,
    )


@pytest.mark.parametrize(("shadow", "counted"), [(True, 3), (False, 2)])
def test_copies_count_while_there_are_nothing_but_copies(shadow: bool, counted: int) -> None:
    seen = [outcome("old", 1.0), outcome("new", 1.1, shadow=True), outcome("new", 1.2)]
    arms = outcomes_of(seen, candidate="new", stable="old", clustered=False, shadow=shadow)
    assert len(list(arms)) == counted


@pytest.mark.parametrize(("anew", "left"), [(True, 0), (False, 50)])
def test_the_canary_begins_without_what_copies_have_shown(anew: bool, left: int) -> None:
    config = load_config(None, environ={"REMORA_SOURCES__0__UPSTREAM": "http://127.0.0.1:1"})
    evidence = RolloutEvidence(config, NAMES)
    evidence.begin_step(BeginStep(step=-1, weight=0.2), 0.0)
    for number in range(50):
        evidence.arrive([outcome("old", number), outcome("new", number + 0.5, shadow=True)])
    evidence.observe(ROLLOUT, all_of_them=True)
    assert evidence.measure(60.0).assessment.requests == 50
    evidence.begin_step(BeginStep(step=0, weight=0.05, anew=anew), 61.0)
    assert evidence.measure(62.0).assessment.requests == left


@pytest.mark.parametrize(
    ("rollout", "copied", "weight"),
    [
        (ROLLOUT, 0.25, 0.0),
        (replace(ROLLOUT, waiting=True), 0.0, 0.0),
        (replace(ROLLOUT, state=State.CANARY, weight=0.1), 0.0, 0.1),
        (replace(ROLLOUT, state=State.HELD), 0.0, 0.0),
    ],
)
def test_only_a_shadow_whose_slot_is_ready_is_sent_copies(
    rollout: Rollout, copied: float, weight: float
) -> None:
    stable = SimpleNamespace(name="A", digest="old")
    registry = cast(Any, SimpleNamespace(stable=lambda: stable, generation=lambda: 7))
    slots = cast(Any, SimpleNamespace(address=lambda name: f"127.0.0.1:{ord(name)}"))
    route = desired_route(registry, slots, rollout, label=str, lease_s=10.0)
    assert route is not None
    assert (route.shadow, route.weight) == (copied, weight)
