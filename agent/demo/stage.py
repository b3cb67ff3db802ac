"""The demo's stage: directories, ports, configuration, and the processes that play in it.

The agent runs as anybody's would: `remora run --config FILE`. What the file says is shipped
machinery with shorter times and smaller counts; `CONFIG` is all there is to it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from retrain.ledger import Ledger
from retrain.traffic.process import ProcessId
from retrain.webhooks.sign import generate_secret

MODEL = "income"
HERE = Path(__file__).parent
READY_S_MAX = 60.0
END_S_MAX = 5.0

CONFIG = """\
# What the demo runs with: the shipped machinery, with shorter times and smaller counts.
model: {{name: income, version: "1"}}
sources:
  - kind: proxy
    listen: "127.0.0.1:{proxy}"
    upstream: "http://127.0.0.1:{upstream}"
reference: {{path: "{first}/reference.json"}}
detect: {{tick_rows: 250, tick_s: 5}}
capture: {{enabled: true}}
triggers:
  - {{name: drift, on: drift}}
webhooks:
  targets:
    - name: ci
      kind: generic
      url: "http://127.0.0.1:{ci}/hook"
      secret_file: "{secret}"
  allow_cidrs: ["127.0.0.0/8"]      # the CI stand-in is on this machine
  allow_http: true
  ports: [{ci}]
retrain:
  via: webhook
  target: ci
  recipe: "{recipe}"
  cooldown_s: 20
  artifact_hosts: ["127.0.0.1:{ci}"]
rollout:
  stable_artifact: "{first}"
  candidate:
    start: ["{python}", "-m", "agent.demo.server", "--artifact", "{{artifact}}",
            "--port", "{{port}}", "--name", "income", "--faults", "{faults}"]
  steps: [0.2, 0.5]
  step_requests_min: 50
  promote_requests_min: 200
  step_s_min: 2
  total_s_min: 4
  duration_s_max: 120
  # A new process has cold caches; nobody minds milliseconds, nor should a busy laptop.
  slo_latency_s: 0.1
  delta: {{error: 0.005, slow: 0.3, quality: 0.02}}
  margin: {{error: 0.04, slow: 0.9, quality: 0.05}}
  bake_s: 6
  bake_requests: 600
  cooldown_s: 5
admin:
  listen: "127.0.0.1:{admin}"
  public_url: "http://127.0.0.1:{admin}"
state: {{dir: "{state}", snapshot_s: 5}}
"""


class StageError(Exception):
    """Something that the demo needs did not come up; the text says what, and where its log is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    proxy: int
    upstream: int
    ci: int
    admin: int


class Stage:
    """Everything below one directory; `close` ends every process that was started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.ci = directory / "ci"
        self.first = directory / "first"
        self.recipe = HERE / "recipe.yaml"
        self.faults = directory / "faults.json"
        self.config = directory / "remora.yaml"
        self.ports = Ports(**dict(zip(("proxy", "upstream", "ci", "admin"), _free(4), strict=True)))
        self.secret = generate_secret()
        self._processes: list[subprocess.Popen[bytes]] = []
        for made in (self.state, self.ci):
            made.mkdir(mode=0o700)
        secret = directory / "webhook.secret"
        secret.touch(mode=0o600)
        secret.write_text(self.secret + "\n", encoding="ascii")
        self.misbehave({})

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.admin}"

    @property
    def artifact(self) -> Path:
        """The first model's artifact."""
        return self.first / "artifact"

    @property
    def token(self) -> str:
        """The operator token that the agent made for itself."""
        return (self.state / "admin.token").read_text(encoding="ascii").strip()

    def write_config(self) -> str:
        """The configuration file of this demo; returns its text."""
        text = CONFIG.format(
            proxy=self.ports.proxy,
            upstream=self.ports.upstream,
            ci=self.ports.ci,
            admin=self.ports.admin,
            first=self.artifact,
            secret=self.directory / "webhook.secret",
            recipe=self.recipe,
            faults=self.faults,
            python=sys.executable,
            state=self.state,
        )
        self.config.write_text(text, encoding="utf-8")
        return text

    def misbehave(self, faults: dict[str, dict[str, float]]) -> None:
        """What the machine does to an artifact that is served on it, by digest: failing, delay_s.

        No gate can see it beforehand; that is what a canary is for.
        """
        self.faults.write_text(json.dumps(faults), encoding="utf-8")

    def start_model(self) -> None:
        """The model server that was there before Remora came."""
        self._start(
            "model",
            [
                *("-m", "agent.demo.server", "--artifact", str(self.artifact)),
                *("--port", str(self.ports.upstream), "--name", MODEL),
                *("--faults", str(self.faults)),
            ],
        )
        self._wait(f"http://127.0.0.1:{self.ports.upstream}/v2/health/ready", "model")

    def start_agent(self) -> None:
        """`remora run`, beside it."""
        self._start("remora", ["-m", "agent", "run", "--config", str(self.config)])
        self._wait(f"{self.admin_url}/readyz", "remora")
        self._wait(f"{self.admin_url}/api/v1/status", "remora")

    def _start(self, name: str, arguments: list[str]) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Nothing of whoever starts the demo decides what it shows.
                    env={k: v for k, v in os.environ.items() if not k.startswith("REMORA_")},
                )
            )

    def _wait(self, url: str, name: str) -> None:
        deadline = time.monotonic() + READY_S_MAX
        log = self.directory / f"{name}.log"
        while time.monotonic() < deadline:
            ended = [p for p in self._processes if p.poll() is not None]
            if ended:
                raise StageError(f"{name} ended with {ended[0].returncode}; see {log}")
            try:
                if httpx.get(url, timeout=2.0, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # not yet
            time.sleep(0.1)
        raise StageError(f"{name} was not ready in {READY_S_MAX:.0f} s; see {log}")

    def close(self) -> None:
        """End what we started, and the candidates that the agent started and left serving."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(15.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._end_slots()

    def _end_slots(self) -> None:
        """Models that Remora promoted outlive it on purpose; this demo is over, though."""
        path = self.state / "decisions.db"
        if not path.exists():
            return
        ledger = Ledger(path, read_only=True)
        rows: list[Any] = list(ledger.read("SELECT pid, started FROM slot WHERE pid IS NOT NULL"))
        ledger.close()
        models = [ProcessId(pid=row["pid"], started=row["started"]) for row in rows]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for model in models:
                model.signal_group(number)
            deadline = time.monotonic() + END_S_MAX
            while any(model.alive() for model in models) and time.monotonic() < deadline:
                time.sleep(0.05)


def _free(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
