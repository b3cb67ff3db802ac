"""Readings told to others, targets that change, and what is kept no longer than it must be."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from agent.config import Config, load_config
from agent.webhook_wiring import callback_root, targets
from detectors import Reading
from retrain.ledger import LedgerError, LedgerReason
from retrain.webhooks.guard import GuardRefused
from retrain.webhooks.outbox import MessageState
from retrain.webhooks.sign import generate_secret
from tests.agent.workshop import Workshop


def with_targets(workshop: Workshop, *names: str) -> Config:
    secret = workshop.directory / "secret"
    secret.write_text(generate_secret() + "\n")
    secret.chmod(0o600)
    tree = json.loads((workshop.directory / "remora.yaml").read_text())
    tree["webhooks"] = {
        "targets": [
            {"name": name, "url": "https://ci.example/hook", "secret_file": str(secret)}
            for name in names
        ]
    }
    path = workshop.directory / "told.yaml"
    path.write_text(json.dumps(tree))
    return load_config(path, environ={})


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path)
    made.config = with_targets(made, "one")
    await made.close()
    made.controller = made._made()
    yield made
    await made.close()


def reading(subject: str, state: str) -> Reading:
    event: dict[str, Any] = {
        "at": "2026-11-22T21:01:00Z",
        "row": 1,
        "kind": "data_drift",
        "scope": "feature",
        "subject": subject,
        "detector": "sr",
        "state": state,
        "statistic": 1.0,
        "threshold": 0.5,
        "evidence": 9.0,
        "effect": {"name": "psi", "value": 0.3},
        "window": {"rows": 10, "from": 1, "to": 10},
        "reference": "sha256:" + "0" * 64,
        "version": "1",
        "explain": "it moved",
    }
    return Reading.from_json(event)


def pending(workshop: Workshop) -> int:
    return workshop.controller.retraining.outbox.counts()[MessageState.PENDING]


async def test_a_thousand_features_that_drift_are_one_wait_for_the_disk(
    workshop: Workshop,
) -> None:
    retraining = workshop.controller.retraining
    connection = workshop.controller.decisions._connection
    commits: list[str] = []
    connection.set_trace_callback(
        lambda text: commits.append(text) if text.startswith("COMMIT") else None
    )
    retraining.on_readings([reading(f"f{n}", "drift") for n in range(1_000)])
    connection.set_trace_callback(None)
    assert len(commits) == 1
    assert pending(workshop) == 1_000


async def test_what_cannot_be_told_is_still_remembered(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> NoReturn:
        raise LedgerError(LedgerReason.FULL, "the disk is full")

    retraining = workshop.controller.retraining
    with monkeypatch.context() as broken:
        broken.setattr(retraining.outbox, "enqueue", full)
        retraining.on_readings([reading("f0", "drift"), reading("f1", "drift")])
    assert len(retraining._standing) == 2
    assert pending(workshop) == 0


async def test_warnings_are_not_told(workshop: Workshop) -> None:
    workshop.controller.retraining.on_readings([reading("f0", "warning")])
    assert pending(workshop) == 0


@pytest.mark.parametrize(("change", "remembered"), [(0.1, 1), (-0.1, 0)])
async def test_fewer_errors_are_told_and_ask_for_no_retraining(
    workshop: Workshop, change: float, remembered: int
) -> None:
    event = reading("error_rate", "drift").to_json()
    event |= {"kind": "concept_drift", "scope": "model"}
    event["effect"] = {"name": "error_rate_change", "value": change}
    workshop.controller.retraining.on_readings([Reading.from_json(event)])
    assert pending(workshop) == 1
    assert len(workshop.controller.retraining._standing) == remembered


async def test_a_run_learns_from_the_tick_in_which_its_evidence_began_to_grow(
    workshop: Workshop,
) -> None:
    retraining = workshop.controller.retraining
    for rows, opened_at in ((1_000, 10.0), (2_000, 20.0), (3_000, 30.0)):
        retraining.on_tick(rows, opened_at)
    event = reading("f0", "drift").to_json()
    event["window"] = {"rows": 1_500, "from": 1_500, "to": 3_000}
    assert retraining._window("run_1", {"findings": [event]})["from"] == 20.0
    assert retraining._window("run_2", {"findings": []})["from"] is None


async def test_a_target_that_was_added_is_told_without_a_restart(workshop: Workshop) -> None:
    workshop.controller.reconfigure(with_targets(workshop, "one", "two"))
    workshop.controller.retraining.on_readings([reading("f0", "drift")])
    listed = workshop.controller.retraining.outbox.listed()
    assert sorted(message.target for message in listed) == ["one", "two"]


def test_the_callback_root_is_made_once_and_is_nobody_elses(workshop: Workshop) -> None:
    root = callback_root(workshop.config, workshop.state)
    assert callback_root(workshop.config, workshop.state) == root
    assert (workshop.state / "callback.secret").stat().st_mode & 0o077 == 0
    assert set(targets(workshop.config, root)) == {"one"}


async def test_who_may_be_called_changes_with_a_reload(workshop: Workshop) -> None:
    retraining = workshop.controller.retraining
    url = httpx.URL("http://10.0.0.7:9000/hook")
    with pytest.raises(GuardRefused):
        retraining._client._guarded.guard.judge_url(url)
    config = with_targets(workshop, "one")
    wider = config.webhooks.model_copy(
        update={
            "allow_http": True,
            "allow_cidrs": ("10.0.0.0/8",),
            "ports": (9000,),
            "timeout_s": 3.0,
        }
    )
    workshop.controller.reconfigure(config.model_copy(update={"webhooks": wider}))
    guard = retraining._client._guarded.guard
    assert guard.judge_url(url) == ("10.0.0.7", 9000)
    assert str(guard.judge_address("10.0.0.7")) == "10.0.0.7"
    assert (retraining.delivery.timeout_s, retraining._client.timeout.read) == (3.0, 3.0)
