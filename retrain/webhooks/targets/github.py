"""GitHub Actions as a target: `repository_dispatch` and `workflow_dispatch`.

GitHub shows payload and inputs to everyone who may read the repository, so nothing secret goes in;
the workflow derives its callback secret from the root that it keeps as a secret of its own.
Source: docs.github.com, REST API, "Create a repository dispatch event" and "Create a workflow
dispatch event".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from retrain.webhooks.bodies import rfc3339
from retrain.webhooks.targets.target import (
    Message,
    Outcome,
    Outgoing,
    Receipt,
    Undeliverable,
    Verdict,
    receipt_by_status,
)

API_URL: Final = "https://api.github.com"
API_VERSION: Final = "2022-11-28"
PAYLOAD_BYTES_MAX: Final = 65_535  # both dispatches: "less than 64 KB", "65,535 characters"
EVENT_TYPE_CHARS_MAX: Final = 100
LOOKED_THROUGH: Final = 50  # runs since the event; a busy repository starts fewer in an hour
# Asking again with the same token, name or inputs gives the same answer.
LASTING: Final = frozenset({301, 307, 308, 401, 403, 404, 422})


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GitHubTarget:
    """What both kinds share. `api_url` is another one for GitHub Enterprise and for tests."""

    name: str
    events: frozenset[str]
    repository: str  # owner/name
    token: str
    api_url: str = API_URL

    def receipt(
        self, status: int, headers: Mapping[str, str], body: bytes, *, now: float
    ) -> Receipt:
        """204, or 200 with the run's id and address where GitHub tells them."""
        receipt = receipt_by_status(status, headers, now=now)
        if status == 200:
            answer = _object(body)
            run = answer.get("workflow_run_id")
            return replace(
                receipt,
                external_id=None if run is None else str(run),
                external_url=_web_address(answer.get("html_url")),
            )
        wait_s = _rate_limit_s(headers, now=now)
        if status in (403, 429) and wait_s is not None:
            return replace(
                receipt, verdict=Verdict.RETRY, outcome=Outcome.THROTTLED, retry_after_s=wait_s
            )
        if status in LASTING:
            return replace(receipt, verdict=Verdict.DEAD, detail=f"GitHub {receipt.detail}")
        return receipt

    def _outgoing(self, method: str, path: str, value: Mapping[str, Any] | None = None) -> Outgoing:
        headers = {
            "accept": "application/vnd.github+json",
            "authorization": f"Bearer {self.token}",
            "user-agent": "remora",  # GitHub refuses requests without one
            "x-github-api-version": API_VERSION,
        }
        body = b""
        if value is not None:
            headers["content-type"] = "application/json"
            body = _encode(value)
        url = f"{self.api_url.rstrip('/')}/repos/{self.repository}/{path}"
        return Outgoing(method=method, url=url, headers=headers, body=body)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RepositoryDispatchTarget(GitHubTarget):
    """Starts workflows of the default branch that listen to `event_type`. Needs contents:write."""

    event_type: str = "remora-retrain"

    def request(self, message: Message, *, now: float) -> Outgoing:
        """`client_payload` has five of the ten keys that GitHub allows."""
        payload = _shrunk(message, _client_payload)
        value = {"event_type": self.event_type, "client_payload": payload}
        return self._outgoing("POST", "dispatches", value)

    def lookup(self, message: Message) -> Outgoing | None:
        """Not possible: these runs carry nothing of ours. The workflow tells by `run_id`."""
        return None

    def found(self, message: Message, status: int, body: bytes) -> Receipt | None:
        """Never asked."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class WorkflowDispatchTarget(GitHubTarget):
    """Starts one workflow on `ref`. Needs actions:write, and `run-name` with the input `run_id`."""

    workflow: str  # file name or id
    ref: str = "main"

    def request(self, message: Message, *, now: float) -> Outgoing:
        """Inputs are strings: `run_id`, `type`, and the whole body as `payload`."""
        inputs = _shrunk(message, _inputs)
        value = {"ref": self.ref, "inputs": inputs, "return_run_details": True}
        return self._outgoing("POST", f"actions/workflows/{self.workflow}/dispatches", value)

    def lookup(self, message: Message) -> Outgoing | None:
        """The runs since the event: GitHub starts another one each time it is asked."""
        since = datetime.fromtimestamp(message.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = (
            f"actions/workflows/{self.workflow}/runs"
            f"?event=workflow_dispatch&created=%3E%3D{since}&per_page={LOOKED_THROUGH}"
        )
        return self._outgoing("GET", path)

    def found(self, message: Message, status: int, body: bytes) -> Receipt | None:
        """The run whose name holds our request id."""
        runs = _object(body).get("workflow_runs") if status == 200 else None
        for run in runs if isinstance(runs, list) else []:
            if isinstance(run, dict) and request_id(message) in str(run.get("display_title")):
                return Receipt(
                    verdict=Verdict.DELIVERED,
                    outcome=Outcome.DELIVERED,
                    detail="an earlier attempt had arrived",
                    external_id=str(run.get("id")),
                    external_url=_web_address(run.get("html_url")),
                )
        return None


def request_id(message: Message) -> str:
    """What names the request to GitHub, so that it can be found again."""
    return str(message.data.get("run_id") or message.webhook_id)


def _client_payload(message: Message, data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run_id": request_id(message),
        "webhook_id": message.webhook_id,
        "type": message.type,
        "timestamp": rfc3339(message.at),
        "data": data,
    }


def _inputs(message: Message, data: Mapping[str, Any]) -> dict[str, Any]:
    payload = {"type": message.type, "timestamp": rfc3339(message.at), "data": data}
    return {
        "run_id": request_id(message),
        "type": message.type,
        "payload": _encode(payload).decode(),
    }


def _shrunk(message: Message, build: Any) -> dict[str, Any]:
    """What is sent, without findings when it would not fit with them. Raises Undeliverable."""
    for data in (message.data, {**message.data, "findings": []}):
        built: dict[str, Any] = build(message, data)
        if len(_encode(built)) <= PAYLOAD_BYTES_MAX:
            return built
    raise Undeliverable(f"larger than the {PAYLOAD_BYTES_MAX} bytes that GitHub takes")


def _rate_limit_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds until GitHub answers again, None when it is not a limit that was hit."""
    if (wait_s := receipt_by_status(429, headers, now=now).retry_after_s) is not None:
        return wait_s
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit():
        return min(max(float(reset) - now, 0.0), 86_400.0)
    return None


def _web_address(value: object) -> str | None:
    """An address fit to be shown as a link, or none."""
    return value if isinstance(value, str) and value.startswith("https://") else None


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
