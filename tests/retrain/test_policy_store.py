"""The policy's memory survives, and the ledger has each decision once."""

from pathlib import Path

from retrain.decision import Action
from retrain.ledger import Ledger
from retrain.policy import Policy, PolicyState, View
from retrain.policy_store import PolicyStore
from retrain.schedule import Schedule
from retrain.triggers import DriftRule, ScheduleRule

NOON = 1_700_000_000.0
POLICY = Policy(
    rules=[
        DriftRule(name="drift"),
        ScheduleRule(name="nightly", schedule=Schedule(cron="0 3 * * *")),
    ]
)
DRIFT = View(findings=[{"kind": "data_drift", "subject": "age", "state": "drift"}])


def test_a_decision_is_written_once_and_remembered_after_a_restart(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "decisions.db")
    store = PolicyStore(first, "income")
    assert store.load() == PolicyState()
    news = []
    for now, view in ((0.0, View()), (60.0, View()), (120.0, DRIFT), (180.0, DRIFT)):
        state, decision = POLICY.decide(store.load(), view, NOON + now)
        news.append((decision.action, store.keep(state, decision)))
        assert store.load() == state
    assert news == [
        (Action.HOLD, True),
        (Action.HOLD, False),
        (Action.RETRAIN, True),
        (Action.HOLD, True),
    ]
    assert [entry.kind for entry in first.entries()] == ["decision"] * 3
    first.close()
    second = Ledger(tmp_path / "decisions.db")
    assert PolicyStore(second, "income").load() == state
    assert PolicyStore(second, "other").load() == PolicyState()
    assert not PolicyStore(second, "income").keep(state, decision)
    second.close()
