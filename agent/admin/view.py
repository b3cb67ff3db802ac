"""What the admin API may ask of the running agent, and nothing more.

The API translates HTTP to these calls; it holds no state and decides nothing. Every answer is
plain JSON values, already bounded and escaped where names come from requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from exporters.prometheus import Family

Json = dict[str, Any]


class Refused(Exception):
    """A request the agent understands and will not carry out. `status` is the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackAnswer:
    """How a CI callback was taken: 200 with or without effect, 401, 404, 413, 422."""

    status: int
    body: Json


class View(Protocol):
    """Implemented by the running agent; by a small stand-in in the API's own tests."""

    def status(self) -> Json:
        """Everything at a glance: model, versions, reference, sampling, drops, states, processes.

        Keys: model, stable {version, digest, address}, role, uptime_s, config_digest, protocol,
        reference {digest, rows, learnt, accepted, provisional} or null, sampling {rate},
        rows_total, drops {reason: n}, states {ok, warning, drift, insufficient_data: n},
        standing [{kind, subject, state, explain, ...}], quality and estimated {metric: {value,
        lower, upper, rows, basis, kind}}, what detectors know (see `status_schema`), rollout or
        null, run or null, processes {name: {pid, restarts, memory_bytes, cpu_s}}, absent {metric:
        reason}.
        """

    def features(self) -> list[Json]:
        """One entry for each feature and the prediction: name, kind, state, evidence, psi, js,
        ks, wasserstein, missing_ratio, detectable_shift, rows, projections."""

    def feature(self, name: str) -> Json | None:
        """One feature with its distribution: bins [{label, reference, current}], effects {window:
        {psi, ...}}, and its history [{at, psi, evidence}], newest last, at most 500 points. None
        when there is none."""

    def history(self) -> Json:
        """Drift, quality and traffic over time for the page: {"points": [{at, psi_max, feature,
        evidence_max, requests_s, error_ratio, p50_s, p99_s, accuracy}]}, at most 500."""

    def findings(
        self,
        *,
        limit: int,
        kind: str | None = None,
        state: str | None = None,
        subject: str | None = None,
    ) -> list[Json]:
        """State-change events, newest first; those of one kind, state or subject where asked."""

    def rollouts(self) -> list[Json]:
        """Newest first: id, candidate, stable, state, weight, step, started_at, reason,
        measurements [{guard, verdict, words, ...}], transitions [{at, from, to, reason}]."""

    def runs(self) -> list[Json]:
        """Newest first: id, state, trigger, reason, requested_at, finished_at, outcome, metrics,
        external_url."""

    def versions(self) -> list[Json]:
        """Registry: version, digest, state, stable (bool), parent, created, quarantined."""

    def ledger(self, *, after: int, limit: int) -> Json:
        """{"entries": [...], "head": hash}."""

    def ledger_verify(self) -> Json:
        """{"entries": n, "ok": bool, "broken_at": id or null}."""

    def labels_wanted(self, *, limit: int) -> list[Json]:
        """Predictions worth labelling: request_id, row, prediction, score, version, at, why."""

    def families(self) -> Sequence[Family]:
        """Every metric family of this scrape."""

    async def take_labels(self, body: bytes, content_type: str) -> Json:
        """Counts by outcome and rejected entries with reasons. Raises `Refused` (400, 413, 503)."""

    async def trigger(self, *, reason: str, policy: str | None, actor: str) -> Json:
        """The decision with its run, or why not. Raises `Refused` (409)."""

    async def rollout_start(self, *, candidate: str, strategy: str | None, actor: str) -> Json:
        """Raises `Refused` (404, 409)."""

    async def rollout_act(self, *, id: str, action: str, reason: str, actor: str) -> Json:
        """`action` is promote, abort, resume or pause. Raises `Refused` (404, 409)."""

    async def rollback(self, *, to: str | None, reason: str, actor: str) -> Json:
        """Back to the version before, or to `to`. Raises `Refused` (404, 409)."""

    async def accept_reference(self, *, actor: str) -> Json:
        """Confirms a reference learnt from traffic. Raises `Refused` (409)."""

    async def release(self, *, digest: str, actor: str) -> Json:
        """Takes a digest out of quarantine. Raises `Refused` (404)."""

    def quarantined(self) -> list[Json]:
        """digest, reason, at."""

    async def run_data(self, *, run_id: str) -> Path:
        """A JSON Lines file of the captured, labelled rows that the run may learn from, made anew
        at each call. Raises `Refused` (404 for no such run, 409 when there are none yet)."""

    async def callback(
        self, *, run_id: str, headers: Mapping[str, str], body: bytes
    ) -> CallbackAnswer:
        """A CI callback; the signature is checked before anything else is read."""
