"""What the running agent shows when parts of it cannot be read."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from agent.admin.api import Api
from agent.admin.auth import gatekeeper
from agent.admin.openapi import OPENAPI
from agent.config import load_config
from agent.generation import Generation
from agent.topology import Agent
from detectors.reading import Change, Kind, Moment, Reading, Scope, State
from retrain.ledger import LedgerError, LedgerReason
from tests.admin.described import strangers


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    overrides = {"sources.0.upstream": "http://127.0.0.1:9", "state.dir": str(tmp_path / "state")}
    config = load_config(None, environ={}, overrides=overrides)
    made = Agent(
        config,
        role="all",
        stable_address="127.0.0.1:9",
        stable_version="1",
        tell_supervisor=lambda _: None,
    )
    ours, theirs = socket.socketpair()
    await made.start(admin_socket=str(tmp_path / "a.sock"))
    made.connect(ours)
    yield made
    await made.stop()
    theirs.close()


def locked(*_: Any, **__: Any) -> NoReturn:
    raise LedgerError(LedgerReason.LOCKED, "another process holds it")


async def test_a_scrape_outlives_the_ledger(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {family.name for family in agent.view.families()}
    with monkeypatch.context() as broken:
        broken.setattr(agent.controller.decisions, "read", locked)
        rest = {family.name for family in agent.view.families()}
    assert {"remora_rows_total", "remora_sampling_rate"} <= rest < whole
    drops = next(f for f in agent.view.families() if f.name == "remora_dropped_total")
    assert "ledger_unreadable" in {labels[-1] for labels, _ in drops.rows}


async def test_acting_on_a_locked_ledger_is_answered_503_with_its_mend(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = gatekeeper(agent.config, agent.config.state_dir)
    application: Any = Api(agent.view, guard).application()
    token = (agent.config.state_dir / "admin.token").read_text().strip()
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        with monkeypatch.context() as broken:
            broken.setattr(agent.controller.retraining, "look", locked)
            answer = await client.post(
                "/api/v1/trigger",
                json={"reason": "now"},
                headers={"authorization": f"Bearer {token}"},
            )
    assert answer.status_code == 503
    assert "another process holds it" in answer.text


async def test_the_status_is_as_the_api_describes_it(agent: Agent) -> None:
    agent.intake.generations.take(
        Generation(
            version="1",
            weight=2.0,
            streamed=True,
            whole=True,
            duration_s=1.0,
            first_token_s=0.04,
            input_tokens=7,
            output_tokens=9,
            basis="usage",
            finish_reasons=("stop",),
        )
    )
    status = agent.view.status()
    described = OPENAPI["components"]["schemas"]["Status"]
    assert strangers(status, described) == []
    assert status.keys() == described["properties"].keys()
    [said] = status["generations"]
    assert (said["answers"], said["output_tokens"], said["bases"]) == (2.0, 18.0, {"usage": 2.0})
    assert 0.025 <= said["first_token"]["p50_s"] <= 0.05
    assert said["per_token"]["p99_s"] > 0


async def test_history_survives_a_restart_of_the_view(agent: Agent) -> None:
    agent.view.note(10.0)
    state = agent.view.state()
    agent.view.restore(state)
    assert [point["at"] for point in agent.view.history()["points"]][-1] == 10.0


async def test_labels_that_the_store_refuses_are_refused(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.admin.view import Refused

    monkeypatch.setattr(agent.intake, "take_labels", lambda _: None)
    with pytest.raises(Refused):
        await agent.view.take_labels(b'{"request_id": "a", "label": 1}', "application/json")


async def test_findings_are_those_that_were_asked_for(agent: Agent) -> None:
    def reading(subject: str, kind: Kind, state: State) -> Reading:
        change = Change(
            kind=kind,
            scope=Scope.FEATURE,
            subject=subject,
            detector="e_detector",
            state=state,
            statistic=1.0,
            threshold=1.0,
            rows=10,
            explain=f"{subject} moved",
        )
        return Moment(row=10, at=1.0).reading(change)

    agent.intake.monitor.findings.extend(
        [
            reading("age", Kind.DATA_DRIFT, State.WARNING),
            reading("error_rate", Kind.CONCEPT_DRIFT, State.DRIFT),
            reading("age", Kind.DATA_DRIFT, State.DRIFT),
            reading("age", Kind.DATA_QUALITY, State.WARNING),
        ]
    )

    def found(**asked: Any) -> list[tuple[str, str]]:
        events = agent.view.findings(**{"limit": 100} | asked)
        return [(event["subject"], event["state"]) for event in events]

    assert len(found()) == 4
    assert found(kind="data_drift") == [("age", "drift"), ("age", "warning")]
    assert found(kind="data_drift", limit=1) == [("age", "drift")]
    assert found(state="drift", subject="error_rate") == [("error_rate", "drift")]
    assert found(subject="ages") == []
