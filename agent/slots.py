"""The two slots: what serves in each, where it answers, and that it keeps serving.

A slot is a process that we start (or adopt, after a restart of ours) or an upstream that somebody
else runs. The processes outlive this agent on purpose: it may die, the model may not.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.addresses import accepts_connection, resolve
from agent.config import Config, parse_upstream
from retrain import artifact
from retrain.registry import Registry, SlotRecord, Version, external
from retrain.rollout_messages import Slot
from retrain.traffic.slot import (
    STEADY_S,
    SlotCommand,
    SlotError,
    SlotProcess,
    UpstreamSlot,
    backoff_s,
)

log = structlog.get_logger("remora.slots")

SLOTS: tuple[Slot, Slot] = ("A", "B")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotFailure:
    """A model's process ended by itself."""

    slot: Slot
    digest: str
    reason: str


class Slots:
    """Slots A and B of one model."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        *,
        state_dir: Path,
        upstream: str | None,
        on_moved: Callable[[Slot], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._registry = registry
        self._home = state_dir / "slots"
        # Where the configured upstream is, numeric: the supervisor resolves its name. None: we
        # do not relay to it.
        self._upstream = upstream
        # What the configured upstream serves: to go back to that is to go back there.
        self.upstream_digest = external(config.stable_upstream)
        self._on_moved = on_moved
        # A slot is started or stopped, never both at once: a stop that came to its end late would
        # take the next model with it.
        self._locks: dict[Slot, asyncio.Lock] = {name: asyncio.Lock() for name in SLOTS}
        self._starting: dict[Slot, asyncio.Task[None]] = {}
        self._processes: dict[Slot, SlotProcess] = {}
        self._addresses: dict[Slot, str] = {}
        self._restarts: dict[Slot, tuple[int, float]] = {}  # failures in a row, not before
        self._restarting: dict[Slot, asyncio.Task[None]] = {}

    # Where they answer.

    def address(self, slot: Slot) -> str | None:
        """`host:port` or `unix:/path`, numeric; None for an empty slot."""
        record = self._registry.slot(slot)
        if record.address is None:
            return None
        if record.address == self._config.stable_upstream:
            return self._upstream
        return self._addresses.get(slot) or numeric(record.address)

    def upstream_moved(self, address: str) -> None:
        """The configured upstream's name resolves to this now."""
        self._upstream = address

    # Starting and stopping.

    async def start(self, slot: Slot, digest: str) -> None:
        """Have the slot serve this version; returns when it does. What does not serve is ended.

        Raises `ValueError` for an artifact that is not what its digest says or a version nobody
        can serve, `OSError` with the last words of a process that did not come up.
        """
        async with self._locks[slot]:
            running = self._processes.get(slot)
            if running is not None and running.digest == digest and running.alive():
                return  # whoever did not get ready is not among them
            version = self._registry.version(digest)
            if version is None:
                raise ValueError(f"{digest} is not in the registry")
            work = asyncio.get_running_loop().create_task(self._bring_up(slot, version))
            self._starting[slot] = work
            try:
                await work
            except SlotError as error:
                raise OSError(str(error)) from error
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise OSError(f"slot {slot} was emptied before it was ready") from None
            finally:
                self._starting.pop(slot, None)

    async def _bring_up(self, slot: Slot, version: Version) -> None:
        candidate = self._config.rollout.candidate
        record = self._registry.slot(slot)
        if record.digest == version.digest and record.pid is None and record.address is not None:
            await self._ask(slot, version.digest, record.address)  # somebody else runs it
        elif version.digest == self.upstream_digest and await self._upstream_serves(version):
            address = self._config.stable_upstream
            self._registry.set_slot(SlotRecord(name=slot, digest=version.digest, address=address))
        elif candidate is not None and candidate.upstream is not None:
            address = candidate.upstream if slot == "B" else self._config.stable_upstream
            self._registry.set_slot(SlotRecord(name=slot, digest=version.digest, address=address))
            await self._ask(slot, version.digest, address)
        elif candidate is None or candidate.start is None:
            raise ValueError("rollout.candidate is not set: nothing can serve a candidate")
        else:
            if not await asyncio.to_thread(verified, version):
                raise ValueError(f"{version.digest} is not what its digest says")
            await self._run(slot, version, record)

    async def _run(self, slot: Slot, version: Version, record: SlotRecord) -> None:
        process = self._process(slot, version)
        started = not process.adopt(record)
        if started:
            process.start()
            self._registry.set_slot(process.record)
        self._processes[slot] = process
        try:
            await process.wait_ready()
        except SlotError:
            # A process that hangs would be found alive by the next attempt, and be given traffic.
            if self._processes.get(slot) is process:
                del self._processes[slot]
                await process.stop()
            raise
        log.info("slot serves", slot=slot, digest=version.digest, address=process.address)
        if started:
            self._on_moved(slot)

    async def _upstream_serves(self, version: Version) -> bool:
        """Whether to use the configured upstream: always when there is no artifact to start."""
        if version.directory is None or self._upstream is None:
            return True
        return await accepts_connection(self._upstream)

    async def _ask(self, slot: Slot, digest: str, address: str) -> None:
        """An upstream that we did not start is only asked whether it is ready."""
        candidate = self._config.rollout.candidate
        self._addresses[slot] = await resolve(parse_upstream(address))
        if candidate is None or candidate.upstream is None or address.startswith("unix:"):
            return  # the configured upstream has no path of which we know that it tells
        await UpstreamSlot(
            name=slot,
            digest=digest,
            address=address,
            ready_path=candidate.ready_path,
            ready_timeout_s=candidate.ready_timeout_s,
        ).wait_ready()

    def _process(self, slot: Slot, version: Version) -> SlotProcess:
        candidate = self._config.rollout.candidate
        assert candidate is not None
        assert candidate.start is not None
        if version.directory is None:
            raise ValueError(f"{version.digest} has no artifact that could be served")
        command = SlotCommand(
            argv=candidate.start,
            cwd=None if candidate.cwd is None else str(candidate.cwd),
            ready_path=candidate.ready_path,
            ready_timeout_s=candidate.ready_timeout_s,
            env=candidate.env,
        )
        return SlotProcess(
            name=slot,
            digest=version.digest,
            command=command,
            artifact=Path(version.directory),
            home=self._home / slot,
        )

    async def stop(self, slot: Slot) -> None:
        """End what we started there; an upstream that somebody else runs is only let go."""
        # A start that waits for a process that never gets ready must not hold this up.
        starting = self._starting.get(slot)
        if starting is not None:
            starting.cancel()
        async with self._locks[slot]:
            await self._empty(slot)

    async def _empty(self, slot: Slot) -> None:
        record = self._registry.slot(slot)
        process = self._processes.pop(slot, None)
        if process is None and record.pid is not None and record.digest is not None:
            version = self._registry.version(record.digest)
            if version is not None and version.directory is not None:
                process = self._process(slot, version)
                process.adopt(record)
        self._registry.set_slot(SlotRecord(name=slot))
        self._addresses.pop(slot, None)
        if process is not None:
            await process.stop()

    # Keeping them up.

    async def start_stable(self) -> None:
        """After a restart: adopt the stable slot's process, or begin to start it again."""
        for name in SLOTS:
            record = self._registry.slot(name)
            elsewhere = record.address != self._config.stable_upstream
            if record.pid is None and record.address is not None and elsewhere:
                self._addresses[name] = await resolve(parse_upstream(record.address))
            if record.digest is None or record.pid is None:
                continue
            version = self._registry.version(record.digest)
            if version is None or version.directory is None:
                continue
            process = self._process(name, version)
            if process.adopt(record):
                self._processes[name] = process
                log.info("slot adopted", slot=name, digest=record.digest, pid=record.pid)
            elif record.stable:
                self._restart(name, version.digest)

    async def failed(self) -> list[SlotFailure]:
        """Processes that ended since the last call; the stable slot's is started again here."""
        found = []
        for name, process in list(self._processes.items()):
            process.bound_log()
            if process.alive() or name in self._restarting:
                continue
            del self._processes[name]
            reason = await process.ended()
            found.append(SlotFailure(slot=name, digest=process.digest, reason=reason))
            log.error("model process ended", slot=name, digest=process.digest, reason=reason)
            if self._registry.slot(name).stable:
                self._restart(name, process.digest)
        return found

    def _restart(self, slot: Slot, digest: str) -> None:
        if slot not in self._restarting:
            task = asyncio.get_running_loop().create_task(self._start_again(slot, digest))
            self._restarting[slot] = task
            task.add_done_callback(lambda _: self._restarting.pop(slot, None))

    async def _start_again(self, slot: Slot, digest: str) -> None:
        """Until it serves, or is stable no more; quick at first, then patient."""
        loop = asyncio.get_running_loop()
        failures, last = self._restarts.get(slot, (0, 0.0))
        failures = failures + 1 if loop.time() - last < STEADY_S else 1
        while True:
            await asyncio.sleep(0.0 if failures <= 1 else backoff_s(failures - 1))
            record = self._registry.slot(slot)
            if not record.stable or record.digest != digest:
                return
            try:
                await self.start(slot, digest)
            except (OSError, ValueError) as error:
                failures += 1
                log.error("stable model does not start", slot=slot, error=str(error))
                continue
            self._restarts[slot] = (failures, loop.time())
            return


def verified(version: Version) -> bool:
    """Whether the artifact is there and is what its digest says. Without one there is nothing
    to verify: an upstream that somebody else runs is taken at its word."""
    if version.directory is None:
        return version.origin == "external"
    try:
        return artifact.load(Path(version.directory)).digest == version.digest
    except (OSError, ValueError):
        return False


def numeric(url: str) -> str:
    """The address of a slot that we started, as the edge takes it."""
    return str(parse_upstream(url))
