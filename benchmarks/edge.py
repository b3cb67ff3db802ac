"""What the edge costs: CPU and system calls per request, against nginx, HAProxy and aiohttp.

Everything runs on loopback and in one alternating run: each round measures every proxy once, in
turn forward and backward. CPU time is the kernel's own account of the process (`schedstat`), which
survives a busy machine; requests per second would not. A ratio is taken within each round, where
both figures saw the same weather, and the median over rounds is the result; the smallest, the
largest and the load average are told beside it, so that a reader can judge the weather.

    python benchmarks/edge.py --rounds 9 --seconds 1

The upstream is nginx answering a kilobyte from memory, the load is wrk with a kilobyte of JSON.
Proxies have one CPU for themselves, upstream and load share another. The edge remembers heads that
come again, so there are two kinds of traffic: in `same` all requests are alike, in `varied` each
has an id, a length and a body of its own.

nginx with `mirror` sends each request to the upstream a second time, and shows nobody an answer; an
edge that keeps 100 % hands request and answer to analysis. System calls are counted with one
connection, where requests can share none. Compare ratios within one run only. Needs the Debian
packages nginx, haproxy, wrk and strace.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.processes import (
    REQUEST_BYTES,
    TRAFFIC,
    Proxy,
    cpu_ns,
    edge,
    find,
    free_port,
    haproxy,
    listening,
    load,
    nginx_proxy,
    nginx_upstream,
    running,
)

EDGES = {"edge": 0.0, "edge, 10 % kept": 0.1, "edge, 100 % kept": 1.0}


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
        await (runner := web.AppRunner(application, access_log=None)).setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


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


@contextmanager
def proxies(home: Path, only: Sequence[str]) -> Iterator[list[Proxy]]:
    """nginx, the edge at three rates of sampling, and the others, all in front of one upstream."""
    with ExitStack() as stack:
        upstream = stack.enter_context(nginx_upstream(home / "upstream"))
        found = [stack.enter_context(nginx_proxy(home / "proxy", upstream))]
        for name, rate in EDGES.items():
            if not only or name in only:
                found.append(stack.enter_context(edge(name, upstream, rate=rate)))
        if not only or "haproxy" in only:
            found.append(stack.enter_context(haproxy(home / "haproxy", upstream)))
        if not only or "nginx, mirror" in only:
            mirror = nginx_proxy(home / "mirror", upstream, mirror=True)
            found.append(stack.enter_context(mirror))
        if not only or "aiohttp" in only:
            found.append(stack.enter_context(aiohttp_proxy(upstream)))
        yield found


def alternate(
    found: Sequence[Proxy], script: Path, connections: int, *, rounds: int, seconds: int
) -> dict[str, list[float]]:
    """CPU microseconds per request of each proxy in each round."""
    each: dict[str, list[float]] = {proxy.name: [] for proxy in found}
    for number in range(rounds):
        for proxy in found if number % 2 == 0 else reversed(found):
            cpu = cpu_us_per_request(proxy, script, connections=connections, seconds=seconds)
            each[proxy.name].append(cpu)
    return each


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def ratios(each: dict[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    return {
        name: spread([value / other for value, other in zip(values, each[base], strict=True)])
        for name, values in each.items()
    }


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scripts = {kind: home / f"{kind}.lua" for kind in arguments.traffic}
        for kind, script in scripts.items():
            script.write_text(TRAFFIC[kind].format(bytes=REQUEST_BYTES))
        found = stack.enter_context(proxies(home, arguments.only))
        runs: list[dict[str, Any]] = []
        for kind, script in scripts.items():
            for proxy in found:
                load(proxy.port, script, connections=16, seconds=1)  # warm
            for connections in arguments.connections:
                before = os.getloadavg()[0]
                each = alternate(
                    found, script, connections, rounds=arguments.rounds, seconds=arguments.seconds
                )
                run: dict[str, Any] = {"traffic": kind, "connections": connections}
                run["load_average"] = [before, os.getloadavg()[0]]
                run["cpu_us_per_request"] = {name: spread(us) for name, us in each.items()}
                run["ratio_to_nginx"] = ratios(each, "nginx")
                run["ratio_to_edge"] = ratios(each, "edge") if "edge" in each else {}
                if "nginx, mirror" in each:
                    run["ratio_to_mirror"] = ratios(each, "nginx, mirror")
                runs.append(run)
        calls = {
            proxy.name: calls_per_request(proxy, next(iter(scripts.values())), connections=1)
            for proxy in found
            if proxy.name != "aiohttp"
        }
    return {
        "runs": runs,
        "system_calls_per_request": {name: count for name, (count, _) in calls.items()},
        "system_calls": {name: kinds for name, (_, kinds) in calls.items()},
    }


def show(figures: dict[str, Any]) -> None:
    for run in figures["runs"]:
        before, after = run["load_average"]
        print(f"{run['traffic']} requests, c={run['connections']}", end="")
        print(f" (load average {before:.1f} to {after:.1f})")
        print(f"{'':18}{'CPU us per request':^24}{'ratio to nginx':^22}{'to edge':>9}{'mirror':>8}")
        for name, us in run["cpu_us_per_request"].items():
            ratio = run["ratio_to_nginx"][name]
            to_edge = run["ratio_to_edge"].get(name)
            to_mirror = run.get("ratio_to_mirror", {}).get(name)
            print(
                f"{name:18}{us['median']:7.1f} ({us['min']:.1f} to {us['max']:.1f})".ljust(43),
                f"{ratio['median']:5.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})".ljust(22),
                f"{to_edge['median']:8.2f}" if to_edge else "",
                f"{to_mirror['median']:7.2f}" if to_mirror else "",
            )
    for name, count in figures["system_calls_per_request"].items():
        print(f"{name:18}{count:7.2f} system calls: {figures['system_calls'][name]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--traffic", nargs="+", choices=list(TRAFFIC), default=list(TRAFFIC))
    parser.add_argument("--only", nargs="+", default=[], help="of the proxies, beside nginx")
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
        show(figures)


if __name__ == "__main__":
    main()
