"""A real agent in processes of its own, clients that load it, and what may be done to it.

Waits look again until a bound passes; nothing sleeps for a fixed time in the hope that it is
enough. Whatever is started is ended by its pid.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from retrain.ledger import Ledger
from retrain.traffic.process import ProcessId

WAIT_S = 40.0
PATH = "/v1/models/m:predict"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


async def until(condition: Callable[[], Any], what: str, *, within_s: float = WAIT_S) -> Any:
    """The first true value of `condition()`, which may be a coroutine; fails when time is up."""
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        await asyncio.sleep(0.05)


# What systemd does: sockets from descriptor 3 on, and variables that name them and this process.
HANDING_ON = """
import os, sys
names, descriptors = sys.argv[1], [int(text) for text in sys.argv[2].split(",")]
parked = [os.dup2(fd, 100 + place) for place, fd in enumerate(descriptors)]
for place, fd in enumerate(parked):
    os.dup2(fd, 3 + place)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(parked))}
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


class Agent:
    """`python -m agent run --config FILE`, with a state directory of its own."""

    def __init__(self, directory: Path, *, upstream: int, **sections: Any) -> None:
        self.directory = directory
        self.port, self.admin_port = free_ports(2)
        self.config: dict[str, Any] = {
            "model": {"name": "m", "version": "1"},
            "sources": [
                {
                    "kind": "proxy",
                    "listen": f"127.0.0.1:{self.port}",
                    "upstream": f"http://127.0.0.1:{upstream}",
                }
            ],
            "admin": {"listen": f"127.0.0.1:{self.admin_port}"},
            "state": {"dir": str(directory / "state"), "snapshot_s": 1},
            **sections,
        }
        self.role = "all"
        self.through: list[str] = []  # a program that starts it, with its arguments
        self.inherits: dict[str, socket.socket] = {}  # listening sockets that it is handed
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "agent.log"
        self._pids: dict[int, ProcessId] = {}  # everybody we saw, to be sure that all ended

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def token(self) -> dict[str, str]:
        text = (self.state / "admin.token").read_text(encoding="ascii").strip()
        return {"authorization": f"Bearer {text}"}

    # Life.

    def write_config(self) -> Path:
        path = self.directory / "remora.yaml"
        path.write_text(json.dumps(self.config), encoding="utf-8")  # JSON is YAML
        return path

    def launch(self) -> None:
        """Start it; `ready` waits for it."""
        argv = ["-m", "agent", "run", "--config", str(self.write_config()), "--role", self.role]
        descriptors = [sock.fileno() for sock in self.inherits.values()]
        if descriptors:
            numbers = ",".join(str(descriptor) for descriptor in descriptors)
            argv = ["-c", HANDING_ON, ":".join(self.inherits), numbers, *argv]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.through, sys.executable, *argv],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={k: v for k, v in os.environ.items() if not k.startswith("REMORA_")},
            )
        self._note(self.process.pid)

    async def start(self) -> None:
        self.launch()
        await self.ready()

    async def ready(self) -> None:
        """Until it serves, and analysis answers as well."""

        async def serves() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            return (await self.probe("/readyz"))[0] == 200 and await self.status() is not None

        try:
            await until(serves, "agent ready")
        except AssertionError:
            print(self.log.read_text()[-6000:])
            raise
        self._know_children()

    def _know_children(self) -> None:
        for name in ("edge", "analysis", "tap"):
            self.pids(name)

    def pid(self, name: str) -> int:
        """The pid of a child by its name; 0 while there is none."""
        return next(iter(self.pids(name)), 0)

    def pids(self, name: str) -> list[int]:
        """The pids of all children of that name."""
        assert self.process is not None
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            pids = [int(text) for text in children.read_text().split()]
        except OSError:
            return []
        found = []
        for pid in pids:
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"remora-{name}".encode() in arguments:
                self._note(pid)
                found.append(pid)
        return found

    def _note(self, pid: int) -> None:
        found = ProcessId.of(pid)
        if found is not None:
            self._pids[pid] = found

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a child a signal; its pid."""
        pid = self.pid(name)
        assert pid, f"no {name}"
        os.kill(pid, number)
        return pid

    async def restarted(self, name: str, old: int) -> int:
        """The pid of the next one of that name."""

        def another() -> int:
            pid = self.pid(name)
            return pid if pid != old else 0

        return int(await until(another, f"{name} started again"))

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.terminate()
        process = self.process
        return int(await asyncio.to_thread(process.wait, 25.0))

    def kill_supervisor(self) -> None:
        assert self.process is not None
        self._know_children()
        self.process.kill()
        self.process.wait()

    def alive(self) -> list[int]:
        """Pids of supervisors and children of this agent that still run."""
        return [pid for pid, process in self._pids.items() if process.alive()]

    def close(self) -> None:
        """End everything that was ever seen, and the models that the agent left serving."""
        if self.process is not None and self.process.poll() is None:
            self._know_children()
            self.process.terminate()
            try:
                self.process.wait(20.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in self._pids.values():
            process.kill()
        for slot in self.slots():
            if slot["pid"] is not None:
                model = ProcessId(pid=slot["pid"], started=slot["started"])
                model.signal_group(signal.SIGKILL)

    # What it says.

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=10.0) as client:
            return await client.get(self.admin + path)

    async def post(self, path: str, body: Any, *, token: bool = True) -> httpx.Response:
        headers = self.token if token else {}
        async with httpx.AsyncClient(trust_env=False, timeout=20.0, headers=headers) as client:
            return await client.post(self.admin + path, json=body)

    async def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        try:
            answer = await self.get(path)
        except httpx.HTTPError:
            return 0, {}
        return answer.status_code, answer.json()

    async def status(self) -> dict[str, Any] | None:
        """None while analysis is away."""
        code, body = await self.probe("/api/v1/status")
        return body if code == 200 else None

    async def metrics(self) -> "Metrics":
        return Metrics((await self.get("/metrics")).text)

    def slots(self) -> list[dict[str, Any]]:
        path = self.state / "decisions.db"
        try:
            ledger = Ledger(path, read_only=True)
            rows = [dict(row) for row in ledger.read("SELECT * FROM slot ORDER BY name")]
            ledger.close()
        except Exception:  # whatever is wrong with it is the test's subject, or there is none
            return []
        return rows

    async def ledger(self) -> list[dict[str, Any]]:
        answer = await self.get("/api/v1/ledger?limit=1000")
        entries: list[dict[str, Any]] = answer.json()["entries"]
        return entries


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.samples = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all series of that name with these labels; 0 without any."""
        return sum(
            value
            for found, has, value in self.samples
            if found == name and all(has.get(key) == wanted for key, wanted in labels.items())
        )


class Load:
    """Clients that ask one after the other over connections kept alive, until told to stop."""

    def __init__(self, port: int, *, clients: int = 4, rows: int = 2, padding: int = 0) -> None:
        self._port = port
        self._clients = clients
        self._rows = rows
        self._padding = padding
        self._tasks: list[asyncio.Task[None]] = []
        self._sequence: Iterator[int] = iter(range(1 << 60))
        self.shift = 0.0
        self.statuses: Counter[int] = Counter()  # 0: the connection broke
        self.versions: Counter[str] = Counter()
        self.ids: list[str] = []
        self.pause_s = 0.004
        self.keep = True  # connections, for more than one request

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        return self.requests - self.statuses[200]

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._client(n)) for n in range(self._clients)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def more(self, count: int) -> None:
        """Until so many more requests have been answered."""
        wanted = self.requests + count
        await until(lambda: self.requests >= wanted, f"{count} more requests")

    async def _client(self, number: int) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self.statuses[0] += 1
                await asyncio.sleep(0.02)
                continue
            try:
                await self._converse(number, reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                self.statuses[0] += 1
            finally:
                writer.close()

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            turn = next(self._sequence)
            id = f"load-{number}-{turn}"
            writer.write(request(id, self._body(turn)))
            status, headers, _ = await answer(reader)
            self.statuses[status] += 1
            self.versions[headers.get("x-remora-version", "")] += 1
            self.ids.append(headers.get("x-remora-request-id", ""))
            if not self.keep or headers.get("connection") == "close":
                return
            await asyncio.sleep(self.pause_s)

    def _body(self, turn: int) -> bytes:
        rows = [
            [((turn * 7 + row * 3) % 100) / 50 - 1 + self.shift, (turn * 13 + row) % 10, turn % 3]
            for row in range(self._rows)
        ]
        return json.dumps({"instances": rows, "padding": "x" * self._padding}).encode()


def request(id: str | None, body: bytes, *, content_type: str = "application/json") -> bytes:
    """The bytes of one POST."""
    named = f"x-request-id: {id}\r\n" if id is not None else ""
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: m\r\ncontent-type: {content_type}\r\n{named}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One response: status, headers in lower case, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(lines[0].split(" ")[1]), headers, body


async def ask(
    port: int, body: bytes, *, id: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
    try:
        writer.write(request(id, body))
        return await asyncio.wait_for(answer(reader), WAIT_S)
    finally:
        writer.close()
