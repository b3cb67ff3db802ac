"""Sections about how what comes in is read: model, protocol, schema, sampling."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from agent.config.section import (
    Bytes,
    ColumnName,
    Count,
    Flag,
    Name,
    Positive,
    PositiveShare,
    Section,
    Share,
    Text,
)
from agent.decoders.path import parse_path
from agent.decoders.patterns import refusal

# Each rule is looked at for every exchange that is kept.
RULES_MAX = 64


def _as_category(value: object) -> object:
    """As `agent.schema.category` spells what comes in requests: true, 3 for 3.0."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


def _as_share(value: object) -> object:
    return float(value) if isinstance(value, bool) else value


Category = Annotated[Text, Field(max_length=256), BeforeValidator(_as_category)]
ErrorCode: TypeAlias = Literal["4xx", "5xx", "client_disconnect", "upstream_unreachable", "timeout"]


class ModelConfig(Section):
    """What the model is called."""

    name: Name = "default"
    """Label `model` of every metric."""
    version: Name = "1"
    """Label `version` of the stable model until the ledger says otherwise."""


class JsonPathConfig(Section):
    """Where things stand in a JSON body of one's own shape."""

    features: Text
    """Path of the rows or of the single row in the request."""
    names: Text | None = None
    """Path of the list of feature names, where rows are plain lists."""
    prediction: Text | None = None
    """Path of the prediction in the response."""
    score: Text | None = None
    """Path of the score in the response."""
    id: Text | None = None
    """Path of the request's id, in the request."""


def _readable_path(text: str) -> str:
    parse_path(text)
    return text


def _safe_pattern(text: str) -> str:
    if (why := refusal(text)) is not None:
        raise ValueError(why)
    return text


class RedactRule(Section):
    """Something that nobody is to see: one of path, pattern and feature."""

    path: Annotated[Text, AfterValidator(_readable_path)] | None = None
    """Path in JSON, of requests and answers: `$.user.email`, `messages[*].name`."""
    pattern: Annotated[Text, AfterValidator(_safe_pattern)] | None = None
    """Regular expression; what it matches in any text is taken out."""
    feature: ColumnName | None = None
    """Name of a feature or an output, whatever the protocol."""


class ProtocolConfig(Section):
    """How bodies are read."""

    name: Literal[
        "auto",
        "open_inference",
        "open_inference_grpc",
        "tf_serving_grpc",
        "torchserve_grpc",
        "chat",
        "generate",
        "embeddings",
        "tf_serving",
        "kserve_v1",
        "mlflow",
        "sagemaker",
        "torchserve",
        "json_path",
    ] = "auto"
    """The protocol; `auto` finds out from path and body."""
    json_path: JsonPathConfig | None = None
    """Needed by `json_path`, and by it alone."""
    redact: Annotated[tuple[RedactRule, ...], Field(max_length=RULES_MAX)] = ()
    """What is taken out before anything is decoded, kept or shown; at most 64 rules."""


class FeatureConfig(Section):
    """One feature that the model is given."""

    name: ColumnName
    """Its name in the request."""
    kind: Literal["numeric", "categorical", "boolean"]
    """How it is compared."""
    sensitive: Flag = False
    """Values are never named in metrics, pages or findings."""


class SchemaConfig(Section):
    """Names, kinds and order of features."""

    features: tuple[FeatureConfig, ...] = ()
    """Empty: learnt from traffic, or taken from the reference."""
    prediction: ColumnName | None = None
    """The output that is the prediction; null: the first that fits."""
    score: ColumnName | None = None
    """The output that is the score."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """What the model does; `auto` looks at predictions."""
    columns_max: Count = 5_000
    """Features per row; an exchange with more is counted and not read."""
    rows_max: Count = 65_536
    """Rows per exchange that are read."""


class ClassRule(Section):
    """Requests with a prediction of this class are kept at a rate of their own."""

    prediction: Category
    """The class."""
    rate: Share
    """Share of them that is kept, where that is more than other rules keep."""


class SegmentRule(Section):
    """Requests with this value of a feature are kept at a rate of their own."""

    feature: ColumnName
    """Name of the feature."""
    value: Category
    """Its value."""
    rate: Share
    """Share of them that is kept, where that is more than other rules keep."""


class SamplingConfig(Section):
    """How much of the traffic is looked at, and how much that may cost."""

    rate: Share = 1.0
    """Share of exchanges that are copied for analysis."""
    rate_min: PositiveShare = 0.001
    """How far the rate may be lowered to stay within the budgets."""
    errors: Annotated[Share, BeforeValidator(_as_share)] = 0.0
    """Share of failed exchanges that are kept; `true` keeps all of them."""
    error_codes: tuple[ErrorCode, ...] = ("5xx", "upstream_unreachable", "timeout")
    """What has failed, by the codes of `remora_requests_total`."""
    classes: Annotated[tuple[ClassRule, ...], Field(max_length=RULES_MAX)] = ()
    """Rates for classes that are predicted; at most 64."""
    segments: Annotated[tuple[SegmentRule, ...], Field(max_length=RULES_MAX)] = ()
    """Rates for values of features; at most 64."""
    rows_per_s_max: Positive | None = None
    """Rows a second that are looked at on average; null: as many as the rate brings."""
    reservoir: Count | None = None
    """Rows of each predicted class and tick that are captured; null: all that are looked at."""
    cpu_budget: Positive = 0.1
    """Cores that capture, decoding and detection may use before the rate is lowered."""
    memory_bytes_max: Bytes = 268_435_456
    """Memory of all processes but jobs and opt-in children before the rate is lowered."""
