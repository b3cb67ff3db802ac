"""Sections about what is done: triggers, webhooks, retrain."""

import re
from typing import Annotated, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from agent.config.secret import Secret, read_secret
from agent.config.section import (
    Bytes,
    Cidr,
    Count,
    FilePath,
    Flag,
    HostName,
    Name,
    Number,
    Pause,
    Port,
    Seconds,
    Section,
    Text,
    Url,
)

EventType: TypeAlias = Literal[
    "remora.drift.detected",
    "remora.drift.recovered",
    "remora.retrain.requested",
    "remora.compress.requested",
    "remora.run.finished",
    "remora.rollout.started",
    "remora.rollout.promoted",
    "remora.rollout.rolled_back",
    "remora.rollout.held",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

# Which way is worse: a trigger must name the bound on that side, or it would fire on improvement.
# The metrics are those of detectors.performance.quality: one that nobody computes would never fire.
Metric: TypeAlias = Literal[
    "accuracy",
    "f1",
    "precision",
    "recall",
    "specificity",
    "roc_auc",
    "pr_auc",
    "log_loss",
    "brier",
    "calibration_error",
    "rmse",
    "mae",
    "mape",
    "pinball",
]
FALLS_WHEN_WORSE = frozenset(
    {"accuracy", "f1", "precision", "recall", "specificity", "roc_auc", "pr_auc"}
)


def _cron(text: str) -> str:
    # APScheduler behind it costs 50 ms of import; only a schedule pays for it.
    from retrain.schedule import Schedule, ScheduleError

    try:
        Schedule(cron=text)
    except ScheduleError as error:
        raise ValueError(f'is no cron line: {error}; write five fields, "0 3 * * *"') from None
    return text


def _timezone(text: str) -> str:
    from retrain.schedule import Schedule, ScheduleError

    try:
        Schedule(cron="0 0 * * *", timezone=text)
    except ScheduleError:
        raise ValueError("is no time zone known here: write UTC or Area/City") from None
    return text


def _repository(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}", text):
        raise ValueError("is no repository: write owner/name")
    return text


Repository = Annotated[Text, AfterValidator(_repository)]


class DriftTrigger(Section):
    """Fires when drift is confirmed: evidence and effect."""

    name: Name
    """What decisions call it."""
    on: Literal["drift"]
    """What it waits for."""
    kinds: tuple[Literal["data_drift", "prediction_drift", "concept_drift"], ...] = Field(
        default=("data_drift", "prediction_drift", "concept_drift"), min_length=1
    )
    """Kinds of drift that count."""
    features_min: Count = 1
    """Quorum: subjects that must be in drift together."""


class QualityTrigger(Section):
    """Fires when quality is surely worse than a bound: its whole interval is beyond it."""

    name: Name
    """What decisions call it."""
    on: Literal["quality"]
    """What it waits for."""
    metric: Metric
    """What is measured."""
    below: Number | None = None
    """Bound of a metric that falls when the model gets worse."""
    above: Number | None = None
    """Bound of a metric that rises when the model gets worse."""
    basis: Literal["realised", "estimated"] = "realised"
    """From labels, or estimated without them."""
    rows_min: Count = 200
    """Labelled rows that there must be."""

    @model_validator(mode="after")
    def _bound_is_on_the_worse_side(self) -> Self:
        falls = self.metric in FALLS_WHEN_WORSE
        right, wrong = (self.below, self.above) if falls else (self.above, self.below)
        if right is None or wrong is not None:
            side = "below" if falls else "above"
            raise ValueError(f"needs the bound `{side}`, and it alone, for {self.metric}")
        return self


class ScheduleTrigger(Section):
    """Fires at times of a calendar."""

    name: Name
    """What decisions call it."""
    on: Literal["schedule"]
    """What it waits for."""
    cron: Annotated[Text, AfterValidator(_cron)]
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: Annotated[Text, AfterValidator(_timezone)] = "UTC"
    """Zone that the fields are read in."""


TriggerConfig: TypeAlias = Annotated[
    DriftTrigger | QualityTrigger | ScheduleTrigger, Field(discriminator="on")
]


class WebhookTarget(Section):
    """Somebody who is told."""

    name: Name
    """What deliveries and `retrain.target` call it."""
    kind: Literal["generic", "github_repository_dispatch", "github_workflow_dispatch"] = "generic"
    """How it is told."""
    url: Url | None = None
    """Where to post; for GitHub the API's address, null: the public one."""
    events: tuple[EventType, ...] = Field(default=EVENT_TYPES, min_length=1)
    """Types that are sent."""
    secret_file: FilePath | None = None
    """Standard Webhooks secret, whsec_...; or by environment as SECRET."""
    secret: Secret | None = None
    """Only by environment."""
    token_file: FilePath | None = None
    """GitHub token; or by environment as TOKEN."""
    token: Secret | None = None
    """Only by environment."""
    repository: Repository | None = None
    """GitHub: owner/name."""
    event_type: Name = "remora-retrain"
    """repository_dispatch: the event's type."""
    workflow: Text | None = None
    """workflow_dispatch: file or id of the workflow."""
    ref: Text = "main"
    """workflow_dispatch: branch or tag."""

    def signing_secret(self) -> Secret | None:
        """The secret that signs deliveries, by environment or file. May raise ConfigError."""
        return _from_either(self.secret, self.secret_file, f"webhooks.targets ({self.name}) secret")

    def access_token(self) -> Secret | None:
        """The token that the target asks for. May raise ConfigError."""
        return _from_either(self.token, self.token_file, f"webhooks.targets ({self.name}) token")


def _from_either(secret: Secret | None, file: FilePath | None, key: str) -> Secret | None:
    if secret is not None or file is None:
        return secret
    return read_secret(file, key=f"{key}_file")


class WebhooksConfig(Section):
    """Who is told, and where deliveries may go."""

    targets: tuple[WebhookTarget, ...] = ()
    """Somebody to tell, each."""
    allow_cidrs: tuple[Cidr, ...] = ()
    """Private networks that may be called; none by default."""
    allow_http: Flag = False
    """Whether plain http may be spoken."""
    ports: tuple[Port, ...] = Field(default=(443, 8443), min_length=1)
    """Ports that may be called."""
    timeout_s: Seconds = 15.0
    """How long one delivery may take."""


class RetrainConfig(Section):
    """How a new model is made."""

    via: Literal["none", "webhook", "local"] = "none"
    """Nobody, a CI that is told, or the embedded pipeline (needs remora[retrain])."""
    target: Name | None = None
    """Name in webhooks.targets, for webhook."""
    recipe: Text | None = None
    """Recipe file: trains for local, holds the gates of every candidate; CI is sent its name."""
    fallback: Literal["local"] | None = None
    """What to do when the webhook was not delivered within deadline_s."""
    cooldown_s: Pause = 21_600.0
    """Pause between runs."""
    runs_per_day_max: Count = 4
    """Runs in 24 hours."""
    deadline_s: Seconds = 3_600.0
    """How long a run may take."""
    rows_min: Count = 1_000
    """Labelled rows since the drift began that a run here waits for, half its time at most."""
    callback_secret_file: FilePath | None = None
    """Secret that callbacks are signed from; null: generated in the state directory."""
    callback_secret: Secret | None = None
    """Only by environment."""
    artifact_hosts: tuple[HostName, ...] = ()
    """host or host:port that artifacts may be fetched from; none by default."""
    artifact_bytes_max: Bytes = 1_073_741_824
    """Longest artifact."""

    @field_validator("artifact_hosts")
    @classmethod
    def _no_doubles(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(hosts))

    def signing_secret(self) -> Secret | None:
        """The secret that callbacks are signed from; None: generate one. May raise ConfigError."""
        return _from_either(
            self.callback_secret, self.callback_secret_file, "retrain.callback_secret"
        )
