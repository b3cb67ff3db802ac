"""What is decided, as plain JSON for the API and the page. Reads only, bounded lists."""

from typing import TYPE_CHECKING, Any

from agent.admin.view import Json
from agent.release import STATE_NUMBER
from retrain.rollout import Rollout
from retrain.run import Run

if TYPE_CHECKING:
    from agent.controller import Controller

LISTED_MAX = 50


class Facts:
    """The controller's parts, read."""

    def __init__(self, controller: "Controller") -> None:
        self._controller = controller

    def stable(self) -> Json:
        stable = self._controller.registry.stable()
        if stable is None:
            return {
                "version": self._controller.intake.monitor.stable,
                "digest": None,
                "address": None,
            }
        return {
            "version": self._controller.stable_label(),
            "digest": stable.digest,
            "address": self._controller.slots.address(stable.name),
            "slot": stable.name,
        }

    def rollout(self) -> Json | None:
        rollout = self._controller.release.rollout
        if rollout is None:
            return None
        facts = shown(rollout)
        if self._controller.release.assessment is not None:
            facts["assessment"] = self._controller.release.assessment.as_json()
        return facts

    def rollout_figures(self) -> dict[str, Any] | None:
        rollout = self._controller.release.rollout
        if rollout is None:
            return None
        return {
            "candidate": rollout.candidate,
            "state": STATE_NUMBER[rollout.state],
            "weight": rollout.weight,
            "version": self._controller.release.label(rollout.candidate),
        }

    @property
    def rollbacks(self) -> dict[str, int]:
        return dict(self._controller.release.rollbacks)

    def run(self) -> Json | None:
        newest = self._controller.retraining.runs.recent(1)
        return run_shown(newest[0]) if newest else None

    def decision(self) -> Json | None:
        decision = self._controller.retraining.last_decision
        return None if decision is None else decision.to_json()

    def rollouts(self) -> list[Json]:
        release = self._controller.release
        listed = []
        for rollout in self._controller.registry.rollouts(LISTED_MAX):
            facts = shown(rollout)
            facts["transitions"] = [
                {
                    "at": entry.at,
                    "kind": entry.kind,
                    "state": entry.data.get("state"),
                    "reason": entry.reason,
                }
                for entry in self._controller.decisions.entries(subject=rollout.id, limit=200)
            ]
            if release.rollout is not None and rollout.id == release.rollout.id:
                seen = release.assessment
                facts["measurements"] = [] if seen is None else seen.as_json()["measurements"]
            listed.append(facts)
        return listed

    def runs(self) -> list[Json]:
        return [run_shown(run) for run in self._controller.retraining.runs.recent(LISTED_MAX)]

    def versions(self) -> list[Json]:
        stable = self._controller.stable_digest()
        held = {entry.digest for entry in self._controller.registry.quarantined()}
        return [
            {
                "version": version.label,
                "digest": version.digest,
                "origin": version.origin,
                "parent": version.parent,
                "created": version.at,
                "stable": version.digest == stable,
                "quarantined": version.digest in held,
            }
            for version in self._controller.registry.versions()
        ]

    def quarantined(self) -> list[Json]:
        return [
            {"digest": entry.digest, "reason": entry.reason, "at": entry.at}
            for entry in self._controller.registry.quarantined()
        ]

    def ledger(self, *, after: int, limit: int) -> Json:
        entries = self._controller.decisions.entries(after=after, limit=limit)
        return {
            "entries": [
                {
                    "id": entry.id,
                    "at": entry.at,
                    "kind": entry.kind,
                    "subject": entry.subject,
                    "actor": entry.actor,
                    "reason": entry.reason,
                    "data": dict(entry.data),
                    "hash": entry.hash,
                }
                for entry in entries
            ],
            "head": self._controller.decisions.head(),
        }

    def ledger_verify(self) -> Json:
        found = self._controller.decisions.verify()
        return {"entries": found.entries, "ok": found.ok, "broken_at": found.broken_at}


def shown(rollout: Rollout) -> Json:
    return {
        "id": rollout.id,
        "candidate": rollout.candidate,
        "stable": rollout.stable,
        "state": rollout.state.value,
        "reason": rollout.reason,
        "weight": rollout.weight,
        "step": rollout.step,
        "steps": list(rollout.policy.steps),
        "strategy": rollout.policy.strategy,
        "requests": rollout.requests,
        "bake_requests": rollout.bake_requests,
        "promoted": rollout.promoted,
        "paused": rollout.paused,
        "frozen": rollout.frozen,
        "started_at": rollout.created_at,
        "entered_at": rollout.entered_at,
    }


def run_shown(run: Run) -> Json:
    return {
        "id": run.id,
        "state": run.state.value,
        "trigger": run.trigger,
        "via": run.via.value,
        "target": run.target,
        "reason": run.reason,
        "requested_at": run.requested_at,
        "deadline_at": run.deadline_at,
        "outcome": run.state.value if run.ended else None,
        "metrics": dict(run.metrics),
        "external_url": run.external_url,
        "sha256": run.sha256,
    }
