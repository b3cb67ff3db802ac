"""The whole configuration as one frozen tree. Loading is load.py's, cross checks are checks.py's.

Nothing here reads files, clocks or the environment, but for the default of the state directory
where nobody gave one.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, TypeAdapter

from agent.config.admin import AdminConfig, StateConfig
from agent.config.checks import cross_check
from agent.config.detection import (
    CaptureConfig,
    DetectConfig,
    ExportConfig,
    LabelsConfig,
    ReferenceConfig,
    ResourcesConfig,
)
from agent.config.key_path import dotted
from agent.config.lifecycle import RetrainConfig, TriggerConfig, WebhooksConfig, WebhookTarget
from agent.config.objectives import ObjectiveConfig
from agent.config.reload import Changes, compare, overlaid
from agent.config.rollout import RolloutConfig
from agent.config.secret import REVEAL
from agent.config.section import Section
from agent.config.serving import (
    ModelConfig,
    ProtocolConfig,
    SamplingConfig,
    SchemaConfig,
)
from agent.config.sources import ProxySource, PushSource, SourceConfig, TailSource, TapSource
from agent.errors import ConfigError, Problem

SYSTEM_STATE = Path("/var/lib/remora")


class Config(Section):
    """Everything that Remora can be told."""

    model: ModelConfig = ModelConfig()
    """What the model is called."""
    sources: tuple[SourceConfig, ...] = ()
    """What brings exchanges in."""
    protocol: ProtocolConfig = ProtocolConfig()
    """How bodies are read."""
    schema_: SchemaConfig = Field(default=SchemaConfig(), alias="schema")  # pydantic owns `schema`
    """Names, kinds and order of features."""
    sampling: SamplingConfig = SamplingConfig()
    """How much of the traffic is looked at."""
    reference: ReferenceConfig = ReferenceConfig()
    """What the current window is compared against."""
    detect: DetectConfig = DetectConfig()
    """How drift is looked for."""
    labels: LabelsConfig = LabelsConfig()
    """How labels are joined to predictions."""
    slo: tuple[ObjectiveConfig, ...] = ()
    """What the service has promised."""
    resources: ResourcesConfig = ResourcesConfig()
    """Which process is the model server."""
    export: ExportConfig = ExportConfig()
    """What Prometheus is shown."""
    capture: CaptureConfig = CaptureConfig()
    """Rows that are kept for retraining and reports."""
    triggers: tuple[TriggerConfig, ...] = ()
    """Policies; each fires a retraining."""
    webhooks: WebhooksConfig = WebhooksConfig()
    """Who is told, and where deliveries may go."""
    retrain: RetrainConfig = RetrainConfig()
    """How a new model is made."""
    rollout: RolloutConfig = RolloutConfig()
    """How a candidate comes to serve."""
    admin: AdminConfig = AdminConfig()
    """The admin API and the status page."""
    state: StateConfig = StateConfig()
    """What survives a restart."""

    # Where the file stands: paths in it are relative to that, not to where one happens to start.
    _base: Path = PrivateAttr(default_factory=Path)

    @property
    def digest(self) -> str:
        """SHA-256 of the effective configuration. Of secrets it knows whether they are there."""
        text = json.dumps(self.public(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def public(self) -> dict[str, Any]:
        """The effective configuration as plain values for people and JSON, secrets as ***."""
        return self.model_dump(mode="json", by_alias=True)

    def reveal(self) -> dict[str, Any]:
        """Plain JSON values with the secrets in clear, for a child process over a private socket.

        Never log, write or show the result. `from_revealed` reads it back.
        """
        tree = self.model_dump(mode="json", by_alias=True, context={REVEAL: True})
        return {"base": str(self._base), "tree": tree}

    @classmethod
    def from_revealed(cls, values: Mapping[str, Any]) -> "Config":
        """The configuration that `reveal` took apart."""
        return cls.model_validate(values["tree"]).based(Path(values["base"]))

    def based(self, directory: Path) -> "Config":
        """The same, with `retrain.recipe` meant relative to that directory."""
        config = self.model_copy()
        config._base = directory
        return config

    def changes(self, new: "Config") -> Changes:
        """Which keys differ in `new`, apart by whether they can be taken up while running."""
        found = compare(self.reveal()["tree"], new.reveal()["tree"])
        try:
            self.with_live_changes(new)
        except ConfigError:
            # The live half does not fit to what needs a restart: then all of it waits for one.
            return Changes(fixed=(*found.live, *found.fixed))
        return found

    def with_live_changes(self, new: "Config") -> "Config":
        """This configuration with the live keys of `new`. Raises ConfigError if they do not fit."""
        tree = overlaid(self.reveal()["tree"], new.reveal()["tree"])
        config = type(self).model_validate(tree).based(new._base)
        problems = [
            Problem(where="", key=dotted(path), message=message)
            for path, message in cross_check(config)
        ]
        if problems:
            raise ConfigError(tuple(problems))
        return config

    @property
    def proxy(self) -> ProxySource | None:
        """The proxy. Without one nothing is relayed, and there is no edge and nobody to route."""
        return next((s for s in self.sources if isinstance(s, ProxySource)), None)

    @property
    def tap(self) -> TapSource | None:
        """The tap."""
        return next((s for s in self.sources if isinstance(s, TapSource)), None)

    @property
    def push(self) -> PushSource | None:
        """The listener that others push to."""
        return next((s for s in self.sources if isinstance(s, PushSource)), None)

    @property
    def tails(self) -> tuple[TailSource, ...]:
        """The logs that are followed."""
        return tuple(s for s in self.sources if isinstance(s, TailSource))

    @property
    def stable_upstream(self) -> str:
        """What the ledger knows the configured model by: its address, where we relay to it.

        Where nothing is relayed nobody can be sent elsewhere, and the model is the one that
        `model` names: another version there is another model.
        """
        if self.proxy is not None:
            return self.proxy.upstream
        return f"unrouted:{self.model.name}@{self.model.version}"

    @property
    def state_dir(self) -> Path:
        """Where state is kept. Not created here."""
        return self.state.dir or default_state_dir(os.environ)

    @property
    def capture_dir(self) -> Path:
        """Where captures are kept. Not created here."""
        return self.capture.dir or self.state_dir / "captures"

    @property
    def recipe_path(self) -> Path | None:
        """`retrain.recipe` as a path on this machine."""
        return None if self.retrain.recipe is None else self._base / self.retrain.recipe

    def target(self, name: str) -> WebhookTarget | None:
        """The webhook target of that name."""
        return next((t for t in self.webhooks.targets if t.name == name), None)


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """Where state is kept when the configuration is silent.

    $STATE_DIRECTORY is systemd's; it may list several directories, of which the first is meant.
    """
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    probe = SYSTEM_STATE if SYSTEM_STATE.exists() else SYSTEM_STATE.parent
    if os.access(probe, os.W_OK | os.X_OK):
        return SYSTEM_STATE
    return Path(environ.get("HOME") or Path.home()) / ".local" / "state" / "remora"


def config_schema() -> dict[str, Any]:
    """JSON Schema of the configuration file, for editors. Secrets are no keys of the file."""
    schema = _without_section_defaults(TypeAdapter(Config).json_schema(by_alias=True))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "remora.yaml",
    } | {key: value for key, value in schema.items() if key != "title"}


def _without_section_defaults(schema: Any) -> Any:
    """A section's default repeats those of its keys, and would name secrets."""
    if isinstance(schema, dict):
        kept = {k: v for k, v in schema.items() if not (k == "default" and "$ref" in schema)}
        return {key: _without_section_defaults(value) for key, value in kept.items()}
    if isinstance(schema, list):
        return [_without_section_defaults(item) for item in schema]
    return schema
