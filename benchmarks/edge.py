"""What the edge costs: CPU and system calls per request, against nginx and an aiohttp proxy.

Everything runs on loopback and in one alternating run: each round measures every proxy once, in
turn forward and backward, and the figures are medians over rounds. The upstream is nginx answering
a kilobyte from memory, the load is wrk with a kilobyte of JSON. Proxies have one CPU for
themselves, upstream and load share another. CPU time is the kernel's own account of the process
(`schedstat`), which survives a busy machine; requests per second would not.

    python benchmarks/edge.py --rounds 5 --seconds 2

System calls are counted with one connection, where none can be shared by several requests.
Compare ratios within one run only. Needs the Debian packages nginx, wrk and strace.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESPONSE_BYTES = 1_012
REQUEST_BYTES = 1_030
LUA = """wrk.method = "POST"
wrk.body = string.rep("1", {bytes})
wrk.headers["Content-Type"] = "application/json"
"""
NGINX = """daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
    uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
    {body}
}}
"""
UPSTREAM = """server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ default_type application/json; return 200 "{text}"; }}
    }}"""
PROXY = """upstream model {{
        server 127.0.0.1:{upstream};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A running proxy: where it listens, and the process that does the work."""

    name: str
    port: int
    pid: int


def find(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if path is None:
        sys.exit(f"{program} is missing: apt-get install nginx-light wrk strace")
    return path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def pin(process: int, cpu: int) -> None:
    """Proxies on the last CPU, everything else on the first, where there are two."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) > 1:
        os.sched_setaffinity(process, {available[cpu]})


@contextmanager
def running(command: Sequence[str], *, cpu: int, **options: object) -> Iterator[int]:
    process = subprocess.Popen(  # type: ignore[call-overload]
        command, cwd=ROOT, preexec_fn=lambda: pin(0, cpu), **options
    )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listening(port: int) -> None:
    """Wait until something accepts connections."""
    pause = threading.Event()
    for _ in range(500):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        pause.wait(0.02)
    sys.exit(f"nothing listens on port {port}")


def only_worker(master: int) -> int:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return int(children[0])


@contextmanager
def nginx(home: Path, body: str, port: int, *, cpu: int) -> Iterator[int]:
    home.mkdir()
    config = home / "nginx.conf"
    config.write_text(NGINX.format(home=home, body=body))
    with running([find("nginx"), "-p", str(home), "-c", str(config)], cpu=cpu) as pid:
        listening(port)
        yield only_worker(pid)


@contextmanager
def edge(name: str, upstream: int, *, rate: float) -> Iterator[Proxy]:
    """The shipped edge process, started as the supervisor starts it, its channel read away."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    port = int(listener.getsockname()[1])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, analysis = socket.socketpair()
    for end in (channel, analysis):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    fd = theirs.fileno()
    command = [sys.executable, "-m", "agent.edge", "remora-edge", "--control-fd", str(fd)]
    reader = "import os\nwhile os.read(0, 1 << 20): pass"
    with (
        running(command, cpu=-1, pass_fds=(fd,)) as pid,
        running([sys.executable, "-c", reader], cpu=0, stdin=analysis),
    ):
        theirs.close()
        analysis.close()
        start = {
            "type": "start",
            "settings": {"sampling_rate": rate},
            "stable": {"address": f"127.0.0.1:{upstream}", "version": "1"},
            "listen": 1,
        }
        fds = [listener.fileno(), channel.fileno()]
        socket.send_fds(ours, [json.dumps(start).encode()], fds)
        listener.close()
        channel.close()
        assert json.loads(ours.recv(4_096))["type"] == "ready"
        yield Proxy(name=name, port=port, pid=pid)
    ours.close()


@contextmanager
def aiohttp_proxy(upstream: int) -> Iterator[Proxy]:
    port = free_port()
    command = [sys.executable, __file__, "--serve-aiohttp", str(port), str(upstream)]
    # It logs every connection that wrk cuts off at the end of a round.
    with running(command, cpu=-1, stderr=subprocess.DEVNULL) as pid:
        listening(port)
        yield Proxy(name="aiohttp", port=port, pid=pid)


async def serve_aiohttp(port: int, upstream: int) -> None:
    """A reverse proxy as one would write it: bodies as streams, connections kept."""
    from aiohttp import ClientSession, TCPConnector, web

    async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            url = f"http://127.0.0.1:{upstream}{request.path_qs}"
            async with session.request(
                request.method, url, headers=request.headers, data=request.content
            ) as answer:
                response = web.StreamResponse(status=answer.status, headers=answer.headers)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


def cpu_ns(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def load(port: int, script: Path, *, connections: int, seconds: int) -> int:
    """Requests that were answered well."""
    url = f"http://127.0.0.1:{port}/v1/models/m:predict"
    wrk = [find("wrk"), "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(script), url]
    done = subprocess.run(
        wrk, capture_output=True, text=True, check=True, preexec_fn=lambda: pin(0, 0)
    ).stdout
    if "Non-2xx" in done or "Socket errors" in done:
        sys.exit(f"requests failed:\n{done}")
    found = re.search(r"(\d+) requests in", done)
    assert found is not None
    return int(found[1])


def cpu_us_per_request(proxy: Proxy, script: Path, *, connections: int, seconds: int) -> float:
    before = cpu_ns(proxy.pid)
    requests = load(proxy.port, script, connections=connections, seconds=seconds)
    return (cpu_ns(proxy.pid) - before) / requests / 1_000


def calls_per_request(proxy: Proxy, script: Path, *, connections: int) -> tuple[float, str]:
    """System calls per request, and which; strace is attached while wrk runs."""
    load(proxy.port, script, connections=connections, seconds=1)  # connections are made
    with tempfile.NamedTemporaryFile("r") as summary:
        strace = subprocess.Popen(
            [find("strace"), "-c", "-f", "-o", summary.name, "-p", str(proxy.pid)],
            stderr=subprocess.PIPE,
        )
        assert strace.stderr is not None
        strace.stderr.readline()  # it says when it has attached
        requests = load(proxy.port, script, connections=connections, seconds=2)
        strace.send_signal(signal.SIGINT)
        strace.wait()
        strace.stderr.close()
        calls: dict[str, int] = {}
        for line in summary.read().splitlines():
            found = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$", line)
            if found and found[2] != "total":
                calls[found[2]] = int(found[1])
    each = {name: count / requests for name, count in calls.items() if count > requests / 100}
    kinds = ", ".join(f"{name} {count:.2f}" for name, count in sorted(each.items()))
    return sum(calls.values()) / requests, kinds


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        script = home / "post.lua"
        script.write_text(LUA.format(bytes=REQUEST_BYTES))
        upstream, port = free_port(), free_port()
        body = UPSTREAM.format(port=upstream, text="2" * RESPONSE_BYTES)
        stack.enter_context(nginx(home / "upstream", body, upstream, cpu=0))
        body = PROXY.format(port=port, upstream=upstream)
        worker = stack.enter_context(nginx(home / "proxy", body, port, cpu=-1))
        proxies = [
            Proxy(name="nginx", port=port, pid=worker),
            stack.enter_context(edge("edge", upstream, rate=0.0)),
            stack.enter_context(edge("edge, 10 % kept", upstream, rate=0.1)),
            stack.enter_context(edge("edge, 100 % kept", upstream, rate=1.0)),
            stack.enter_context(aiohttp_proxy(upstream)),
        ]
        if arguments.only:
            proxies = [proxy for proxy in proxies if proxy.name in ("nginx", *arguments.only)]
        for proxy in proxies:
            load(proxy.port, script, connections=16, seconds=1)  # warm
        cpu: dict[int, dict[str, float]] = {}
        for connections in arguments.connections:
            rounds: dict[str, list[float]] = {proxy.name: [] for proxy in proxies}
            for number in range(arguments.rounds):
                for proxy in proxies if number % 2 == 0 else reversed(proxies):
                    rounds[proxy.name].append(
                        cpu_us_per_request(
                            proxy, script, connections=connections, seconds=arguments.seconds
                        )
                    )
            cpu[connections] = {name: statistics.median(each) for name, each in rounds.items()}
        calls = {
            proxy.name: calls_per_request(proxy, script, connections=1)
            for proxy in proxies
            if proxy.name != "aiohttp"
        }
    return {
        "cpu_us_per_request": cpu,
        "ratio_to_nginx": {
            connections: {name: value / each["nginx"] for name, value in each.items()}
            for connections, each in cpu.items()
        },
        "system_calls_per_request": {name: count for name, (count, _) in calls.items()},
        "system_calls": {name: kinds for name, (_, kinds) in calls.items()},
    }


def show(figures: dict[str, object], connections: Sequence[int]) -> None:
    cpu = figures["cpu_us_per_request"]
    calls = figures["system_calls_per_request"]
    kinds = figures["system_calls"]
    assert isinstance(cpu, dict)
    assert isinstance(calls, dict)
    assert isinstance(kinds, dict)
    print("CPU microseconds per request (ratio to nginx), medians")
    print(f"{'':18}" + "".join(f"{f'c={count}':>18}" for count in connections) + f"{'calls':>9}")
    for name in cpu[connections[0]]:
        cells = [
            f"{cpu[count][name]:.1f} ({cpu[count][name] / cpu[count]['nginx']:.2f})"
            for count in connections
        ]
        called = f"{calls[name]:.2f}" if name in calls else "-"
        print(f"{name:18}" + "".join(f"{cell:>18}" for cell in cells) + f"{called:>9}")
    for name, each in kinds.items():
        print(f"  {name}: {each}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--only", nargs="+", help="of the proxies, beside nginx")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve-aiohttp", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_aiohttp:
        asyncio.run(serve_aiohttp(*arguments.serve_aiohttp))
        return
    figures = measure(arguments)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures, arguments.connections)


if __name__ == "__main__":
    main()
