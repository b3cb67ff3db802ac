"""What is decided, as plain JSON for the API and the page. Reads only, bounded lists."""

from collections.abc import Callable
from typing import Any

from agent.admin.view import Json
from agent.release import STATE_NUMBER, Release
from agent.release_rules import ROLLBACK_REASONS
from agent.retraining import Retraining
from agent.slots import Slots
from retrain.ledger import Ledger
from retrain.registry import Registry
from retrain.rollout import Rollout, State
from retrain.run import Run

LISTED_MAX = 50
ENTRIES_MAX = 1_000


class Facts:
    """The parts that decide, read. `stable_label` gives the version that is stable."""

    def __init__(
        self,
        *,
        registry: Registry,
        slots: Slots,
        release: Release,
        retraining: Retraining,
        ledger: Ledger,
        stable_label: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._slots = slots
        self._release = release
        self._retraining = retraining
        self._ledger = ledger
        self._stable_label = stable_label

    def stable(self) -> Json:
        stable = self._registry.stable()
        if stable is None:
            return {
                "version": self._stable_label(),
                "digest": None,
                "address": None,
            }
        return {
            "version": self._stable_label(),
            "digest": stable.digest,
            "address": self._slots.address(stable.name),
            "slot": stable.name,
        }

    def rollout(self) -> Json | None:
        rollout = self._release.rollout
        if rollout is None:
            return None
        facts = shown(rollout)
        facts["because"] = because(rollout, self._ledger)
        evidence = self._release.evidence
        if evidence is not None and evidence.assessment is not None:
            facts["assessment"] = evidence.assessment.as_json()
        return facts | self._of_copies(rollout)

    def _of_copies(self, rollout: Rollout) -> Json:
        """Of the rollout under way: how many copies were answered, and how the answers compare."""
        evidence = self._release.evidence
        if evidence is None or not rollout.policy.shadow:
            return {}
        answered = 0
        if rollout.state is State.SHADOW and evidence.assessment is not None:
            answered = evidence.assessment.step_requests
        return {"pairs": evidence.pairs.as_json(), "copies_answered": answered}

    def rollout_figures(self) -> dict[str, Any] | None:
        rollout, evidence = self._release.rollout, self._release.evidence
        if rollout is None:
            return None
        pairs: dict[str, int] = {} if evidence is None else evidence.pairs.by_agreement()
        return {
            "candidate": rollout.candidate,
            "state": STATE_NUMBER[rollout.state],
            "weight": rollout.weight,
            "version": self._release.versions.label(rollout.candidate),
            "pairs": pairs,
        }

    @property
    def rollbacks(self) -> dict[str, int]:
        """By reason, all from zero: `increase()` must see the first."""
        return {reason: self._release.rollbacks[reason] for reason in ROLLBACK_REASONS}

    def run(self) -> Json | None:
        newest = self._retraining.runs.recent(1)
        return run_shown(newest[0]) if newest else None

    def decision(self) -> Json | None:
        decision = self._retraining.last_decision
        return None if decision is None else decision.to_json()

    def rollouts(self) -> list[Json]:
        release = self._release
        listed = []
        for rollout in self._registry.rollouts(LISTED_MAX):
            facts = shown(rollout)
            facts["because"] = because(rollout, self._ledger)
            facts["transitions"] = [
                {
                    "at": entry.at,
                    "kind": entry.kind,
                    "state": entry.data.get("state"),
                    "reason": entry.reason,
                }
                for entry in self._ledger.entries(subject=rollout.id, limit=200)
            ]
            if release.rollout is not None and rollout.id == release.rollout.id:
                seen = None if release.evidence is None else release.evidence.assessment
                facts["measurements"] = [] if seen is None else seen.as_json()["measurements"]
                facts |= self._of_copies(rollout)
            listed.append(facts)
        return listed

    def runs(self) -> list[Json]:
        return [run_shown(run) for run in self._retraining.runs.recent(LISTED_MAX)]

    def versions(self) -> list[Json]:
        stable = self._registry.stable()
        digest = None if stable is None else stable.digest
        held = {entry.digest for entry in self._registry.quarantined()}
        return [
            {
                "version": version.label,
                "digest": version.digest,
                "origin": version.origin,
                "parent": version.parent,
                "created": version.at,
                "stable": version.digest == digest,
                "quarantined": version.digest in held,
            }
            for version in self._registry.versions()
        ]

    def quarantined(self) -> list[Json]:
        return [
            {"digest": entry.digest, "reason": entry.reason, "at": entry.at}
            for entry in self._registry.quarantined()
        ]

    def ledger(self, *, after: int, limit: int) -> Json:
        entries = self._ledger.entries(after=after, limit=limit)
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
            "head": self._ledger.head(),
        }

    def ledger_verify(self) -> Json:
        found = self._ledger.verify()
        return {"entries": found.entries, "ok": found.ok, "broken_at": found.broken_at}


def because(rollout: Rollout, ledger: Ledger) -> str:
    """What decided: the evidence, or the person, behind a rollback or a promotion.

    `reason` is of the last step, which after a decision only says that a route was confirmed.
    """
    back = ledger.entries(subject=rollout.id, kind="rollback", limit=1)
    if back:
        return back[0].reason
    promoted = ledger.entries(subject=rollout.id, kind="promotion", limit=1)
    if not promoted:
        return rollout.reason
    before = [
        entry.reason
        for entry in ledger.entries(subject=rollout.id, kind="rollout", limit=ENTRIES_MAX)
        # Entries bear the state that was left: from "promoting" on, everything was decided.
        if entry.id < promoted[0].id and entry.data.get("state") != State.PROMOTING
    ]
    return before[-1] if before else rollout.reason


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
        "shadow_share": rollout.policy.shadow,
        "copies_min": rollout.policy.shadow_requests_min if rollout.policy.shadow else 0,
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
