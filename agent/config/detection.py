"""Sections about what is found out: reference, detect, labels, resources, export, capture."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from agent.config.section import (
    Bytes,
    ColumnName,
    Count,
    FilePath,
    Flag,
    NotNegative,
    Pause,
    Port,
    Positive,
    Seconds,
    Section,
    Text,
)

Currency = Annotated[Text, Field(pattern=r"^[A-Z]{3}$")]
Container = Annotated[Text, Field(pattern=r"^[0-9a-f]{8,64}$")]


ConceptDetector: TypeAlias = Literal[
    "adwin", "ddm", "eddm", "fhddm", "hddm_a", "hddm_w", "kswin", "page_hinkley"
]


def _learnt(value: object) -> object:
    return None if value == "auto" else value


class ReferenceConfig(Section):
    """What the current window is compared against."""

    path: FilePath | None = None
    """A profile made by `remora reference build`; null: learnt from traffic."""
    learn_rows: Count = 10_000
    """Rows that make a learnt reference."""
    provisional_rows: Count = 1_000
    """Rows after which effects are shown, with state -1."""
    key_file: FilePath | None = None
    """Key that `path` must be signed with; null: any profile is taken."""


class EffectConfig(Section):
    """How big a difference must be to be called drift. Evidence alone makes a warning."""

    psi: Positive = 0.1
    """Population stability index."""
    ks: Positive = 0.1
    """Kolmogorov-Smirnov distance."""


class ConceptConfig(Section):
    """Detectors of concept drift besides the one that is always on."""

    adwin: Flag = False
    """river's ADWIN in a child process; the same as naming it in `detectors`."""
    detectors: tuple[ConceptDetector, ...] = ()
    """river's detectors in a child process, outside the budget; needs remora[concept]."""

    @property
    def named(self) -> tuple[ConceptDetector, ...]:
        """All that are asked for, each once."""
        return tuple(dict.fromkeys((*(("adwin",) if self.adwin else ()), *self.detectors)))


class FairnessConfig(Section):
    """An attribute that groups of people are told apart by."""

    attribute: ColumnName
    """The feature."""
    positive: Text = "1"
    """The class that is wished for."""
    gap_max: NotNegative | None = None
    """Largest difference of rates between groups; null: shown, not judged."""
    ratio_min: NotNegative | None = None
    """Smallest ratio of selection rates; null: shown, not judged."""


class QualityConfig(Section):
    """How quality on labelled rows is measured."""

    window_rows: Annotated[int, Field(ge=100, le=1_000_000)] = 5_000
    """Most recent labelled rows that figures are of."""
    error_max: Positive | None = None
    """Regression: errors beyond it count as it, which gives the MAE a surer interval."""
    quantile: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Regression: the quantile that the model predicts, for its pinball loss."""


class DetectConfig(Section):
    """How drift is looked for."""

    tick_rows: Count = 1_000
    """Rows that end a tick."""
    tick_s: Seconds = 60.0
    """Seconds that end a tick, where rows come slowly."""
    false_alarms_per_month: Positive = 1.0
    """False alarms that are accepted, over all features together."""
    effect: EffectConfig = EffectConfig()
    """How big a difference must be."""
    replicas: Count = 1
    """Agents that watch replicas of one model. With more than one, a single controller decides."""
    concept: ConceptConfig = ConceptConfig()
    """Further detectors of concept drift."""
    quality: QualityConfig = QualityConfig()
    """Windows and ranges of quality."""
    fairness: tuple[FairnessConfig, ...] = ()
    """Attributes that quality and predictions are compared by."""


class LabelsConfig(Section):
    """How labels are joined to predictions."""

    ttl_s: Seconds = 2_592_000.0
    """How long predictions wait for their label."""
    pending_s: Seconds = 3_600.0
    """How long labels wait for their prediction."""
    maturity_s: Annotated[Pause | None, BeforeValidator(_learnt)] = None
    """Age of predictions whose labels are believed; 0: any; null: 99 % of the delays seen."""
    rows_max: Count = 5_000_000
    """Rows of the join table; beyond it the oldest go, counted."""


class PriceConfig(Section):
    """Prices, in one currency; what is left out costs nothing."""

    currency: Currency = "USD"
    """Label `currency` of the metric."""
    per_hour: NotNegative | None = None
    """An hour of the server, whatever it uses."""
    per_cpu_hour: NotNegative | None = None
    """An hour of one busy core."""
    per_gib_hour: NotNegative | None = None
    """An hour of one GiB of memory in use."""
    per_gpu_hour: NotNegative | None = None
    """An hour of one GPU that the server uses."""
    per_kwh: NotNegative | None = None
    """A kilowatt-hour."""


class ResourcesConfig(Section):
    """Which process is the model server. Without a key: who listens on the upstream's port."""

    pid: Count | None = None
    """Its process id."""
    port: Port | None = None
    """The port it listens on."""
    name: Text | None = None
    """Its process name."""
    container: Container | None = None
    """Id of its container, or the beginning of it."""
    watts_per_core: Positive | None = None
    """Power of a busy core, where the processor has no counter of its energy; null: no model."""
    price: PriceConfig | None = None
    """What things cost, for the cost of 1,000 predictions."""
    interval_s: Seconds = 5.0
    """How often it is looked at."""


class ExportConfig(Section):
    """What Prometheus is shown."""

    max_series: Count = 2_000
    """Series about features; beyond it, features late in the schema are left out."""
    features: tuple[ColumnName, ...] = ()
    """The features to show; empty: in the order of the schema."""
    metrics_token: Flag = False
    """Whether /metrics asks for a token with the role `read`."""


class CaptureConfig(Section):
    """Rows that are kept for retraining and reports."""

    enabled: Flag = False
    """Whether rows are kept at all."""
    dir: FilePath | None = None
    """Where; null: captures/ in the state directory."""
    bytes_max: Bytes = 1_073_741_824
    """Room that captures may take; beyond it the oldest go."""
    retention_s: Seconds = 2_592_000.0
    """How long rows are kept."""
    redact: tuple[ColumnName, ...] = ()
    """Features that are never written."""
    text: Flag = False
    """Whether prompts and replies of language models are written with their rows."""
    text_characters_max: Count = 4_096
    """How much of each prompt and each reply is written."""
