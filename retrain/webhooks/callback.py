"""What CI reports about its run: authenticated by the run's own secret, once, and within limits.

Every doubt about who speaks is one and the same `CallbackRefused`, which the API answers with 401
and nothing else. Call `accept` in the transaction that applies the report, so that a report is
remembered as seen only together with its effect.
"""

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from retrain.ledger import Ledger
from retrain.webhooks.sign import SignatureError, derive_secret, read_secret, verify

BODY_BYTES_MAX: Final = 1_048_576
DEPTH_MAX: Final = 32
METRICS_MAX: Final = 200
ARTIFACT_BYTES_MAX: Final = 2**50  # a figure, not a limit: the fetch has its own

SCHEMA: Final = (
    """CREATE TABLE inbox (
        run_id TEXT NOT NULL,
        webhook_id TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (run_id, webhook_id)) WITHOUT ROWID""",
)


class CallbackRefused(Exception):
    """Not from this run's CI, or not now: 401. Says nothing more, on purpose."""


class CallbackMalformed(ValueError):
    """From the right one, but not what was agreed: `status` is 400, 413 or 422."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status: int = status


class ReportStatus(StrEnum):
    """How the run fares."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


WebAddress = Annotated[str, StringConstraints(pattern=r"^https?://[^\s<>\"']+$", max_length=2048)]


class Artifact(BaseModel):
    """Where the model is, and what it must be. Fetched only from allowed hosts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: WebAddress
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(gt=0, le=ARTIFACT_BYTES_MAX)]


class Report(BaseModel):
    """The body of a callback. `metrics` are CI's own words: shown, never trusted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal[ReportStatus.RUNNING, ReportStatus.SUCCEEDED, ReportStatus.FAILED]
    artifact: Artifact | None = None
    metrics: dict[str, Any] | None = None
    external_url: WebAddress | None = None

    @field_validator("metrics")
    @classmethod
    def _few(cls, metrics: dict[str, Any] | None) -> dict[str, Any] | None:
        if metrics is not None and len(metrics) > METRICS_MAX:
            raise ValueError(f"{len(metrics)} metrics > {METRICS_MAX}")
        return metrics

    @model_validator(mode="after")
    def _artifact_of_success(self) -> "Report":
        if (self.status is ReportStatus.SUCCEEDED) != (self.artifact is not None):
            raise ValueError("`artifact` comes with status `succeeded`, and only with it")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An authentic callback. A duplicate is answered 200 and must have no effect."""

    webhook_id: str
    report: Report
    duplicate: bool


class Inbox:
    """Callbacks of all runs. `root` is the key that each run's secret is derived from."""

    def __init__(self, ledger: Ledger, root: bytes) -> None:
        self._ledger = ledger
        self._root = root
        ledger.migrate("inbox", SCHEMA)

    def secret(self, run_id: str) -> str:
        """What the run's CI signs with, as `whsec_...`."""
        return derive_secret(self._root, run_id)

    def accept(
        self, headers: Mapping[str, str], body: bytes, *, run_id: str, now: float
    ) -> Accepted:
        """Judges one callback for `run_id`; `headers` in any case, `body` as it came.

        Raises CallbackMalformed (413) before anything else when the body is too large,
        CallbackRefused, and then CallbackMalformed (400, 422).
        """
        if len(body) > BODY_BYTES_MAX:
            raise CallbackMalformed(413, f"{len(body)} bytes > {BODY_BYTES_MAX}")
        lower = {name.lower(): value for name, value in headers.items()}
        key = read_secret(self.secret(run_id))
        try:
            webhook_id = verify([key], lower, body, now=now)
        except SignatureError:
            raise CallbackRefused from None
        digest = hashlib.sha256(body).hexdigest()
        with self._ledger.transaction() as inside:
            seen = inside.execute(
                "SELECT sha256 FROM inbox WHERE run_id = ? AND webhook_id = ?",
                (run_id, webhook_id),
            ).fetchone()
            if seen is not None and not hmac.compare_digest(seen["sha256"], digest):
                raise CallbackRefused
            report = read_report(body)
            if seen is None:
                inside.execute(
                    "INSERT INTO inbox VALUES (?, ?, ?, ?)", (run_id, webhook_id, digest, now)
                )
        return Accepted(webhook_id=webhook_id, report=report, duplicate=seen is not None)

    def prune(self, before: float) -> int:
        """Forgets ids seen before this time (unix seconds); keep ten minutes at the very least."""
        with self._ledger.transaction() as inside:
            return inside.execute("DELETE FROM inbox WHERE at < ?", (before,)).rowcount


def read_report(body: bytes) -> Report:
    """The report in a body that was authenticated. Raises CallbackMalformed."""
    if (depth := nesting(body)) > DEPTH_MAX:
        raise CallbackMalformed(400, f"nested {depth} deep > {DEPTH_MAX}")
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, parse_float=_finite)
        # Half of a surrogate pair is legal JSON, and cannot be written down again.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CallbackMalformed(400, f"no JSON: {error}") from error
    try:
        return Report.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise CallbackMalformed(422, f"{where}: {first['msg']}") from error


def nesting(body: bytes) -> int:
    """How deep objects and arrays nest, told without parsing: a parser would recurse.

    >>> nesting(b'{"a": [1, "]}]}"]}')
    2
    """
    depth = deepest = 0
    quoted = escaped = False
    for byte in body:
        if quoted:
            if escaped:
                escaped = False
            elif byte == 0x5C:  # backslash
                escaped = True
            elif byte == 0x22:  # quotation mark
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
