"""The edge process: `python -m agent.edge remora-edge --control-fd N`, started by the supervisor.

Imports uvloop, httptools and the standard library only, and not all of that: what is imported here
is paid for by every sidecar.
"""

import asyncio
import gc
import signal
import socket
import sys

import uvloop

from agent.edge.control import Control, Message
from agent.edge.edge import Edge
from agent.edge.settings import EdgeSettings


class EdgeProcess:
    """Obeys the supervisor until it is told to go, or the supervisor is gone."""

    def __init__(self, control: socket.socket) -> None:
        self._edge: Edge | None = None
        self._loop = asyncio.get_running_loop()
        self._going: asyncio.Future[float | None] = self._loop.create_future()
        self._starting: asyncio.Task[None] | None = None
        self._control = Control(control, on_message=self._obey, on_end=self._go)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._go)

    async def run(self) -> None:
        drain_s = await self._going
        edge = self._edge
        if edge is not None:
            await edge.drain(edge.settings.drain_s if drain_s is None else drain_s)
            await edge.close()
        self._control.close()

    def _go(self, drain_s: float | None = None) -> None:
        if not self._going.done():
            self._going.set_result(drain_s)

    def _obey(self, message: Message, fds: list[int]) -> None:
        kind = message["type"]
        edge = self._edge
        if kind == "ping":
            in_flight = edge.counters.in_flight if edge is not None else 0
            self._control.send({"type": "pong", "n": message["n"], "in_flight": in_flight})
        elif kind == "start" and edge is None:
            self._start(message, fds)
        elif kind == "channel" and edge is not None:
            edge.outbox.attach(socket.socket(fileno=fds[0]))
        elif kind == "stable" and edge is not None:
            edge.router.set_stable(address=message["address"], version=message["version"])
        elif kind == "grpc" and edge is not None:
            edge.grpc_address = message["address"]
        elif kind == "drain":
            self._go(message.get("timeout_s"))

    def _start(self, message: Message, fds: list[int]) -> None:
        stable = message["stable"]
        edge = self._edge = Edge(
            EdgeSettings.of(message["settings"]),
            address=stable["address"],
            version=stable["version"],
        )
        edge.grpc_address = message.get("grpc") or edge.grpc_address
        *listening, channel = [socket.socket(fileno=fd) for fd in fds]
        doors = dict(zip(message["listeners"], listening, strict=True))
        self._starting = self._loop.create_task(self._serve(edge, doors, channel))

    async def _serve(
        self, edge: Edge, doors: dict[str, socket.socket], channel: socket.socket
    ) -> None:
        grpc = doors.get("grpc")
        try:
            await edge.serve([doors["proxy"]], grpc=() if grpc is None else [grpc])
        except (OSError, ValueError) as error:  # a certificate that went bad since it was checked
            sys.stderr.write(f"remora-edge: cannot serve: {error}\n")
            self._go(0.0)  # the supervisor starts another, after a pause
            return
        edge.outbox.attach(channel)
        # No cycles are made while serving, so there is nothing to look for; and the pages of what
        # is there now stay untouched.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._control.send({"type": "ready"})


def main(arguments: list[str]) -> int:
    control = socket.socket(fileno=int(arguments[arguments.index("--control-fd") + 1]))
    _name_process("remora-edge")

    async def run() -> None:
        await EdgeProcess(control).run()

    uvloop.install()
    asyncio.run(run())
    return 0


def _name_process(name: str) -> None:
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(name)
    except OSError:
        pass  # only for ps and top


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
