"""The release of a candidate: what holds under any order of events, kills and restarts."""

import json
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retrain.gates import Verdict
from retrain.rollout import (
    DURABLE,
    ENDED,
    Rollout,
    State,
    advance,
)
from retrain.rollout_messages import (
    InstallReference,
    LeaseLost,
    MakeStable,
    Operator,
    OperatorAction,
    Quarantine,
    Record,
    Restarted,
    RestoreReference,
    RolloutCommand,
    RolloutEvent,
    SetWeights,
    SlotFailed,
    SlotReady,
    Started,
    StartSlot,
    StopSlot,
    Tick,
    WeightsConfirmed,
)
from tests.retrain.test_rollout import POLICY, SHADOW, assessed, fresh

ACTIONS: list[OperatorAction] = ["promote", "abort", "rollback", "pause", "resume"]


class World(RuleBasedStateMachine):
    """A data plane, two slots and an agent that may die between any two commands."""

    policy = POLICY

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.boots = 0
        self.rollout = fresh(
            replace(self.policy, bake_s=600.0, held_s_max=900.0, duration_s_max=900.0)
        )
        self.stored = json.dumps(self.rollout.as_json())
        self.waiting: list[RolloutCommand] = []
        # What is true outside the agent.
        self.route: tuple[int, str, float] = (0, "A", 0.0)  # generation, stable slot, weight
        self.running = {"A": "sha256:old", "B": ""}
        self.ready = {"A"}
        self.fallen: set[str] = set()  # failed while they had traffic: nobody sent them any since
        self.reference = "sha256:old"
        self.quarantined: set[str] = set()
        self.tell(Started())

    def tell(self, event: RolloutEvent) -> None:
        moved, commands = advance(self.rollout, event, self.now)
        again, nothing = advance(moved, event, self.now)
        if moved is not self.rollout:
            assert again == moved, f"{event} told twice: {nothing}"
            assert not nothing
        if moved.state is not self.rollout.state:
            assert moved.reason
            records = [command for command in commands if isinstance(command, Record)]
            assert records
        self.rollout = moved
        self.stored = json.dumps(moved.as_json())
        for command in commands:
            if isinstance(command, DURABLE):
                self.perform(command)
            else:
                self.waiting.append(command)

    def settle(self) -> None:
        for command in self.waiting:
            self.perform(command)
        self.waiting.clear()

    @initialize(where=st.sampled_from(["staging", "canary", "baking", "baking", "live"]))
    def somewhere(self, where: str) -> None:
        """Deep states are rarely reached by chance."""
        self.settle()
        if where == "staging":
            return
        self.a_slot_is_ready("B")
        self.settle()
        self.the_route_is_read_back()
        if where == "canary":
            return
        self.an_operator_acts("promote")
        self.settle()
        self.the_route_is_read_back()
        self.settle()
        self.the_route_is_read_back()
        assert self.rollout.state is State.BAKING
        if where == "live":
            self.measured(Verdict.INCONCLUSIVE, False, False, 60_000)
            self.settle()

    def perform(self, command: RolloutCommand) -> None:
        match command:
            case StartSlot(slot=slot, digest=digest):
                if digest in self.quarantined:
                    return  # asked for before the blame, performed after it: refused
                if self.running[slot] != digest:
                    self.ready.discard(slot)
                self.running[slot] = digest
            case StopSlot(slot=slot):
                assert self.share(slot) == 0.0, "stopped a slot that had traffic"
                self.running[slot] = ""
                self.ready.discard(slot)
            case SetWeights(generation=generation, candidate_weight=weight):
                if generation >= self.route[0]:
                    self.route = (generation, self.route[1], weight)
                    self.fallen.clear()
            case MakeStable(generation=generation, slot=slot):
                if generation >= self.route[0]:
                    self.route = (generation, slot, 0.0)
                    self.fallen.clear()
            case InstallReference(digest=digest) | RestoreReference(digest=digest):
                self.reference = digest
            case Quarantine(digest=digest):
                self.quarantined.add(digest)
            case _:
                pass

    def share(self, slot: str) -> float:
        _, stable, weight = self.route
        return 1 - weight if slot == stable else weight

    @rule(count=st.integers(1, 6))
    def some_commands_are_performed(self, count: int) -> None:
        for command in self.waiting[:count]:
            self.perform(command)
        del self.waiting[:count]

    @precondition(lambda self: not self.waiting)
    @rule()
    def the_route_is_read_back(self) -> None:
        self.tell(WeightsConfirmed(generation=self.route[0]))

    @rule(slot=st.sampled_from(["A", "B"]))
    def a_slot_is_ready(self, slot: Any) -> None:
        if self.running[slot]:
            self.ready.add(slot)
            self.tell(SlotReady(slot=slot, digest=self.running[slot]))

    @rule(slot=st.sampled_from(["A", "B"]), attempt=st.integers(0, 2))
    def a_slot_fails(self, slot: Any, attempt: int) -> None:
        # The old model's process is kept alive by whoever supervises it while it is stable.
        # When both are gone there is nothing to promise.
        other = "B" if slot == "A" else "A"
        if self.running[slot] and other in self.ready and (slot == "B" or self.route[1] == "B"):
            digest, self.running[slot] = self.running[slot], ""
            self.ready.discard(slot)
            if self.share(slot) > 0:
                self.fallen.add(slot)
            self.tell(SlotFailed(slot=slot, digest=digest, reason="exit 1", attempt=attempt))

    @rule(
        verdict=st.sampled_from([Verdict.SUCCESSFUL, Verdict.FAILED, Verdict.INCONCLUSIVE]),
        frozen=st.booleans(),
        idle=st.booleans(),
        requests=st.sampled_from([0, 300, 5_000, 60_000]),
    )
    def measured(self, verdict: Verdict, frozen: bool, idle: bool, requests: int) -> None:
        self.now += 0.01
        self.tell(
            assessed(
                verdict,
                at=self.now,
                frozen=frozen,
                idle=idle,
                interim=True,
                step=self.rollout.step,
                baking=self.rollout.promoted,
                requests=requests,
                step_requests=requests,
                bake_requests=requests,
            )
        )

    @rule(action=st.sampled_from(ACTIONS))
    def an_operator_acts(self, action: OperatorAction) -> None:
        self.tell(Operator(action=action, actor="ada", reason="because"))

    @rule(seconds=st.sampled_from([0.0, 1.0, 7.0, 61.0, 400.0, 2_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())
        generation, stable, weight = self.route
        # The lease: whoever waits for a minute with nothing performed has lost his weight.
        if seconds > 10 and self.waiting and weight > 0:
            self.route = (generation, stable, 0.0)

    @rule()
    def the_lease_runs_out(self) -> None:
        generation, stable, _ = self.route
        self.route = (generation, stable, 0.0)
        self.tell(LeaseLost(generation=generation))

    @precondition(lambda self: self.boots < 3)
    @rule(containers=st.booleans())
    def the_agent_is_killed(self, containers: bool) -> None:
        """Commands not yet performed are lost; with `containers`, the candidate is gone too."""
        self.waiting.clear()
        self.route = (self.route[0], self.route[1], 0.0)
        other = "B" if self.route[1] == "A" else "A"
        if containers:
            self.running[other] = ""
            self.ready.discard(other)
        self.rollout = Rollout.from_json(json.loads(self.stored))
        self.boots += 1
        self.tell(Started())
        self.tell(Restarted(boot=str(self.boots)))

    @invariant()
    def whoever_has_traffic_is_ready_and_free_of_blame(self) -> None:
        for slot in ("A", "B"):
            share = self.share(slot)
            assert 0.0 <= share <= 1.0
            if share > 0:
                serves = slot in self.ready or slot in self.fallen
                assert serves or self.waiting, f"slot {slot} gets {share:.0%} and is not ready"
                blamed = self.running[slot] in self.quarantined
                # Only where nobody else can answer, and a person was told.
                excused = self.rollout.state in (State.ROLLING_BACK, State.FAILED)
                assert not blamed or self.waiting or excused

    @invariant()
    def what_is_desired_is_reached_when_nobody_interferes(self) -> None:
        if self.waiting:
            return
        rollout = self.rollout
        if rollout.state in (State.CANARY, State.HELD, State.STAGING):
            assert self.route[1] == "A"
        if rollout.state is State.SHADOW:
            assert self.route[1:] == ("A", 0.0)
        if rollout.state is State.BAKING and not rollout.waiting:
            assert (self.route[1], self.reference) == ("B", "sha256:new")
        if rollout.state is State.ROLLED_BACK:
            assert (self.route[1:], self.reference) == (("A", 0.0), "sha256:old")
            assert "sha256:new" in self.quarantined

    def teardown(self) -> None:
        """From wherever it stands, time alone brings a rollout to an end."""
        for _ in range(200):
            if self.rollout.state in ENDED:
                return
            self.now += 500.0
            self.settle()
            self.tell(Tick())
        raise AssertionError(f"stays {self.rollout.state} for ever")


class ShadowWorld(World):
    """The same, where copies come before the canary."""

    policy = SHADOW


TestShadowWorld = ShadowWorld.TestCase
TestShadowWorld.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
