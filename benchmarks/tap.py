"""What the tap costs, those it listens to and itself: served latency, CPU per exchange, drops.

Everything runs on loopback. The model server is nginx answering a kilobyte from memory; requests
are a kilobyte of JSON. Server and load share one CPU, the tap and whoever reads from it another.

    python benchmarks/tap.py --rounds 7

`latency` sends requests at fixed moments over 16 connections, without and with a tap by turns; the
ratio of the two medians is taken within each round. `cost` lets wrk run as fast as it can and
divides the CPU time of the tap, the kernel's own account of the process, by the exchanges that it
paired, kept and handed on, all of them; what nginx itself needs for a request is told beside it.
`drops` sends 2,000 requests/s and compares what was sent with what came out at the end, decoded to
rows. Exits 1 when a claim does not hold: served p50 within 5 %, 50,000 exchanges per CPU-second,
no drops.

Needs CAP_NET_RAW, and the Debian packages nginx and wrk.
"""

import argparse
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

CONNECTIONS = 16
RATES = (500, 2_000)
RESPONSE_BYTES = 1_012
ROWS = [[round(math.sin(row * 20 + at), 6) for at in range(20)] for row in range(5)]
BODY = json.dumps({"instances": ROWS}).encode()
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
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ default_type application/json; return 200 '{text}'; }}
    }}
}}
"""
WRK = """wrk.method = "POST"
local count = 0
local body = [==[{body}]==]
function request()
    count = count + 1
    local headers = {{["Content-Type"] = "application/json",
                      ["x-request-id"] = string.format("6f1c2a%010x", count)}}
    return wrk.format("POST", "/v1/models/m:predict", headers, body)
end
"""


def pin(process: int, cpu: int) -> None:
    """Server and load on the first CPU, the tap on the last, where there are two."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) > 1:
        os.sched_setaffinity(process, {available[cpu]})


def find(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if path is None:
        sys.exit(f"{program} is missing: apt-get install nginx-light wrk")
    return path


@contextmanager
def running(command: Sequence[str], *, cpu: int, fds: Sequence[int] = ()) -> Iterator[int]:
    process = subprocess.Popen(
        command, cwd=ROOT, preexec_fn=lambda: pin(0, cpu), pass_fds=tuple(fds)
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


@contextmanager
def server(home: str) -> Iterator[tuple[int, int]]:
    """nginx: its port, and its worker's pid."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    answer = json.dumps({"predictions": [0.5] * 5, "note": ""})
    answer = answer.replace('""', '"' + "x" * (RESPONSE_BYTES - len(answer)) + '"')
    path = Path(home, "nginx.conf")
    path.write_text(NGINX.format(home=home, port=port, text=answer), encoding="utf-8")
    with running([find("nginx"), "-c", str(path)], cpu=0) as pid:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        for _ in range(200):
            if children.read_text().split():
                break
            time.sleep(0.05)
        yield port, int(children.read_text().split()[0])


@dataclass
class Tap:
    """A tap that runs, and a thread that reads what it hands on."""

    pid: int
    exchanges: list[bytes] = field(default_factory=list)
    count: int = 0
    keep: bool = False
    counters: dict[str, Any] = field(default_factory=dict)

    def read(self, sock: socket.socket) -> None:
        from agent.edge import channel

        decoder = channel.FrameDecoder()
        while data := sock.recv(1 << 18):
            for kind, payload in decoder.feed(data):
                if kind == channel.EXCHANGE:
                    self.count += 1
                    if self.keep:
                        self.exchanges.append(payload)
                elif kind == channel.SOURCE_COUNTERS:
                    self.counters = json.loads(payload)


@contextmanager
def tap(port: int, *, keep: bool = False) -> Iterator[Tap]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    control = str(theirs.fileno())
    command = [sys.executable, "-m", "agent.tap", "remora-tap", "--control-fd", control]
    with ExitStack() as stack:
        pid = stack.enter_context(running(command, cpu=-1, fds=[theirs.fileno()]))
        start = {"type": "start", "settings": {"port": port, "version": "1"}}
        socket.send_fds(ours, [json.dumps(start).encode()], [writing.fileno()])
        writing.close()
        said = json.loads(ours.recv(1 << 16))
        if said["type"] != "ready":
            sys.exit(f"the tap does not run: {said.get('reason')}")
        found = Tap(pid, keep=keep)
        thread = threading.Thread(target=found.read, args=(reading,))
        thread.start()
        yield found
    thread.join(30)
    for sock in (ours, theirs, reading):
        sock.close()


def cpu_s(pid: int) -> float:
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def load(port: int, rate: int, seconds: float) -> list[float]:
    """Requests at fixed moments from a process of its own; how long each was on its way."""
    command = [sys.executable, __file__, "--client", str(port), str(rate), str(seconds)]
    out = subprocess.run(command, stdout=subprocess.PIPE, preexec_fn=lambda: pin(0, 0), check=True)
    return [float(one) for one in json.loads(out.stdout)]


def client(port: int, rate: int, seconds: float) -> None:
    """One thread for each connection; each sends in its turn."""
    every_s = CONNECTIONS / rate
    begin = time.perf_counter() + 0.2
    times: list[list[float]] = [[] for _ in range(CONNECTIONS)]

    def talk(number: int) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = begin + number / rate
        for count in range(int(seconds / every_s)):
            pause = at - time.perf_counter()
            if pause > 0:
                time.sleep(pause)
            head = (
                f"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nx-request-id: {number}.{count}"
                f"\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
            )
            sent = time.perf_counter()
            sock.sendall(head.encode() + BODY)
            size = 0
            while size < RESPONSE_BYTES:
                size += len(sock.recv(65_536))
            times[number].append(time.perf_counter() - sent)
            at += every_s
        sock.close()

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump([one for some in times for one in some], sys.stdout)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] * 1e6


def latency(port: int, rounds: int, seconds: float) -> bool:
    """Whether served p50 stays within 5 %."""
    held = True
    for rate in RATES:
        ratios, without, under = [], [], []
        for number in range(rounds):
            found: dict[bool, list[float]] = {}
            for tapped in (False, True) if number % 2 else (True, False):
                with ExitStack() as stack:
                    if tapped:
                        stack.enter_context(tap(port))
                    found[tapped] = load(port, rate, seconds)
            ratios.append(quantile(found[True], 0.5) / quantile(found[False], 0.5))
            without.append(found[False])
            under.append(found[True])
        plain, tapped_ = (
            [statistics.median(quantile(one, share) for one in runs) for share in (0.5, 0.99)]
            for runs in (without, under)
        )
        ratio = statistics.median(ratios)
        held &= ratio <= 1.05
        print(
            f"latency at {rate}/s: p50 {plain[0]:.0f} us without, {tapped_[0]:.0f} us with a tap, "
            f"ratio {ratio:.3f} ({min(ratios):.3f}..{max(ratios):.3f}); "
            f"p99 {plain[1]:.0f}, {tapped_[1]:.0f} us",
            flush=True,
        )
    return held


def cost(port: int, nginx: int, home: str, rounds: int, seconds: float) -> bool:
    """Whether 50,000 exchanges cost less than a CPU-second."""
    script = Path(home, "load.lua")
    script.write_text(WRK.format(body=BODY.decode()), encoding="utf-8")
    url = f"http://127.0.0.1:{port}"
    command = [find("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}", "-s", str(script), url]
    rates, ratios = [], []
    for _ in range(rounds):
        with tap(port) as one:
            before, served = cpu_s(one.pid), cpu_s(nginx)
            out = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: pin(0, 0), check=True
            ).stdout
            time.sleep(0.5)  # what is in the ring
            spent, served = cpu_s(one.pid) - before, cpu_s(nginx) - served
            whole = one.count
        asked = int(next(line for line in out.splitlines() if "requests in" in line).split()[0])
        rates.append(whole / spent)
        ratios.append((spent / whole) / (served / asked))
        print(
            f"  {asked} served, {whole} taken, {spent / whole * 1e6:.1f} us each; nginx "
            f"{served / asked * 1e6:.1f} us; packets dropped by the kernel "
            f"{one.counters['dropped']['tap_kernel']}",
            flush=True,
        )
    best = statistics.median(rates)
    print(
        f"cost: {best:,.0f} exchanges per CPU-second ({min(rates):,.0f}..{max(rates):,.0f}), "
        f"{statistics.median(ratios):.2f} of what nginx needs to serve one"
    )
    return best >= 50_000


def drops(port: int, seconds: float) -> bool:
    """Whether all of 2,000 requests/s come out as rows."""
    from agent.decoders.catalog import decoders
    from agent.decoders.decoder import DecoderSettings
    from agent.edge import channel
    from agent.sources.proxy import to_exchange

    with tap(port, keep=True) as one:
        sent = len(load(port, 2_000, seconds))
    decoder = decoders("kserve_v1", DecoderSettings())[0]
    rows = 0
    for payload in one.exchanges:
        exchange = to_exchange(channel.decode_exchange(payload), source="tap")
        rows += len(decoder.decode(exchange).rows)
    lost = {reason: count for reason, count in one.counters["dropped"].items() if count}
    print(
        f"drops at 2,000/s: {sent} sent, {one.count} taken, {rows} rows of {sent * len(ROWS)}, "
        f"lost {lost or 'nothing'}, completeness {one.counters['completeness']}"
    )
    return one.count == sent and rows == sent * len(ROWS) and not lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", choices=("latency", "cost", "drops"))
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        client(int(args.client[0]), int(args.client[1]), float(args.client[2]))
        return 0
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    held = True
    with tempfile.TemporaryDirectory() as home, server(home) as (port, nginx):
        if args.only in (None, "drops"):
            held &= drops(port, max(args.seconds, 5.0))
        if args.only in (None, "cost"):
            held &= cost(port, nginx, home, args.rounds, args.seconds)
        if args.only in (None, "latency"):
            held &= latency(port, args.rounds, args.seconds)
    print(f"load average {os.getloadavg()[0]:.1f}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
