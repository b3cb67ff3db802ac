"""The supervisor: owns the listening sockets and keeps the edge and analysis alive beside them.

It decides nothing and measures nothing. Whatever happens to a child, the sockets stay open here,
so a client's connection waits in the kernel's queue for a moment instead of being refused.
"""

import asyncio
import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import structlog

from agent.addresses import accepts_connection, bind_listener, is_name, resolve
from agent.admin.front import FrontDesk
from agent.children import Child, Message, name_process, notify_systemd
from agent.config import Config, parse_upstream

log = structlog.get_logger("remora.supervisor")

# After a supervisor's death its edge still holds the port until it has drained: 5 s, and a bit.
BIND_WAIT_S = 8.0
DRAIN_S = 5.0
RESOLVE_EVERY_S = 15.0
CHANNEL_BUFFER_BYTES = 1024 * 1024
EDGE_HUNG_S = 20.0
# Analysis may be busy for long with one big request of a person; the edge does not care.
ANALYSIS_HUNG_S = 90.0


class Supervisor:
    """Wires sockets, children and signals together; `run` returns the exit code."""

    def __init__(
        self, config: Config, *, role: str, reload: Callable[[], Config] | None = None
    ) -> None:
        self._config = config
        self._role = role
        self._reload = reload
        self._proxy = config.proxy
        self._stopping = asyncio.Event()
        self._edge_ready = False
        self._analysis_ready = False
        self._analysis_error: str | None = None  # why it cannot start, in its own words
        self._held_end: socket.socket | None = None  # analysis' end of a channel, until it lives
        self._stable: dict[str, str] = {}
        self._listeners: list[socket.socket] = []
        self._edge = Child(
            "edge",
            "agent.edge",
            on_spawn=self._start_edge,
            on_message=self._from_edge,
            hung_after_s=EDGE_HUNG_S,
        )
        self._analysis = Child(
            "analysis",
            "agent.analysis",
            on_spawn=self._start_analysis,
            on_message=self._from_analysis,
            hung_after_s=ANALYSIS_HUNG_S,
        )
        self._run_dir = Path(tempfile.mkdtemp(prefix="remora-"))
        self._backend = str(self._run_dir / "admin.sock")

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
        self._listeners = [await bind_listener(self._proxy.listen_address, wait_s=BIND_WAIT_S)]
        admin = await bind_listener(self._config.admin.listen_address, wait_s=BIND_WAIT_S)
        self._stable = await self._first_stable()
        front = FrontDesk(
            backend=self._backend, probes={"/healthz": self._healthz, "/readyz": self._readyz}
        )
        await front.serve(admin)
        log.info(
            "remora starts",
            listen=self._proxy.listen,
            admin=self._config.admin.listen,
            upstream=self._stable["address"],
            model=self._config.model.name,
            role=self._role,
            page=f"http://{self._config.admin.listen}/",
            token_file=self._token_file(),
        )
        tasks = [
            loop.create_task(self._edge.keep_alive()),
            loop.create_task(self._analysis.keep_alive()),
            loop.create_task(self._follow_names()),
        ]
        failed = await self._stopped(tasks)
        notify_systemd("STOPPING=1")
        log.info("remora stops: draining")
        for listener in self._listeners:
            listener.close()
        # The edge first: analysis still takes what it ships while it drains.
        await self._edge.stop(grace_s=DRAIN_S + 1.0)
        await self._analysis.stop(grace_s=DRAIN_S)
        front.close()
        for task in tasks:
            task.cancel()
        return 1 if failed else 0

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

    def _start_edge(self, edge: Child) -> None:
        self._edge_ready = False
        ours, theirs = self._new_channel()
        self._hand_to_analysis(theirs)
        fds = [listener.fileno() for listener in self._listeners] + [ours.fileno()]
        edge.send(
            {
                "type": "start",
                "settings": edge_settings(self._config),
                "stable": self._stable,
                "listen": len(self._listeners),
            },
            fds,
        )
        ours.close()
        self._announce()

    def _start_analysis(self, analysis: Child) -> None:
        self._analysis_ready = False
        theirs = self._held_end
        self._held_end = None
        if theirs is None:
            ours, theirs = self._new_channel()
            self._edge.send({"type": "channel"}, [ours.fileno()])
            ours.close()
        Path(self._backend).unlink(missing_ok=True)
        with config_file(self._config) as config:
            analysis.send(
                {
                    "type": "start",
                    "role": self._role,
                    "admin_socket": self._backend,
                    "stable": self._stable,
                },
                [config.fileno(), theirs.fileno()],
            )
        theirs.close()
        self._announce()

    def _join(self) -> None:
        """A new channel for two children that are both there and have lost theirs."""
        ours, theirs = self._new_channel()
        if self._edge.send({"type": "channel"}, [ours.fileno()]):
            self._hand_to_analysis(theirs)
        else:
            theirs.close()  # an edge that starts brings a channel with it
        ours.close()

    def _new_channel(self) -> tuple[socket.socket, socket.socket]:
        edge_end, analysis_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (edge_end, analysis_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BUFFER_BYTES)
        return edge_end, analysis_end

    def _hand_to_analysis(self, end: socket.socket) -> None:
        if self._analysis.send({"type": "channel"}, [end.fileno()]):
            end.close()
            return
        if self._held_end is not None:
            self._held_end.close()
        self._held_end = end

    def _announce(self) -> None:
        """Tell analysis who there is to measure and how often each was restarted."""
        self._analysis.send(
            {
                "type": "processes",
                "processes": {
                    child.name: {"pid": child.pid, "restarts": child.restarts}
                    for child in (self._edge, self._analysis)
                },
            }
        )

    # What the children say.

    def _from_edge(self, message: Message) -> None:
        if message["type"] == "ready":
            self._edge_ready = True
            notify_systemd("READY=1")
            log.info("edge serves", pid=self._edge.pid)

    def _from_analysis(self, message: Message) -> None:
        match message["type"]:
            case "ready":
                self._analysis_ready = True
                self._analysis_error = None
                log.info("analysis is up", pid=self._analysis.pid)
            case "refused":
                self._analysis_error = message["reason"]
            case "stable":
                # Kept here so that an edge that restarts while analysis is away routes right.
                self._stable = {"address": message["address"], "version": message["version"]}
            case "channel_lost":
                self._join()

    # Names, probes, reload.

    async def _first_stable(self) -> dict[str, str]:
        """Where the stable model is served: the ledger's word wins over the configuration's."""
        from agent.stable import stable_from_ledger

        remembered = stable_from_ledger(self._config)
        if remembered is not None:
            address = await resolve(parse_upstream(remembered.address))
            return {"address": address, "version": remembered.version}
        address = await resolve(self._proxy.upstream_address)
        return {"address": address, "version": self._config.model.version}

    async def _follow_names(self) -> None:
        """Resolve the upstream's name again now and then: the edge never resolves anything."""
        upstream = self._proxy.upstream_address
        current = self._stable["address"]
        while True:
            await asyncio.sleep(RESOLVE_EVERY_S)
            if not is_name(upstream) or self._stable["address"] != current:
                continue
            address = await resolve(upstream, current=current)
            if address != current:
                log.info("upstream moved", name=upstream.host, address=address)
                current = address
                self._stable = {**self._stable, "address": address}
                self._edge.send({"type": "stable", **self._stable})
                self._analysis.send({"type": "stable", **self._stable})

    async def _healthz(self) -> tuple[bool, dict[str, object]]:
        body: dict[str, object] = {
            "edge": "up" if self._edge.answers else "down",
            **self._analysis_facts(),
        }
        return self._edge.answers, body

    def _analysis_facts(self) -> dict[str, object]:
        """Shown in both probes, and never what makes them fail."""
        up = self._analysis_ready and self._analysis.answers
        facts: dict[str, object] = {"analysis": "up" if up else "down"}
        if self._analysis_error is not None:
            facts["analysis_error"] = self._analysis_error
        return facts

    async def _readyz(self) -> tuple[bool, dict[str, object]]:
        reachable = await accepts_connection(self._stable["address"])
        listening = self._edge_ready and self._edge.answers
        body: dict[str, object] = {
            "edge": "listening" if listening else "not listening",
            "upstream": "reachable" if reachable else "unreachable",
            **self._analysis_facts(),
        }
        return listening and reachable, body

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


@contextmanager
def config_file(config: Config) -> Iterator[BinaryIO]:
    """The configuration in memory, to be handed on as a descriptor: a schema of thousands of
    columns is longer than a packet of the control socket may be."""
    with os.fdopen(os.memfd_create("remora-config"), "w+b") as file:
        file.write(json.dumps(config.reveal()).encode())
        file.flush()
        yield file


def edge_settings(config: Config) -> dict[str, object]:
    """What the edge needs to know, in plain values: it reads no configuration itself."""
    proxy = config.proxy
    return {
        "idle_s": proxy.idle_s,
        "connect_timeout_s": proxy.connect_timeout_s,
        "total_timeout_s": proxy.total_timeout_s,
        "client_idle_s": proxy.client_idle_s,
        "head_bytes_max": proxy.head_bytes_max,
        "capture_bytes_max": proxy.capture_bytes_max,
        "connections_max": proxy.connections_max,
        "forwarded": proxy.forwarded,
        "routes": [[route.name, route.pattern] for route in proxy.routes],
        "client_key": config.rollout.client_key,
        "sampling_rate": config.sampling.rate,
    }


def supervise(config: Config, *, role: str, reload: Callable[[], Config] | None = None) -> int:
    """Run the agent until it is told to stop; the exit code of `remora run`."""
    if not config.admin.listen_address.loopback:
        log.warning("admin port is open beyond loopback", listen=config.admin.listen)

    async def main() -> int:
        return await Supervisor(config, role=role, reload=reload).run()

    return asyncio.run(main())
