"""The configuration: one frozen tree, loaded whole before anything starts.

One file per group of sections (serving, sources, detection, lifecycle, rollout, admin), tree.py
puts them together, load.py reads file, environment and command line, checks.py knows what must fit.
"""

from agent.config.address import Address, parse_listen, parse_upstream
from agent.config.admin import AdminConfig, StateConfig, TokenConfig
from agent.config.checks import (
    AgentRole,
    check_files,
    check_role,
    cross_check,
    loose_secrets,
    notices,
)
from agent.config.detection import (
    CaptureConfig,
    ConceptConfig,
    DetectConfig,
    EffectConfig,
    ExportConfig,
    LabelsConfig,
    PriceConfig,
    ReferenceConfig,
    ResourcesConfig,
)
from agent.config.lifecycle import (
    EVENT_TYPES,
    DriftTrigger,
    QualityTrigger,
    RetrainConfig,
    ScheduleTrigger,
    TriggerConfig,
    WebhooksConfig,
    WebhookTarget,
)
from agent.config.load import Where, load_config, load_with_places
from agent.config.objectives import ObjectiveConfig
from agent.config.reload import Changes
from agent.config.rollout import CandidateConfig, DeltaConfig, MarginConfig, RolloutConfig
from agent.config.secret import Secret, read_secret
from agent.config.serving import (
    FeatureConfig,
    JsonPathConfig,
    ModelConfig,
    ProtocolConfig,
    SamplingConfig,
    SchemaConfig,
)
from agent.config.sources import (
    ProxySource,
    PushSource,
    RouteConfig,
    SourceConfig,
    TailSource,
    TapSource,
)
from agent.config.tree import Config, config_schema, default_state_dir
from agent.errors import ConfigError, Problem

__all__ = [
    "EVENT_TYPES",
    "Address",
    "AdminConfig",
    "AgentRole",
    "CandidateConfig",
    "CaptureConfig",
    "Changes",
    "ConceptConfig",
    "Config",
    "ConfigError",
    "DeltaConfig",
    "DetectConfig",
    "DriftTrigger",
    "EffectConfig",
    "ExportConfig",
    "FeatureConfig",
    "JsonPathConfig",
    "LabelsConfig",
    "MarginConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PriceConfig",
    "Problem",
    "ProtocolConfig",
    "ProxySource",
    "PushSource",
    "QualityTrigger",
    "ReferenceConfig",
    "ResourcesConfig",
    "RetrainConfig",
    "RolloutConfig",
    "RouteConfig",
    "SamplingConfig",
    "ScheduleTrigger",
    "SchemaConfig",
    "Secret",
    "SourceConfig",
    "StateConfig",
    "TailSource",
    "TapSource",
    "TokenConfig",
    "TriggerConfig",
    "WebhookTarget",
    "WebhooksConfig",
    "Where",
    "check_files",
    "check_role",
    "config_schema",
    "cross_check",
    "default_state_dir",
    "load_config",
    "load_with_places",
    "loose_secrets",
    "notices",
    "parse_listen",
    "parse_upstream",
    "read_secret",
]
