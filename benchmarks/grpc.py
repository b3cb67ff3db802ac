"""What watching gRPC costs: CPU per call of the edge, against the same relay that looks at nothing.

Everything runs on loopback and in one alternating run: each round measures every relay once, in
turn forward and backward, and a ratio is taken within each round. CPU time is the kernel's own
account of the process (`schedstat`). Relays have one CPU for themselves where there are two;
upstream, load and analysis share another.

    python -m benchmarks.grpc --rounds 7 --calls 6000

The peer is a minimal blind splice: two protocols on uvloop that pass bytes on, with back-pressure
(`--serve-blind`). The second peer is a proxy of `grpc.aio` with generic handlers, bytes in and
bytes out. The upstream is nginx over HTTP/2 answering a kilobyte, or by default a
real gRPC server; the load is h2load with 4 connections of 8 streams each and a kilobyte per call.

`edge` counts every call and keeps none, `edge, 100 % kept` ships the messages of all as well.
`analysis` is the CPU of a process that reads the edge's channel as analysis does (headers unpacked,
calls counted, exchanges made, nothing decoded), beside the edge that feeds it. Needs the Debian
packages nginx and nghttp2-client, and grpcio.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.peers.processes import NGINX, find, free_port, listening, pin, running, wait_for

ROOT = Path(__file__).resolve().parent.parent
PATH = "/inference.GRPCInferenceService/ModelInfer"
BODY = b"\0" + (1_019).to_bytes(4, "big") + b"q" * 1_019
UPSTREAM = """server {{
        listen 127.0.0.1:{port} http2;
        http2_max_concurrent_streams 128;
        keepalive_requests 1000000000;
        location / {{
            default_type application/grpc;
            add_header grpc-status 0;
            return 200 "{text}";
        }}
    }}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Where it listens, and the processes whose CPU is told apart."""

    name: str
    port: int
    pids: dict[str, int]


# The blind splice.


class Near(asyncio.Protocol):
    """The client's side; everything is passed on, nothing is looked at."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.far: Far | None = None
        self.transport: asyncio.Transport
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(
            loop.create_connection(lambda: Far(self), "127.0.0.1", self._port)
        )

    def connected(self, far: "Far") -> None:
        self.far = far
        far.transport.write(self._held)

    def data_received(self, data: bytes) -> None:
        if self.far is None:
            self._held += data
        else:
            self.far.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.far is not None:
            self.far.transport.close()

    def pause_writing(self) -> None:
        if self.far is not None:
            self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.far is not None:
            self.far.transport.resume_reading()


class Far(asyncio.Protocol):
    def __init__(self, near: Near) -> None:
        self._near = near
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._near.connected(self)

    def data_received(self, data: bytes) -> None:
        if not self._near.transport.is_closing():
            self._near.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._near.transport.close()

    def pause_writing(self) -> None:
        self._near.transport.pause_reading()

    def resume_writing(self) -> None:
        self._near.transport.resume_reading()


def serve_blind(port: int, upstream: int) -> None:
    import uvloop

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Near(upstream), "127.0.0.1", port)
        await server.serve_forever()

    uvloop.install()
    asyncio.run(serve())


def serve_grpc_aio(port: int, upstream: int) -> None:
    """The proxy that a grpc library makes easy: each call terminated and made again."""
    import grpc

    async def serve() -> None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{upstream}")
        ask = channel.unary_unary(PATH)

        async def relay(body: bytes, context: Any) -> Any:
            return await ask(body)

        service, _, method = PATH[1:].partition("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(relay)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


def serve_grpcio(port: int) -> None:
    import grpc

    async def serve() -> None:
        async def answer(body: bytes, context: Any) -> bytes:
            return body

        service, _, method = PATH[1:].partition("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


# The edge, and analysis as far as calls are concerned.


def read_channel(descriptor: int) -> None:
    from agent.call_totals import CallTotals
    from agent.sources.proxy import EdgeChannel

    async def read() -> None:
        seen: Counter[str] = Counter()
        channel = EdgeChannel(
            socket.socket(fileno=descriptor),
            lambda exchange: seen.update(["kept"]),
            lambda outcomes: None,
            lambda counters: None,
            calls=CallTotals(),
        )
        await channel.run()

    asyncio.run(read())


@contextmanager
def edge(name: str, upstream: int, *, rate: float) -> Iterator[Relay]:
    """The shipped edge process with a door for gRPC, started as the supervisor starts it."""
    doors = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(2)]
    port = int(doors[1].getsockname()[1])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, analysis = socket.socketpair()
    for end in (channel, analysis):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    fd, read_fd = theirs.fileno(), analysis.fileno()
    command = [sys.executable, "-m", "agent.edge", "remora-edge", "--control-fd", str(fd)]
    reader = [sys.executable, "-m", "benchmarks.grpc", "--read-channel", str(read_fd)]
    with (
        running(command, cpu=-1, pass_fds=(fd,)) as pid,
        running(reader, cpu=0, pass_fds=(read_fd,)) as reader_pid,
    ):
        theirs.close()
        analysis.close()
        start = {
            "type": "start",
            "settings": {"sampling_rate": rate},
            "stable": {"address": f"127.0.0.1:{upstream}", "version": "1"},
            "listeners": ["proxy", "grpc"],
            "grpc": f"127.0.0.1:{upstream}",
        }
        fds = [*(door.fileno() for door in doors), channel.fileno()]
        socket.send_fds(ours, [json.dumps(start).encode()], fds)
        for sock in (*doors, channel):
            sock.close()
        assert json.loads(ours.recv(4_096))["type"] == "ready"
        yield Relay(name=name, port=port, pids={"": pid, "analysis": reader_pid})
    ours.close()


@contextmanager
def served(name: str, flag: str, upstream: int) -> Iterator[Relay]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.grpc", flag, str(port), str(upstream)]
    with running(command, cpu=-1) as pid:
        listening(port)
        yield Relay(name=name, port=port, pids={"": pid})


@contextmanager
def upstream_of(kind: str, home: Path) -> Iterator[int]:
    port = free_port()
    if kind == "grpcio":
        command = [sys.executable, "-m", "benchmarks.grpc", "--serve-grpcio", str(port)]
    else:
        config = home / "nginx.conf"
        body = UPSTREAM.format(port=port, text="a" * len(BODY))
        config.write_text(NGINX.format(home=home, body=body))
        command = [find("nginx"), "-p", str(home), "-c", str(config)]
    with running(command, cpu=0):
        listening(port)
        yield port


# Measuring.


def cpu_s(pid: int) -> float:
    """What the kernel has counted for all threads of a process."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def load(port: int, calls: int, body: Path, *, connections: int, streams: int) -> int:
    """How many calls were answered well."""
    done = subprocess.run(
        [
            find("h2load"), "-n", str(calls), "-c", str(connections), "-m", str(streams),
            "-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://127.0.0.1:{port}{PATH}",
        ],
        capture_output=True, text=True, timeout=300, check=True,
        preexec_fn=lambda: pin(0, 0),
    )  # fmt: skip
    found = re.search(r"(\d+) succeeded, (\d+) failed", done.stdout)
    if found is None or int(found[1]) != calls:
        sys.exit(f"h2load: not all calls were answered:\n{done.stdout}")
    return calls


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    before = os.getloadavg()[0]
    us: dict[str, list[float]] = {}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        body = home / "body"
        body.write_bytes(BODY)
        upstream = stack.enter_context(upstream_of(arguments.upstream, home))
        relays = [
            stack.enter_context(served("blind splice", "--serve-blind", upstream)),
            stack.enter_context(edge("edge", upstream, rate=0.0)),
            stack.enter_context(edge("edge, 100 % kept", upstream, rate=1.0)),
        ]
        if arguments.upstream == "grpcio":
            relays.append(stack.enter_context(served("grpc.aio", "--serve-grpc-aio", upstream)))
        for relay in relays:  # warm
            load(relay.port, 500, body, connections=4, streams=8)
        for turn in range(arguments.rounds):
            for relay in relays if turn % 2 == 0 else reversed(relays):
                began = {part: cpu_s(pid) for part, pid in relay.pids.items()}
                calls = arguments.calls // (8 if relay.name == "grpc.aio" else 1)
                load(
                    relay.port, calls, body,
                    connections=arguments.connections, streams=arguments.streams,
                )  # fmt: skip
                for part, pid in relay.pids.items():
                    settled(pid)
                    name = f"{relay.name}: {part}" if part else relay.name
                    us.setdefault(name, []).append((cpu_s(pid) - began[part]) / calls * 1e6)
        memory = {relay.name: rss_mib(relay.pids[""]) for relay in relays}
    blind = us["blind splice"]
    return {
        "upstream": arguments.upstream,
        "load_average": [before, os.getloadavg()[0]],
        "cpu_us_per_call": {name: spread(values) for name, values in us.items()},
        "ratio_to_blind": {
            name: spread([value / base for value, base in zip(values, blind, strict=True)])
            for name, values in us.items()
        },
        "rss_mib": memory,
    }


def settled(pid: int) -> None:
    """Until a process has done what it still had to do: its CPU stands still for a moment."""
    last = -1.0

    def still() -> int:
        nonlocal last
        now = cpu_s(pid)
        same, last = now - last < 0.0005, now
        return int(same)

    wait_for("rest", still)


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(figures: dict[str, Any]) -> None:
    before, after = figures["load_average"]
    print(f"upstream {figures['upstream']} (load average {before:.1f} to {after:.1f})")
    print(f"{'':26}{'CPU us per call':^26}{'ratio to blind splice':^24}")
    for name, us in figures["cpu_us_per_call"].items():
        ratio = figures["ratio_to_blind"][name]
        print(
            f"{name:26}{us['median']:8.1f} ({us['min']:.1f} to {us['max']:.1f})".ljust(52),
            f"{ratio['median']:6.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})",
        )
    print("RSS MiB:", ", ".join(f"{n} {v:.1f}" for n, v in figures["rss_mib"].items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=6_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--upstream", choices=["nginx", "grpcio"], default="grpcio")
    parser.add_argument("--json", action="store_true")
    hidden = argparse.SUPPRESS
    parser.add_argument("--serve-blind", type=int, nargs=2, help=hidden)
    parser.add_argument("--serve-grpc-aio", type=int, nargs=2, help=hidden)
    parser.add_argument("--serve-grpcio", type=int, help=hidden)
    parser.add_argument("--read-channel", type=int, help=hidden)
    arguments = parser.parse_args()
    if arguments.serve_blind:
        serve_blind(*arguments.serve_blind)
    elif arguments.serve_grpc_aio:
        serve_grpc_aio(*arguments.serve_grpc_aio)
    elif arguments.serve_grpcio:
        serve_grpcio(arguments.serve_grpcio)
    elif arguments.read_channel:
        read_channel(arguments.read_channel)
    else:
        figures = measure(arguments)
        print(json.dumps(figures, indent=2)) if arguments.json else show(figures)


if __name__ == "__main__":
    main()
