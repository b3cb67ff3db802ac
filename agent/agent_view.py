"""What the running agent shows of itself: the admin API's `View` over the topology.

It reads and translates; every change goes through the controller. Lists are bounded here.
"""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.admin.view import CallbackAnswer, Json, Refused
from agent.detection_status import detection_status
from agent.edge_totals import quantile
from agent.families import RolloutFigures, ScrapeInput, families
from agent.feature_view import HISTORY_POINTS_MAX, FeatureView
from agent.label_cohorts import Cohorts
from agent.label_parsing import parse_labels
from agent.latency import SHARES
from agent.server_families import server_status
from agent.source_status import completeness
from agent.version_watch import VersionWatch
from exporters.prometheus import Family
from retrain.ledger import LedgerError

if TYPE_CHECKING:
    from agent.topology import Agent

UNDECODED_SHOWN = 5


class AgentView:
    """Implements `agent.admin.view.View`."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._history: deque[Json] = deque(maxlen=HISTORY_POINTS_MAX)
        self._features = FeatureView()
        self._last: tuple[float, int, int] | None = None  # at, requests, errors
        self._last_durations: list[int] = []
        self._exported: tuple[str, ...] = ()

    # Reading.

    def status(self) -> Json:
        agent = self._agent
        monitor = agent.intake.monitor
        controller = agent.controller
        reference = monitor.reference(monitor.stable)
        return {
            "model": agent.config.model.name,
            "stable": controller.facts.stable(),
            "role": agent.role,
            "uptime_s": time.time() - agent.started_at,
            "config_digest": agent.config.digest,
            "protocol": dict(agent.intake.decoding.detected),
            "reference": None
            if reference is None
            else {
                "digest": reference.digest,
                "rows": reference.rows,
                "learnt": reference.learnt,
                "accepted": reference.accepted,
            },
            "learning": None
            if reference is not None
            else {"rows": monitor.learnt_rows, "of": monitor.settings.learn_rows},
            **agent.sampling.status(),
            "sources": agent.source_status(),
            "upstream": agent.upstream.state,
            "rows_total": monitor.rows_total,
            "requests_total": agent.totals.requests,
            "drops": dict(self._drops()),
            "undecoded": list(agent.intake.last_errors)[-UNDECODED_SHOWN:],
            "latency": _latency(agent.latencies.quantiles(time.time())),
            "slo": [one.as_json() for one in agent.objectives.standings(time.time())],
            "generations": agent.intake.generations.as_json(),
            **detection_status(self._watch(), monitor.findings),
            "labels": dict(agent.intake.labels.outcomes),
            "label_cohorts": agent.intake.labels.cohorts.as_json(),
            "rollout": controller.facts.rollout(),
            "run": controller.facts.run(),
            "decision": controller.facts.decision(),
            "processes": agent.agent_resources.read(),
            **server_status(agent.server_resources.latest, agent.costs),
        }

    def features(self) -> list[Json]:
        return self._features.entries(self._watch())

    def feature(self, name: str) -> Json | None:
        return self._features.one(self._watch(), name)

    def history(self) -> Json:
        return {"points": list(self._history)}

    def findings(
        self,
        *,
        limit: int,
        kind: str | None = None,
        state: str | None = None,
        subject: str | None = None,
    ) -> list[Json]:
        wanted = (
            reading.to_json()
            for reading in reversed(self._agent.intake.monitor.findings)
            if kind in (None, reading.kind)
            and state in (None, reading.state)
            and subject in (None, reading.subject)
        )
        return list(islice(wanted, limit))

    def rollouts(self) -> list[Json]:
        return self._agent.controller.facts.rollouts()

    def runs(self) -> list[Json]:
        return self._agent.controller.facts.runs()

    def versions(self) -> list[Json]:
        return self._agent.controller.facts.versions()

    def quarantined(self) -> list[Json]:
        return self._agent.controller.facts.quarantined()

    def ledger(self, *, after: int, limit: int) -> Json:
        return self._agent.controller.facts.ledger(after=after, limit=limit)

    def ledger_verify(self) -> Json:
        return self._agent.controller.facts.ledger_verify()

    def labels_wanted(self, *, limit: int) -> list[Json]:
        return self._agent.intake.labels.wanted(limit)

    def families(self) -> Sequence[Family]:
        agent = self._agent
        monitor = agent.intake.monitor
        if not self._exported:
            # Fixed once known: a series that comes and goes would break `increase()`.
            schema = monitor.schema_learner.schema
            self._exported = agent.config.export.features or schema.names
        return families(
            ScrapeInput(
                model=agent.config.model.name,
                totals=agent.totals,
                watches=monitor.watches(),
                stable=monitor.stable,
                features=self._exported,
                max_series=agent.config.export.max_series,
                rows_total=monitor.rows_since_start,
                sampling_rate=agent.sampling.rate,
                sampling_cpu_s=agent.sampling.cpu_s,
                budgets_held=agent.sampling.held,
                drops=self._drops(),
                labels=agent.intake.labels.outcomes,
                delays=agent.intake.delays,
                label_figures=_label_figures(agent.intake.labels.cohorts),
                server=agent.server_resources.latest,
                cost=None if agent.costs is None else agent.costs.as_json(),
                processes=agent.agent_resources.read(),
                deliveries=agent.controller.retraining.delivery.deliveries,
                rollbacks=agent.controller.facts.rollbacks,
                generations=agent.intake.generations.versions,
                latencies=agent.latencies.quantiles(time.time()),
                standings=agent.objectives.standings(time.time()),
                provisional=monitor.provisional,
                completeness=completeness(agent.source_status()),
                **self._from_ledger(),
            )
        )

    def _from_ledger(self) -> dict[str, Any]:
        """What a scrape shows of the ledger's file. Without it the traffic is still to be seen."""
        controller = self._agent.controller
        try:
            stable = controller.facts.stable()
            rollout = controller.facts.rollout_figures()
            counts = controller.retraining.outbox.counts()
            return {
                "version": stable["version"],
                "digest": stable["digest"] or "",
                "runs": controller.retraining.runs.totals(),
                "outbox": {state.value: count for state, count in counts.items()},
                "rollout": None if rollout is None else RolloutFigures(**rollout),
            }
        except LedgerError:
            self._agent.intake.dropped["ledger_unreadable"] += 1
            return {"version": self._agent.intake.monitor.stable, "digest": ""}

    def forget_exported(self) -> None:
        """The configuration was read again: which features are exported is asked anew."""
        self._exported = ()

    def _watch(self) -> VersionWatch | None:
        """The stable version's detectors, or what there is while its reference is learnt."""
        monitor = self._agent.intake.monitor
        return monitor.watch(monitor.stable) or monitor.provisional

    def _drops(self) -> Counter[str]:
        agent = self._agent
        drops: Counter[str] = Counter()
        drops.update(agent.totals.drops)
        drops.update({str(reason): n for reason, n in agent.intake.decoding.dropped.items()})
        drops.update(agent.intake.decoding.redaction_dropped)
        drops.update(agent.intake.dropped)
        drops.update(agent.intake.labels.dropped)
        drops.update(agent.channels.malformed())
        drops.update(agent.sources.drops())
        drops.update(agent.tap_losses.dropped)
        if agent.capture is not None:
            drops.update(agent.capture.dropped)
        if agent.concept is not None:
            drops.update(agent.concept.dropped)
        return drops

    # History, for the page.

    def note(self, at: float) -> None:
        """One point of the history: called every few seconds."""
        totals = self._agent.totals
        cells = totals.cells().values()
        requests = sum(cell.requests for cell in cells)
        errors = sum(n for cell in cells for code, n in cell.codes.items() if _failed(code))
        bounds, counts = totals.durations()
        point: Json = {"at": at, "requests_s": None, "error_ratio": None}
        if self._last is not None and requests >= self._last[1]:
            elapsed_s, fresh = at - self._last[0], requests - self._last[1]
            point["requests_s"] = fresh / elapsed_s if elapsed_s > 0 else None
            point["error_ratio"] = (errors - self._last[2]) / fresh if fresh else None
            recent = [now - was for now, was in zip(counts, self._last_durations, strict=False)]
            if len(recent) == len(counts):
                point["p50_s"] = quantile(bounds, recent, 0.5)
                point["p99_s"] = quantile(bounds, recent, 0.99)
        self._last, self._last_durations = (at, requests, errors), counts
        watch = self._watch()
        if watch is not None:
            self._note_watch(watch, point, at)
        self._history.append(point)

    def _note_watch(self, watch: VersionWatch, point: Json, at: float) -> None:
        point |= self._features.note(watch, at)
        for basis, quality in (("", watch.metrics()), ("_estimated", watch.monitor.estimated())):
            for metric in ("accuracy", "rmse"):
                if metric in quality:
                    point[metric + basis] = quality[metric].value

    def state(self) -> Json:
        """What a restart should still show."""
        return {"history": list(self._history)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue the history of before the restart."""
        self._history.extend(state["history"])

    # Acting: translated, and handed to whoever does it.

    async def take_labels(self, body: bytes, content_type: str) -> Json:
        labels, rejected = parse_labels(body, content_type)
        counts = self._agent.intake.take_labels(labels)
        if counts is None:
            raise Refused(503, "the label store cannot be written; try again later")
        self._agent.intake.labels.outcomes["rejected"] += len(rejected)
        names = ("joined", "pending", "not_sampled", "unmatched", "late", "corrected", "unchanged")
        return {
            **{name: counts.get(name, 0) for name in names},
            "rejected": [{"index": r.index, "reason": r.reason.value} for r in rejected[:100]],
            "rejected_total": len(rejected),
        }

    async def trigger(self, *, reason: str, policy: str | None, actor: str) -> Json:
        return self._agent.controller.trigger(reason=reason, policy=policy, actor=actor)

    async def rollout_start(self, *, candidate: str, strategy: str | None, actor: str) -> Json:
        return await self._agent.controller.rollout_start(candidate, strategy, actor)

    async def rollout_act(self, *, id: str, action: str, reason: str, actor: str) -> Json:
        return await self._agent.controller.rollout_act(id, action, reason, actor)

    async def rollback(self, *, to: str | None, reason: str, actor: str) -> Json:
        return await self._agent.controller.rollback(to, reason, actor)

    async def accept_reference(self, *, actor: str) -> Json:
        return self._agent.controller.accept_reference(actor)

    async def release(self, *, digest: str, actor: str) -> Json:
        return self._agent.controller.release_digest(digest, actor)

    async def run_data(self, *, run_id: str) -> Path:
        return await self._agent.controller.retraining.work.rows_of(run_id)

    async def callback(
        self, *, run_id: str, headers: Mapping[str, str], body: bytes
    ) -> CallbackAnswer:
        return self._agent.controller.retraining.callback(run_id, dict(headers), body)


def _label_figures(cohorts: Cohorts) -> dict[str, float]:
    """What is known of the labels that come: nothing of it before enough of them did."""
    ratio = cohorts.join_ratio
    known = {} if ratio is None else {"join_ratio": ratio}
    waiting = float(cohorts.as_json()["waiting"])
    return {**known, "maturity_seconds": cohorts.maturity_s, "waiting": waiting}


def _latency(found: Mapping[tuple[str, str], Sequence[float]]) -> list[Json]:
    """Durations in seconds, by version and route, at the shares that are asked for."""
    return [
        {
            "version": version,
            "route": route,
            **{f"p{share * 100:g}_s": at for share, at in zip(SHARES, durations, strict=True)},
        }
        for (version, route), durations in found.items()
    ]


def _failed(code: str) -> bool:
    return code in ("5xx", "upstream_unreachable", "timeout")
