"""What changed between two configurations, and what of it can be taken up without a restart.

The list of live keys is short on purpose: a key belongs here only when whoever holds its value
reads it anew. Listeners, directories and what detectors were calibrated with are never live.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    "rollout.shadow.share",
    "rollout.shadow.requests_min",
    "rollout.shadow.duration_s_min",
    "rollout.shadow.disagreement_max",
    "rollout.shadow.tolerance",
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
class Changes:
    """Dotted keys whose values differ, in the order of the tree. Lists are compared as a whole."""

    live: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()  # these need a restart


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """Keys that differ between two trees of plain values.

    >>> compare({"sampling": {"rate": 1.0}}, {"sampling": {"rate": 0.5}})
    Changes(live=('sampling.rate',), fixed=())
    """
    before, after = _leaves(old), _leaves(new)
    keys = [k for k in dict.fromkeys((*before, *after)) if before.get(k) != after.get(k)]
    return Changes(
        live=tuple(key for key in keys if _is_live(key)),
        fixed=tuple(key for key in keys if not _is_live(key)),
    )


def overlaid(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The old tree with the values of the new one under every live key."""
    tree = copy.deepcopy(dict(old))
    for key in compare(old, new).live:
        parts = key.split(".")
        source: Any = new
        target: Any = tree
        for part in parts[:-1]:
            source = source.get(part) or {}
            target = target.setdefault(part, {})
        target[parts[-1]] = copy.deepcopy(source.get(parts[-1]))
    return tree


def _is_live(key: str) -> bool:
    def under(keys: tuple[str, ...]) -> bool:
        return any(key == known or key.startswith(f"{known}.") for known in keys)

    return under(LIVE_KEYS) and not under(START_KEYS)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
