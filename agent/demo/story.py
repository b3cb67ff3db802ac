"""The main job, end to end, as a story: watch, detect, retrain, gate, canary, promote, roll back.

Nothing here decides anything. It starts the parts, sends traffic, changes the world, and reads
from Remora's own API what Remora did; a step that did not truly happen makes the demo fail.
"""

import asyncio
import json
import random
import shutil
from pathlib import Path
from typing import Any

import httpx

from agent.demo.ci import ContinuousIntegration, Serving
from agent.demo.figures import (
    accuracy,
    canary_progress,
    chosen,
    figures_said,
    gate_words,
    model_bytes,
    quality,
    rollback_time,
    why_promoted,
    why_rolled_back,
)
from agent.demo.looking import Looking
from agent.demo.rows import as_before, drifting, read_people
from agent.demo.stage import MODEL, Stage
from agent.demo.timeline import Timeline, share, size
from agent.demo.traffic import Traffic
from retrain.runners.local import JobLimits, LocalRunner, pipeline_argv

SEED = 20
REQUESTS_S = 160.0
QUIET_ROWS = 6_000
FAULT = {"failing": 0.3}
PROMOTED = ("baking", "live")
STOPPED = ("held", "rolled_back", "aborted", "failed")
RUN_ENDS = ("produced", "failed", "timed_out", "cancelled")

Json = dict[str, Any]


class Story:
    """One telling. `tell` returns the exit code."""

    def __init__(self, stage: Stage, timeline: Timeline) -> None:
        self._stage = stage
        self._timeline = timeline
        self._client = httpx.AsyncClient(base_url=stage.admin_url, trust_env=False, timeout=10.0)
        self._look = Looking(self._client, timeline)
        self._people = read_people()
        self._rng = random.Random(SEED)  # noqa: S311 - which row comes next is no secret
        self._ci: ContinuousIntegration | None = None
        self._traffic: Traffic | None = None
        self._serving: Serving | None = None
        self._accuracy_before = "–"
        self._bad_version = ""

    async def tell(self) -> int:
        """Every chapter in order; 0 when each step truly happened."""
        stage, timeline = self._stage, self._timeline
        timeline.title("1. A model in production, and Remora beside it")
        await self._first_model()
        timeline.say("configuration of the agent:")
        timeline.show(stage.write_config())
        await asyncio.to_thread(stage.start_model)
        await asyncio.to_thread(stage.start_agent)
        timeline.say(f"status page: {stage.admin_url}/")
        await self._open_ci()
        await self._quiet()
        timeline.title("2. The world changes")
        await self._drift()
        timeline.title("3. Retraining, gates, canary, promotion")
        await self._retraining()
        promoted = await self._promotion() if not timeline.failures else None
        if not timeline.failures:
            timeline.title("4. A bad candidate")
            await self._bad_candidate(promoted)
            await self._account()
        return 1 if timeline.failures else 0

    async def close(self) -> None:
        """End everything that was started here."""
        if self._traffic is not None:
            await self._traffic.stop()
        if self._serving is not None:
            await self._serving.stop()
        await self._client.aclose()

    # Chapter 1.

    async def _first_model(self) -> None:
        """Trained there and then on real rows, by the pipeline that retraining uses."""
        stage, timeline = self._stage, self._timeline
        job = await LocalRunner().start(
            pipeline_argv("run", str(stage.recipe), "--out", str(stage.first)),
            cwd=stage.directory,
            limits=JobLimits(time_s_max=180.0, nice=0),
        )
        async for progress in job.events():
            self._show_training("first model", dict(progress))
        end = await job.wait()
        timeline.end_bar("first model")
        # Without a stable model to be compared with, gates have nothing to pass.
        trained = (stage.artifact / "manifest.json").exists()
        if not trained:
            timeline.check(False, f"the first model was trained: {end.stderr_tail[-300:]}")
            raise RuntimeError("there is no first model")
        manifest = json.loads((stage.artifact / "manifest.json").read_bytes())
        timeline.check(
            True,
            "a first model was trained on UCI Adult and packaged",
            accuracy=share(accuracy(manifest)),
            compressed=chosen(manifest),
        )

    def _show_training(self, name: str, progress: Json) -> None:
        step = str(progress.get("step", ""))
        metrics = progress.get("metrics") or {}
        said = ", ".join([step, *figures_said(metrics)])
        if step != "finished":
            self._timeline.bar(name, float(progress["done"]), float(progress["total"] or 1), said)

    async def _open_ci(self) -> None:
        stage = self._stage
        self._ci = ContinuousIntegration(
            directory=stage.ci,
            recipe=stage.recipe,
            secret=stage.secret,
            remora_token=stage.token,
            stable_artifact=self._stable_artifact,
            on_step=self._on_ci_step,
        )
        self._ci.url = f"http://127.0.0.1:{stage.ports.ci}"
        self._serving = Serving(self._ci.application(), stage.ports.ci)
        await self._serving.start()

    def _stable_artifact(self) -> Path:
        """What is in production, as CI is told when it asks."""
        stable = httpx.get(
            f"{self._stage.admin_url}/api/v1/status", trust_env=False, timeout=10.0
        ).json()["stable"]["digest"]
        return self._stage.state / "artifacts" / str(stable).replace(":", "-")

    def _on_ci_step(self, step: str, facts: Json) -> None:
        timeline = self._timeline
        if step == "webhook":
            if facts["type"].startswith("remora.retrain"):
                timeline.end_bar("CI waits for labels")
                timeline.say("CI: signed webhook verified", type=facts["type"])
        elif step == "waiting":
            timeline.bar(
                "CI waits for labels",
                facts["rows"],
                facts["wanted"],
                f"{facts['rows']:,} labelled rows of the new world",
            )
        elif step == "training":
            timeline.end_bar("CI waits for labels")
            if "metrics" in facts:
                self._show_training("CI trains", facts)
        elif step == "trained":
            timeline.end_bar("CI trains")
            timeline.say(
                "CI: candidate trained, compressed and packaged",
                size=size(model_bytes(facts["manifest"])),
                compressed=chosen(facts["manifest"]),
            )
        elif step == "failed":
            timeline.say(f"CI: the pipeline failed: {facts['why']}")
        elif step == "callback" and facts["status"] != "running":
            timeline.say(f"CI: called back {facts['status']}", answer=facts["answer"])

    async def _quiet(self) -> None:
        """Traffic as it always was: nothing may alarm."""
        stage, timeline = self._stage, self._timeline
        self._traffic = Traffic(
            url=f"http://127.0.0.1:{stage.ports.proxy}/v2/models/{MODEL}/infer",
            labels_url=f"{stage.admin_url}/api/v1/labels",
            token=stage.token,
            source=as_before(self._people, self._rng),
            requests_s=REQUESTS_S,
            seed=SEED,
        )
        self._traffic.start()
        status = await self._look.until(
            lambda s: s["rows_total"] >= QUIET_ROWS and s["quality"].get("accuracy"),
            bar=("ordinary traffic", lambda s: (s["rows_total"], QUIET_ROWS)),
        )
        findings = [f for f in await self._look.findings() if f["state"] in ("warning", "drift")]
        timeline.check(
            status is not None and not findings,
            "ordinary traffic raised no alarm",
            rows=f"{status['rows_total'] if status else 0:,}",
            accuracy=quality(status),
            protocol=next(iter(status["protocol"].values()), "–") if status else "–",
        )
        self._accuracy_before = quality(status)

    # Chapter 2.

    async def _drift(self) -> None:
        timeline, traffic = self._timeline, self._traffic
        assert traffic is not None
        timeline.say("age now comes in months; clients are older; a new workclass appears")
        rows_at_change = traffic.rows
        traffic.source = drifting(self._people, self._rng)
        found = await self._look.until_found(
            lambda findings: [f for f in findings if f["state"] == "drift"]
        )
        for finding in found[:4]:
            timeline.say(
                finding["explain"],
                evidence=f"10^{finding['evidence']:.0f}",
                effect=f"{finding['effect']['name']} {finding['effect']['value']:.2f}",
            )
        timeline.check(
            bool(found),
            "drift found",
            rows_until_detection=f"at most {traffic.rows - rows_at_change:,}",
            subjects=", ".join(sorted({f["subject"] for f in found})),
        )

    # Chapter 3.

    async def _retraining(self) -> None:
        timeline = self._timeline
        assert self._ci is not None
        run = await self._look.until(lambda s: s["run"] and s["run"]["state"] in RUN_ENDS)
        timeline.check(
            run is not None
            and run["run"]["state"] == "produced"
            and bool(self._ci.finished)
            and not self._ci.refused,
            "retrained by CI: webhook delivered, callback signed, artifact fetched and verified",
            accuracy_meanwhile=f"fell from {self._accuracy_before} to {quality(run)}",
        )
        if timeline.failures:
            return
        gates = await self._look.ledger_entry("gate")
        timeline.check(
            gates is not None and gates["data"].get("passed") is True,
            f"gates measured again by Remora: {gates['reason'] if gates else 'none'}",
        )
        for words in gate_words(gates):
            timeline.say(words)

    async def _promotion(self) -> Json | None:
        timeline = self._timeline
        status = await self._look.until(
            lambda s: s["rollout"] and s["rollout"]["state"] in (*PROMOTED, *STOPPED),
            bar=("canary", canary_progress),
        )
        timeline.end_bar("canary")
        rollout = status["rollout"] if status else None
        told = await self._look.rollout(rollout["candidate"]) if rollout else None
        if rollout is None or rollout["state"] in STOPPED:
            why = f"{rollout['state']}: {rollout['reason']}" if rollout else "no rollout began"
            timeline.check(False, f"canary promoted ({why})")
            return None
        timeline.check(
            True,
            "canary promoted",
            canary_requests=rollout["requests"],
            because=why_promoted(told),
        )
        live = await self._look.until(lambda s: s["rollout"]["state"] == "live")
        good = await self._look.until(
            lambda s: s["quality"].get("accuracy") and s["quality"]["accuracy"]["rows"] >= 500
        )
        findings = [
            f
            for f in await self._look.findings()
            if good is not None
            and f["version"] == good["stable"]["version"]
            and f["state"] == "drift"
        ]
        timeline.check(
            live is not None and good is not None and not findings,
            "the new model is live, measured against its own reference",
            accuracy=quality(good),
            version=good["stable"]["version"] if good else "–",
        )
        return live

    # Chapter 4.

    async def _bad_candidate(self, before: Json | None) -> None:
        timeline = self._timeline
        assert self._ci is not None
        known = len(self._ci.finished)
        timeline.say("an operator asks for a refresh; this build will crash on 3 of 10 requests")
        answer = await self._client.post(
            "/api/v1/trigger",
            json={"reason": "weekly refresh"},
            headers={"authorization": f"Bearer {self._stage.token}"},
        )
        if answer.status_code != 200:
            timeline.check(False, f"a retraining by hand: {answer.text[:200]}")
            return
        await self._look.until(lambda _: len(self._ci.finished) > known if self._ci else False)
        if len(self._ci.finished) <= known:
            timeline.check(False, "CI brought a second candidate")
            return
        digest = self._ci.finished[-1]["digest"]
        self._bad_version = self._ci.finished[-1]["manifest"]["version"]
        self._stage.misbehave({digest: FAULT})
        rolled = await self._look.until(
            lambda s: (
                s["rollout"]["candidate"] == digest and s["rollout"]["state"] in ("live", *STOPPED)
            ),
            bar=("second canary", canary_progress),
        )
        timeline.end_bar("second canary")
        rollout = await self._look.rollout(digest)
        stable = rolled["stable"]["digest"] if rolled else None
        held = (await self._client.get("/api/v1/quarantine")).json()["quarantine"]
        timeline.check(
            rolled is not None and rolled["rollout"]["state"] == "rolled_back",
            "bad candidate caught by the canary and rolled back",
            canary_requests=rolled["rollout"]["requests"] if rolled else 0,
            rollback=rollback_time(rollout),
            because=why_rolled_back(rollout),
        )
        timeline.check(
            before is not None
            and stable == before["stable"]["digest"]
            and any(entry["digest"] == digest for entry in held),
            "the good model serves on; the bad digest is in quarantine",
        )

    async def _account(self) -> None:
        """What it cost the clients, and whether the ledger holds."""
        timeline, traffic = self._timeline, self._traffic
        assert traffic is not None
        assert self._ci is not None
        verified = (await self._client.get("/api/v1/ledger/verify")).json()
        timeline.title("Account")
        timeline.check(verified["ok"], "the ledger's hash chain holds", entries=verified["entries"])
        wanted = {"remora.drift.detected", "remora.rollout.promoted", "remora.rollout.rolled_back"}
        timeline.check(
            wanted <= set(self._ci.received) and not self._ci.refused,
            "every webhook arrived signed",
            received=len(self._ci.received),
        )
        by_others = await self._look.failures(but_for=self._bad_version)
        timeline.check(
            by_others == 0,
            "no request failed but those that the bad candidate answered",
            requests=f"{traffic.requests:,}",
            rows=f"{traffic.rows:,}",
            failed=traffic.failed,
            labels=f"{traffic.labels:,}",
        )
        status = (await self._client.get("/api/v1/status")).json()
        memory = {
            name: size(process.get("memory_bytes", 0.0))
            for name, process in status["processes"].items()
        }
        timeline.say("memory of Remora's processes", **memory)
        timeline.say(f"took {timeline.elapsed_s:.0f} s")


def remove(directory: Path) -> None:
    """The demo's directory, when nobody wants to look at it."""
    shutil.rmtree(directory, ignore_errors=True)
