"""Clients of the model: they send real rows, wait for the answer, and learn the truth a bit later.

They talk to Remora's port as they would to the model server's, and to its label endpoint as a
backend would that learns what came true.
"""

import asyncio
import collections
import random
from collections.abc import Iterator

import httpx

from agent.demo.rows import NUMERIC, Person

ROWS_PER_REQUEST = 5
CLIENTS = 4
LABEL_DELAY_S = 2.0
LABELS_EVERY_S = 0.5


class Traffic:
    """`source` may be replaced while it runs: that is the drift."""

    def __init__(
        self,
        *,
        url: str,
        labels_url: str,
        token: str,
        source: Iterator[Person],
        requests_s: float,
        seed: int,
    ) -> None:
        self._url = url
        self._labels_url = labels_url
        self._token = token
        self.source = source
        self._pause_s = CLIENTS / requests_s
        self._rng = random.Random(seed)  # noqa: S311 - which row comes next is no secret
        self._due: collections.deque[tuple[float, list[dict[str, object]]]] = collections.deque()
        self._tasks: list[asyncio.Task[None]] = []
        self.requests = 0
        self.rows = 0
        self.failed = 0  # answers that were not 200, and connections that broke
        self.labels = 0
        self.by_version: collections.Counter[str] = collections.Counter()

    def start(self) -> None:
        """Send until `stop`."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._client()) for _ in range(CLIENTS)]
        self._tasks.append(loop.create_task(self._tell_truth()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
            while True:
                people = [next(self.source) for _ in range(ROWS_PER_REQUEST)]
                await self._ask(client, people)
                # Poisson arrivals: nobody's clients come in step.
                await asyncio.sleep(self._rng.expovariate(1.0 / self._pause_s))

    async def _ask(self, client: httpx.AsyncClient, people: list[Person]) -> None:
        self.requests += 1
        self.rows += len(people)
        try:
            answer = await client.post(self._url, json=_request(people))
        except httpx.HTTPError:
            self.failed += 1
            return
        if answer.status_code != 200:
            self.failed += 1
            return
        self.by_version[answer.headers["x-remora-version"]] += 1
        id = answer.headers["x-remora-request-id"]
        truths: list[dict[str, object]] = [
            {"request_id": id, "row": row, "label": person.income}
            for row, person in enumerate(people)
        ]
        self._due.append((asyncio.get_running_loop().time() + LABEL_DELAY_S, truths))

    async def _tell_truth(self) -> None:
        headers = {"authorization": f"Bearer {self._token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=10.0, headers=headers) as client:
            while True:
                await asyncio.sleep(LABELS_EVERY_S)
                now = asyncio.get_running_loop().time()
                truths: list[dict[str, object]] = []
                while self._due and self._due[0][0] <= now:
                    truths += self._due.popleft()[1]
                if not truths:
                    continue
                try:
                    answer = await client.post(self._labels_url, json=truths)
                    answer.raise_for_status()
                except httpx.HTTPError:
                    continue  # a label lost is a label lost: the backend would try again
                self.labels += len(truths)


def _request(people: list[Person]) -> dict[str, object]:
    """An Open Inference V2 request with one named input for each feature."""
    names = list(people[0].features)
    return {
        "inputs": [
            {
                "name": name,
                "shape": [len(people), 1],
                "datatype": "FP64" if name in NUMERIC else "BYTES",
                "data": [person.features[name] for person in people],
            }
            for name in names
        ]
    }
