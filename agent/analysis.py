"""The analysis process: decodes, detects, decides, exports, serves the admin API.

Started by the supervisor with a control socket; its end of file means that the supervisor is
gone, and then analysis saves what it knows and ends. The edge serves on without it.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, cast

if __name__ == "__main__":
    # Where rich is installed structlog and httpx load it and pygments, for tracebacks and a command
    # line that nobody sees here: 4 MiB. Both do without where they do not find it.
    sys.modules["rich"] = sys.modules["pygments"] = cast(Any, None)

import structlog

from agent.channel_ends import Peer
from agent.children import PACKET_BYTES_MAX, name_process
from agent.config import Config
from agent.logs import start_logs
from agent.topology import Agent
from retrain.ledger import LedgerError

log = structlog.get_logger("remora.analysis")

FDS_MAX = 4
# The edge's work is worth more than ours: at contention the scheduler prefers it.
NICE = 5


class _Refused(Exception):
    """There is no starting, and the text says why: the supervisor is told, and tries again."""


class Analysis:
    """The control socket and the signals on one side, the agent on the other."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._control.setblocking(False)
        self._stopping = asyncio.Event()
        self._agent: Agent | None = None
        self._early: list[tuple[dict[str, Any], list[int]]] = []

    async def run(self) -> int:
        """Serve until told to stop; the exit code."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stopping.set)
        start: asyncio.Future[tuple[dict[str, Any], list[int]]] = loop.create_future()
        loop.add_reader(self._control, self._readable, start)
        stopping = loop.create_task(self._stopping.wait())
        waited: set[asyncio.Future[Any]] = {start, stopping}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not start.done():
            return 0  # told to end, or left alone, before there was anything to begin
        try:
            agent = await self._start(*start.result())
        except _Refused as error:
            log.critical("analysis does not start; traffic is served without it", why=str(error))
            self._send({"type": "refused", "reason": str(error)})
            return 1
        # What came while it started: the channels above all.
        self._agent = agent
        for early in self._early:
            self._dispatch(*early)
        self._early.clear()
        self._send({"type": "ready"})
        await stopping
        await agent.stop()
        return 0

    async def _start(self, message: dict[str, Any], fds: list[int]) -> Agent:
        config = read_config(fds[0])
        bound = [socket.socket(fileno=fd) for fd in fds[1:]]
        stable = message["stable"] or {"address": None, "version": config.model.version}
        try:
            agent = Agent(
                config,
                role=message["role"],
                stable_address=stable["address"],
                stable_version=stable["version"],
                tell_supervisor=self._send,
            )
            await agent.start(
                admin_socket=message["admin_socket"],
                listeners=dict(zip(message["listeners"], bound, strict=True)),
            )
        except (LedgerError, OSError, ValueError) as error:
            # A broken ledger above all: who cannot remember what was decided must not decide.
            raise _Refused(str(error) or repr(error)) from error
        return agent

    def _readable(self, start: "asyncio.Future[tuple[dict[str, Any], list[int]]]") -> None:
        while True:
            try:
                packet, fds, _, _ = socket.recv_fds(self._control, PACKET_BYTES_MAX, FDS_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet, fds = b"", []
            if not packet:
                log.warning("supervisor is gone, saving and stopping")
                asyncio.get_running_loop().remove_reader(self._control)
                self._stopping.set()
                return
            message = json.loads(packet)
            if message["type"] == "ping":
                self._send({"type": "pong", "n": message["n"]})
            elif message["type"] == "start" and not start.done():
                start.set_result((message, list(fds)))
            elif self._agent is None:
                self._early.append((message, list(fds)))
            else:
                self._dispatch(message, list(fds))

    def _dispatch(self, message: dict[str, Any], fds: list[int]) -> None:
        assert self._agent is not None
        match message["type"]:
            case "channel":
                peer = Peer(source=message["source"], worker=message.get("worker", 0))
                self._agent.connect(socket.socket(fileno=fds[0]), peer)
            case "processes":
                self._agent.processes_are(message["processes"])
            case "stable":
                self._agent.upstream_moved(message["address"])
            case "config":
                self._agent.reconfigure(read_config(fds[0]))
            case other:
                log.warning("unknown control message", type=other)

    def _send(self, message: dict[str, Any]) -> None:
        # A supervisor that does not read is about to end us anyway.
        with suppress(OSError):
            self._control.send(json.dumps(message).encode())


def read_config(descriptor: int) -> Config:
    """The configuration from the supervisor's memory file, which is closed here."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return Config.from_revealed(json.loads(file.read()))


def main() -> int:
    """Entry of `python -m agent.analysis`; the supervisor is the only caller."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--control-fd", type=int, required=True)
    args = parser.parse_args()
    start_logs(process=args.name)
    # Labels, predictions and captured rows are nobody else's to read.
    os.umask(0o077)
    name_process(args.name)
    with suppress(OSError):
        os.nice(NICE)

    async def serve() -> int:
        return await Analysis(socket.socket(fileno=args.control_fd)).run()

    return asyncio.run(serve())


if __name__ == "__main__":
    raise SystemExit(main())
