"""Only the run's own CI is heard, once, and nonsense from it is answered with a reason."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.ledger import Ledger
from retrain.webhooks.callback import (
    BODY_BYTES_MAX,
    Accepted,
    CallbackMalformed,
    CallbackRefused,
    Inbox,
    ReportStatus,
    nesting,
    read_report,
)
from retrain.webhooks.sign import read_secret, sign, write_secret

NOON = 1_700_000_000.0
ROOT = bytes(range(32))
ARTIFACT = {"url": "https://ci.example.com/a.tar", "sha256": "ab" * 32, "bytes": 9}
SUCCEEDED = {"status": "succeeded", "artifact": ARTIFACT, "metrics": {"accuracy": 0.9}}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "decisions.db")
    yield opened
    opened.close()


@pytest.fixture
def inbox(ledger: Ledger) -> Inbox:
    return Inbox(ledger, ROOT)


def written(value: Any) -> bytes:
    return json.dumps(value).encode()


def headers(
    inbox: Inbox, body: bytes, *, run: str = "run_1", webhook_id: str = "cb_1", at: float = NOON
) -> dict[str, str]:
    return sign([read_secret(inbox.secret(run))], webhook_id=webhook_id, at=at, body=body)


def send(inbox: Inbox, value: Any = SUCCEEDED, *, now: float = NOON) -> Accepted:
    body = value if isinstance(value, bytes) else written(value)
    return inbox.accept(headers(inbox, body, at=now), body, run_id="run_1", now=now)


def refused(
    inbox: Inbox,
    given: Mapping[str, str],
    body: bytes,
    *,
    run_id: str = "run_1",
    now: float = NOON,
) -> str:
    with pytest.raises(CallbackRefused) as caught:
        inbox.accept(given, body, run_id=run_id, now=now)
    return str(caught.value)


def test_a_signed_report_is_accepted(inbox: Inbox) -> None:
    accepted = send(inbox)
    assert not accepted.duplicate
    assert accepted.webhook_id == "cb_1"
    assert accepted.report.status is ReportStatus.SUCCEEDED
    assert accepted.report.artifact is not None
    assert accepted.report.artifact.sha256 == "ab" * 32
    assert accepted.report.metrics == {"accuracy": 0.9}


def test_header_names_are_read_in_any_case(inbox: Inbox) -> None:
    body = written(SUCCEEDED)
    titled = {name.title(): value for name, value in headers(inbox, body).items()}
    assert inbox.accept(titled, body, run_id="run_1", now=NOON).webhook_id == "cb_1"


def test_the_same_again_is_a_duplicate_also_after_a_restart(inbox: Inbox, ledger: Ledger) -> None:
    send(inbox)
    assert send(inbox, now=NOON + 200).duplicate
    assert send(Inbox(ledger, ROOT), now=NOON + 400).duplicate


def test_every_doubt_reads_the_same(inbox: Inbox) -> None:
    body = written(SUCCEEDED)
    good = headers(inbox, body)
    send(inbox)
    same_id = written({"status": "failed"})
    said = {
        refused(inbox, {}, body),
        refused(inbox, good, body + b" "),
        refused(inbox, good, written({"status": "failed"})),
        refused(inbox, headers(inbox, body, run="run_2"), body),
        refused(inbox, good, body, run_id="run_2"),
        refused(inbox, good, body, now=NOON + 301),
        refused(inbox, headers(inbox, body, at=NOON + 301), body),
        refused(Inbox(inbox._ledger, bytes(32)), good, body),
        refused(inbox, headers(inbox, same_id), same_id),
        refused(inbox, headers(inbox, b"no json", run="run_2"), b"no json"),
    }
    assert said == {""}


def test_an_id_is_free_again_for_another_run(inbox: Inbox) -> None:
    send(inbox)
    body = written(SUCCEEDED)
    accepted = inbox.accept(headers(inbox, body, run="run_2"), body, run_id="run_2", now=NOON)
    assert not accepted.duplicate


def test_what_was_not_applied_was_not_seen(inbox: Inbox, ledger: Ledger) -> None:
    def half_done() -> None:
        with ledger.transaction():
            send(inbox)
            raise KeyError("power cut")

    with pytest.raises(KeyError):
        half_done()
    assert not send(inbox).duplicate


def test_a_malformed_report_is_not_remembered(inbox: Inbox) -> None:
    with pytest.raises(CallbackMalformed):
        send(inbox, b"{")
    assert not send(inbox).duplicate


@pytest.mark.parametrize(
    ("value", "status", "reason"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"\xff", 400, "no JSON"),
        (b'{"status": NaN}', 400, "NaN is no JSON number"),
        (b'{"status": "running", "metrics": {"a": 1e999}}', 400, "too large"),
        (b'{"status": "running", "metrics": {"a": "\\ud800"}}', 400, "no JSON"),
        (b'{"status": ' + b"9" * 5000 + b"}", 400, "no JSON"),
        (b"[" * 33 + b"]" * 33, 400, "nested 33 deep > 32"),
        (b"[" * 100_000, 400, "nested 100000 deep"),
        ([], 422, "body"),
        ({}, 422, "status"),
        ({"status": "done"}, 422, "status"),
        ({"status": "succeeded"}, 422, "`artifact` comes with status `succeeded`"),
        ({"status": "failed", "artifact": ARTIFACT}, 422, "only with it"),
        ({"status": "running", "artefact": 1}, 422, "artefact"),
        ({"status": "running", "external_url": "javascript:alert(1)"}, 422, "external_url"),
        ({"status": "running", "external_url": "https://a/" + "x" * 3000}, 422, "external_url"),
        ({"status": "running", "metrics": {str(n): n for n in range(201)}}, 422, "201 metrics"),
        ({"status": "succeeded", "artifact": ARTIFACT | {"url": "file:///etc/passwd"}}, 422, "url"),
        ({"status": "succeeded", "artifact": ARTIFACT | {"sha256": "../x"}}, 422, "sha256"),
        ({"status": "succeeded", "artifact": ARTIFACT | {"bytes": 0}}, 422, "bytes"),
        ({"status": "succeeded", "artifact": ARTIFACT | {"bytes": "9"}}, 422, "bytes"),
    ],
)
def test_nonsense_that_is_signed_is_answered_with_its_reason(
    inbox: Inbox, value: Any, status: int, reason: str
) -> None:
    with pytest.raises(CallbackMalformed) as caught:
        send(inbox, value)
    assert caught.value.status == status
    assert reason in str(caught.value)


def test_too_large_a_body_is_not_even_hashed(inbox: Inbox) -> None:
    with pytest.raises(CallbackMalformed) as caught:
        inbox.accept({}, b" " * (BODY_BYTES_MAX + 1), run_id="run_1", now=NOON)
    assert caught.value.status == 413


def test_old_ids_are_forgotten(inbox: Inbox) -> None:
    send(inbox)
    assert inbox.prune(NOON) == 0
    assert inbox.prune(NOON + 1) == 1
    assert not send(inbox).duplicate


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_make_a_report_or_are_malformed(body: bytes) -> None:
    try:
        read_report(body)
    except CallbackMalformed:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(JSON, st.booleans())
def test_nesting_is_what_a_parser_finds(value: Any, ascii_only: bool) -> None:
    assert nesting(json.dumps(value, ensure_ascii=ascii_only).encode()) == depth(value)


def test_the_shell_lines_of_the_documentation_sign_what_is_accepted(
    inbox: Inbox, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    lines = page.split("```bash\n")[1].split("curl")[0]
    (tmp_path / "body.json").write_bytes(written(SUCCEEDED))
    told = {"REMORA_CALLBACK_ROOT": write_secret(ROOT), "RUN_ID": "run_1"}
    printed = subprocess.run(
        ["bash", "-euc", f'{lines}echo "$id $at v1,$signature"'],
        env={"PATH": f"{program('openssl').parent}:/usr/bin:/bin", **told},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    given = dict(
        zip(("webhook-id", "webhook-timestamp", "webhook-signature"), printed, strict=True)
    )
    now = float(given["webhook-timestamp"])
    accepted = inbox.accept(given, written(SUCCEEDED), run_id="run_1", now=now)
    assert accepted.webhook_id == "cb_run_1"
