"""What a run is told, and what it asks for: its events and its commands, both closed unions.

They are values. Whoever performs a command reports by an event, and both may happen twice: an event
that comes again means nothing, and every command says what doing it again must come to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSource:
    """What CI announced: where it is, its digest (64 hex digits) and size."""

    url: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The run may start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The webhook reached its target."""

    external_id: str | None = None
    external_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Undeliverable:
    """The webhook never will."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """CI called back; `artifact` exactly when it succeeded."""

    status: str  # running, succeeded, failed
    artifact: ArtifactSource | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    external_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The pipeline here packaged an artifact, or the announced one was fetched."""

    artifact: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broke:
    """The pipeline here gave up."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFailed:
    """Attempt number `attempt` of fetching failed; `lasting` says that another is no use."""

    attempt: int
    reason: str
    lasting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """A person stops it."""

    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed; means something only after the deadline."""


Event: TypeAlias = (
    Begin | Delivered | Undeliverable | Reported | Finished | Broke | FetchFailed | Cancel | Tick
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostWebhook:
    """Ask `target`. The store performs it: an outbox row in the transaction of the transition."""

    run_id: str
    target: str
    deadline_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeWebhook:
    """Ask nobody any more. The store performs it."""

    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPipeline:
    """Train on this machine; started already is started."""

    run_id: str
    recipe: str | None
    deadline_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPipeline:
    """Stop training here; not running is stopped."""

    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchArtifact:
    """Fetch, not before `not_before` (unix seconds), and report with the number of the attempt."""

    run_id: str
    source: ArtifactSource
    attempt: int
    not_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitArtifact:
    """Hand the artifact to the gates. Perform it in the transaction of the transition."""

    run_id: str
    artifact: str
    sha256: str


Command: TypeAlias = (
    PostWebhook | RevokeWebhook | StartPipeline | StopPipeline | FetchArtifact | SubmitArtifact
)
