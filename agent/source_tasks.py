"""The sources of analysis itself, each a task that is begun again when it ends.

A source that cannot go on (a directory that is gone, a listener that broke) costs its own
exchanges and nothing else: it waits, longer and longer, and is tried again for ever.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import structlog

from agent.exchange import Exchange
from agent.inference import Inference
from agent.sources.source import Emit, Source

log = structlog.get_logger("remora.sources")

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# A source that ran for so long was well: its next failure starts the back-off anew.
HEALTHY_S = 60.0
# One that fails at every turn says so now and then.
COMPLAIN_EVERY_S = 60.0


class SourceTasks:
    """Runs sources from `start` to `stop`."""

    def __init__(self, sources: Sequence[Source], emit: Emit) -> None:
        self._sources = tuple(sources)
        self._emit = emit
        self._why: list[str | None] = [None] * len(self._sources)  # it does not run
        self._tasks: list[asyncio.Task[None]] = []
        self._complain_at = 0.0
        self.dropped: Counter[str] = Counter()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(place)) for place in range(len(self._sources))]

    async def stop(self) -> None:
        """Cancel all of them and wait until each has closed what it opened."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep(self, place: int) -> None:
        source, failures = self._sources[place], 0
        while True:
            began_at = time.monotonic()
            self._why[place] = None
            try:
                await source.run(self._take)
                why = "it ended by itself"
            except Exception as error:
                why = str(error) or repr(error)
                self.dropped["source_failed"] += 1
            failures = 0 if time.monotonic() - began_at > HEALTHY_S else failures
            wait_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
            failures += 1
            self._why[place] = why[:300]
            if time.monotonic() >= self._complain_at:
                self._complain_at = time.monotonic() + COMPLAIN_EVERY_S
                log.error("source does not run", source=source.name, why=why, wait_s=wait_s)
            await asyncio.sleep(wait_s)

    def _take(self, taken: Exchange | Inference, /) -> bool:
        """What one exchange does to whoever takes it must not end the source it came from."""
        try:
            return self._emit(taken)
        except Exception:
            self.dropped["intake_failed"] += 1
            log.exception("an exchange could not be taken in")
            return False

    def drops(self) -> Counter[str]:
        """By reason, of all of them."""
        found = Counter(self.dropped)
        for source in self._sources:
            found.update(source.dropped)
        return found

    def status(self) -> list[dict[str, object]]:
        """Each in words, in the order they were given."""
        return [
            {
                "kind": source.name,
                "state": "runs" if why is None else "waits",
                "reason": why,
                "completeness": source.completeness,
                "dropped": dict(source.dropped),
            }
            for source, why in zip(self._sources, self._why, strict=True)
        ]
