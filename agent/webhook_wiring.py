"""From the configuration's webhooks to what delivers them: targets, guard, client, root secret.

Secrets are read here and handed on; nothing here logs or keeps them.
"""

import ipaddress
from pathlib import Path

from agent.config import Config, WebhookTarget
from retrain.webhooks.fetch import allowed_ports
from retrain.webhooks.guard import Guard, GuardedClient
from retrain.webhooks.guard import guarded_client as guard_client
from retrain.webhooks.sign import generate_secret, read_secret, read_secrets
from retrain.webhooks.targets.catalog import TargetSettings, make_target
from retrain.webhooks.targets.target import Target

ROOT_SECRET = "callback.secret"  # noqa: S105 - a file's name


def callback_root(config: Config, state_dir: Path) -> bytes:
    """The key that each run's callback secret is derived from; made on first use."""
    given = config.retrain.signing_secret()
    if given is not None:
        return read_secret(given.reveal())
    path = state_dir / ROOT_SECRET
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(generate_secret() + "\n", encoding="ascii")
    return read_secret(path.read_text(encoding="ascii").strip())


def targets(config: Config, root: bytes) -> dict[str, Target]:
    """Every configured target by name. Raises `TargetError` or `ConfigError`."""
    return {
        target.name: make_target(_settings(target), callback_root=root)
        for target in config.webhooks.targets
    }


def _settings(target: WebhookTarget) -> TargetSettings:
    secret, token = target.signing_secret(), target.access_token()
    return TargetSettings(
        name=target.name,
        kind=target.kind,
        url=target.url,
        events=frozenset(target.events),
        keys=() if secret is None else read_secrets(secret.reveal()),
        token=None if token is None else token.reveal(),
        repository=target.repository,
        event_type=target.event_type,
        workflow=target.workflow,
        ref=target.ref,
    )


def guarded_client(config: Config) -> GuardedClient:
    """The only client that leaves this machine: every address is judged before it is called."""
    return guard_client(guard(config), timeout_s=config.webhooks.timeout_s)


def guard(config: Config) -> Guard:
    """Who may be called."""
    return Guard(
        allow_cidrs=tuple(ipaddress.ip_network(cidr) for cidr in config.webhooks.allow_cidrs),
        allow_http=config.webhooks.allow_http,
        # Artifacts are fetched with the same client, from hosts that name their port.
        ports=frozenset(config.webhooks.ports) | allowed_ports(config.retrain.artifact_hosts),
    )
