"""A controller with everything that is its own, for tests: registry, slots, ledger, no network."""

import json
import sys
from pathlib import Path
from typing import Any

from agent.config import Config, load_config
from agent.controller import Controller
from agent.intake import Intake
from agent.labels import LabelStore
from agent.slots import SLOTS
from agent.sources.proxy import Route
from retrain.registry import Version
from tests.e2e.ci import make_artifact

SERVER = Path(__file__).parents[1] / "e2e" / "model.py"


class Workshop:
    """`controller` is made anew by `restart`, over the same state."""

    def __init__(self, directory: Path, *, role: str = "all", **rollout: Any) -> None:
        self.directory = directory
        self.role = role
        self.state = directory / "state"
        self.state.mkdir()
        self.routes: list[Route] = []
        self.told: list[dict[str, Any]] = []
        start = [sys.executable, str(SERVER), "--port", "{port}", "--artifact", "{artifact}"]
        candidate = {"start": start, "ready_path": "/ready", "ready_timeout_s": 20}
        tree = {
            "sources": [{"kind": "proxy", "upstream": "http://127.0.0.1:9"}],
            "state": {"dir": str(self.state)},
            "rollout": {"candidate": candidate, **rollout},
        }
        path = directory / "remora.yaml"
        path.write_text(json.dumps(tree))
        self.config: Config = load_config(path, environ={})
        self.controller = self._made()

    def _made(self) -> Controller:
        self.labels = LabelStore(
            self.state / "labels.db", ttl_s=60.0, pending_s=60.0, rows_max=1_000
        )
        intake = Intake(
            self.config,
            stable="1",
            reference=None,
            labels=self.labels,
            on_tick=lambda _: None,
            on_labelled=lambda *_: None,
        )
        return Controller(
            self.config,
            role=self.role,
            state_dir=self.state,
            stable=("127.0.0.1:9", "1"),
            intake=intake,
            send_route=self.routes.append,
            tell_supervisor=self.told.append,
        )

    def candidate(self, version: str) -> str:
        """A version of the registry with an artifact; its digest."""
        path = self.directory / f"artifact-{version}"
        digest = make_artifact(path, version).digest
        self.controller.registry.add_version(
            Version(digest=digest, label=version, origin="run", directory=str(path), at=1.0)
        )
        return digest

    async def restart(self) -> None:
        await self.close()
        self.controller = self._made()
        await self.controller.start()

    async def close(self) -> None:
        await self.controller.stop()
        self.labels.close()

    async def end_models(self) -> None:
        for slot in SLOTS:
            await self.controller.slots.stop(slot)
