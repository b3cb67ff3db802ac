"""The edge for long: memory over millions of requests, and a sink that stops reading.

    python benchmarks/soak.py --requests 2000000           # resident memory, every tenth of the way
    python benchmarks/soak.py --stall-s 60 --rate 1000     # the reader of the channel is stopped

In the first, wrk asks as fast as it can, every exchange is kept and read away. In the second a
constant-rate load runs over 16 connections, each request timed from when it was due, first with the
reader at work and then with it stopped (SIGSTOP): exchanges are dropped then, requests are not.
Prints p99 of both and their ratio, failed requests, and memory before, at the end and after.
Needs the Debian packages nginx and wrk.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.edge_latency import load as constant_rate
from benchmarks.edge_latency import new_loop
from benchmarks.peers.processes import (
    REQUEST_BYTES,
    TRAFFIC,
    Proxy,
    edge,
    load,
    nginx_upstream,
    pin,
)


def rss_mib(process: int) -> float:
    rows = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return next(int(row.split()[1]) for row in rows if row.startswith("Rss:")) / 1_024


def many(proxy: Proxy, home: Path, requests: int) -> dict[str, object]:
    """Memory as the requests go by; what counts is from the first tenth to the last."""
    script = home / "varied.lua"
    script.write_text(TRAFFIC["varied"].format(bytes=REQUEST_BYTES))
    seen = 0
    memory: list[tuple[int, float]] = []
    while seen < requests:
        seen += load(proxy.port, script, connections=64, seconds=2)
        memory.append((seen, round(rss_mib(proxy.pid), 2)))
    step = max(1, len(memory) // 10)
    return {"requests": seen, "rss_mib": memory[::step], "growth_mib": growth(memory)}


def growth(memory: Sequence[tuple[int, float]]) -> float:
    """From the first tenth, in which buffers and caches fill, to the end."""
    tenth = max(1, len(memory) // 10)
    return round(max(mib for _, mib in memory[-tenth:]) - max(mib for _, mib in memory[:tenth]), 2)


def p99_us(proxy: Proxy, *, rate: float, seconds: float) -> tuple[float, int]:
    """And how many were answered; a request that fails ends the run."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        durations_s = runner.run(constant_rate(proxy.port, rate=rate, seconds=seconds))
    return statistics.quantiles(durations_s, n=100)[98] * 1e6, len(durations_s)


def stalled(proxy: Proxy, *, rate: float, seconds: float) -> dict[str, object]:
    pin(0, 0)
    p99_us(proxy, rate=rate, seconds=2)  # warm
    before = rss_mib(proxy.pid)
    normal, answered = p99_us(proxy, rate=rate, seconds=seconds)
    os.kill(proxy.sink, signal.SIGSTOP)
    try:
        stopped, answered_too = p99_us(proxy, rate=rate, seconds=seconds)
        at_the_end = rss_mib(proxy.pid)
    finally:
        os.kill(proxy.sink, signal.SIGCONT)
    p99_us(proxy, rate=rate, seconds=2)
    return {
        "requests": answered + answered_too,
        "failed": 2 * int(rate * seconds) - answered - answered_too,
        "p99_us": round(normal),
        "p99_us_stalled": round(stopped),
        "ratio": round(stopped / normal, 2),
        "rss_mib": {"before": before, "stalled": at_the_end, "after": rss_mib(proxy.pid)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--stall-s", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=1_000.0)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(nginx_upstream(home / "upstream"))
        proxy = stack.enter_context(edge("edge", upstream, rate=1.0))
        found: dict[str, object] = {}
        if arguments.requests:
            found["memory"] = many(proxy, home, arguments.requests)
        if arguments.stall_s:
            found["stalled sink"] = stalled(proxy, rate=arguments.rate, seconds=arguments.stall_s)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
