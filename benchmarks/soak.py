"""The edge for long: memory over millions of requests, and a sink that stops reading.

    python benchmarks/soak.py --requests 2000000           # resident memory, every tenth of the way
    python benchmarks/soak.py --stall-s 60 --rate 1000     # the reader of the channel is stopped

In the first, wrk asks as fast as it can, every exchange is kept and read away. In the second there
are two edges, and the reader of one is stopped (SIGSTOP) for all the time: exchanges are dropped,
requests are not. A constant-rate load over 16 connections asks both in turns of two seconds, each
request timed from when it was due. Prints the medians of the turns' p99 and their ratio, failed
requests, and memory before, at the end and after: it may grow by `outbox_bytes_max`, 8 MiB.
Needs the Debian packages nginx and wrk.
"""

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.edge_latency import load as constant_rate
from benchmarks.peers.processes import (
    REQUEST_BYTES,
    TRAFFIC,
    Proxy,
    edge,
    go_first,
    load,
    nginx_upstream,
    pin,
)

_TURN_S = 2.0


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
    durations_s = constant_rate(proxy.port, rate=rate, seconds=seconds)
    return statistics.quantiles(durations_s, n=100)[98] * 1e6, len(durations_s)


def stalled(reads: Proxy, stops: Proxy, *, rate: float, seconds: float) -> dict[str, object]:
    """Two edges alike, asked in turns, so that both have the same weather."""
    pin(0, 0)
    go_first()
    p99: dict[str, list[float]] = {"reads": [], "stops": []}
    answered = asked = 0
    for proxy in (reads, stops):
        p99_us(proxy, rate=rate, seconds=_TURN_S)  # warm
    before = rss_mib(stops.pid)
    os.kill(stops.sink, signal.SIGSTOP)
    started = time.monotonic()
    try:
        while time.monotonic() - started < 2 * seconds:
            for name, proxy in (("reads", reads), ("stops", stops)):
                us, count = p99_us(proxy, rate=rate, seconds=_TURN_S)
                p99[name].append(us)
                answered += count
                asked += int(rate * _TURN_S)
        at_the_end = rss_mib(stops.pid)
    finally:
        os.kill(stops.sink, signal.SIGCONT)
    p99_us(stops, rate=rate, seconds=_TURN_S)
    medians = {name: statistics.median(values) for name, values in p99.items()}
    return {
        "requests": answered,
        "failed": asked - answered,
        "p99_us": medians,
        "ratio": round(medians["stops"] / medians["reads"], 2),
        "rss_mib": {"before": before, "stalled": at_the_end, "after": rss_mib(stops.pid)},
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
            other = stack.enter_context(edge("stops", upstream, rate=1.0))
            seconds = arguments.stall_s
            found["stalled sink"] = stalled(proxy, other, rate=arguments.rate, seconds=seconds)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
