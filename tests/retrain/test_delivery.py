"""Messages reach a real server at least once, with one id, and answers mean what they mean."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retrain.ledger import Ledger
from retrain.webhooks.delivery import Delivery
from retrain.webhooks.guard import Guard, guarded_client
from retrain.webhooks.outbox import LEASE_S, MessageState, Outbox
from retrain.webhooks.sign import derive_secret
from retrain.webhooks.targets.generic import GenericTarget
from retrain.webhooks.targets.github import WorkflowDispatchTarget
from retrain.webhooks.targets.target import Message, Receipt, Target, Verdict

if TYPE_CHECKING:
    from tests.retrain.conftest import Answer, Clock, Received, StandIn

NOON = 1_700_000_000.0
KEY, ROOT = bytes(range(32)), bytes(range(32, 64))
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
REQUESTED = "remora.retrain.requested"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "decisions.db")
    yield opened
    opened.close()


@pytest.fixture
def outbox(ledger: Ledger) -> Outbox:
    return Outbox(ledger)


class Worker:
    """A delivery to `targets`, and what it told of."""

    def __init__(self, ledger: Ledger, clock: "Clock", *targets: Target, timeout_s: float = 5.0):
        ports = frozenset(range(1, 65_536))
        guard = Guard(allow_http=True, ports=ports, allow_cidrs=LOOPBACK)
        self.client = guarded_client(guard, timeout_s=timeout_s)
        self.told: list[tuple[Verdict, str]] = []
        self.delivery = Delivery(
            ledger=ledger,
            outbox=Outbox(ledger),
            targets={target.name: target for target in targets},
            client=self.client,
            timeout_s=timeout_s,
            settled=self.settled,
            clock=clock,
            jitter=lambda: 0.0,
        )

    def settled(self, message: Message, verdict: Verdict, receipt: Receipt, now: float) -> None:
        self.told.append((verdict, receipt.detail))

    def counts(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for (_, outcome), total in self.delivery.deliveries.items():
            found[outcome] += total
        return dict(found)


@pytest.fixture
async def worker(
    ledger: Ledger, clock: "Clock", stand_in: "StandIn"
) -> AsyncIterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(*targets: Target, timeout_s: float = 5.0) -> Worker:
        chosen = targets or (generic(stand_in.url),)
        made.append(Worker(ledger, clock, *chosen, timeout_s=timeout_s))
        return made[-1]

    yield make
    for one in made:
        await one.client.aclose()


def generic(url: str, name: str = "ci") -> GenericTarget:
    events = frozenset({REQUESTED})
    return GenericTarget(name=name, events=events, url=url, keys=(KEY,), callback_root=ROOT)


def put(outbox: Outbox, key: str = "run_1", target: str = "ci", **other: float) -> str:
    data = {"run_id": key}
    return outbox.enqueue(
        key=key, target=target, event_type=REQUESTED, at=NOON, data=data, run_id=key, **other
    )


def signed(received: "Received") -> bool:
    """The specification's arithmetic, written down a second time."""
    names = ("webhook-id", "webhook-timestamp")
    text = ".".join([*(received.headers[name] for name in names), ""]).encode() + received.body
    mine = base64.b64encode(hmac.new(KEY, text, hashlib.sha256).digest()).decode()
    return received.headers["webhook-signature"] == f"v1,{mine}"


async def test_a_message_arrives_signed_and_once(
    worker: Callable[..., Worker], outbox: Outbox, stand_in: "StandIn"
) -> None:
    webhook_id, one = put(outbox), worker()
    assert await one.delivery.deliver_due() == 1
    assert await one.delivery.deliver_due() == 0
    (received,) = stand_in.received
    assert (received.method, received.path) == ("POST", "/")
    assert received.headers["webhook-id"] == webhook_id
    assert received.headers["webhook-timestamp"] == str(int(NOON))
    assert signed(received)
    body = json.loads(received.body)
    assert body["data"] == {"run_id": "run_1", "callback_secret": derive_secret(ROOT, "run_1")}
    assert one.told == [(Verdict.DELIVERED, "answered 204")]
    assert one.counts() == {"delivered": 1}


async def test_nothing_secret_is_on_disk(
    worker: Callable[..., Worker], outbox: Outbox, ledger: Ledger
) -> None:
    put(outbox)
    await worker().delivery.deliver_due()
    written = b"".join(path.read_bytes() for path in ledger.path.parent.iterdir())
    assert b"run_1" in written
    assert b"whsec_" not in written


async def test_a_later_attempt_has_the_same_id_and_body_and_a_new_time(
    worker: Callable[..., Worker],
    outbox: Outbox,
    stand_in: "StandIn",
    clock: "Clock",
    answer: "type[Answer]",
) -> None:
    put(outbox)
    one = worker()
    statuses = iter((500, 302, 404))
    stand_in.answer = lambda received: answer(status=next(statuses))
    for _ in range(3):
        assert await one.delivery.deliver_due() == 1
        due = outbox.next_due(["ci"])
        assert due is not None
        clock.now = due
    stand_in.answer = lambda received: answer(status=200, body=b"x" * 1_000_000)
    await one.delivery.deliver_due()
    ids, bodies, times = (
        {received.headers["webhook-id"] for received in stand_in.received},
        {received.body for received in stand_in.received},
        [int(received.headers["webhook-timestamp"]) - NOON for received in stand_in.received],
    )
    assert (len(ids), len(bodies), times) == (1, 1, [0, 5, 305, 2105])
    assert all(signed(received) for received in stand_in.received)
    assert one.counts() == {"server_error": 1, "redirected": 1, "rejected": 1, "delivered": 1}
    assert [verdict for verdict, _ in one.told] == [Verdict.DELIVERED]


@pytest.mark.parametrize(
    ("status", "retry_after", "wait_s"),
    [
        (429, "120", 120.0),
        (503, "Tue, 14 Nov 2023 22:23:20 GMT", 600.0),
        (503, "soon", 5.0),
        (429, "99999999", 86_400.0),
        (500, "120", 5.0),
    ],
)
async def test_retry_after_is_honoured(
    worker: Callable[..., Worker],
    outbox: Outbox,
    stand_in: "StandIn",
    answer: "type[Answer]",
    status: int,
    retry_after: str,
    wait_s: float,
) -> None:
    put(outbox)
    headers = {"retry-after": retry_after}
    stand_in.answer = lambda received: answer(status=status, headers=headers)
    await worker().delivery.deliver_due()
    assert outbox.next_due(["ci"]) == NOON + wait_s


async def test_gone_disables_the_target(
    worker: Callable[..., Worker], outbox: Outbox, stand_in: "StandIn", answer: "type[Answer]"
) -> None:
    put(outbox)
    stand_in.answer = lambda received: answer(status=410)
    one = worker()
    await one.delivery.deliver_due()
    put(outbox, "run_2")
    assert await one.delivery.deliver_due() == 0
    assert one.told == [(Verdict.DEAD, "answered 410")]
    assert outbox.counts()[MessageState.DEAD] == 2


async def test_silence_and_broken_connections_are_tried_again(
    worker: Callable[..., Worker], outbox: Outbox, stand_in: "StandIn", answer: "type[Answer]"
) -> None:
    put(outbox)
    put(outbox, target="closed")
    put(outbox, target="slow")
    stand_in.answer = lambda received: answer(
        silent=received.path == "/slow", broken=received.path == "/"
    )
    targets = (
        generic(stand_in.url),
        generic("http://127.0.0.2:1", "closed"),
        generic(f"{stand_in.url}/slow", "slow"),
    )
    one = worker(*targets, timeout_s=1.0)
    assert await one.delivery.deliver_due() == 3
    assert one.counts() == {"unreachable": 2, "timeout": 1}
    assert outbox.counts()[MessageState.PENDING] == 3


async def test_a_receiver_that_fails_does_not_hold_up_another(
    worker: Callable[..., Worker], outbox: Outbox, stand_in: "StandIn", answer: "type[Answer]"
) -> None:
    for key in ("run_1", "run_2"):
        put(outbox, key)
        put(outbox, key, "audit")
    stand_in.answer = lambda received: answer(status=500 if received.path == "/ci" else 204)
    one = worker(generic(f"{stand_in.url}/ci"), generic(f"{stand_in.url}/audit", "audit"))
    assert await one.delivery.deliver_due() == 3
    paths = sorted(received.path for received in stand_in.received)
    assert paths == ["/audit", "/audit", "/ci"]


async def test_a_forbidden_address_is_not_called_and_a_forbidden_url_is_given_up(
    ledger: Ledger, clock: "Clock", outbox: Outbox, stand_in: "StandIn"
) -> None:
    put(outbox)
    put(outbox, target="plain")
    targets = {
        "ci": generic(f"https://127.0.0.1:{stand_in.port}"),
        "plain": generic(stand_in.url, "plain"),
    }
    guard = Guard(ports=frozenset({stand_in.port}))
    async with guarded_client(guard, timeout_s=5.0) as client:
        delivery = Delivery(
            ledger=ledger, outbox=outbox, targets=targets, client=client, clock=clock
        )
        await delivery.deliver_due()
    assert stand_in.received == []
    details = {one.target: (one.state, one.detail) for one in outbox.listed()}
    assert details["ci"][0] is MessageState.PENDING
    assert "allow_cidrs" in details["ci"][1]
    assert details["plain"] == (MessageState.DEAD, "http: only https is called")


async def test_a_request_that_comes_too_late_is_given_up(
    worker: Callable[..., Worker],
    outbox: Outbox,
    stand_in: "StandIn",
    clock: "Clock",
    answer: "type[Answer]",
) -> None:
    put(outbox, deadline_at=NOON + 60)
    stand_in.answer = lambda received: answer(status=500)
    one = worker()
    await one.delivery.deliver_due()
    clock.now = NOON + 60
    assert await one.delivery.deliver_due() == 0
    assert one.told == [(Verdict.DEAD, "its deadline passed")]
    assert one.counts() == {"server_error": 1, "expired": 1}


async def test_a_lost_answer_of_github_is_looked_up_before_a_second_run_is_started(
    worker: Callable[..., Worker],
    outbox: Outbox,
    stand_in: "StandIn",
    clock: "Clock",
    answer: "type[Answer]",
) -> None:
    runs = {
        "workflow_runs": [{"id": 7, "display_title": "remora run_1", "html_url": "https://g/7"}]
    }

    def github(received: "Received") -> "Answer":
        if received.method == "POST":
            return answer(broken=True)  # the run was started, the answer got lost
        return answer(status=200, body=json.dumps(runs).encode())

    stand_in.answer = github
    put(outbox)
    one = worker(
        WorkflowDispatchTarget(
            name="ci",
            events=frozenset({REQUESTED}),
            repository="owner/name",
            token="secret",
            api_url=stand_in.url,
            workflow="retrain.yml",
        )
    )
    await one.delivery.deliver_due()
    clock.now += 5
    await one.delivery.deliver_due()
    assert [received.method for received in stand_in.received] == ["POST", "GET"]
    assert one.told == [(Verdict.DELIVERED, "an earlier attempt had arrived")]


async def test_the_worker_sends_what_is_queued_while_it_waits(
    worker: Callable[..., Worker], outbox: Outbox, stand_in: "StandIn", answer: "type[Answer]"
) -> None:
    arrived = asyncio.Event()

    def note(received: "Received") -> "Answer":
        arrived.set()
        return answer()

    stand_in.answer = note
    one = worker()
    running = asyncio.create_task(one.delivery.run())
    async with asyncio.timeout(10):
        for key in ("run_1", "run_2"):
            arrived.clear()
            put(outbox, key)
            one.delivery.wake()
            await arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(stand_in.received) == 2


VICTIM = """
import asyncio, ipaddress, sys
from pathlib import Path
from retrain.ledger import Ledger
from retrain.webhooks.delivery import Delivery
from retrain.webhooks.guard import Guard, guarded_client
from retrain.webhooks.outbox import Outbox
from retrain.webhooks.targets.generic import GenericTarget

async def main(path, url, now):
    ledger = Ledger(Path(path))
    network = (ipaddress.ip_network("127.0.0.0/8"),)
    guard = Guard(allow_http=True, ports=frozenset(range(1, 65536)), allow_cidrs=network)
    target = GenericTarget(name="ci", events=frozenset(), url=url, keys=(bytes(range(32)),))
    async with guarded_client(guard, timeout_s=20) as client:
        await Delivery(ledger=ledger, outbox=Outbox(ledger), targets={"ci": target},
                       client=client, clock=lambda: float(now)).deliver_due()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_kill_between_sending_and_settling_sends_the_same_message_again(
    worker: Callable[..., Worker],
    outbox: Outbox,
    ledger: Ledger,
    stand_in: "StandIn",
    clock: "Clock",
    answer: "type[Answer]",
) -> None:
    webhook_id = put(outbox)
    victims: list[asyncio.subprocess.Process] = []

    def kill(received: "Received") -> "Answer":
        if victims:
            os.kill(victims.pop().pid, signal.SIGKILL)
            return answer(broken=True)
        return answer()

    stand_in.answer = kill
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VICTIM, str(ledger.path), stand_in.url, str(NOON)
    )
    victims.append(victim)
    assert await asyncio.wait_for(victim.wait(), 30) == -signal.SIGKILL
    one = worker()
    assert await one.delivery.deliver_due() == 0  # the lease of the dead
    clock.now = NOON + LEASE_S
    assert await one.delivery.deliver_due() == 1
    first, second = stand_in.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == webhook_id
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert outbox.counts()[MessageState.DELIVERED] == 1
