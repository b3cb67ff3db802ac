"""Sections about how what comes in is read: model, protocol, schema, sampling."""

from typing import Literal

from pydantic import Field

from agent.config.section import (
    ColumnName,
    Count,
    Flag,
    Name,
    PositiveShare,
    Section,
    Share,
    Text,
)


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


class ProtocolConfig(Section):
    """How bodies are read."""

    name: Literal["auto", "kserve_v1", "open_inference", "mlflow", "json_path"] = "auto"
    """The protocol; `auto` finds out from path and body."""
    json_path: JsonPathConfig | None = None
    """Needed by `json_path`, and by it alone."""


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


class SamplingConfig(Section):
    """How much of the traffic is looked at."""

    rate: Share = 1.0
    """Share of exchanges that are copied for analysis."""
    rate_min: PositiveShare = Field(default=0.001)
    """How far the rate may be lowered under load; nothing in this version lowers it yet."""
