"""Runs on disk: transition, entry and messages together, one run in flight, nothing lost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrain.decision import Action, Because, Decision
from retrain.ledger import Ledger
from retrain.run import Run, RunLimits, RunState, Via, run_id
from retrain.run_dialogue import ArtifactSource, Cancel, Finished, Reported, Tick
from retrain.run_store import RunInFlight, RunStore
from retrain.webhooks.bodies import Ask
from retrain.webhooks.outbox import MessageState, Outbox
from retrain.webhooks.targets.generic import GenericTarget
from retrain.webhooks.targets.target import Outcome, Receipt, Verdict

NOON = 1_700_000_000.0
LIMITS = RunLimits(deadline_s=100.0, total_s_max=1_000.0)
SOURCE = ArtifactSource(url="https://ci.example.com/a.tar", sha256="ab" * 32, size_bytes=9)
DONE = Finished(artifact="artifacts/ab", sha256="ab" * 32)


def ask(decision_id: str = "dec_1", action: Action = Action.RETRAIN) -> Ask:
    decision = Decision(
        id=decision_id,
        at=NOON,
        action=action,
        because=Because.FIRED,
        policy="drift",
        reason="drift: 1 subject in drift (age psi 0.31) >= quorum 1",
    )
    return Ask(
        run_id=run_id(decision_id),
        model="income",
        stable="sha256:aa",
        decision=decision,
        window={"rows": 5000},
        recipe=None,
        callback_url="https://remora.example.com/api/v1/runs/run_1/callback",
        deadline_at=NOON + LIMITS.deadline_s,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "decisions.db")
    yield opened
    opened.close()


def store_in(ledger: Ledger) -> RunStore:
    events = {"ci": "remora.retrain.requested", "audit": "remora.run.finished"}
    targets = {
        name: GenericTarget(
            name=name, events=frozenset({event}), url="https://ci.example.com", keys=(bytes(32),)
        )
        for name, event in events.items()
    }
    return RunStore(ledger, Outbox(ledger), targets)


def request(store: RunStore, decision_id: str = "dec_1", **other: Any) -> Run:
    settings: dict[str, Any] = {"via": Via.WEBHOOK, "target": "ci", "fallback": False}
    run, _ = store.request(ask(decision_id), limits=LIMITS, now=NOON, **(settings | other))
    return run


def test_a_request_is_a_run_an_entry_and_a_message_or_nothing(ledger: Ledger) -> None:
    store, outbox = store_in(ledger), Outbox(ledger)

    def half_done() -> None:
        with ledger.transaction():
            request(store)
            raise KeyError("power cut")

    with pytest.raises(KeyError):
        half_done()
    assert (store.recent(), ledger.entries(), outbox.listed()) == ([], [], [])
    run = request(store)
    assert run.state is RunState.WAITING
    assert [entry.data["to"] for entry in ledger.entries()] == ["requested", "waiting"]
    (claim,) = outbox.claim(NOON, ["ci"])
    assert claim.message.run_id == run.id
    assert claim.message.data["ledger_head"] == ledger.head()
    assert claim.message.data["decision"]["reason"].endswith("(age psi 0.31) >= quorum 1")


def test_one_decision_makes_one_run_and_one_message(ledger: Ledger) -> None:
    store = store_in(ledger)
    assert request(store) == request(store)
    assert Outbox(ledger).counts()[MessageState.PENDING] == 1
    assert len(ledger.entries()) == 2


def test_only_one_run_is_in_flight(ledger: Ledger) -> None:
    store = store_in(ledger)
    first = request(store)
    with pytest.raises(RunInFlight):
        request(store, "dec_2")
    assert [run.id for run in store.in_flight()] == [first.id]
    store.apply(first.id, Cancel(actor="ada", reason="x"), NOON, actor="ada")
    assert request(store, "dec_2").state is RunState.WAITING


def test_a_run_survives_a_restart_in_every_field(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "decisions.db")
    run = request(store_in(first))
    report = Reported(status="succeeded", artifact=SOURCE, metrics={"accuracy": 0.9})
    run, _ = store_in(first).apply(run.id, report, NOON + 1, actor="ci")
    first.close()
    second = Ledger(tmp_path / "decisions.db")
    assert store_in(second).find(run.id) == run
    assert store_in(second).in_flight() == [run]
    second.close()


def test_an_event_without_meaning_leaves_no_trace(ledger: Ledger) -> None:
    store = store_in(ledger)
    run = request(store)
    head = ledger.head()
    assert store.apply(run.id, Tick(), NOON + 1, actor="clock") == (run, ())
    assert store.apply(run.id, DONE, NOON + 1, actor="runner") == (run, ())
    assert ledger.head() == head
    with pytest.raises(KeyError):
        store.apply("run_unknown", Tick(), NOON, actor="clock")


def test_the_end_of_a_run_is_told_to_who_wants_to_know(ledger: Ledger) -> None:
    store, outbox = store_in(ledger), Outbox(ledger)
    run = request(store)
    assert store.due(NOON + 99) == []
    assert store.due(NOON + 100) == [run.id]
    store.apply(run.id, Tick(), NOON + 100, actor="clock")
    (told_to,) = outbox.claim(NOON + 100, ["ci", "audit"])
    assert told_to.message.target == "audit"
    assert told_to.message.data["outcome"] == "timed_out"
    assert outbox.counts()[MessageState.CANCELLED] == 1  # nobody is asked any more
    assert store.totals() == {("drift", "timed_out"): 1}


@pytest.mark.parametrize(
    ("verdict", "fallback", "state"),
    [
        (Verdict.DELIVERED, False, RunState.WAITING),
        (Verdict.DEAD, False, RunState.FAILED),
        (Verdict.DEAD, True, RunState.RUNNING),
    ],
)
def test_what_became_of_the_webhook_moves_the_run(
    ledger: Ledger, verdict: Verdict, fallback: bool, state: RunState
) -> None:
    store, outbox = store_in(ledger), Outbox(ledger)
    run = request(store, fallback=fallback)
    (claim,) = outbox.claim(NOON, ["ci"])
    receipt = Receipt(verdict=verdict, outcome=Outcome.DELIVERED, detail="", external_id="7")
    with ledger.transaction():
        outbox.settle(claim, receipt, now=NOON, jitter=0.0)
        store.settled(claim.message, verdict, receipt, NOON)
        store.settled(replace(claim.message, run_id=None), Verdict.DEAD, receipt, NOON)
    found = store.find(run.id)
    assert found is not None
    assert found.state is state
    assert found.delivered is (verdict is Verdict.DELIVERED)


def test_nonsense_is_refused(ledger: Ledger) -> None:
    store = store_in(ledger)
    with pytest.raises(ValueError, match=r"retrain\.target"):
        request(store, target="nobody")
    with pytest.raises(ValueError, match="needs a target"):
        request(store, target=None)
    with pytest.raises(ValueError, match="hold"):
        store.request(
            ask(action=Action.HOLD),
            via=Via.LOCAL,
            target=None,
            fallback=False,
            limits=LIMITS,
            now=NOON,
        )
    assert ledger.entries() == []
