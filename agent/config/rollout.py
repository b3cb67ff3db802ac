"""Section rollout: how a candidate gets its traffic, and when it is promoted or rolled back."""

import re
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from agent.config.address import Address, parse_upstream
from agent.config.section import (
    Bytes,
    Count,
    FilePath,
    NotNegative,
    Pause,
    Positive,
    PositiveShare,
    Seconds,
    Section,
    Share,
    Text,
    Upstream,
    Whole,
)


def _env_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("is no variable name: list names only, their values are passed through")
    if text.upper().startswith("REMORA_"):
        raise ValueError("is Remora's own: the candidate never sees the agent's secrets")
    return text


def _url_path(text: str) -> str:
    if not text.startswith("/") or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("is no path: write it as /ready")
    return text


def _header(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", text):
        raise ValueError("is no header name")
    if text.lower().startswith("x-remora-"):
        raise ValueError("is stripped from requests: name a header that your clients send")
    return text.lower()


EnvName = Annotated[Text, AfterValidator(_env_name)]
UrlPath = Annotated[Text, AfterValidator(_url_path)]
BelowOne = Annotated[Positive, Field(lt=1.0)]
HeaderName = Annotated[Text, AfterValidator(_header)]


class DeltaConfig(Section):
    """How much worse a candidate may be than stable, for each thing that is measured."""

    error: NotNegative = 0.002
    """Share of failed requests, absolute."""
    slow: NotNegative = 0.1
    """Latency, relative."""
    quality: NotNegative = 0.0
    """Quality where labels exist, absolute."""


class MarginConfig(Section):
    """How sure promotion must be that a candidate is no worse than this."""

    error: BelowOne = 0.01
    """Share of failed requests, absolute."""
    slow: BelowOne = 0.5
    """Share of slow requests, relative."""
    quality: BelowOne = 0.01
    """Quality where labels exist, absolute."""


class ShadowConfig(Section):
    """Copies of requests to a candidate before it gets a share of the traffic."""

    share: Share = 0.0
    """Share of requests that are copied; 0: the canary begins at once."""
    requests_min: Count = 500
    """Copies that must have been answered."""
    duration_s_min: Pause = 300.0
    """How long the shadow lasts at least."""
    disagreement_max: Share = 1.0
    """Share of differing answers above which a person is asked; 1: they are only shown."""
    tolerance: NotNegative = 0.01
    """Numbers differ when they are further apart than this, relative to the larger one."""
    in_flight_max: Count = 16
    """Copies at one moment, in each edge; more are dropped."""
    request_bytes_max: Bytes = 1_048_576
    """Longest request that is copied."""
    timeout_s: Seconds = 30.0
    """How long the candidate may take for a copy."""


class CandidateConfig(Section):
    """Who serves a candidate: a second slot that already runs, or a command that Remora starts."""

    upstream: Upstream | None = None
    """The second slot: http://host:port or unix:/path."""
    start: tuple[Text, ...] | None = None
    """Argument list of a server; {artifact} and {port} are filled in."""
    cwd: FilePath | None = None
    """Directory that the command starts in."""
    ready_path: UrlPath = "/v2/health/ready"
    """Path that answers 200 once the server can serve."""
    ready_timeout_s: Seconds = 120.0
    """How long it may take until then."""
    env: tuple[EnvName, ...] = ()
    """Names of variables of the agent that the command may see."""

    @property
    def upstream_address(self) -> Address | None:
        """`upstream`, parsed."""
        return None if self.upstream is None else parse_upstream(self.upstream)

    @field_validator("start")
    @classmethod
    def _start_can_be_told_its_port(cls, start: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if start is not None:
            if not start:
                raise ValueError("is empty: give the program and its arguments")
            for needed in ("{artifact}", "{port}"):
                if not any(needed in argument for argument in start):
                    raise ValueError(f"has no {needed} in it: the server must be told")
        return start

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.upstream is None) == (self.start is None):
            raise ValueError("needs exactly one of upstream and start")
        return self


class RolloutConfig(Section):
    """How a candidate comes to serve."""

    strategy: Literal["canary", "immediate", "shadow"] = "canary"
    """Shared traffic by steps, all at once with a bake afterwards, or copies only."""
    shadow: ShadowConfig = ShadowConfig()
    """Copies of requests before the canary."""
    candidate: CandidateConfig | None = None
    """Who serves a candidate; null: candidates wait in the registry."""
    stable_artifact: FilePath | None = None
    """Artifact directory of the model that runs now, for gates and warm start."""
    client_key: HeaderName | None = None
    """Header whose value keeps a client on one arm; null: each request counts by itself."""
    steps: tuple[PositiveShare, ...] = Field(default=(0.01, 0.05, 0.25, 0.5), min_length=1)
    """Weights of the candidate, rising."""
    step_requests_min: Count = 200
    """Requests that a step must have seen."""
    promote_requests_min: Count = 1_000
    """Requests that the candidate must have served before it is promoted."""
    step_s_min: Pause = 300.0
    """How long a step lasts at least."""
    total_s_min: Pause = 1_800.0
    """How long the canary lasts at least."""
    duration_s_max: Seconds = 86_400.0
    """How long it may last; then `on_inconclusive` decides."""
    on_inconclusive: Literal["hold", "abort"] = "hold"
    """What to do when time is up and nothing is shown either way."""
    alpha_rollback: PositiveShare = 0.01
    """How often a candidate that is as good as stable may be rolled back."""
    alpha_promote: PositiveShare = 0.05
    """How often a candidate that is worse than the margin may be promoted."""
    delta: DeltaConfig = DeltaConfig()
    """How much worse a candidate may be."""
    margin: MarginConfig = MarginConfig()
    """What promotion must rule out."""
    slo_latency_s: Seconds | None = None
    """A request slower than this counts as slow; null: slower than stable's own quantile."""
    lease_s: Seconds = 10.0
    """How long a weight holds without word from the analysis; then all goes to stable."""
    bake_s: Pause = 86_400.0
    """How long a promoted model is watched, ready to be rolled back."""
    bake_requests: Whole = Field(default=50_000, ge=0)
    """Requests after which the bake may end."""
    cooldown_s: Pause = 21_600.0
    """Pause after a rollback, doubled for each in a row up to 7 days."""

    @model_validator(mode="after")
    def _a_shadow_has_a_share(self) -> Self:
        if self.strategy == "shadow" and not self.shadow.share:
            raise ValueError("strategy shadow copies nothing: set shadow.share above 0")
        return self

    @field_validator("steps")
    @classmethod
    def _steps_rise(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("do not rise: each step must be larger than the one before")
        return steps

    @model_validator(mode="after")
    def _margins_hold_deltas(self) -> Self:
        for name in ("error", "slow", "quality"):
            delta, margin = getattr(self.delta, name), getattr(self.margin, name)
            if delta > margin:
                raise ValueError(
                    f"delta.{name} {delta:g} > margin.{name} {margin:g}: raise the margin, or one"
                    " candidate could be both rolled back and promoted"
                )
        return self
