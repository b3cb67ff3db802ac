"""What people may do to rollouts: promote, abort, pause, resume, and go back.

Every act goes through the table of `retrain.rollout` like any other event; what the table does not
have is refused with the state that stands in the way.
"""

from typing import get_args

from agent.admin.view import Refused
from agent.release import Release
from retrain.rollout import Refused as NotAdmitted
from retrain.rollout import Rollout
from retrain.rollout_messages import Operator, OperatorAction


def operate(release: Release, *, id: str, action: str, reason: str, actor: str) -> Rollout:
    """promote, abort, pause or resume. Raises `Refused`."""
    rollout = release.rollout
    if rollout is None or rollout.id != id:
        raise Refused(404, f"no rollout {id} that could {action}")
    return _told(release, rollout, action=action, reason=reason, actor=actor)


async def roll_back(release: Release, *, to: str | None, reason: str, actor: str) -> Rollout:
    """To the version before, or to a version of the registry by name. Raises `Refused`."""
    rollout = release.rollout
    if to is not None and (rollout is None or not release.versions.names(rollout.stable, to)):
        return await _forward_to(release, to, actor)
    if rollout is None:
        raise Refused(409, "there is no version before this one")
    return _told(release, rollout, action="rollback", reason=reason, actor=actor)


def _told(release: Release, rollout: Rollout, *, action: str, reason: str, actor: str) -> Rollout:
    named = next((one for one in get_args(OperatorAction) if one == action), None)
    if named is None:
        raise Refused(404, f"a rollout cannot {action}")
    if not release.apply(Operator(action=named, actor=actor, reason=reason), actor=actor):
        raise Refused(409, f"rollout {rollout.id} is {rollout.state.value}: it cannot {action}")
    assert release.rollout is not None
    return release.rollout


async def _forward_to(release: Release, to: str, actor: str) -> Rollout:
    """Going back further than one version is a rollout of its own, without a canary."""
    if release.registry.version(to) is None:
        raise Refused(404, f"no version {to} in the registry")
    try:
        return await release.begin(to, by_operator=True, actor=actor, strategy="immediate")
    except NotAdmitted as error:
        raise Refused(409, str(error)) from error
