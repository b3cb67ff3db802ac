"""What a webhook target is: it makes a request of a message, and a receipt of the answer.

Lifecycle: a target is made once from the configuration, and has no state, sockets or clock: the
delivery owns those. `request` may be called many times for one message, after a restart too, and
must then give the same bytes but for timestamps. Before a repeated `request`, the delivery
asks `lookup`; a target whose server would start something twice answers there how to find out
whether it already did. tests/contract/test_targets.py holds every target to this.
"""

import email.utils
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

RETRY_AFTER_S_MAX: Final = 86_400.0  # a server may ask for patience, not for ever


class Verdict(StrEnum):
    """What an attempt means for its message."""

    DELIVERED = "delivered"
    RETRY = "retry"
    DEAD = "dead"  # repeating the same would give the same; a person must mend something
    DISABLE = "disable"  # the receiver wants nothing any more: 410


class Outcome(StrEnum):
    """How an attempt ended. Closed: it is a metric label."""

    DELIVERED = "delivered"
    REDIRECTED = "redirected"
    REJECTED = "rejected"  # 4xx
    SERVER_ERROR = "server_error"  # 5xx
    THROTTLED = "throttled"  # 429, or 503 with Retry-After
    GONE = "gone"  # 410
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"  # by our guard
    EXPIRED = "expired"  # its deadline passed before it could be delivered
    UNDELIVERABLE = "undeliverable"  # the target cannot carry it
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event for one target, as the outbox keeps it."""

    webhook_id: str  # one per event and target; every attempt carries it
    target: str
    type: str
    at: float  # unix seconds of the event
    data: Mapping[str, Any]
    run_id: str | None  # set when this target is the one asked to perform the run
    attempts: int  # this one included


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One HTTP request, ready to be sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an attempt came to. `detail` is ours, never text of the receiver."""

    verdict: Verdict
    outcome: Outcome
    detail: str
    retry_after_s: float | None = None
    external_id: str | None = None
    external_url: str | None = None


class Undeliverable(Exception):
    """This message can never be sent to this target, for example because it is too large."""


class TargetError(ValueError):
    """The configuration of a target is wrong; the text names the key and the mend."""


class Target(Protocol):
    """The contract, see the top of the file."""

    @property
    def name(self) -> str:
        """As configured; a metric label."""

    @property
    def events(self) -> frozenset[str]:
        """The types it wants."""

    def request(self, message: Message, *, now: float) -> Outgoing:
        """What to send now. Raises Undeliverable."""

    def receipt(
        self, status: int, headers: Mapping[str, str], body: bytes, *, now: float
    ) -> Receipt:
        """What the answer means. `headers` in lower case, `body` at most 64 KiB of it."""

    def lookup(self, message: Message) -> Outgoing | None:
        """How to learn whether an earlier attempt, whose answer was lost, arrived."""

    def found(self, message: Message, status: int, body: bytes) -> Receipt | None:
        """A receipt if the answer to `lookup` shows that it did."""


def receipt_by_status(status: int, headers: Mapping[str, str], *, now: float) -> Receipt:
    """The meaning of a status in the Standard Webhooks specification."""
    detail = f"answered {status}"
    retry_after_s = None
    if 200 <= status < 300:
        verdict, outcome = Verdict.DELIVERED, Outcome.DELIVERED
    elif 300 <= status < 400:
        verdict, outcome = Verdict.RETRY, Outcome.REDIRECTED
        detail += ", and redirects are never followed"
    elif status == 410:
        verdict, outcome = Verdict.DISABLE, Outcome.GONE
    elif status in (429, 503):
        verdict, outcome = Verdict.RETRY, Outcome.THROTTLED
        retry_after_s = read_retry_after(headers.get("retry-after", ""), now=now)
    elif status < 500:
        verdict, outcome = Verdict.RETRY, Outcome.REJECTED
    else:
        verdict, outcome = Verdict.RETRY, Outcome.SERVER_ERROR
    return Receipt(verdict=verdict, outcome=outcome, detail=detail, retry_after_s=retry_after_s)


def read_retry_after(text: str, *, now: float) -> float | None:
    """Seconds to wait, from a number or an HTTP date (RFC 9110, 10.2.3); None if it is neither.

    >>> read_retry_after("120", now=0.0)
    120.0
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 12:
        return min(float(text), RETRY_AFTER_S_MAX)
    try:
        wait_s = email.utils.parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)
