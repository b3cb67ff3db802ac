"""The route that the registry and the rollout under way ask for, whatever is in force now."""

from collections.abc import Callable

from agent.slots import Slots
from agent.sources.proxy import Route, Upstream
from retrain.registry import Registry
from retrain.rollout import Rollout, State


def desired_route(
    registry: Registry,
    slots: Slots,
    rollout: Rollout | None,
    *,
    label: Callable[[str], str],
    lease_s: float,
) -> Route | None:
    """None while no stable model is known, or nobody knows where it answers.

    `rollout` is one that has not ended; `label` gives a digest's version label.
    """
    stable = registry.stable()
    if stable is None or stable.digest is None:
        return None
    address = slots.address(stable.name)
    if address is None:
        return None
    candidate: Upstream | None = None
    weight = shadow = 0.0
    if rollout is not None:
        # During the bake the old model stays known at weight 0: requests are still watched.
        other = rollout.stable_slot if rollout.promoted else rollout.candidate_slot
        digest = rollout.stable if rollout.promoted else rollout.candidate
        its_address = slots.address(other)
        if other != stable.name and its_address is not None:
            candidate = Upstream(address=its_address, version=label(digest))
            weight = 0.0 if rollout.promoted else rollout.weight
            copied = rollout.state is State.SHADOW and not rollout.waiting
            shadow = rollout.policy.shadow if copied else 0.0
    return Route(
        generation=registry.generation(),
        stable=Upstream(address=address, version=label(stable.digest)),
        candidate=candidate,
        weight=weight,
        shadow=shadow,
        lease_s=lease_s,
    )
