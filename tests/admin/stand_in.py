"""A small `View` with figures as a running agent has them; it notes what was asked of it."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.admin.view import CallbackAnswer, Json, Refused
from exporters.prometheus import Family
from tests.admin.stand_in_features import FEATURES, HOSTILE, bins_of, feature_entry, more_of

NOON = 1_760_000_000.0
DIGEST = "sha256:" + "3f9a" * 16
CANDIDATE = "sha256:" + "b71c" * 16


class StandIn:
    """Implements `View`. With `hostile`, names and reasons try to be more than text."""

    def __init__(self, *, hostile: bool = True) -> None:
        self.spice = f" {HOSTILE}" if hostile else ""
        self.calls: list[tuple[str, Any]] = []
        self.now = NOON
        self.rows_file: Path | None = None
        self.crash = False
        # More of the status; see tests/admin/stand_in_service.py and stand_in_detection.py.
        self.service: Json = {}
        self.rollout: Json = {}  # laid over the newest
        self.looks = 0

    def status(self) -> Json:
        if self.crash:
            raise RuntimeError("a bug of ours")
        self.looks += 1
        passed_s = 12.0 * (self.looks - 1)
        status = self._status() | self.service
        status["uptime_s"] += passed_s
        if "cpu_s" in status.get("server", {}):  # half a core
            server = status["server"]
            status["server"] = server | {"cpu_s": server["cpu_s"] + 0.5 * passed_s}
        return status

    def _status(self) -> Json:
        return {
            "model": "income",
            "stable": {"version": "v7", "digest": DIGEST, "address": "127.0.0.1:8000"},
            "role": "all",
            "uptime_s": 267_132.0,
            "config_digest": "c0ffee",
            "protocol": {"/v2/models/income/infer": "open_inference"},
            "reference": {
                "digest": "ab12cd34" * 8,
                "rows": 32_561,
                "learnt": False,
                "accepted": True,
                "provisional": False,
            },
            "sampling": {"rate": 1.0},
            "rows_total": 1_284_551,
            "drops": {"channel_full": 12, "body_truncated": 3},
            "states": {"ok": 11, "warning": 1, "drift": 2, "insufficient_data": 0},
            "quality": {
                "accuracy": _estimate(0.812, 0.801, 0.823),
                "precision": _estimate(0.704, 0.671, 0.735),
                "recall": _estimate(0.588, 0.552, 0.623),
                "f1": _estimate(0.641, 0.612, 0.669),
            },
            "rollout": self.rollouts()[0],
            "run": self.runs()[0],
            "processes": {
                "supervisor": _process(31, 4.1, 24.2, 0),
                "edge": _process(32, 311.7, 26.9, 0),
                "analysis": _process(33, 642.5, 118.4, 1),
            },
            "absent": {"gpu": "no device", "network": "the kernel counts bytes per interface"},
        }

    def features(self) -> list[Json]:
        return [feature_entry(*row) for row in FEATURES]

    def feature(self, name: str) -> Json | None:
        for row in FEATURES:
            if row[0] == name:
                more = more_of(row[0], row[3])
                history = self._history_of(row)
                return {**feature_entry(*row), **more, "bins": bins_of(row), "history": history}
        return None

    def _history_of(self, row: tuple[Any, ...]) -> list[Json]:
        drift, evidence = float(row[3]), float(row[4])
        return [
            {
                "at": self.now - (120 - i) * 5.0,
                "psi": drift * _rise(i, 120) + 0.004 * (1.0 + math.sin(i * 1.7)),
                "evidence": evidence * _rise(i, 120) + 0.3 * math.sin(i * 0.9),
            }
            for i in range(120)
        ]

    def history(self) -> Json:
        points = []
        for i in range(240):
            wave = math.sin(i / 17) + 0.4 * math.sin(i * 1.31)
            points.append(
                {
                    "at": self.now - (240 - i) * 5.0,
                    "psi_max": 0.012 + 0.41 * _rise(i, 240),
                    "feature": "hours_per_week",
                    "evidence_max": 1.2 + 23.5 * _rise(i, 240),
                    "requests_s": 412.0 + 60.0 * wave,
                    "error_ratio": max(0.0, 0.0011 + 0.0009 * wave),
                    "p50_s": 0.0042 + 0.0004 * wave,
                    "p99_s": 0.0187 + 0.004 * wave,
                    "accuracy": 0.853 - 0.041 * _rise(i, 240) + 0.002 * wave,
                    "accuracy_estimated": 0.849 - 0.028 * _rise(i, 240) + 0.001 * wave,
                }
            )
        return {"points": points}

    def findings(
        self,
        *,
        limit: int,
        kind: str | None = None,
        state: str | None = None,
        subject: str | None = None,
    ) -> list[Json]:
        self.calls.append(("findings", limit))
        found = [
            ("data_drift", "hours_per_week", "drift", "PSI .42 is above .1: hours moved up by 6"),
            ("data_drift", "workclass", "drift", "category 'gig' is 14 % of rows, never seen"),
            ("concept_drift", "error_rate", "warning", "error rate .19 after .15"),
            ("data_drift", "age", "ok", f"PSI .02 for 3,000 rows{self.spice}"),
        ]
        return [
            {
                "at": _clock(self.now - 300.0 * (i + 1)),
                "row": 1_284_000 - 9_000 * i,
                "kind": of_kind,
                "scope": "feature",
                "subject": about,
                "detector": "evidence",
                "state": to,
                "explain": words,
                "version": "v7",
            }
            for i, (of_kind, about, to, words) in enumerate(found)
            if kind in (None, of_kind) and state in (None, to) and subject in (None, about)
        ][:limit]

    def rollouts(self) -> list[Json]:
        return [
            {
                "id": "ro-7f3a",
                "candidate": CANDIDATE,
                "stable": DIGEST,
                "state": "canary",
                "because": "10,000 requests >= 200, errors not worse by the margin",
                "weight": 0.25,
                "step": 1,
                "steps": [0.05, 0.25, 0.5, 1.0],
                "started_at": self.now - 190.0,
                "reason": "PSI .42 of hours_per_week is above .1",
                "measurements": [
                    _measurement("errors", "successful", "0.09 % against 0.11 %, limit +1 %"),
                    _measurement("latency_p99", "successful", "17.9 ms against 18.7 ms"),
                    _measurement("quality", "inconclusive", "212 labelled rows of 1,000 needed"),
                ],
                "transitions": [
                    {
                        "at": self.now - 190.0,
                        "from": None,
                        "to": "staging",
                        "reason": "gates passed",
                    },
                    {"at": self.now - 160.0, "from": "staging", "to": "canary", "reason": "is up"},
                ],
                **self.rollout,
            },
            {
                "id": "ro-11d0",
                "candidate": "sha256:" + "0bad" * 16,
                "stable": DIGEST,
                "state": "rolled_back",
                "weight": 0.0,
                "step": 1,
                "started_at": self.now - 86_000.0,
                "reason": "errors: failed (3) > failure limit (2)",
                "measurements": [],
                "transitions": [],
            },
        ]

    def runs(self) -> list[Json]:
        return [
            {
                "id": "run-0192",
                "state": "succeeded",
                "trigger": "drift",
                "reason": "drift of hours_per_week and workclass",
                "requested_at": self.now - 720.0,
                "finished_at": self.now - 240.0,
                "outcome": "succeeded",
                "metrics": {"accuracy": 0.861},
                "external_url": None,
            }
        ]

    def versions(self) -> list[Json]:
        return [{"version": "v7", "digest": DIGEST, "stable": True}]

    def ledger(self, *, after: int, limit: int) -> Json:
        self.calls.append(("ledger", (after, limit)))
        entries = [
            {
                "id": i + 1,
                "at": self.now - 900.0 + 120.0 * i,
                "kind": kind,
                "subject": subject,
                "actor": actor,
                "reason": reason + self.spice,
                "hash": f"{i:064x}",
            }
            for i, (kind, subject, actor, reason) in enumerate(LEDGER)
        ]
        shown = [entry for entry in entries if entry["id"] > after][:limit]  # type: ignore[operator]
        return {"entries": shown, "head": f"{len(LEDGER) - 1:064x}"}

    def ledger_verify(self) -> Json:
        return {"entries": len(LEDGER), "ok": True, "broken_at": None}

    def families(self) -> Sequence[Family]:
        return [
            Family(name="remora_analysis_up", kind="gauge", help="1.", rows=[((), 1.0)]),
            Family(
                name="remora_rows_total",
                kind="counter",
                help="Rows.",
                labels=("model",),
                rows=[(("income",), 5.0)],
            ),
        ]

    def labels_wanted(self, *, limit: int) -> list[Json]:
        row: Json = {"request_id": "r-1", "row": 0, "prediction": "1", "score": 0.52}
        return [{**row, "version": "v7", "at": NOON, "why": "uncertain"}][:limit]

    async def take_labels(self, body: bytes, content_type: str) -> Json:
        self.calls.append(("labels", (len(body), content_type)))
        return {"joined": 1, "rejected": []}

    async def run_data(self, *, run_id: str) -> Path:
        self.calls.append(("run_data", run_id))
        if self.rows_file is None:
            raise Refused(404, f"no run {run_id}")
        return self.rows_file

    async def trigger(self, *, reason: str, policy: str | None, actor: str) -> Json:
        self.calls.append(("trigger", (reason, policy, actor)))
        if policy == "busy":
            raise Refused(409, "a run is in flight")
        return {"action": "retrain", "reason": reason}

    async def rollout_start(self, *, candidate: str, strategy: str | None, actor: str) -> Json:
        self.calls.append(("rollout_start", (candidate, strategy, actor)))
        return {"id": "ro-1", "candidate": candidate}

    async def rollout_act(self, *, id: str, action: str, reason: str, actor: str) -> Json:
        self.calls.append(("rollout_act", (id, action, reason, actor)))
        return {"id": id, "state": action}

    async def rollback(self, *, to: str | None, reason: str, actor: str) -> Json:
        self.calls.append(("rollback", (to, reason, actor)))
        return {"stable": to or "v6"}

    async def accept_reference(self, *, actor: str) -> Json:
        self.calls.append(("accept_reference", actor))
        return {"accepted": True}

    async def release(self, *, digest: str, actor: str) -> Json:
        self.calls.append(("release", (digest, actor)))
        return {"digest": digest}

    def quarantined(self) -> list[Json]:
        return [{"digest": "sha256:" + "0bad" * 16, "reason": "errors", "at": self.now}]

    async def callback(
        self, *, run_id: str, headers: Mapping[str, str], body: bytes
    ) -> CallbackAnswer:
        self.calls.append(("callback", (run_id, headers.get("webhook-id"), body)))
        if headers.get("webhook-signature") != "good":
            return CallbackAnswer(status=401, body={"error": "not signed by us"})
        return CallbackAnswer(status=200, body={"state": "running"})


LEDGER = [
    ("decision", "d-0192", "policy", "RETRAIN: drift of hours_per_week (PSI .42 > .1) and 1 more"),
    ("run", "run-0192", "runner", "requested, deadline in 2 h"),
    ("run", "run-0192", "runner", "succeeded after 6 min 12 s"),
    ("gate", CANDIDATE[:19], "gates", "passed: accuracy .861 >= .846, p99 3.1 ms <= 4.0 ms"),
    ("rollout", "ro-7f3a", "policy", "staging: the candidate is being started"),
    ("rollout", "ro-7f3a", "policy", "canary step 1 of 4: 5 % of traffic"),
    ("rollout", "ro-7f3a", "policy", "canary step 2 of 4: 25 % of traffic"),
]


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _rise(i: int, of: int) -> float:
    """From 0 to 1, steeply in the middle."""
    return 1.0 / (1.0 + math.exp(-(i - 0.62 * of) / (0.06 * of)))


def _estimate(value: float, lower: float, upper: float) -> Json:
    return {
        "value": value,
        "lower": lower,
        "upper": upper,
        "rows": 5_000,
        "basis": "realised",
        "kind": "betting",
    }


def _process(pid: int, cpu_s: float, mebibytes: float, restarts: int) -> dict[str, float]:
    return {"pid": pid, "cpu_s": cpu_s, "memory_bytes": mebibytes * 2**20, "restarts": restarts}


def _measurement(guard: str, verdict: str, words: str) -> Json:
    return {"guard": guard, "verdict": verdict, "words": words}
