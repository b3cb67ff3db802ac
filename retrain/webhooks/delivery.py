"""Sends what is in the outbox: claim, send through the guard, settle.

The only file of the webhooks that waits and talks. Results are settled in one transaction with
what they mean for a run; what a receiver wrote is read to a limit and never passed on.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import httpx

from retrain.ledger import Ledger, LedgerError
from retrain.webhooks.guard import GuardRefused, Refusal
from retrain.webhooks.outbox import Claim, Outbox
from retrain.webhooks.targets.target import (
    Message,
    Outcome,
    Outgoing,
    Receipt,
    Target,
    Undeliverable,
    Verdict,
)

ANSWER_BYTES_MAX: Final = 65_536
IDLE_S: Final = 60.0  # at the latest after this long the outbox is looked at again
# What no waiting mends: the URL itself is not allowed.
LASTING_REFUSALS: Final = frozenset({Refusal.SCHEME, Refusal.PORT, Refusal.URL})

Settled: TypeAlias = Callable[[Message, Verdict, Receipt, float], None]


class Delivery:
    """One worker. Targets are served side by side, the messages of one target one by one.

    `settled` is called in the transaction that settles a message, with what it came to and the
    time: a run hears there that its request was delivered, or never will be. It must not wait.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        outbox: Outbox,
        targets: Mapping[str, Target],
        client: httpx.AsyncClient,
        timeout_s: float = 15.0,
        settled: Settled | None = None,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),  # noqa: S311 - no secret
    ) -> None:
        self._ledger = ledger
        self._outbox = outbox
        self._targets = targets
        self._client = client
        self.timeout_s = timeout_s
        self._settled = settled
        self._clock = clock
        self._jitter = jitter
        self._woken = asyncio.Event()
        # (target, outcome) ▶ attempts, for remora_webhook_deliveries_total
        self.deliveries: Final[Counter[tuple[str, str]]] = Counter()
        self.error: LedgerError | None = None  # the last one, while it lasts; status shows it

    def wake(self) -> None:
        """Something was queued: do not wait for the next due time."""
        self._woken.set()

    async def run(self) -> None:
        """Delivers until it is cancelled. What is being sent then is sent again later."""
        while True:
            self._woken.clear()
            try:
                await self.deliver_due()
                wait_s = self._wait_s()
                self.error = None
            except LedgerError as error:
                # A full disk or a locked file passes; the outbox is still there then.
                self.error, wait_s = error, IDLE_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def deliver_due(self) -> int:
        """Sends all that is due now, and returns how many attempts that took."""
        attempts = 0
        self._expire()
        while claims := self._outbox.claim(self._clock(), self._targets):
            # One that cannot be settled must not leave the others behind unwatched.
            ended = await asyncio.gather(
                *(self._attempt(claim) for claim in claims), return_exceptions=True
            )
            for error in ended:
                if error is not None:
                    raise error
            attempts += len(claims)
        return attempts

    def _wait_s(self) -> float:
        due_at = self._outbox.next_due(self._targets)
        return IDLE_S if due_at is None else min(max(due_at - self._clock(), 0.0), IDLE_S)

    def _expire(self) -> None:
        now = self._clock()
        with self._ledger.transaction():
            expired = self._outbox.expire(now)
            receipt = Receipt(
                verdict=Verdict.DEAD, outcome=Outcome.EXPIRED, detail="its deadline passed"
            )
            for message in expired:
                self._tell(message, Verdict.DEAD, receipt, now)
        for message in expired:
            self.deliveries[message.target, Outcome.EXPIRED] += 1

    async def _attempt(self, claim: Claim) -> None:
        target = self._targets[claim.message.target]
        receipt = await self._receipt(target, claim.message)
        now = self._clock()
        with self._ledger.transaction():
            verdict = self._outbox.settle(claim, receipt, now=now, jitter=self._jitter())
            if verdict in (Verdict.DELIVERED, Verdict.DEAD):
                self._tell(claim.message, verdict, receipt, now)
        self.deliveries[target.name, receipt.outcome] += 1

    def _tell(self, message: Message, verdict: Verdict, receipt: Receipt, now: float) -> None:
        if self._settled is not None:
            self._settled(message, verdict, receipt, now)

    async def _receipt(self, target: Target, message: Message) -> Receipt:
        """What this attempt came to. Raises nothing: whatever goes wrong is an outcome."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._converse(target, message)
        except (TimeoutError, httpx.TimeoutException):
            detail = f"no answer within {self.timeout_s:g} s"
            return Receipt(verdict=Verdict.RETRY, outcome=Outcome.TIMEOUT, detail=detail)
        except Undeliverable as error:
            return Receipt(verdict=Verdict.DEAD, outcome=Outcome.UNDELIVERABLE, detail=str(error))
        except GuardRefused as error:
            verdict = Verdict.DEAD if error.reason in LASTING_REFUSALS else Verdict.RETRY
            return Receipt(verdict=verdict, outcome=Outcome.REFUSED, detail=str(error))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            detail = f"{type(error).__name__}: {error}"
            return Receipt(verdict=Verdict.RETRY, outcome=Outcome.UNREACHABLE, detail=detail)

    async def _converse(self, target: Target, message: Message) -> Receipt:
        lookup = target.lookup(message) if message.attempts > 1 else None
        if lookup is not None:
            async with self._sent(lookup) as (status, _, body):
                receipt = target.found(message, status, body)
            if receipt is not None:
                return receipt
        outgoing = target.request(message, now=self._clock())
        async with self._sent(outgoing) as (status, headers, body):
            return target.receipt(status, headers, body, now=self._clock())

    @asynccontextmanager
    async def _sent(
        self, outgoing: Outgoing
    ) -> AsyncIterator[tuple[int, Mapping[str, str], bytes]]:
        # A request of our own, not the client's: cookies of earlier answers must not travel.
        request = httpx.Request(
            outgoing.method,
            outgoing.url,
            # Uncompressed, so that the limit on what is read is a limit on what is held.
            headers={**outgoing.headers, "accept-encoding": "identity"},
            content=outgoing.body,
            extensions={"timeout": self._client.timeout.as_dict()},
        )
        response = await self._client.send(request, stream=True)
        try:
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) >= ANSWER_BYTES_MAX:
                    break
            headers = {name.lower(): value for name, value in response.headers.items()}
            yield response.status_code, headers, bytes(body[:ANSWER_BYTES_MAX])
        finally:
            await response.aclose()
