"""Every endpoint over real HTTP: what it asks of the view, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open

from tests.admin.house import OPERATOR, House
from tests.admin.stand_in import DIGEST

READS = {
    "/api/v1/status": "model",
    "/api/v1/features": "features",
    "/api/v1/features/age": "bins",
    "/api/v1/history": "points",
    "/api/v1/findings": "findings",
    "/api/v1/rollouts": "rollouts",
    "/api/v1/runs": "runs",
    "/api/v1/versions": "versions",
    "/api/v1/quarantine": "quarantine",
    "/api/v1/ledger": "entries",
    "/api/v1/ledger/verify": "ok",
    "/api/openapi.json": "paths",
}

ACTS: list[tuple[str, dict[str, Any] | None, tuple[str, Any]]] = [
    (
        "/api/v1/trigger",
        {"reason": "why not", "policy": "nightly"},
        ("trigger", ("why not", "nightly", "ada")),
    ),
    ("/api/v1/trigger", None, ("trigger", ("asked for by hand", None, "ada"))),
    (
        "/api/v1/rollouts",
        {"candidate": "v8", "strategy": "canary"},
        ("rollout_start", ("v8", "canary", "ada")),
    ),
    (
        "/api/v1/rollouts/ro-1/abort",
        {"reason": "no"},
        ("rollout_act", ("ro-1", "abort", "no", "ada")),
    ),
    (
        "/api/v1/rollouts/ro-1/promote",
        None,
        ("rollout_act", ("ro-1", "promote", "promote by hand", "ada")),
    ),
    ("/api/v1/rollback", {"to": "v6"}, ("rollback", ("v6", "rolled back by hand", "ada"))),
    ("/api/v1/rollback", {}, ("rollback", (None, "rolled back by hand", "ada"))),
    ("/api/v1/reference/accept", None, ("accept_reference", "ada")),
    (f"/api/v1/quarantine/{DIGEST}/release", None, ("release", (DIGEST, "ada"))),
]


@pytest.mark.parametrize("path", READS)
async def test_what_is_read_is_json(house: House, path: str) -> None:
    answer = await house.client().get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert READS[path] in answer.json()


@pytest.mark.parametrize("path", READS)
async def test_what_is_only_read_takes_nothing_else(house: House, path: str) -> None:
    client = house.client(OPERATOR)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = await client.request(method, path)
        assert answer.status_code == 405
        assert "GET" in answer.headers["allow"]
    assert house.view.calls in ([], [("findings", 100)])


@pytest.mark.parametrize(("path", "body", "call"), ACTS)
async def test_what_acts_calls_the_view_in_the_name_of_the_token(
    house: House, path: str, body: dict[str, Any] | None, call: tuple[str, Any]
) -> None:
    answer = await house.client(OPERATOR).post(path, json=body)
    assert answer.status_code == 200
    assert house.view.calls == [call]


@pytest.mark.parametrize("path", sorted({path for path, _, _ in ACTS}))
async def test_what_acts_is_not_read(house: House, path: str) -> None:
    answer = await house.client(OPERATOR).get(path)
    if path == "/api/v1/rollouts":
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert house.view.calls == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{oh", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b'{"reson": "x"}', "unknown key 'reson'; known are reason, policy"),
        (b'{"reason": 5}', "reason must be text"),
    ],
)
async def test_a_body_that_is_wrong_is_named_and_nothing_is_done(
    house: House, body: bytes, words: str
) -> None:
    answer = await house.client(OPERATOR).post("/api/v1/trigger", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert house.view.calls == []


async def test_a_rollout_needs_its_candidate(house: House) -> None:
    answer = await house.client(OPERATOR).post("/api/v1/rollouts", json={})
    assert answer.status_code == 400
    assert "candidate is missing" in answer.json()["error"]


async def test_a_rollout_does_only_what_rollouts_do(house: House) -> None:
    answer = await house.client(OPERATOR).post("/api/v1/rollouts/ro-1/explode")
    assert answer.status_code == 404
    assert house.view.calls == []


async def test_what_the_view_refuses_says_why(house: House) -> None:
    answer = await house.client(OPERATOR).post("/api/v1/trigger", json={"policy": "busy"})
    assert (answer.status_code, answer.json()) == (409, {"error": "a run is in flight"})


@pytest.mark.parametrize(
    ("asked", "subjects"),
    [
        ({}, ["hours_per_week", "workclass", "error_rate", "age"]),
        ({"kind": "concept_drift"}, ["error_rate"]),
        ({"state": "drift"}, ["hours_per_week", "workclass"]),
        ({"state": "drift", "subject": "workclass"}, ["workclass"]),
        ({"kind": "data_drift", "limit": "1"}, ["hours_per_week"]),
        ({"subject": "nobody"}, []),
    ],
)
async def test_findings_are_asked_for_by_kind_state_and_subject(
    house: House, asked: dict[str, str], subjects: list[str]
) -> None:
    answer = await house.client().get("/api/v1/findings", params=asked)
    assert answer.status_code == 200
    assert [finding["subject"] for finding in answer.json()["findings"]] == subjects


@pytest.mark.parametrize(("name", "known"), [("kind", "concept_drift"), ("state", "warning")])
async def test_an_unknown_kind_or_state_is_refused_with_those_there_are(
    house: House, name: str, known: str
) -> None:
    answer = await house.client().get("/api/v1/findings", params={name: "grief"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{name} is one of ")
    assert known in answer.json()["error"]
    assert house.view.calls == []


@pytest.mark.parametrize("limit", ["-1", "x", "1.5", "²", "9" * 30])
async def test_limits_are_whole_numbers(house: House, limit: str) -> None:
    client = house.client()
    for path in ("/api/v1/findings", "/api/v1/ledger"):
        answer = await client.get(path, params={"limit": limit})
        assert answer.status_code == 400


async def test_limits_are_limited(house: House) -> None:
    client = house.client()
    assert len((await client.get("/api/v1/findings?limit=2")).json()["findings"]) == 2
    await client.get("/api/v1/findings?limit=99999")
    await client.get("/api/v1/ledger?after=3&limit=2")
    assert house.view.calls == [("findings", 2), ("findings", 1_000), ("ledger", (3, 2))]


async def test_features_are_found_under_any_name(house: House) -> None:
    client = house.client()
    names = [f["name"] for f in (await client.get("/api/v1/features")).json()["features"]]
    [strange] = [name for name in names if "/" in name]
    answer = await client.get("/api/v1/features/" + strange.replace("%", "%25"))
    assert answer.json()["name"] == strange
    assert (await client.get("/api/v1/features/nobody")).status_code == 404


async def test_figures_that_json_has_no_word_for_are_null(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"psi": float("nan"), "ks": [float("inf"), 1.5]}
    monkeypatch.setattr(house.view, "feature", lambda name: odd)
    answer = await house.client().get("/api/v1/features/age")
    assert answer.json() == {"psi": None, "ks": [None, 1.5]}


async def test_labels_are_handed_on_as_they_came(house: House) -> None:
    lines = b'{"request_id": "r", "label": 1}\n' * 100
    answer = await house.client(OPERATOR).post(
        "/api/v1/labels", content=lines, headers={"content-type": "application/x-ndjson"}
    )
    assert answer.json() == {"joined": 1, "rejected": []}
    assert house.view.calls == [("labels", (len(lines), "application/x-ndjson"))]


@pytest.mark.parametrize(
    ("path", "bytes_max"), [("/api/v1/labels", 16 * 2**20), ("/api/v1/rollback", 2**20)]
)
async def test_bodies_beyond_their_limit_are_refused(
    house: House, path: str, bytes_max: int
) -> None:
    client = house.client(OPERATOR)
    for _ in range(3):
        answer = await client.post(path, content=b" " * (bytes_max + 1))
        assert answer.status_code == 413
    assert house.view.calls == []


async def test_a_callback_needs_its_signature_and_no_token(house: House) -> None:
    client = house.client()
    for signature, status in (("bad", 401), ("good", 200)):
        answer = await client.post(
            "/api/v1/runs/run-1/callback",
            content=b'{"status": "running"}',
            headers={"webhook-id": "w-1", "webhook-signature": signature},
        )
        assert answer.status_code == status
    assert house.view.calls[0] == ("callback", ("run-1", "w-1", b'{"status": "running"}'))
    long = await client.post("/api/v1/runs/run-1/callback", content=b" " * (2**20 + 1))
    assert long.status_code == 413


async def test_rows_of_a_run_always_need_a_token(house: House, tmp_path: Path) -> None:
    house.view.rows_file = tmp_path / "rows.jsonl"
    house.view.rows_file.write_text('{"age": 5}\n')
    path = "/api/v1/runs/run-1/data"
    assert (await house.client().get(path)).status_code == 401
    answer = await house.client(OPERATOR).get(path)
    assert [json.loads(line) for line in answer.text.splitlines()] == [{"age": 5}]
    house.view.rows_file = None
    assert (await house.client(OPERATOR).get(path)).status_code == 404


async def test_metrics_come_as_text_unless_openmetrics_is_asked_for(house: House) -> None:
    client = house.client()
    plain = await client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'remora_rows_total{model="income"} 5.0' in plain.text
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    asked = await client.get("/metrics", headers={"accept": accept})
    assert asked.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_open(asked.text)}  # type: ignore[no-untyped-call]
    assert names == {"remora_analysis_up", "remora_rows"}


async def test_a_bug_of_ours_is_a_500_that_tells_nothing(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.view.crash = True
    client = house.client()
    for path in ("/api/v1/status", "/"):
        answer = await client.get(path)
        assert answer.status_code == 500
        assert answer.json() == {"error": "internal error; see the agent's log"}
        assert answer.headers["connection"] == "close"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


async def test_what_is_not_there_is_not_found(house: House) -> None:
    client = house.client(OPERATOR)
    for path in ("/api", "/api/v1", "/api/v1/nope", "/static", "/static/", "/static/../api.py"):
        assert (await client.get(path)).status_code == 404
    secret = await client.get("/static/%2e%2e/api.py")
    assert secret.status_code == 404
