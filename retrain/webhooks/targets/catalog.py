"""All kinds of targets there are, by the name that the configuration uses.

A new kind is one file, one line in `KINDS` and one in the contract suite.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from retrain.webhooks.bodies import REQUESTS, EventType
from retrain.webhooks.targets.generic import GenericTarget
from retrain.webhooks.targets.github import (
    API_URL,
    EVENT_TYPE_CHARS_MAX,
    RepositoryDispatchTarget,
    WorkflowDispatchTarget,
)
from retrain.webhooks.targets.target import Target, TargetError

REPOSITORY: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}", re.ASCII)
WORKFLOW: Final = re.compile(r"[A-Za-z0-9_.-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TargetSettings:
    """One item of `webhooks.targets`, its files already read. Never printed: it holds secrets."""

    name: str
    kind: str = "generic"
    url: str | None = None
    events: frozenset[str] | None = None  # None is the default of the kind
    keys: tuple[bytes, ...] = ()
    token: str | None = None
    repository: str | None = None
    event_type: str = "remora-retrain"
    workflow: str | None = None
    ref: str = "main"


Build: TypeAlias = Callable[[TargetSettings, bytes | None], Target]


def make_target(settings: TargetSettings, *, callback_root: bytes | None) -> Target:
    """The target of these settings. Raises TargetError, which names the key and the mend."""
    if settings.kind not in KINDS:
        raise TargetError(f"kind: {settings.kind!r} is none of {', '.join(sorted(KINDS))}")
    unknown = (settings.events or frozenset()) - set(EventType)
    if unknown:
        raise TargetError(f"events: {min(unknown)!r} is none of {', '.join(EventType)}")
    return KINDS[settings.kind](settings, callback_root)


def _generic(settings: TargetSettings, callback_root: bytes | None) -> Target:
    if not settings.keys:
        raise TargetError("secret_file: a generic target needs a whsec_ secret to sign with")
    return GenericTarget(
        name=settings.name,
        events=settings.events or frozenset(EventType),
        url=_needed(settings.url, "url"),
        keys=settings.keys,
        callback_root=callback_root,
    )


def _repository_dispatch(settings: TargetSettings, _: bytes | None) -> Target:
    if not 0 < len(settings.event_type) <= EVENT_TYPE_CHARS_MAX:
        raise TargetError(f"event_type: 1 to {EVENT_TYPE_CHARS_MAX} characters")
    return RepositoryDispatchTarget(
        name=settings.name,
        events=settings.events or frozenset(REQUESTS),
        repository=_matching(settings.repository, "repository", REPOSITORY, "owner/name"),
        token=_needed(settings.token, "token_file"),
        api_url=settings.url or API_URL,
        event_type=settings.event_type,
    )


def _workflow_dispatch(settings: TargetSettings, _: bytes | None) -> Target:
    return WorkflowDispatchTarget(
        name=settings.name,
        events=settings.events or frozenset(REQUESTS),
        repository=_matching(settings.repository, "repository", REPOSITORY, "owner/name"),
        token=_needed(settings.token, "token_file"),
        api_url=settings.url or API_URL,
        workflow=_matching(settings.workflow, "workflow", WORKFLOW, "a file name or an id"),
        ref=settings.ref,
    )


KINDS: Final[dict[str, Build]] = {
    "generic": _generic,
    "github_repository_dispatch": _repository_dispatch,
    "github_workflow_dispatch": _workflow_dispatch,
}


def _needed(value: str | None, key: str) -> str:
    if not value:
        raise TargetError(f"{key}: this kind of target needs it")
    return value


def _matching(value: str | None, key: str, pattern: re.Pattern[str], form: str) -> str:
    if value is None or not pattern.fullmatch(value) or ".." in value:
        raise TargetError(f"{key}: {value!r} is not {form}")
    return value
