"""What the edge adds to the median latency at a constant rate, against what nginx adds.

An open loop: requests leave on a schedule over 16 connections, whatever the answers do, and each is
timed from the moment it was due, so that a stall of the proxy is seen by every request it delayed.
Each round measures the upstream alone, nginx and the edge once, in turn forward and backward;
"added" is the round's p50 less the p50 of the upstream alone in the same round.

    python benchmarks/edge_latency.py --rounds 7 --seconds 4

Everything here goes before all ordinary processes (SCHED_FIFO), where one may. Compare ratios
within one run only; p99 on a shared machine says little and is shown for honesty. Needs the Debian
package nginx.
"""

import argparse
import json
import re
import select
import socket
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from benchmarks.peers.processes import (
    REQUEST_BYTES,
    edge,
    go_first,
    nginx_proxy,
    nginx_upstream,
    pin,
)

CONNECTIONS = 16
REQUESTS = [
    b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"x-request-id: 6f1c2a%08x\r\nContent-Length: %d\r\n\r\n%b" % (number, size, b"1" * size)
    for number, size in enumerate(range(REQUEST_BYTES - 54, REQUEST_BYTES + 26))
]


class Connection:
    """One connection of the load: a request at a time, the next ones wait with their due times."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked: float | None = None
        self._due: deque[float] = deque()
        self._number = 0
        self._to_come = 0

    def ask(self, due: float) -> None:
        if self.asked is None:
            self._send(due)
        else:
            self._due.append(due)

    def _send(self, due: float) -> None:
        self.asked = due
        self._number += 1
        self.sock.sendall(REQUESTS[self._number % len(REQUESTS)])

    def read(self, now: float) -> float | None:
        """How long the request took, once its answer is whole."""
        data = self.sock.recv(65_536)
        if not self._to_come:
            if not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"a request failed: {data[:80]!r}")
            head = data.index(b"\r\n\r\n") + 4
            length = re.search(rb"ontent-[Ll]ength: (\d+)", data[:head])
            assert length is not None
            self._to_come = head + int(length[1])
        self._to_come -= len(data)
        if self._to_come:
            return None
        assert self.asked is not None
        duration_s = now - self.asked
        self.asked = None
        if self._due:
            self._send(self._due.popleft())
        return duration_s


def load(port: int, *, rate: float, seconds: float) -> list[float]:
    """How long each request took, from when it was due.

    select() waits for microseconds where epoll waits for whole milliseconds; and without a loop
    around it, this program is off its CPU, which is the upstream's too, soon after it has sent.
    """
    connections = [Connection(port) for _ in range(CONNECTIONS)]
    by_sock = {connection.sock: connection for connection in connections}
    socks = list(by_sock)
    durations_s: list[float] = []
    total = int(rate * seconds)
    number = 0
    clock = time.perf_counter
    start = clock() + 0.05
    deadline = start + seconds + 10.0
    while len(durations_s) < total:
        due = start + number / rate
        left = due - clock() if number < total else deadline - clock()
        if number >= total and left < 0:
            raise RuntimeError("some requests were never answered")
        if number < total and left <= 0:
            connections[number % CONNECTIONS].ask(due)
            number += 1
            left = 0.0
        readable, _, _ = select.select(socks, [], [], left)
        now = clock()
        for sock in readable:
            duration_s = by_sock[sock].read(now)
            if duration_s is not None:
                durations_s.append(duration_s)
    for sock in socks:
        sock.close()
    return durations_s


def measured(port: int, *, rate: float, seconds: float) -> tuple[float, float]:
    """p50 and p99 in microseconds, the first requests left out."""
    durations_s = load(port, rate=rate, seconds=seconds)[int(rate / 4) :]
    cuts = statistics.quantiles(durations_s, n=100)
    return cuts[49] * 1e6, cuts[98] * 1e6


def rounds(ports: dict[str, int], arguments: argparse.Namespace, rate: float) -> dict[str, object]:
    medians: dict[str, list[float]] = {name: [] for name in ports}
    tails: dict[str, list[float]] = {name: [] for name in ports}
    for number in range(arguments.rounds):
        names: Sequence[str] = list(ports)
        for name in names if number % 2 == 0 else list(reversed(names)):
            p50, p99 = measured(ports[name], rate=rate, seconds=arguments.seconds)
            medians[name].append(p50)
            tails[name].append(p99)

    def added(name: str) -> float:
        pairs = zip(medians[name], medians["upstream"], strict=True)
        return statistics.median(mine - alone for mine, alone in pairs)

    return {
        "rate": rate,
        "p50_us": {name: statistics.median(values) for name, values in medians.items()},
        "p99_us": {name: statistics.median(values) for name, values in tails.items()},
        "added_us": {name: added(name) for name in ports if name != "upstream"},
        "ratio": added("edge") / added("nginx"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rates", type=float, nargs="+", default=[500.0, 2_000.0])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    pin(0, 0)
    if not go_first():
        print("not allowed to go first: what else this machine does is measured too")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(nginx_upstream(home / "upstream"))
        ports = {
            "upstream": upstream,
            "nginx": stack.enter_context(nginx_proxy(home / "proxy", upstream)).port,
            "edge": stack.enter_context(edge("edge", upstream, rate=0.0)).port,
        }
        found = [rounds(ports, arguments, rate) for rate in arguments.rates]
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for run in found:
        print(f"{run['rate']:,.0f} requests/s: the edge adds {run['ratio']:.2f} of what nginx adds")
        for figure in ("p50_us", "p99_us", "added_us"):
            values = cast(dict[str, float], run[figure])
            print(f"  {figure:10}" + "".join(f"{name} {us:9.0f}  " for name, us in values.items()))


if __name__ == "__main__":
    main()
