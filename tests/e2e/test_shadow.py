"""A candidate that is asked what clients ask before any client gets its answers, for real."""

import json
import signal
from collections.abc import Callable

import pytest

from tests.e2e.ci import make_artifact
from tests.e2e.house import Load, until
from tests.e2e.test_line import Stage, stage

__all__ = ["stage"]  # the fixture

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SHADOW = {"share": 1.0, "requests_min": 40, "duration_s_min": 0.5}


async def shadowed(stage: Stage) -> None:
    stage.agent.config["rollout"]["shadow"] = SHADOW
    stage.agent.write_config()
    assert stage.agent.process is not None
    stage.agent.process.send_signal(signal.SIGHUP)


async def test_a_good_candidate_answers_copies_first_and_its_pairs_are_counted(
    stage: Stage, new_load: Callable[..., Load]
) -> None:
    await shadowed(stage)
    load = new_load(stage.agent)
    digest = await stage.offer("2")
    await stage.reaches(digest, "canary", "promoting", "baking", "live")
    rollout = await stage.rollout()
    assert rollout["pairs"]["compared"] > 0
    assert rollout["pairs"]["disagreeing"] == 0
    reasons = " ".join(entry["reason"] for entry in await stage.agent.ledger())
    assert "shadow, 100% copied" in reasons
    assert "copies >= 40" in reasons
    metrics = await stage.agent.metrics()
    assert metrics.sum("remora_shadow_copies_total", outcome="ok") >= 40
    assert load.failed == 0


async def test_a_candidate_that_crashes_on_copies_is_withdrawn_and_no_client_has_met_it(
    stage: Stage, new_load: Callable[..., Load]
) -> None:
    await shadowed(stage)
    load = new_load(stage.agent)
    await load.more(20)

    path = stage.directory / "candidate-3"
    digest = make_artifact(path, "3").digest
    stage.faults.write_text(json.dumps({digest: 0.5}))
    await stage.deliver(await stage.ask("for 3"), path)
    await stage.reaches(digest, "rolled_back")
    assert load.failed == 0
    assert load.versions["3"] == 0
    await until(lambda: load.requests > 100, "traffic goes on")
