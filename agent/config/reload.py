"""What changed between two configurations, and what of it can be taken up without a restart.

The list of live keys is short on purpose: a key belongs here only when whoever holds its value
reads it anew. Listeners, directories and what detectors were calibrated with are never live.
"""

from dataclasses import dataclass
from typing import Any

from agent.config.tree import Config
from agent.errors import one_line

LIVE_KEYS: tuple[str, ...] = (
    "sampling",
    "triggers",
    "export",
    "webhooks",
    "retrain",
    "rollout.strategy",
    "rollout.steps",
    "rollout.step_requests_min",
    "rollout.promote_requests_min",
    "rollout.step_s_min",
    "rollout.total_s_min",
    "rollout.duration_s_max",
    "rollout.on_inconclusive",
    "rollout.cooldown_s",
    "rollout.bake_s",
    "rollout.bake_requests",
    "capture.retention_s",
    "capture.bytes_max",
    "resources.interval_s",
    "state.snapshot_s",
)
# Inside a live section, and yet only read at start: runs in flight are bound to it.
START_KEYS: tuple[str, ...] = ("retrain.callback_secret", "retrain.callback_secret_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One key whose value differs. Values are for people: shortened, secrets as ***."""

    key: str
    before: str
    after: str
    live: bool


def differences(old: Config, new: Config) -> tuple[Change, ...]:
    """Keys that differ, in the order of the tree. Lists are compared as a whole."""
    before, after = _leaves(old.public()), _leaves(new.public())
    secrets = _secrets(old) != _secrets(new)
    changes = [
        Change(
            key=key, before=_shown(before.get(key)), after=_shown(after.get(key)), live=_live(key)
        )
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]
    if secrets and not changes:
        # The text of a secret changed and nothing that may be shown did.
        changes.append(Change(key="secrets", before="***", after="***", live=False))
    return tuple(changes)


def _live(key: str) -> bool:
    def under(keys: tuple[str, ...]) -> bool:
        return any(key == known or key.startswith(f"{known}.") for known in keys)

    return under(LIVE_KEYS) and not under(START_KEYS)


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _secrets(config: Config) -> tuple[object, ...]:
    return (
        config.admin.token,
        *(token.token for token in config.admin.tokens),
        *(secret for t in config.webhooks.targets for secret in (t.secret, t.token)),
        config.retrain.callback_secret,
    )


def _shown(value: object) -> str:
    return "null" if value is None else one_line(str(value), length_max=120)
