"""The line from a trigger to a promoted model, without a trainer: every end of it is real.

A CI stand-in calls back with prepared artifacts; the gates, the slots, the canary, the ledger and
the quarantine are those of the running agent, and so is what a kill in the middle leaves.
"""

import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from retrain.traffic.process import ProcessId
from tests.e2e.ci import Ci, make_artifact, send, signed, write_recipe
from tests.e2e.house import Agent, Load, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

SERVER = Path(__file__).with_name("model.py")
FEATURES = [{"name": name, "kind": "numeric"} for name in ("f0", "f1", "f2")]


class Stage:
    """An agent with everything around it that a release needs."""

    def __init__(self, directory: Path, ci: Ci, new_agent: Callable[..., Agent]) -> None:
        self.directory = directory
        self.ci = ci
        self.faults = directory / "faults.json"
        self.faults.write_text("{}")
        secret = directory / "webhook.secret"
        secret.write_text(ci.secret + "\n")
        secret.chmod(0o600)
        first = directory / "first"
        make_artifact(first, "1")
        self.agent = new_agent(
            schema={"features": FEATURES},
            reference={"learn_rows": 600, "provisional_rows": 100},
            detect={"tick_rows": 200, "tick_s": 1},
            triggers=[{"name": "drift", "on": "drift"}],
            webhooks={
                "targets": [
                    {
                        "name": "ci",
                        "url": f"http://127.0.0.1:{ci.port}/hook",
                        "secret_file": str(secret),
                    }
                ],
                "allow_cidrs": ["127.0.0.0/8"],
                "allow_http": True,
                "ports": [ci.port],
            },
            retrain={
                "via": "webhook",
                "target": "ci",
                "recipe": str(write_recipe(directory)),
                "cooldown_s": 600,
                "runs_per_day_max": 50,
                "artifact_hosts": [f"127.0.0.1:{ci.port}"],
            },
            rollout={
                "stable_artifact": str(first),
                "candidate": {
                    "start": [
                        *(sys.executable, str(SERVER), "--port", "{port}"),
                        *("--artifact", "{artifact}", "--faults", str(self.faults)),
                    ],
                    "ready_path": "/ready",
                },
                "steps": [0.3, 0.5],
                "step_requests_min": 60,
                "promote_requests_min": 200,
                "step_s_min": 0.5,
                "total_s_min": 1,
                "margin": {"error": 0.1, "slow": 0.9, "quality": 0.5},
                "delta": {"error": 0.01, "slow": 0.5, "quality": 0.1},
                "bake_s": 1,
                "bake_requests": 100,
                "cooldown_s": 0,
                "lease_s": 2,
            },
        )
        self.agent.config["admin"]["public_url"] = self.agent.admin

    async def ask(self, reason: str) -> dict[str, Any]:
        """Trigger by hand; the data of the webhook that CI got."""
        known = len(self.ci.told("remora.retrain.requested"))
        answer = await self.agent.post("/api/v1/trigger", {"reason": reason})
        assert answer.status_code == 200, answer.text
        await until(
            lambda: len(self.ci.told("remora.retrain.requested")) > known, "CI is asked to retrain"
        )
        return self.ci.told("remora.retrain.requested")[-1]

    async def deliver(self, asked: dict[str, Any], artifact: Path) -> None:
        report = {"status": "succeeded", "artifact": self.ci.pack(artifact)}
        headers, body = signed(asked, report, id=f"{asked['run_id']}-done")
        answer = await send(asked["callback_url"], headers, body)
        assert answer.status_code == 200, answer.text

    async def offer(self, version: str) -> str:
        """A candidate of that name, all the way to its rollout or refusal; its digest."""
        path = self.directory / f"candidate-{version}"
        digest = make_artifact(path, version).digest
        await self.deliver(await self.ask(f"for {version}"), path)
        return digest

    async def rollout(self) -> dict[str, Any]:
        status = await self.agent.status()
        return (status or {}).get("rollout") or {"state": "", "candidate": ""}

    async def reaches(self, digest: str, *states: str, within_s: float = 60.0) -> dict[str, Any]:
        async def there() -> Any:
            rollout = await self.rollout()
            found = rollout["candidate"] == digest and rollout["state"] in states
            return rollout if found else None

        try:
            found: dict[str, Any] = await until(there, f"rollout {states}", within_s=within_s)
        except AssertionError:
            print(await self.rollout())
            print("\n".join(entry["reason"] for entry in (await self.agent.ledger())[-20:]))
            raise
        return found


@pytest.fixture
async def stage(tmp_path: Path, new_agent: Callable[..., Agent]) -> AsyncIterator[Stage]:
    (tmp_path / "ci").mkdir()
    ci = Ci(tmp_path / "ci")
    await ci.start()
    try:
        made = Stage(tmp_path, ci, new_agent)
        await made.agent.start()
        yield made
    finally:
        await ci.stop()


async def test_a_candidate_goes_all_the_way_and_a_bad_one_goes_back(
    stage: Stage, new_load: Callable[..., Load]
) -> None:
    agent = stage.agent
    load = new_load(agent)
    asked = await stage.ask("the first one")
    again = await agent.post("/api/v1/trigger", {"reason": "the same again"})
    assert again.status_code == 409
    assert "run in flight" in again.text
    await _callbacks_that_count_for_nothing(stage, asked)
    good = make_artifact(stage.directory / "good", "2").digest
    await stage.deliver(asked, stage.directory / "good")
    await stage.reaches(good, "live")
    await load.more(30)
    assert load.versions["2"] > 100
    status = await agent.status()
    assert status is not None
    assert status["stable"] | {"address": ""} == {
        "version": "2", "digest": good, "address": "", "slot": "B",
    }  # fmt: skip
    assert load.failed == 0

    # Bad only in production, where no gate can look.
    bad = make_artifact(stage.directory / "bad", "3").digest
    stage.faults.write_text(json.dumps({bad: 0.5}))
    await stage.deliver(await stage.ask("another"), stage.directory / "bad")
    gone = await stage.reaches(bad, "rolled_back")
    assert "error" in gone["reason"] or "fail" in gone["reason"] or gone["reason"]
    quarantined = (await agent.get("/api/v1/quarantine")).json()["quarantine"]
    assert [entry["digest"] for entry in quarantined] == [bad]
    status = await agent.status()
    assert status is not None
    assert status["stable"]["version"] == "2"
    await stage.deliver(await stage.ask("the bad one again"), stage.directory / "bad")

    async def refused() -> bool:
        return any("in quarantine" in entry["reason"] for entry in await agent.ledger())

    await until(refused, "the same digest is not tried again")
    assert (await stage.rollout())["state"] == "rolled_back"
    await _the_ledger_knows_it_all(stage, good, bad)
    metrics = await agent.metrics()
    assert metrics.sum("remora_rollbacks_total") == 1
    assert metrics.sum("remora_retrain_runs_total", outcome="produced") == 3
    types = [event["type"] for event in stage.ci.events]
    assert types.count("remora.rollout.promoted") == 1
    assert types.count("remora.rollout.rolled_back") == 1

    # Back to the model that was there before Remora came: it still runs, and nobody starts it.
    back = await agent.post("/api/v1/rollback", {"to": "1", "reason": "as it was"})
    assert back.status_code == 200, back.text
    first = back.json()["candidate"]
    await stage.reaches(first, "baking", "live")
    before = load.versions["1"]
    await until(lambda: load.versions["1"] > before + 20, "requests go to the first model")
    status = await agent.status()
    assert status is not None
    assert status["stable"]["address"] == f"127.0.0.1:{_upstream_port(agent)}"


def _upstream_port(agent: Agent) -> str:
    return str(agent.config["sources"][0]["upstream"]).rpartition(":")[2]


async def _callbacks_that_count_for_nothing(stage: Stage, asked: dict[str, Any]) -> None:
    url, report = asked["callback_url"], {"status": "failed"}
    headers, body = signed(asked, report, id="forged-1")
    unsigned = {"content-type": "application/json"}
    assert (await send(url, unsigned, body)).status_code == 401
    assert (await send(url, headers, body.replace(b"failed", b"failes"))).status_code == 401
    stale, _ = signed(asked, report, id="forged-2", at=time.time() - 3_600)
    assert (await send(url, stale, body)).status_code == 401
    elsewhere = url.replace(asked["run_id"], "run_0000000000000000")
    assert (await send(elsewhere, headers, body)).status_code == 401
    runs = (await stage.agent.get("/api/v1/runs")).json()["runs"]
    assert [run["state"] for run in runs] == ["waiting"]
    running, body = signed(asked, {"status": "running"}, id="said-once")
    first = await send(url, running, body)
    entries = len(await stage.agent.ledger())
    second = await send(url, running, body)
    assert (first.status_code, second.status_code) == (200, 200)
    assert (first.json()["duplicate"], second.json()["duplicate"]) == (False, True)
    assert len(await stage.agent.ledger()) == entries


async def _the_ledger_knows_it_all(stage: Stage, good: str, bad: str) -> None:
    entries = await stage.agent.ledger()
    kinds = {entry["kind"] for entry in entries}
    assert {"decision", "run", "gate", "rollout", "promotion", "rollback", "quarantine"} <= kinds
    for digest, wanted in (
        (good, ["staging", "canary", "promoting", "baking", "live"]),
        (bad, ["staging", "canary", "rolling_back", "rolled_back"]),
    ):
        listed = (await stage.agent.get("/api/v1/rollouts")).json()["rollouts"]
        rollout = next(one for one in listed if one["candidate"] == digest)
        told = [one["state"] for one in rollout["transitions"]]
        assert list(dict.fromkeys(told)) == wanted or set(wanted) <= {*told, rollout["state"]}, told
    verified = (await stage.agent.get("/api/v1/ledger/verify")).json()
    assert verified["ok"] is True
    assert verified["entries"] == len(entries)


async def test_kills_in_the_middle_of_a_release_cost_nothing(
    stage: Stage, new_load: Callable[..., Load]
) -> None:
    agent = stage.agent
    agent.config["rollout"] |= {"total_s_min": 3, "bake_s": 3, "bake_requests": 1_000_000}
    agent.write_config()
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    load = new_load(agent)
    digest = await stage.offer("2")
    await stage.reaches(digest, "canary")
    await until(lambda: load.versions["2"] > 10, "the candidate has a share")
    await _hung_and_killed_in_the_canary(stage, load, digest)

    await stage.reaches(digest, "baking")
    model = agent.slots()[1]
    old = agent.signal("analysis", signal.SIGKILL)
    await agent.restarted("analysis", old)
    await agent.ready()
    assert agent.slots()[1]["pid"] == model["pid"]
    await stage.reaches(digest, "live")
    assert load.failed == 0

    # Now the whole agent: the model that was promoted serves on, and the next agent takes it over.
    agent.kill_supervisor()
    agent.launch()
    await agent.ready()
    before = load.versions["2"]
    await until(lambda: load.versions["2"] > before + 50, "the promoted model serves on")
    slot = agent.slots()[1]
    assert (slot["pid"], slot["stable"]) == (model["pid"], 1)
    assert "slot adopted" in agent.log.read_text()
    failed = load.statuses[502]
    assert failed == 0, load.statuses

    # And the model itself: it is started again on another port, and everybody learns of it.
    _kill(model["pid"])
    await until(lambda: agent.slots()[1]["pid"] not in (None, model["pid"]), "started again")
    before = load.versions["2"]
    served = load.statuses[200]
    await until(lambda: load.statuses[200] > served + 50, "requests are answered again")
    assert load.versions["2"] > before
    edge = agent.signal("edge", signal.SIGKILL)
    await agent.restarted("edge", edge)
    served = load.statuses[200]
    await until(lambda: load.statuses[200] > served + 20, "a new edge knows the new port")
    assert await agent.stop() == 0
    # Only the promoted model is left, on purpose.
    assert agent.alive() == []
    assert ProcessId.of(agent.slots()[1]["pid"]) is not None


def _kill(pid: int) -> None:
    process = ProcessId.of(pid)
    assert process is not None
    process.kill()


async def _hung_and_killed_in_the_canary(stage: Stage, load: Load, digest: str) -> None:
    agent = stage.agent
    old = agent.signal("analysis", signal.SIGSTOP)

    async def lease_ran_out() -> bool:
        before = load.versions["2"]
        await load.more(60)
        return load.versions["2"] == before

    await until(lease_ran_out, "nobody renews the lease: the weight is gone", within_s=15.0)
    agent.signal("analysis", signal.SIGKILL)
    await agent.restarted("analysis", old)
    await agent.ready()
    before = load.versions["2"]
    await until(lambda: load.versions["2"] > before + 10, "the rollout is taken up again")
    assert (await stage.rollout())["candidate"] == digest


async def test_a_sidecar_only_watches(stage: Stage, new_load: Callable[..., Load]) -> None:
    agent = stage.agent
    await agent.stop()
    agent.role = "sidecar"
    await agent.start()
    load = new_load(agent)
    answer = await agent.post("/api/v1/trigger", {"reason": "please"})
    assert answer.status_code == 409
    assert "sidecar" in answer.text
    first = (await agent.status() or {})["stable"]["digest"]
    for path, body in (
        ("/api/v1/rollouts", {"candidate": first}),
        ("/api/v1/rollback", {"to": "1", "reason": "no"}),
    ):
        assert (await agent.post(path, body)).status_code == 409, path
    assert (await agent.post("/api/v1/trigger", {}, token=False)).status_code == 401
    await _drift(agent, load)
    assert stage.ci.events == []


async def test_drift_fires_once_and_then_waits_for_the_cooldown(
    stage: Stage, new_load: Callable[..., Load]
) -> None:
    agent = stage.agent
    load = new_load(agent, rows=4)
    await _drift(agent, load)
    await until(lambda: stage.ci.told("remora.drift.detected"), "drift is announced")
    asked = (await until(lambda: stage.ci.told("remora.retrain.requested"), "CI is asked"))[0]
    assert asked["findings"]
    headers, body = signed(asked, {"status": "failed"}, id="sorry")
    assert (await send(asked["callback_url"], headers, body)).status_code == 200

    async def held() -> bool:
        entries = await agent.ledger()
        return any("cooldown" in e["reason"] for e in entries if e["kind"] == "decision")

    await until(held, "the failed run may be tried again, after the cooldown")
    assert len(stage.ci.told("remora.retrain.requested")) == 1


async def _drift(agent: Agent, load: Load) -> None:
    """The first feature moves, once there is a reference."""

    async def learnt() -> bool:
        return bool((await agent.status() or {}).get("reference"))

    await until(learnt, "reference learnt")
    load.shift = 3.0

    async def found() -> bool:
        findings = (await agent.get("/api/v1/findings")).json()["findings"]
        return any(f["state"] == "drift" and f["subject"] == "f0" for f in findings)

    await until(found, "drift found", within_s=60.0)
