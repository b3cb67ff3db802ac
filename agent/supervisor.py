"""The supervisor: owns the listening sockets and keeps edges, tap and analysis alive beside them.

It decides nothing and measures nothing. Whatever happens to a child, the sockets stay open here,
so a client's connection waits in the kernel's queue for a moment instead of being refused.
"""

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import structlog

from agent.addresses import is_name, resolve
from agent.admin.front import FrontDesk
from agent.channel_ends import ChannelEnds, Peer
from agent.child_settings import config_file, edge_settings, tap_settings
from agent.children import Child, Message, name_process, notify_systemd
from agent.config import Config, parse_upstream
from agent.listeners import open_listeners, shown
from agent.probes import Probes

log = structlog.get_logger("remora.supervisor")

# A child that has drained needs so long to end, and analysis so long to save.
END_S = 1.0
SAVE_S = 5.0
RESOLVE_EVERY_S = 15.0
EDGE_HUNG_S = 20.0
# Analysis may be busy for long with one big request of a person; the edge does not care.
ANALYSIS_HUNG_S = 90.0
# A tap without its capability is asked again now and then: somebody may have given it.
TAP_REFUSED_WAIT_S = 60.0
TAP = Peer(source="tap")
# Listeners that edges accept on; analysis serves on the others.
DOORS = ("proxy", "grpc")


class Supervisor:
    """Wires sockets, children and signals together; `run` returns the exit code."""

    def __init__(
        self, config: Config, *, role: str, reload: Callable[[], Config] | None = None
    ) -> None:
        self._config = config
        self._role = role
        self._reload = reload
        self._stopping = asyncio.Event()
        self._stable: dict[str, str] | None = None  # None: nothing is relayed
        self._grpc: str | None = None  # the upstream of the door for gRPC
        self._listeners: dict[str, socket.socket] = {}  # by who serves on them, but for admin's
        workers = 0 if config.proxy is None else config.proxy.workers
        self._edges = {worker: self._new_edge(worker, of=workers) for worker in range(workers)}
        self._tap = None if config.tap is None else self._new_tap()
        self._analysis = Child(
            "analysis",
            "agent.analysis",
            on_spawn=self._start_analysis,
            on_message=self._from_analysis,
            hung_after_s=ANALYSIS_HUNG_S,
        )
        self._channels = ChannelEnds(self._analysis)
        self._probes = Probes(
            edges=list(self._edges.values()),
            tap=self._tap,
            analysis=self._analysis,
            upstream=lambda: None if self._stable is None else self._stable["address"],
        )
        self._run_dir = Path(tempfile.mkdtemp(prefix="remora-"))
        self._backend = str(self._run_dir / "admin.sock")

    def _new_edge(self, worker: int, *, of: int) -> Child:
        return Child(
            "edge" if of == 1 else f"edge-{worker + 1}",
            "agent.edge",
            on_spawn=partial(self._start_edge, worker),
            on_message=partial(self._from_edge, worker),
            hung_after_s=EDGE_HUNG_S,
            title="edge",
        )

    def _new_tap(self) -> Child:
        return Child(
            "tap",
            "agent.tap",
            on_spawn=self._start_tap,
            on_message=self._from_tap,
            hung_after_s=EDGE_HUNG_S,
            refused_wait_s=TAP_REFUSED_WAIT_S,
        )

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT. Raises `OSError` when a listener cannot be bound.

        Exit code 1 when one of its own tasks ended, which none ever should: half a supervisor is
        worse than one that whoever runs us starts again.
        """
        try:
            return await self._run()
        finally:
            self._clean_up()

    async def _run(self) -> int:
        name_process("remora-supervisor")
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        self._listeners = await open_listeners(self._config, os.environ)
        admin = self._listeners.pop("admin")
        self._stable = await self._first_stable()
        if self._config.proxy is not None and self._config.proxy.grpc is not None:
            self._grpc = await resolve(self._config.proxy.grpc.upstream_address)
        front = FrontDesk(
            backend=self._backend,
            probes={"/healthz": self._probes.healthz, "/readyz": self._probes.readyz},
        )
        await front.serve(admin)
        log.info(
            "remora starts",
            sources=[source.kind for source in self._config.sources],
            listen={name: shown(sock) for name, sock in self._listeners.items()},
            admin=self._config.admin.listen,
            upstream=None if self._stable is None else self._stable["address"],
            model=self._config.model.name,
            role=self._role,
            page=f"http://{self._config.admin.listen}/",
            token_file=self._token_file(),
        )
        tasks = [loop.create_task(child.keep_alive()) for child in self._children()]
        tasks.append(loop.create_task(self._follow_names()))
        tasks.append(loop.create_task(self._follow_grpc_name()))
        failed = await self._stopped(tasks)
        notify_systemd("STOPPING=1")
        log.info("remora stops: draining")
        for listener in self._listeners.values():
            listener.close()
        # What brings exchanges in goes first: analysis still takes what it ships while it drains.
        ahead = [child for child in self._children() if child is not self._analysis]
        drain_s = 0.0 if self._config.proxy is None else self._config.proxy.drain_s
        await asyncio.gather(*(child.stop(grace_s=drain_s + END_S) for child in ahead))
        await self._analysis.stop(grace_s=SAVE_S)
        front.close()
        for task in tasks:
            task.cancel()
        return 1 if failed else 0

    def _children(self) -> Iterator[Child]:
        yield from self._edges.values()
        if self._tap is not None:
            yield self._tap
        yield self._analysis

    async def _stopped(self, tasks: list[asyncio.Task[None]]) -> bool:
        """Until we are told to stop; true when a task ended instead."""
        told = asyncio.get_running_loop().create_task(self._stopping.wait())
        done, _ = await asyncio.wait({told, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if told in done:
            return False
        told.cancel()
        for task in tasks:
            if task in done:
                log.error("a task of the supervisor ended", error=repr(task.exception()))
        return True

    def _clean_up(self) -> None:
        Path(self._backend).unlink(missing_ok=True)
        self._run_dir.rmdir()

    def _token_file(self) -> str:
        """Where the operator's token is, for whoever starts the agent for the first time."""
        admin = self._config.admin
        if admin.tokens or admin.token is not None:
            return "as configured"
        return str(admin.token_file or self._config.state_dir / "admin.token")

    # What the children are told.

    def _start_edge(self, worker: int, edge: Child) -> None:
        doors = [name for name in self._listeners if name in DOORS]
        start = {
            "type": "start",
            "settings": edge_settings(self._config),
            "stable": self._stable,
            "listeners": doors,
            "grpc": self._grpc,
        }
        sockets = [self._listeners[name] for name in doors]
        self._channels.to_new_child(edge, Peer(worker=worker), start, sockets)
        self._announce()

    def _start_tap(self, tap: Child) -> None:
        start = {"type": "start", "settings": tap_settings(self._config)}
        self._channels.to_new_child(tap, TAP, start, [])
        self._announce()

    def _start_analysis(self, analysis: Child) -> None:
        Path(self._backend).unlink(missing_ok=True)
        served = [name for name in self._listeners if name not in DOORS]
        with config_file(self._config) as config:
            analysis.send(
                {
                    "type": "start",
                    "role": self._role,
                    "admin_socket": self._backend,
                    "stable": self._stable,
                    "listeners": served,
                },
                [config.fileno(), *(self._listeners[name].fileno() for name in served)],
            )
        for worker, edge in self._edges.items():
            self._channels.to_new_analysis(Peer(worker=worker), edge)
        if self._tap is not None:
            self._channels.to_new_analysis(TAP, self._tap)
        self._announce()

    def _announce(self) -> None:
        """Tell analysis who there is to measure, how often each was restarted, and how it is."""
        self._analysis.send(
            {
                "type": "processes",
                "processes": {
                    child.name: {
                        "pid": child.pid,
                        "restarts": child.restarts,
                        "ready": child.ready,
                        "refused": child.refused,
                    }
                    for child in self._children()
                },
            }
        )

    # What the children say.

    def _from_edge(self, worker: int, message: Message) -> None:
        if message["type"] == "ready":
            notify_systemd("READY=1")
            log.info("edge serves", child=self._edges[worker].name, pid=self._edges[worker].pid)
            self._announce()

    def _from_tap(self, message: Message) -> None:
        match message["type"]:
            case "ready":
                log.info("tap listens")
            case "refused":
                log.error("tap does not run; everything else does", why=message["reason"])
        self._announce()

    def _from_analysis(self, message: Message) -> None:
        match message["type"]:
            case "ready":
                log.info("analysis is up", pid=self._analysis.pid)
                self._analysis_settled()
            case "refused":
                self._analysis_settled()
            case "stable":
                # Kept here so that an edge that restarts while analysis is away routes right.
                self._stable = {"address": message["address"], "version": message["version"]}
            case "channel_lost":
                self._join(Peer(source=message["source"], worker=message["worker"]))

    def _analysis_settled(self) -> None:
        """Without an edge nobody else says that we run. What analysis lacks is in the probes."""
        self._announce()
        if not self._edges:
            notify_systemd("READY=1")

    def _join(self, peer: Peer) -> None:
        child = self._tap if peer == TAP else self._edges.get(peer.worker)
        if child is not None:
            self._channels.join(peer, child)

    # Names, reload.

    async def _first_stable(self) -> dict[str, str] | None:
        """Where the stable model is served: the ledger's word wins over the configuration's."""
        from agent.stable import stable_from_ledger

        if self._config.proxy is None:
            return None
        remembered = stable_from_ledger(self._config)
        if remembered is not None:
            address = await resolve(parse_upstream(remembered.address))
            return {"address": address, "version": remembered.version}
        address = await resolve(self._config.proxy.upstream_address)
        return {"address": address, "version": self._config.model.version}

    async def _follow_names(self) -> None:
        """Resolve the upstream's name again now and then: the edge never resolves anything."""
        proxy, first = self._config.proxy, self._stable
        if proxy is None or first is None:
            await self._stopping.wait()
            return
        upstream, current = proxy.upstream_address, first["address"]
        while True:
            await asyncio.sleep(RESOLVE_EVERY_S)
            stable = self._stable or first
            if not is_name(upstream) or stable["address"] != current:
                continue
            address = await resolve(upstream, current=current)
            if address != current:
                log.info("upstream moved", name=upstream.host, address=address)
                current = address
                self._stable = {**stable, "address": address}
                for child in (*self._edges.values(), self._analysis):
                    child.send({"type": "stable", **self._stable})

    async def _follow_grpc_name(self) -> None:
        proxy, current = self._config.proxy, self._grpc
        if proxy is None or proxy.grpc is None or not is_name(proxy.grpc.upstream_address):
            await self._stopping.wait()
            return
        while True:
            await asyncio.sleep(RESOLVE_EVERY_S)
            address = await resolve(proxy.grpc.upstream_address, current=current)
            if address != current:
                log.info("gRPC upstream moved", address=address)
                current = self._grpc = address
                for edge in self._edges.values():
                    edge.send({"type": "grpc", "address": address})

    def _reread(self) -> None:
        """SIGHUP: what can change without dropping a connection changes, the rest is named."""
        if self._reload is None:
            return
        try:
            config = self._reload()
        except ValueError as error:
            log.error("configuration not reloaded, the running one stays", error=str(error))
            return
        changes = self._config.changes(config)
        for key in changes.fixed:
            log.warning("changed, but needs a restart", key=key)
        if not changes.live:
            log.info("nothing to reload", needs_restart=len(changes.fixed))
            return
        self._config = self._config.with_live_changes(config)
        with config_file(self._config) as file:
            self._analysis.send({"type": "config"}, [file.fileno()])
        log.info("configuration reloaded", keys=list(changes.live))


def supervise(config: Config, *, role: str, reload: Callable[[], Config] | None = None) -> int:
    """Run the agent until it is told to stop; the exit code of `remora run`."""
    if not config.admin.listen_address.loopback:
        log.warning("admin port is open beyond loopback", listen=config.admin.listen)

    async def main() -> int:
        return await Supervisor(config, role=role, reload=reload).run()

    return asyncio.run(main())
