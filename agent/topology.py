"""The running graph of analysis: what is made from the configuration, in which order it starts
and drains. Everything that decides is elsewhere; here is only who knows whom.

Start: state, ledger, detectors, snapshot, controller, admin API, and the sources last, so that no
exchange arrives before everybody who wants it is there. Stop is the same backwards.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
import structlog

from agent.admin.api import Api
from agent.admin.auth import gatekeeper
from agent.admin.server import AdminServer
from agent.agent_view import AgentView
from agent.batch import Batch
from agent.capture import CaptureWriter
from agent.channel_ends import Peer
from agent.channels import Channels, Receivers
from agent.concept_child import ConceptChild
from agent.config import Config
from agent.configured_reference import configured_reference
from agent.controller import Controller
from agent.edge.routing import Routes
from agent.edge_totals import EdgeTotals
from agent.exchange import Exchange
from agent.inference import Inference
from agent.intake import Intake
from agent.labels import Joined, LabelStore
from agent.latency import Latencies
from agent.monitor import Tick
from agent.objectives import Objectives
from agent.resources import AgentResources, ServerResources, costs_of
from agent.sampling_rates import SamplingRates, memory_bytes
from agent.source_status import Counted, TapLosses, source_status
from agent.source_tasks import SourceTasks
from agent.sources.opening import open_sources
from agent.sources.proxy import EdgeCounters, Outcome
from agent.sources.sampler import Sampler
from agent.sources.tail_formats import LoggedRequest
from agent.state import Snapshot
from agent.state_directory import kept_salt, locked
from agent.upstream_watch import UpstreamWatch
from detectors import Reading

log = structlog.get_logger("remora.analysis")

TICK_EVERY_S = 0.5
SAMPLING_EVERY_S = 1.0
HISTORY_EVERY_S = 5.0
# A loop that fails at every turn says so now and then, not twice a second.
COMPLAIN_EVERY_S = 60.0


class Agent:
    """One model's analysis. `start` returns when everything serves; `stop` saves and ends."""

    def __init__(
        self,
        config: Config,
        *,
        role: str,
        stable_address: str | None,
        stable_version: str,
        tell_supervisor: Callable[[dict[str, Any]], None],
    ) -> None:
        self.config = config
        self.role = role
        self.started_at = time.time()
        state_dir = config.state_dir
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = locked(state_dir)
        workers = 0 if config.proxy is None else config.proxy.workers
        routes = () if config.proxy is None else config.proxy.routes
        self.totals = EdgeTotals(
            workers=workers or 1, routes=tuple((route.name, route.pattern) for route in routes)
        )
        named = Routes(tuple((route.name, route.pattern) for route in routes))
        self.latencies = Latencies(lambda path: named.names[named.index(path.encode())])
        self.objectives = Objectives(config.slo)
        self.tap_losses = TapLosses()
        self.upstream = UpstreamWatch()
        self.sampling = SamplingRates(
            config.sampling,
            salt=kept_salt(state_dir / "sampling.salt"),
            tick_s=config.detect.tick_s,
            rows=lambda: self.intake.monitor.rows_total,
            memory=lambda: memory_bytes(self.agent_resources.read()),
        )
        self.intake = Intake(
            config,
            stable=stable_version,
            reference=configured_reference(config.reference),
            labels=LabelStore(
                state_dir / "labels.db",
                ttl_s=config.labels.ttl_s,
                pending_s=config.labels.pending_s,
                rows_max=config.labels.rows_max,
                maturity_s=config.labels.maturity_s,
                was_kept=self.sampling.was_kept,
                attributes=[group.attribute for group in config.detect.fairness],
            ),
            on_tick=self._on_tick,
            on_labelled=self._on_labelled,
            sampler=self.sampling.sampler,
        )
        self.capture = _capture(config, self.sampling.order.salt)
        self.concept = self._concept_child() if config.detect.concept.named else None
        self._snapshot = Snapshot(state_dir / "snapshot.npz")
        self.server_resources = ServerResources.of(config, stable_address)
        self.costs = costs_of(config)
        self.agent_resources = AgentResources()
        self.controller = Controller(
            config,
            role=role,
            state_dir=state_dir,
            stable=(stable_address, stable_version),
            intake=self.intake,
            send_route=lambda route: self.channels.send_route(route),
            tell_supervisor=tell_supervisor,
        )
        client_key = config.rollout.client_key
        self.channels = Channels(
            Receivers(
                exchange=self._take,
                outcomes=self._on_outcomes,
                counters=self._on_counters,
                generation=self.controller.on_generation,
                lost=self._channel_lost,
                source=self.tap_losses.take,
                calls=self.totals.calls,
            ),
            workers=workers,
            sampling=lambda: self.sampling.order,
            headers=() if client_key is None else (client_key,),
        )
        self.sampling.tell = lambda order: self.channels.send_sampling()
        self.sampling.found = self.intake.monitor.findings.append
        self.view = AgentView(self)
        self.sources = SourceTasks((), self._take)
        self._tell_supervisor = tell_supervisor
        self._tasks: list[asyncio.Task[None]] = []
        self._admin: AdminServer | None = None
        self._processes: dict[str, dict[str, Any]] = {}
        self._snapshot_at = time.time()

    # Life.

    async def start(
        self, *, admin_socket: str, listeners: Mapping[str, socket.socket] | None = None
    ) -> None:
        """Restore, then serve. Raises what makes starting pointless: a ledger that is broken.

        The edges and the tap are connected afterwards, as their channels come.
        """
        saved = self._snapshot.load()
        if saved is not None:
            self._restore(saved[0])
        await self.controller.start()
        if self.concept is not None:
            self.concept.start()
        api = Api(self.view, gatekeeper(self.config, self.config.state_dir))
        self._admin = AdminServer(api.application(), admin_socket)
        await self._admin.start()
        opened = open_sources(
            self.config,
            listeners=listeners or {},
            state_dir=self.config.state_dir,
            take_labels=self.view.take_labels,
            sampler=Sampler(keeps=self.sampling.keeps, weight=self.sampling.weight),
            on_request=self._on_logged,
        )
        self.sources = SourceTasks(opened, self._take)
        self.sources.start()
        self._tasks = [
            self._every(lambda: TICK_EVERY_S, self._tick),
            self._every(lambda: SAMPLING_EVERY_S, self._govern),
            self._every(lambda: HISTORY_EVERY_S, self._note_history),
            self._every(lambda: self.config.resources.interval_s, self._measure_resources),
            self._every(lambda: self.config.state.snapshot_s, self._save),
        ]

    async def stop(self) -> None:
        """Take what still comes, save, and let go. Model servers that we started keep serving."""
        for task in self._tasks:
            task.cancel()
        await self._attempt(self.sources.stop)
        if self._admin is not None:
            await self._admin.stop()
        self.channels.close()
        # What one of them cannot write any more must not keep the others from saving theirs.
        await self._attempt(self._flush)
        if self.concept is not None:
            await self._attempt(self.concept.stop)
        await self._attempt(self.controller.stop)
        await self._attempt(self._save)
        self.intake.labels.close()
        if self.capture is not None:
            self.capture.close()
        os.close(self._lock)

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("not everything could be saved", task=work.__name__)

    async def _flush(self) -> None:
        self.intake.flush()

    def _concept_child(self) -> ConceptChild:
        """river's detectors in a process of its own; they see what the built-in one sees."""
        named = self.config.detect.concept.named
        child = ConceptChild(self.intake.take_concept_change, detectors=named)
        self.intake.feed_concept = child.feed
        return child

    def _every(
        self, wait_s: Callable[[], float], work: Callable[[], Awaitable[None]]
    ) -> asyncio.Task[None]:
        async def repeat() -> None:
            complain_at = 0.0
            while True:
                await asyncio.sleep(wait_s())
                try:
                    await work()
                except Exception as error:
                    # One bad turn of a loop must not end the watching for good.
                    self.intake.dropped["periodic_task"] += 1
                    if time.monotonic() >= complain_at:
                        complain_at = time.monotonic() + COMPLAIN_EVERY_S
                        log.exception("a periodic task failed", task=work.__name__, why=str(error))

        return asyncio.get_running_loop().create_task(repeat())

    # The edges and the tap.

    def connect(self, sock: socket.socket, peer: Peer | None = None) -> None:
        """A channel to a process that has just started, or to the one there was before us."""
        self.channels.connect(sock, peer or Peer())
        self.controller.route_again()

    def _channel_lost(self, peer: Peer) -> None:
        lost = {"type": "channel_lost", "source": peer.source, "worker": peer.worker}
        self._tell_supervisor(lost)

    def _on_counters(self, worker: int, counters: EdgeCounters) -> None:
        self.totals.take(counters, worker=worker)
        self.upstream.look(self.totals)
        self.sampling.take_counters(counters)

    def source_status(self) -> list[dict[str, Any]]:
        """Each source: its state, why it does not run, how complete it is, and what it lost."""
        return source_status(
            self.config,
            self._processes,
            proxy=Counted(completeness=self.totals.completeness, dropped=self.totals.lost),
            tap=self.tap_losses.counted,
            tasks=self.sources.status(),
        )

    def _on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self.controller.on_outcomes(outcomes)

    # Rows, labels, readings.

    def _take(self, taken: Exchange | Inference) -> bool:
        if isinstance(taken, Exchange):
            self.latencies.take(taken, time.time(), stable=self.intake.monitor.stable)
        return self.intake.take(taken)

    def _on_logged(self, request: LoggedRequest) -> None:
        """An access log tells of requests that no edge has counted."""
        call = request.as_call(self.intake.monitor.stable)
        self.totals.calls.begun(call.version, call.path, is_grpc=False)
        self.totals.calls.ended(call)

    def _on_tick(self, tick: Tick) -> None:
        infinite = infinite_cells(tick.batch)
        if infinite:
            self.intake.dropped["infinite_value"] += infinite
        if self.capture is not None:
            self.capture.write(tick.batch, share=tick.share)
        self.controller.on_tick(tick)

    def _on_labelled(self, joined: Sequence[Joined], readings: Sequence[Reading]) -> None:
        self.controller.on_labelled(joined, readings)

    # Regular work.

    async def _tick(self) -> None:
        self.intake.advance()
        await self.controller.tick()

    async def _govern(self) -> None:
        self.sampling.step()

    async def _note_history(self) -> None:
        now = time.time()
        self.view.note(now)
        if self.totals.edges:  # before all are heard, sums are less than they were
            self.objectives.update(self.totals.cells(), now)

    async def _measure_resources(self) -> None:
        if self.capture is not None:
            self.capture.expire()
        used = self.server_resources.read()
        if self.costs is not None and used.pid is not None:
            self.costs.update(
                used.values,
                gpus=len(used.gpus),
                predictions=self.intake.monitor.represented,
                at=time.time(),
            )

    async def _save(self) -> None:
        self._snapshot_at = time.time()
        try:
            self._snapshot.save(
                {
                    "monitor": self.intake.monitor.state(),
                    "view": self.view.state(),
                    "totals": self.totals.state(),
                    "sampling": self.sampling.state(),
                    "objectives": self.objectives.state(),
                },
                now=self._snapshot_at,
            )
        except OSError as error:
            self.intake.dropped["snapshot"] += 1
            log.error("snapshot not saved", error=str(error))

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.intake.monitor.restore(state["monitor"])
            self.view.restore(state["view"])
            self.totals.restore(state.get("totals", {"start_id": ""}))
            self.sampling.restore(state.get("sampling", {"scale": 1.0, "why": "none"}))
            self.objectives.restore(state.get("objectives", {}))
        except (KeyError, TypeError, ValueError) as error:
            log.error("snapshot not used, detectors start anew", error=repr(error))

    # What the supervisor says.

    def processes_are(self, processes: dict[str, dict[str, Any]]) -> None:
        """Which processes there are, and how often each was started again."""
        self._processes = processes
        self.agent_resources.processes_are(processes)

    def upstream_moved(self, address: str) -> None:
        """The configured upstream's name resolves to another address now."""
        self.controller.upstream_moved(address)

    def reconfigure(self, config: Config) -> None:
        """A reload: the supervisor has already left everything else as it was."""
        self.config = config
        self.sampling.reconfigure(config.sampling)
        self.view.forget_exported()
        if self.capture is not None:
            self.capture.limit(
                bytes_max=config.capture.bytes_max,
                retention_s=config.capture.retention_s,
                reservoir=config.sampling.reservoir,
            )
        self.controller.reconfigure(config)


def infinite_cells(batch: Batch) -> int:
    """Cells with numbers that no measuring gives: the detectors see them beyond every bin."""
    numeric = (column for column in batch.columns.values() if column.dtype.kind == "f")
    return sum(int(np.isinf(column).sum()) for column in numeric)


def _capture(config: Config, salt: bytes) -> CaptureWriter | None:
    if not config.capture.enabled:
        return None
    return CaptureWriter(
        config.capture_dir,
        bytes_max=config.capture.bytes_max,
        retention_s=config.capture.retention_s,
        redact=config.capture.redact,
        reservoir=config.sampling.reservoir,
        salt=salt,
    )
