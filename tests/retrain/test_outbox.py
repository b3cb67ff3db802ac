"""A queued message is sent in order, once claimed belongs to one, and is never lost."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrain.ledger import Ledger
from retrain.webhooks.outbox import JITTER, LEASE_S, SCHEDULE_S, Claim, MessageState, Outbox
from retrain.webhooks.targets.target import Outcome, Receipt, Verdict

NOON = 1_700_000_000.0
DELIVERED = Receipt(verdict=Verdict.DELIVERED, outcome=Outcome.DELIVERED, detail="answered 204")
FAILED = Receipt(verdict=Verdict.RETRY, outcome=Outcome.SERVER_ERROR, detail="answered 500")
GONE = Receipt(verdict=Verdict.DISABLE, outcome=Outcome.GONE, detail="answered 410")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "decisions.db")
    yield opened
    opened.close()


@pytest.fixture
def outbox(ledger: Ledger) -> Outbox:
    return Outbox(ledger)


def put(
    outbox: Outbox,
    key: str = "run_1",
    target: str = "ci",
    *,
    run_id: str | None = None,
    deadline_at: float | None = None,
) -> str:
    return outbox.enqueue(
        key=key,
        target=target,
        event_type="remora.run.finished",
        at=NOON,
        data={"key": key},
        run_id=run_id,
        deadline_at=deadline_at,
    )


def claim(outbox: Outbox, now: float = NOON, target: str = "ci") -> Claim:
    (found,) = outbox.claim(now, [target])
    return found


def settle(outbox: Outbox, held: Claim, receipt: Receipt, now: float = NOON) -> Verdict | None:
    return outbox.settle(held, receipt, now=now, jitter=0.0)


def test_the_same_event_is_queued_once_for_each_target(outbox: Outbox) -> None:
    first = put(outbox)
    assert put(outbox) == first
    assert put(outbox, target="audit") != first
    assert outbox.counts()[MessageState.PENDING] == 2


def test_a_message_goes_with_its_transaction(ledger: Ledger, outbox: Outbox) -> None:
    def half_done() -> None:
        with ledger.transaction():
            put(outbox)
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        half_done()
    assert outbox.counts()[MessageState.PENDING] == 0


def test_a_claimed_message_is_not_claimed_again_before_its_lease_ends(outbox: Outbox) -> None:
    put(outbox)
    first = claim(outbox)
    assert outbox.claim(NOON + LEASE_S - 1, ["ci"]) == []
    assert outbox.next_due(["ci"]) == NOON + LEASE_S
    second = claim(outbox, NOON + LEASE_S)
    assert second.message.webhook_id == first.message.webhook_id
    assert second.message.attempts == 2


def test_who_lost_the_lease_settles_nothing(outbox: Outbox) -> None:
    put(outbox)
    slow = claim(outbox)
    quick = claim(outbox, NOON + LEASE_S)
    assert settle(outbox, slow, GONE) is None
    assert settle(outbox, quick, DELIVERED) is Verdict.DELIVERED
    assert settle(outbox, quick, FAILED) is None
    assert outbox.counts()[MessageState.DELIVERED] == 1


def test_a_target_hears_events_in_their_order(outbox: Outbox) -> None:
    first, second = put(outbox, "a"), put(outbox, "b")
    other = put(outbox, "c", target="audit")
    claims = outbox.claim(NOON, ["ci", "audit"])
    assert [one.message.webhook_id for one in claims] == [first, other]
    assert settle(outbox, claims[0], FAILED) is Verdict.RETRY
    assert outbox.claim(NOON + 4, ["ci"]) == []
    again = claim(outbox, NOON + 5)
    assert again.message.webhook_id == first
    settle(outbox, again, DELIVERED, NOON + 5)
    assert claim(outbox, NOON + 5).message.webhook_id == second


def test_ten_attempts_follow_the_schedule_then_it_is_dead(ledger: Ledger, outbox: Outbox) -> None:
    put(outbox)
    now, times = NOON, []
    for _ in SCHEDULE_S:
        due = outbox.next_due(["ci"])
        assert due is not None
        now = due
        times.append(now)
        verdict = settle(outbox, claim(outbox, now), FAILED, now)
    assert verdict is Verdict.DEAD
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == list(SCHEDULE_S[1:])
    assert sum(SCHEDULE_S) / 3600 == pytest.approx(75.6, abs=0.1)
    assert outbox.counts()[MessageState.DEAD] == 1
    assert outbox.next_due(["ci"]) is None
    (entry,) = ledger.entries(kind="webhook")
    assert entry.reason.endswith("given up after 10 attempts: answered 500")


@pytest.mark.parametrize("jitter", [-1.0, 1.0])
def test_waits_are_jittered_by_a_fifth(outbox: Outbox, jitter: float) -> None:
    put(outbox)
    outbox.settle(claim(outbox), FAILED, now=NOON, jitter=jitter)
    assert outbox.next_due(["ci"]) == NOON + 5.0 * (1 + JITTER * jitter)


def test_a_receiver_may_ask_for_more_patience_but_not_for_less(outbox: Outbox) -> None:
    put(outbox)
    throttled = Receipt(
        verdict=Verdict.RETRY, outcome=Outcome.THROTTLED, detail="", retry_after_s=90.0
    )
    settle(outbox, claim(outbox), throttled)
    assert outbox.next_due(["ci"]) == NOON + 90
    hasty = Receipt(verdict=Verdict.RETRY, outcome=Outcome.THROTTLED, detail="", retry_after_s=0.0)
    settle(outbox, claim(outbox, NOON + 90), hasty, NOON + 90)
    assert outbox.next_due(["ci"]) == NOON + 90 + 300


def test_a_target_that_is_gone_is_left_alone_until_someone_redrives(outbox: Outbox) -> None:
    first, second = put(outbox, "a"), put(outbox, "b")
    assert settle(outbox, claim(outbox), GONE) is Verdict.DEAD
    third = put(outbox, "c")
    assert outbox.counts()[MessageState.DEAD] == 3
    assert outbox.claim(NOON + 1e6, ["ci"]) == []
    for webhook_id in (third, first):
        assert outbox.redrive(webhook_id, now=NOON + 9, actor="ada")
    assert claim(outbox, NOON + 9).message.webhook_id == first
    assert put(outbox, "d") != second
    assert outbox.counts() == {
        MessageState.PENDING: 3,
        MessageState.DELIVERED: 0,
        MessageState.DEAD: 1,
        MessageState.CANCELLED: 0,
    }


def test_redriving_begins_anew_and_only_what_is_dead(ledger: Ledger, outbox: Outbox) -> None:
    webhook_id = put(outbox, deadline_at=NOON + 60)
    assert not outbox.redrive(webhook_id, now=NOON, actor="ada")
    assert not outbox.redrive("msg_unknown", now=NOON, actor="ada")
    assert [one.webhook_id for one in outbox.expire(NOON + 60)] == [webhook_id]
    assert outbox.redrive(webhook_id, now=NOON + 99, actor="ada")
    assert claim(outbox, NOON + 99).message.attempts == 1
    assert [entry.actor for entry in ledger.entries(kind="webhook")] == ["delivery", "ada"]


def test_what_passed_its_deadline_is_not_sent_any_more(outbox: Outbox) -> None:
    put(outbox, "a", deadline_at=NOON + 60)
    later = put(outbox, "b")
    held = claim(outbox, NOON + 30)
    assert outbox.expire(NOON + 60) == []  # it is being sent: the sender will tell
    assert settle(outbox, held, FAILED, NOON + 61) is Verdict.RETRY
    assert len(outbox.expire(NOON + 62)) == 1
    assert claim(outbox, NOON + 62).message.webhook_id == later


def test_a_deadline_wakes_the_delivery(outbox: Outbox) -> None:
    put(outbox, deadline_at=NOON + 2)
    settle(outbox, claim(outbox), FAILED)
    assert outbox.next_due(["ci"]) == NOON + 2


def test_a_cancelled_run_asks_nobody_any_more(outbox: Outbox) -> None:
    put(outbox, "a", run_id="run_1")
    told = put(outbox, "b")
    held = claim(outbox)
    outbox.cancel("run_1", NOON)
    assert settle(outbox, held, FAILED) is None
    assert claim(outbox).message.webhook_id == told


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "decisions.db")
    webhook_id = put(Outbox(first))
    held = claim(Outbox(first))
    first.close()
    second = Ledger(tmp_path / "decisions.db")
    outbox = Outbox(second)
    again = claim(outbox, NOON + LEASE_S)
    assert again.message.webhook_id == held.message.webhook_id == webhook_id
    assert again.message.data == {"key": "run_1"}
    second.close()


def test_what_was_delivered_is_forgotten_in_time_what_is_dead_never(outbox: Outbox) -> None:
    put(outbox, "a")
    settle(outbox, claim(outbox), DELIVERED)
    put(outbox, "b", deadline_at=NOON)
    outbox.expire(NOON)
    assert outbox.prune(NOON) == 0
    assert outbox.prune(NOON + 1) == 1
    (left,) = outbox.listed()
    assert (left.state, left.outcome) == (MessageState.DEAD, Outcome.EXPIRED)
    assert outbox.listed(state=MessageState.DELIVERED) == []
