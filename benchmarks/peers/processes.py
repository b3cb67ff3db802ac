"""Proxies, upstreams and loads of the benchmarks: processes on loopback, pinned to their CPUs.

Proxies have one CPU for themselves, upstream and load share another; what is started here is ended
here. Needs the Debian packages nginx, haproxy, wrk and strace.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESPONSE_BYTES = 1_012
REQUEST_BYTES = 1_030
TRAFFIC = {
    "same": """wrk.method = "POST"
wrk.body = string.rep("1", {bytes})
wrk.headers["Content-Type"] = "application/json"
""",
    "varied": """local count = 0
local tail = string.rep("1", {bytes})
local path = "/v1/models/m:predict"
function request()
    count = count + 1
    local id = string.format("6f1c2a%08x", count)
    local body = id .. tail:sub(1, {bytes} - 54 + count % 80)
    local headers = {{["Content-Type"] = "application/json", ["x-request-id"] = id}}
    return wrk.format("POST", path, headers, body)
end
""",
}
READER = "import os\nwhile os.read(0, 1 << 20): pass"
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
MIRRORED = """location / {{
            mirror /mirror;
            mirror_request_body on;
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
        location = /mirror {{
            internal;
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}"""
HAPROXY = """global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
listen proxy
    bind 127.0.0.1:{port}
    server model 127.0.0.1:{upstream}
"""
PROXY = """upstream model {{
        server 127.0.0.1:{upstream};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        {location}
    }}"""
PASSED = """location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A running proxy: where it listens, and the process that does the work."""

    name: str
    port: int
    pid: int
    sink: int = 0  # of an edge: who reads its channel


def find(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")
    if path is None:
        sys.exit(f"{program} is missing: apt-get install nginx-light haproxy wrk strace")
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


def go_first() -> bool:
    """Before all ordinary processes, for this one and what it starts; false where one may not.

    On a machine with other work a median latency else measures that work.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


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


def wait_for(what: str, found: Callable[[], int]) -> int:
    """What `found` gives once it is not 0."""
    pause = threading.Event()
    for _ in range(500):
        if value := found():
            return value
        pause.wait(0.02)
    sys.exit(f"{what} did not come")


def listening(port: int) -> None:
    def connects() -> int:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    wait_for(f"a listener on port {port}", connects)


def only_worker(master: int) -> int:
    children = Path(f"/proc/{master}/task/{master}/children")
    return wait_for("nginx's worker", lambda: int((children.read_text().split() or ["0"])[0]))


@contextmanager
def nginx(home: Path, body: str, port: int, *, cpu: int) -> Iterator[int]:
    home.mkdir()
    config = home / "nginx.conf"
    config.write_text(NGINX.format(home=home, body=body))
    with running([find("nginx"), "-p", str(home), "-c", str(config)], cpu=cpu) as pid:
        listening(port)
        yield only_worker(pid)


@contextmanager
def haproxy(home: Path, upstream: int) -> Iterator[Proxy]:
    home.mkdir()
    port = free_port()
    config = home / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, upstream=upstream))
    with running([find("haproxy"), "-db", "-q", "-f", str(config)], cpu=-1) as pid:
        listening(port)
        yield Proxy(name="haproxy", port=port, pid=pid)


@contextmanager
def nginx_proxy(home: Path, upstream: int, *, mirror: bool = False) -> Iterator[Proxy]:
    """nginx in front of the upstream; with `mirror` it sends each request there twice."""
    port = free_port()
    location = (MIRRORED if mirror else PASSED).format()
    body = PROXY.format(port=port, upstream=upstream, location=location)
    with nginx(home, body, port, cpu=-1) as worker:
        yield Proxy(name="nginx, mirror" if mirror else "nginx", port=port, pid=worker)


@contextmanager
def nginx_upstream(home: Path) -> Iterator[int]:
    """Answers a kilobyte from memory; gives its port."""
    port = free_port()
    body = UPSTREAM.format(port=port, text="2" * RESPONSE_BYTES)
    with nginx(home, body, port, cpu=0):
        yield port


@contextmanager
def edge(
    name: str,
    upstream: int,
    *,
    rate: float,
    settings: Mapping[str, Any] | None = None,
    reader: str = READER,
) -> Iterator[Proxy]:
    """The shipped edge process, started as the supervisor starts it, its channel read away."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    port = int(listener.getsockname()[1])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, analysis = socket.socketpair()
    for end in (channel, analysis):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    fd = theirs.fileno()
    command = [sys.executable, "-m", "agent.edge", "remora-edge", "--control-fd", str(fd)]
    with (
        running(command, cpu=-1, pass_fds=(fd,)) as pid,
        running([sys.executable, "-c", reader], cpu=0, stdin=analysis) as sink,
    ):
        theirs.close()
        analysis.close()
        start = {
            "type": "start",
            "settings": {"sampling_rate": rate, **(settings or {})},
            "stable": {"address": f"127.0.0.1:{upstream}", "version": "1"},
            "listeners": ["proxy"],
        }
        socket.send_fds(ours, [json.dumps(start).encode()], [listener.fileno(), channel.fileno()])
        listener.close()
        channel.close()
        assert json.loads(ours.recv(4_096))["type"] == "ready"
        yield Proxy(name=name, port=port, pid=pid, sink=sink)
    ours.close()


def cpu_ns(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def load(port: int, script: Path, *, connections: int, seconds: int) -> int:
    """Requests that were answered well; a machine that stood still for seconds is asked again."""
    url = f"http://127.0.0.1:{port}/v1/models/m:predict"
    wrk = [find("wrk"), "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(script), url]
    total = 0
    for _ in range(3):
        done = subprocess.run(
            wrk, capture_output=True, text=True, check=True, preexec_fn=lambda: pin(0, 0)
        ).stdout
        found = re.search(r"(\d+) requests in", done)
        assert found is not None
        total += int(found[1])
        if "Non-2xx" not in done and "Socket errors" not in done:
            return total
        if "Non-2xx" in done or not re.search(r"connect 0, read 0, write 0, timeout", done):
            break
        print("requests were late by seconds, once more", file=sys.stderr)
    sys.exit(f"requests failed:\n{done}")
