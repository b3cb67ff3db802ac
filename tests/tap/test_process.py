"""The real process on real loopback: it listens, counts, obeys, and says why when it cannot."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.edge import channel
from agent.sources.proxy import to_exchange
from agent.tap.filter import FlowSampling
from agent.tap.ring import Ring, TapRefusedError

pytestmark = pytest.mark.real
ROOT = Path(__file__).parent.parent.parent
WITHOUT_RIGHTS = (
    "from agent.tap.privileges import drop_capabilities; drop_capabilities();"
    "import runpy; runpy.run_module('agent.tap', run_name='__main__')"
)


@pytest.fixture(autouse=True)
def _needs_packet_sockets() -> None:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        if os.environ.get("CI"):
            pytest.fail("CAP_NET_RAW is missing, and CI is set", pytrace=False)
        pytest.skip("CAP_NET_RAW is missing")


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        body = self.rfile.read(size)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Six(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def serving(host: str) -> Iterator[int]:
    kind = Six if ":" in host else ThreadingHTTPServer
    with kind((host, 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


class Tap:
    """A tap process, its control socket, and a thread that reads its channel."""

    def __init__(self, stack: ExitStack, *, command: list[str] | None = None) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(60)
        stack.callback(self.control.close)
        argv = [*(command or ["-m", "agent.tap"]), "remora-tap", "--control-fd"]
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *argv, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=ROOT
            )
        stack.callback(self._end)
        self.exchanges: dict[str, Any] = {}
        self.source: dict[str, Any] = {}
        self.counters: dict[str, Any] = {}
        self._changed = threading.Condition()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def start(self, **settings: object) -> dict[str, Any]:
        self.attach({"type": "start", "settings": settings})
        return self.said()

    def said(self) -> dict[str, Any]:
        return dict(json.loads(self.control.recv(65_536)))

    def attach(self, message: dict[str, object]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.control, [json.dumps(message).encode()], [theirs.fileno()])
        threading.Thread(target=self._read, args=(ours,), daemon=True).start()

    def _read(self, sock: socket.socket) -> None:
        decoder = channel.FrameDecoder()
        with sock:
            while data := sock.recv(65_536):
                for kind, payload in decoder.feed(data):
                    self._take(kind, payload)

    def _take(self, kind: int, payload: bytes) -> None:
        with self._changed:
            if kind == channel.EXCHANGE:
                exchange = to_exchange(channel.decode_exchange(payload), source="tap")
                self.exchanges[exchange.id] = exchange
            elif kind == channel.COUNTERS:
                self.counters = json.loads(payload)
            else:
                self.source = json.loads(payload)
            self._changed.notify_all()

    def wait(self, true: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(true, 60), (self.source, len(self.exchanges))


@contextmanager
def started() -> Iterator[Tap]:
    with ExitStack() as stack:
        yield Tap(stack)


def ask(host: str, port: int, ids: list[str], body: bytes) -> None:
    connection = HTTPConnection(host, port)
    for id in ids:
        connection.request("POST", "/p", body, {"x-request-id": id})
        assert connection.getresponse().read() == body
    connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_passes_on_loopback_is_kept_and_counted(host: str) -> None:
    with serving(host) as port, started() as tap:
        assert tap.start(port=port, version="3") == {"type": "ready"}
        small = [f"small-{number}" for number in range(50)]
        large = [f"large-{number}" for number in range(5)]
        ask(host, port, small, b'{"instances": [[1, 2]]}')
        ask(host, port, large, b"x" * 300_000)
        tap.wait(lambda: len(tap.exchanges) == 55 and tap.source.get("whole") == 55)
        assert tap.exchanges["small-7"].request_body == b'{"instances": [[1, 2]]}'
        assert tap.exchanges["large-1"].response_body == b"x" * 300_000
        assert tap.exchanges["large-1"].version == "3"
        assert not any(tap.source["dropped"].values())
        assert tap.source["completeness"] == 1.0
        (cell,) = tap.counters["routes"]
        assert cell["codes"]["2xx"] == 55


def test_it_gives_its_rights_up_and_goes_on() -> None:
    with serving("127.0.0.1") as port, started() as tap:
        tap.start(port=port)
        status = Path(f"/proc/{tap.process.pid}/status").read_text(encoding="ascii")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0
        assert facts["NoNewPrivs"] == "1"
        assert facts["Name"] == "remora-tap"
        ask("127.0.0.1", port, ["a"], b"{}")
        tap.wait(lambda: "a" in tap.exchanges)


def test_a_sample_of_connections_is_what_the_kernel_shows() -> None:
    with serving("127.0.0.1") as port, started() as tap:
        tap.start(port=port, flow_rate=0.25, flow_turn_s=3_600.0)
        for number in range(200):
            ask("127.0.0.1", port, [str(number)], b"{}")
        tap.wait(lambda: len(tap.exchanges) >= 10)
        assert 10 <= len(tap.exchanges) < 150
        assert {exchange.weight for exchange in tap.exchanges.values()} == {4.0}
        assert not any(exchange.uniform for exchange in tap.exchanges.values())


def test_the_choice_of_connections_turns_while_packets_pass() -> None:
    """All on one connection: only a turn of the choice can let it be seen, or let it go."""
    with serving("127.0.0.1") as port, started() as tap:
        tap.start(port=port, flow_rate=0.5, flow_turn_s=0.1, counters_s=0.1)
        connection = HTTPConnection("127.0.0.1", port)
        for number in range(20_000):
            connection.request("POST", "/p", b"{}", {"x-request-id": str(number)})
            connection.getresponse().read()
            seen = tap.exchanges
            if seen and str(number - 200) not in seen and number - 200 > min(map(int, seen)):
                break
        connection.close()
        assert 0 < len(seen) < number


def test_pings_a_new_channel_and_the_end() -> None:
    with serving("127.0.0.1") as port, started() as tap:
        tap.start(port=port)
        tap.control.send(b'{"type": "ping", "n": 7}')
        assert tap.said() == {"type": "pong", "n": 7}
        tap.attach({"type": "channel"})
        ask("127.0.0.1", port, ["a"], b"{}")
        tap.wait(lambda: "a" in tap.exchanges)
        tap.process.send_signal(signal.SIGTERM)
        assert tap.process.wait(60) == 0


def test_without_a_supervisor_it_ends() -> None:
    with serving("127.0.0.1") as port, started() as tap:
        tap.start(port=port)
        tap.control.close()
        assert tap.process.wait(60) == 0


def test_without_the_capability_it_says_what_would_mend_it() -> None:
    with ExitStack() as stack:
        tap = Tap(stack, command=["-c", WITHOUT_RIGHTS])
        said = tap.start(port=8_000)
        assert said["type"] == "refused"
        assert "CAP_NET_RAW" in said["reason"]
        assert "NET_RAW" in said["reason"]
        assert tap.process.wait(60) == 1


def test_what_it_cannot_listen_on_is_refused() -> None:
    for interface in ("none0", "../lo", ""):
        with pytest.raises(TapRefusedError, match="interface"):
            Ring(interface=interface, port=80, sampling=FlowSampling(), blocks=2)


def test_the_kernel_takes_the_program_of_every_sampling() -> None:
    for sampling in (FlowSampling(), FlowSampling(keep=1, salt=2**32 - 1)):
        ring = Ring(interface="lo", port=80, sampling=sampling, blocks=2)
        ring.attach(FlowSampling(keep=2_048, salt=5))
        assert ring.drops() == 0
        ring.close()
