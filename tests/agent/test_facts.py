"""What decided about a rollout is told, not that a route was confirmed afterwards."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.facts import because
from retrain.ledger import Ledger
from retrain.rollout import Rollout, State

EVIDENCE = "errors 18/49 against 2/350"
ROLLOUT = Rollout(id="r1", candidate="c" * 64, stable="5" * 64, candidate_slot="B", stable_slot="A")


@pytest.mark.parametrize(
    ("state", "entries", "told"),
    [
        (State.STAGING, [], "started by ann"),
        (
            State.ROLLED_BACK,
            [
                ("rollout", "canary", "step 1 of 4"),
                ("rollback", "canary", EVIDENCE),
                ("rollback", "rolling_back", "route 8 confirmed after 0.92 s"),
            ],
            EVIDENCE,
        ),
        (
            State.LIVE,
            [
                ("rollout", "canary", "step 4 of 4"),
                ("rollout", "canary", EVIDENCE),
                ("rollout", "promoting", "asked again"),
                ("promotion", "promoting", "route 9 confirmed"),
                ("rollout", "baking", "the stable model is well again"),
                ("promotion", "baking", "50,000 requests"),
            ],
            EVIDENCE,
        ),
        (
            State.ROLLED_BACK,
            [
                ("rollout", "canary", "1,000 requests"),
                ("promotion", "promoting", "route 9 confirmed"),
                ("rollback", "baking", EVIDENCE),
                ("rollback", "rolling_back", "route 10 confirmed"),
            ],
            EVIDENCE,
        ),
    ],
)
def test_the_evidence_is_told(
    tmp_path: Path, state: State, entries: list[tuple[str, str, str]], told: str
) -> None:
    ledger = Ledger(tmp_path / "decisions.db")
    for subject in ("another", "r1"):
        for kind, left, reason in entries:
            with ledger.transaction():
                ledger.append(
                    at=0.0,
                    kind=kind,
                    subject=subject,
                    actor="rollout",
                    reason=reason if subject == "r1" else "of another rollout",
                    data={"state": left},
                )
    reason = entries[-1][2] if entries else "started by ann"
    assert because(replace(ROLLOUT, state=state, reason=reason), ledger) == told
    ledger.close()
