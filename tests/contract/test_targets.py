"""What every target promises the delivery, and the very bytes that each one sends."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from retrain.decision import Action, Because, Decision
from retrain.run import run_id
from retrain.webhooks.bodies import (
    REQUESTS,
    Ask,
    EventType,
    drift_changed,
    encode,
    listed,
    rollout_changed,
    run_finished,
)
from retrain.webhooks.sign import derive_secret, read_secret, verify
from retrain.webhooks.targets.catalog import KINDS, TargetSettings, make_target
from retrain.webhooks.targets.target import (
    Message,
    Outcome,
    Outgoing,
    Target,
    TargetError,
    Undeliverable,
    Verdict,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "webhooks"
NOON = 1_700_000_000.0
KEY, ROOT = bytes(range(32)), bytes(range(32, 64))
TOKEN = "token-of-a-test"
HEAD = "ab" * 32

FINDING: dict[str, Any] = {
    "at": "2023-11-14T22:13:20Z",
    "row": 12_000,
    "kind": "data_drift",
    "scope": "feature",
    "subject": "age",
    "detector": "e_detector",
    "state": "drift",
    "statistic": 6.2,
    "threshold": 4.9,
    "evidence": 6.2,
    "effect": {"name": "psi", "value": 0.31},
    "window": {"rows": 2000, "from": 10_000, "to": 12_000},
    "reference": "sha256:aa",
    "version": "1",
    "explain": "age moved: its mean rose from 38.6 to 51.2",
}
DECISION = Decision(
    id="dec_0123456789abcdef01234567",
    at=NOON,
    action=Action.RETRAIN,
    because=Because.FIRED,
    policy="drift",
    reason="drift: 1 subject in drift (age psi 0.31, evidence 10^6.2) >= quorum 1",
    findings=(FINDING,),
)
ASK = Ask(
    run_id=run_id(DECISION.id),
    model="income",
    stable="sha256:bb",
    decision=DECISION,
    window={"rows": 48_000, "from": "2023-11-01T00:00:00Z", "to": "2023-11-14T22:00:00Z"},
    recipe="recipes/income.yaml",
    callback_url="https://remora.example.com/api/v1/runs/run_0123456789abcdef01234567/callback",
    deadline_at=NOON + 3600,
)
ROLLOUT: dict[str, Any] = rollout_changed(
    rollout_id="rol_1",
    model="income",
    stable="sha256:bb",
    candidate="sha256:cc",
    reason="error: e-value 412 >= 400 after 128 canary requests",
    weight=0.05,
    ledger_head=HEAD,
)
DATA: dict[EventType, dict[str, Any]] = {
    EventType.DRIFT_DETECTED: drift_changed(model="income", finding=FINDING),
    EventType.DRIFT_RECOVERED: drift_changed(model="income", finding=FINDING | {"state": "ok"}),
    EventType.RETRAIN_REQUESTED: ASK.data(ledger_head=HEAD),
    EventType.COMPRESS_REQUESTED: replace(
        ASK, decision=replace(DECISION, action=Action.COMPRESS)
    ).data(ledger_head=HEAD),
    EventType.RUN_FINISHED: run_finished(
        run_id=ASK.run_id,
        model="income",
        outcome="produced",
        reason="finished",
        artifact="cd" * 32,
        external_url="https://ci.example.com/7",
        ledger_head=HEAD,
    ),
    EventType.ROLLOUT_STARTED: ROLLOUT | {"reason": "gates passed", "weight": 0.01},
    EventType.ROLLOUT_PROMOTED: ROLLOUT | {"reason": "all guards passed", "weight": 1.0},
    EventType.ROLLOUT_ROLLED_BACK: ROLLOUT | {"weight": 0.0},
    EventType.ROLLOUT_HELD: ROLLOUT | {"reason": "86400 s passed undecided", "weight": 0.0},
}

SETTINGS = {
    "generic": TargetSettings(name="ci", url="https://ci.example.com/hook", keys=(KEY,)),
    "github_repository_dispatch": TargetSettings(
        name="ci", kind="github_repository_dispatch", repository="owner/name", token=TOKEN
    ),
    "github_workflow_dispatch": TargetSettings(
        name="ci",
        kind="github_workflow_dispatch",
        repository="owner/name",
        token=TOKEN,
        workflow="retrain.yml",
    ),
}
GITHUB = [kind for kind in SETTINGS if kind.startswith("github")]


@pytest.fixture(params=SETTINGS)
def target(request: pytest.FixtureRequest) -> Target:
    return make_target(SETTINGS[request.param], callback_root=ROOT)


def message(event_type: EventType = EventType.RETRAIN_REQUESTED, **data: Any) -> Message:
    return Message(
        webhook_id="msg_0123456789abcdef",
        target="ci",
        type=event_type,
        at=NOON,
        data=DATA[event_type] | data,
        run_id=ASK.run_id if event_type in REQUESTS else None,
        attempts=1,
    )


@pytest.fixture
def golden() -> Callable[[str, bytes], None]:
    """Compares with the golden file of this name; `REMORA_GOLDEN=write pytest ...` writes it."""

    def compare(name: str, written: bytes) -> None:
        path = GOLDEN / name
        if os.environ.get("REMORA_GOLDEN") == "write":
            path.write_bytes(written)
        assert written == path.read_bytes()

    return compare


def pretty(outgoing: Outgoing) -> bytes:
    lines = [f"{outgoing.method} {outgoing.url}"]
    lines += [f"{name}: {value}" for name, value in outgoing.headers.items()]
    return "\n".join([*lines, "", ""]).encode() + outgoing.body + b"\n"


def test_every_kind_is_in_this_suite() -> None:
    assert set(SETTINGS) == set(KINDS)


@pytest.mark.parametrize("event_type", EventType)
def test_bodies_are_as_published(
    event_type: EventType, golden: Callable[[str, bytes], None]
) -> None:
    body = encode(event_type, NOON, DATA[event_type])
    golden(f"{event_type.removeprefix('remora.')}.json", body)
    assert len(body) < 20_000
    assert list(json.loads(body)) == ["type", "timestamp", "data"]


@pytest.mark.parametrize("kind", SETTINGS)
def test_requests_are_as_published(kind: str, golden: Callable[[str, bytes], None]) -> None:
    made = make_target(SETTINGS[kind], callback_root=ROOT)
    golden(f"{kind}.http", pretty(made.request(message(), now=NOON)))


@pytest.mark.parametrize("event_type", EventType)
def test_the_same_message_makes_the_same_body(target: Target, event_type: EventType) -> None:
    first = target.request(message(event_type), now=NOON)
    later = target.request(replace(message(event_type), attempts=7), now=NOON + 999)
    assert (first.method, first.url, first.body) == (later.method, later.url, later.body)
    httpx.Request(first.method, first.url, headers=dict(first.headers), content=first.body)


def test_it_wants_what_asks_for_a_run(target: Target) -> None:
    assert target.events >= REQUESTS
    assert target.events <= set(EventType)


@pytest.mark.parametrize(
    ("status", "headers", "verdict", "outcome", "wait_s"),
    [
        (204, {}, Verdict.DELIVERED, Outcome.DELIVERED, None),
        (410, {}, Verdict.DISABLE, Outcome.GONE, None),
        (429, {"retry-after": "7"}, Verdict.RETRY, Outcome.THROTTLED, 7.0),
        (503, {}, Verdict.RETRY, Outcome.THROTTLED, None),
        (302, {"location": "https://elsewhere"}, Verdict.RETRY, Outcome.REDIRECTED, None),
        (500, {}, Verdict.RETRY, Outcome.SERVER_ERROR, None),
        (400, {}, Verdict.RETRY, Outcome.REJECTED, None),
    ],
)
def test_answers_mean_what_the_specification_says(
    target: Target,
    status: int,
    headers: dict[str, str],
    verdict: Verdict,
    outcome: Outcome,
    wait_s: float | None,
) -> None:
    receipt = target.receipt(status, headers, b"<html>", now=NOON)
    assert (receipt.verdict, receipt.outcome, receipt.retry_after_s) == (verdict, outcome, wait_s)
    assert "<html>" not in receipt.detail


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'{"workflow_runs": 3}'])
def test_answers_that_make_no_sense_do_no_harm(target: Target, body: bytes) -> None:
    assert target.receipt(200, {}, body, now=NOON).verdict is Verdict.DELIVERED
    assert target.found(message(), 200, body) is None


def test_secrets_are_in_no_representation(target: Target) -> None:
    for secret in (TOKEN, repr(KEY), repr(ROOT)):
        assert secret not in repr(target)


def test_a_generic_body_carries_the_callback_secret_only_to_whom_it_asks() -> None:
    made = make_target(SETTINGS["generic"], callback_root=ROOT)
    asked = made.request(message(), now=NOON)
    assert verify([KEY], asked.headers, asked.body, now=NOON) == "msg_0123456789abcdef"
    secret = json.loads(asked.body)["data"]["callback_secret"]
    assert secret == derive_secret(ROOT, ASK.run_id)
    read_secret(secret)
    listener = made.request(replace(message(), run_id=None), now=NOON)
    assert b"callback_secret" not in listener.body


@pytest.mark.parametrize("kind", GITHUB)
def test_github_never_gets_a_secret_in_its_payload(kind: str) -> None:
    made = make_target(SETTINGS[kind], callback_root=ROOT)
    assert b"whsec_" not in made.request(message(), now=NOON).body


@pytest.mark.parametrize("kind", GITHUB)
def test_github_is_told_without_findings_what_is_too_large_with_them(kind: str) -> None:
    made = make_target(SETTINGS[kind], callback_root=ROOT)
    large = message(findings=[FINDING | {"explain": "x" * 70_000}])
    sent = made.request(large, now=NOON)
    assert len(sent.body) < 65_536
    assert b"xxx" not in sent.body
    with pytest.raises(Undeliverable):
        made.request(message(recipe="x" * 70_000), now=NOON)


def test_github_limits_are_kept() -> None:
    dispatch = make_target(SETTINGS["github_repository_dispatch"], callback_root=ROOT)
    value = json.loads(dispatch.request(message(), now=NOON).body)
    assert set(value) == {"event_type", "client_payload"}
    assert len(value["event_type"]) <= 100
    assert len(value["client_payload"]) <= 10
    workflow = make_target(SETTINGS["github_workflow_dispatch"], callback_root=ROOT)
    value = json.loads(workflow.request(message(), now=NOON).body)
    assert set(value) == {"ref", "inputs", "return_run_details"}
    assert all(isinstance(one, str) for one in value["inputs"].values())
    assert value["inputs"]["run_id"] == ASK.run_id


def test_a_started_workflow_is_known_by_its_run() -> None:
    made = make_target(SETTINGS["github_workflow_dispatch"], callback_root=ROOT)
    body = b'{"workflow_run_id": 7, "html_url": "https://github.com/owner/name/actions/runs/7"}'
    receipt = made.receipt(200, {}, body, now=NOON)
    assert receipt.external_id == "7"
    assert receipt.external_url == "https://github.com/owner/name/actions/runs/7"
    odd = made.receipt(200, {}, b'{"html_url": "javascript:alert(1)"}', now=NOON)
    assert odd.external_url is None


def test_a_lost_workflow_is_found_by_the_name_of_its_run() -> None:
    made = make_target(SETTINGS["github_workflow_dispatch"], callback_root=ROOT)
    lookup = made.lookup(message())
    assert lookup is not None
    assert lookup.method == "GET"
    assert "event=workflow_dispatch&created=%3E%3D2023-11-14T22:13:20Z" in lookup.url
    runs = [{"id": 1, "display_title": "other"}, {"id": 7, "display_title": f"r {ASK.run_id}"}]
    receipt = made.found(message(), 200, json.dumps({"workflow_runs": runs}).encode())
    assert receipt is not None
    assert (receipt.verdict, receipt.external_id) == (Verdict.DELIVERED, "7")
    assert made.found(message(), 200, json.dumps({"workflow_runs": runs[:1]}).encode()) is None
    assert made.found(message(), 403, json.dumps({"workflow_runs": runs}).encode()) is None


@pytest.mark.parametrize("kind", GITHUB)
@pytest.mark.parametrize(
    ("status", "headers", "verdict", "wait_s"),
    [
        (401, {}, Verdict.DEAD, None),
        (403, {}, Verdict.DEAD, None),
        (404, {}, Verdict.DEAD, None),
        (422, {}, Verdict.DEAD, None),
        (301, {}, Verdict.DEAD, None),
        (403, {"retry-after": "60"}, Verdict.RETRY, 60.0),
        (
            403,
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000090"},
            Verdict.RETRY,
            90.0,
        ),
    ],
)
def test_github_answers_that_last_are_not_repeated(
    kind: str, status: int, headers: dict[str, str], verdict: Verdict, wait_s: float | None
) -> None:
    receipt = make_target(SETTINGS[kind], callback_root=ROOT).receipt(
        status, headers, b"", now=NOON
    )
    assert (receipt.verdict, receipt.retry_after_s) == (verdict, wait_s)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (TargetSettings(name="ci", kind="jenkins"), "kind"),
        (TargetSettings(name="ci", url="https://ci.example.com"), "secret_file"),
        (TargetSettings(name="ci", keys=(KEY,)), "url"),
        (replace(SETTINGS["generic"], events=frozenset({"remora.gossip"})), "events"),
        (replace(SETTINGS["github_repository_dispatch"], token=None), "token_file"),
        (replace(SETTINGS["github_repository_dispatch"], repository="../name"), "repository"),
        (replace(SETTINGS["github_repository_dispatch"], repository="name"), "repository"),
        (replace(SETTINGS["github_repository_dispatch"], event_type="x" * 101), "event_type"),
        (replace(SETTINGS["github_workflow_dispatch"], workflow=None), "workflow"),
        (replace(SETTINGS["github_workflow_dispatch"], workflow="a/b?c"), "workflow"),
    ],
)
def test_wrong_settings_are_refused_by_the_name_of_the_key(
    settings: TargetSettings, named: str
) -> None:
    with pytest.raises(TargetError, match=rf"^{named}: "):
        make_target(settings, callback_root=ROOT)


def test_only_the_strongest_findings_travel() -> None:
    findings = [FINDING | {"subject": str(number), "evidence": number} for number in range(100)]
    told = listed(findings)
    assert told["findings_total"] == 100
    assert [one["subject"] for one in told["findings"]] == [str(n) for n in range(99, 79, -1)]
