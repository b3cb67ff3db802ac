"""Resident memory of Remora's processes.

    python benchmarks/rss.py              # an edge of its own, after some thousand requests
    python benchmarks/rss.py --running    # every remora-* process of this machine

The edge is measured at rest and after requests with everything imported, captured and counted; its
floor is what Python with uvloop and httptools alone takes, measured in the same run. Private is
what the process would give back if it ended: shared libraries are paid for once.
"""

import argparse
import json
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUESTS = 5_000
REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"1" * 1_000
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"2" * 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    what: str
    rss_mib: float
    private_mib: float


def memory(what: str, pid: int) -> Memory:
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {row.split(":")[0]: int(row.split()[1]) for row in rows}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return Memory(what=what, rss_mib=kib["Rss"] / 1_024, private_mib=private / 1_024)


def floor() -> Memory:
    code = "import asyncio, httptools, uvloop, sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        found = memory("python + uvloop + httptools", process.pid)
        process.stdin.close()
    return found


def serve(listener: socket.socket) -> None:
    """An upstream for one connection after the other: whole requests in, answers out."""
    try:
        while True:
            connection, _ = listener.accept()
            with connection:
                while connection.recv(len(REQUEST), socket.MSG_WAITALL):
                    connection.sendall(RESPONSE)
    except OSError:
        return  # closed: the measurement is over


def read_away(channel: socket.socket) -> None:
    while channel.recv(1 << 20):
        pass


def talk(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        reader = client.makefile("rb")
        for _ in range(REQUESTS):
            client.sendall(REQUEST)
            while reader.readline() != b"\r\n":
                pass
            reader.read(1_000)


def edge() -> list[Memory]:
    upstream = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(upstream,), daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, analysis = socket.socketpair()
    threading.Thread(target=read_away, args=(analysis,), daemon=True).start()
    fd = theirs.fileno()
    command = [sys.executable, "-m", "agent.edge", "remora-edge", "--control-fd", str(fd)]
    with subprocess.Popen(command, pass_fds=(fd,), cwd=ROOT) as process:
        theirs.close()
        address = f"127.0.0.1:{upstream.getsockname()[1]}"
        start = {
            "type": "start",
            "settings": {"sampling_rate": 1.0},
            "stable": {"address": address, "version": "1"},
            "listeners": ["proxy"],
        }
        fds = [listener.fileno(), channel.fileno()]
        socket.send_fds(ours, [json.dumps(start).encode()], fds)
        channel.close()
        ours.recv(4_096)
        found = [memory("edge, at rest", process.pid)]
        talk(int(listener.getsockname()[1]))
        found.append(memory(f"edge, after {REQUESTS:,} kept requests", process.pid))
        ours.close()  # the edge drains and goes
    listener.close()
    upstream.close()
    return found


def running() -> list[Memory]:
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = comm.read_text().strip()
            if name.startswith("remora"):
                found.append(memory(name, int(comm.parent.name)))
        except OSError:
            continue  # it has ended meanwhile, or is not ours to look into
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--running", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = running() if arguments.running else [floor(), *edge()]
    if arguments.json:
        print(json.dumps([asdict(each) for each in found], indent=2))
        return
    print(f"{'':36}{'RSS MiB':>10}{'private':>10}")
    for each in found:
        print(f"{each.what:36}{each.rss_mib:>10.1f}{each.private_mib:>10.1f}")


if __name__ == "__main__":
    main()
