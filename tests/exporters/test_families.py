"""What a scrape says: the contract's names, types and labels, and the promises about counters."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from agent.edge.counters import CODES
from agent.scrape import label
from agent.version_watch import VersionWatch
from detectors import build_reference
from detectors.settings import Settings
from exporters.prometheus import Histogram
from tests.exporters.full_scrape import (
    named,
    open_text,
    reference,
    scraped,
    spread,
    text,
    watch,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "metrics.txt"

# The table "Metrics" of the public contract, as far as this release measures it.
CONTRACT = {
    "requests_total": ("counter", "model version route code"),
    "request_duration_seconds": ("histogram", "model version route"),
    "time_to_first_byte_seconds": ("histogram", "model version route"),
    "requests_in_flight": ("gauge", "model version"),
    "rows_total": ("counter", "model"),
    "sampling_rate": ("gauge", "model"),
    "sampling_cpu_seconds_total": ("counter", "model part"),
    "sampling_budget_held": ("gauge", "model budget"),
    "dropped_total": ("counter", "reason"),
    "time_to_first_token_seconds": ("histogram", "model version"),
    "time_per_output_token_seconds": ("histogram", "model version"),
    "tokens_total": ("counter", "model version kind"),
    "finish_reasons_total": ("counter", "model version reason"),
    "generations_total": ("counter", "model version tokens"),
    "feature_bin_total": ("counter", "model version reference feature bin"),
    "reference_bin_ratio": ("gauge", "model version reference feature bin"),
    "evidence_up_total": ("counter", "model reference feature score"),
    "evidence_down_total": ("counter", "model reference feature score"),
    "feature_drift": ("gauge", "model version feature statistic"),
    "feature_missing_ratio": ("gauge", "model feature"),
    "feature_detectable_shift": ("gauge", "model feature"),
    "feature_tolerance": ("gauge", "model feature"),
    "feature_design_effect": ("gauge", "model feature"),
    "outlier_rows_total": ("counter", "model"),
    "fairness": ("gauge", "model attribute metric"),
    "drift_evidence": ("gauge", "model version scope"),
    "drift_state": ("gauge", "model version scope feature"),
    "concept_drift_state": ("gauge", "model version detector"),
    "model_quality": ("gauge", "model version metric basis"),
    "model_quality_lower": ("gauge", "model version metric basis"),
    "model_quality_upper": ("gauge", "model version metric basis"),
    "labels_total": ("counter", "outcome"),
    "label_delay_seconds": ("histogram", "outcome"),
    "labels_join_ratio": ("gauge", "model"),
    "labels_maturity_seconds": ("gauge", "model"),
    "labels_waiting": ("gauge", "model"),
    "server_cpu_seconds_total": ("counter", "model"),
    "server_memory_bytes": ("gauge", "model"),
    "server_threads": ("gauge", "model"),
    "server_open_fds": ("gauge", "model"),
    "server_cgroup_memory_bytes": ("gauge", "model"),
    "server_memory_limit_bytes": ("gauge", "model"),
    "server_cpu_limit_cores": ("gauge", "model"),
    "server_cpu_throttled_seconds_total": ("counter", "model"),
    "server_oom_kills_total": ("counter", "model"),
    "server_energy_joules_total": ("counter", "model"),
    "server_network_bytes_total": ("counter", "model direction"),
    "server_gpu_utilization_ratio": ("gauge", "model gpu"),
    "server_gpu_memory_bytes": ("gauge", "model gpu"),
    "server_gpu_energy_joules_total": ("counter", "model gpu"),
    "cost_per_thousand_predictions": ("gauge", "model currency"),
    "agent_cpu_seconds_total": ("counter", "process"),
    "agent_memory_bytes": ("gauge", "process"),
    "agent_restarts_total": ("counter", "process"),
    "analysis_up": ("gauge", ""),  # whose process it is, its name says
    "retrain_runs_total": ("counter", "trigger outcome"),
    "webhook_deliveries_total": ("counter", "target outcome"),
    "webhook_outbox": ("gauge", "state"),
    "rollout_state": ("gauge", "model candidate"),
    "rollout_weight_ratio": ("gauge", "model version"),
    "request_duration_quantile_seconds": ("gauge", "model version route quantile"),
    "slo_objective_ratio": ("gauge", "model slo"),
    "slo_burn_rate": ("gauge", "model slo window"),
    "slo_budget_remaining_ratio": ("gauge", "model slo"),
    "requests_refused_total": ("counter", "reason"),
    "shadow_copies_total": ("counter", "outcome"),
    "shadow_pairs": ("gauge", "model candidate answers"),
    "rollbacks_total": ("counter", "reason"),
    "grpc_calls_total": ("counter", "model version method grpc_status"),
    "active_version_info": ("info", "version digest"),
}


def number(value: float | Histogram) -> float:
    assert not isinstance(value, Histogram)
    return value


def test_every_family_is_in_the_contract_and_the_other_way_round() -> None:
    found = {f.name.removeprefix("remora_"): (f.kind, " ".join(f.labels)) for f in scraped()}
    assert found == CONTRACT


def test_the_exposition_is_byte_for_byte_what_it_was() -> None:
    assert text(scraped()) == GOLDEN.read_text(encoding="utf-8")


def test_both_formats_are_read_by_their_parsers_and_say_the_same() -> None:
    made = scraped()

    def samples(families: object) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
        return {
            (s.name, tuple(sorted(s.labels.items())), s.value)
            for family in families  # type: ignore[attr-defined]
            for s in family.samples
        }

    openly = parse_open(open_text(made))  # type: ignore[no-untyped-call]
    assert samples(parse(text(made))) == samples(openly)
    assert open_text(made).endswith("# EOF\n")


def test_no_series_is_there_twice() -> None:
    lines = [line.rpartition(" ")[0] for line in text(scraped()).splitlines() if line[0] != "#"]
    assert len(lines) == len(set(lines))


def test_all_eight_bins_are_there_from_zero_before_the_first_row() -> None:
    fresh = VersionWatch("v1", reference(), Settings())
    made = scraped(watches={"v1": fresh})
    bins = named(made, "feature_bin_total").rows
    assert [value for _, value in bins] == [0.0] * 16
    assert [labels[-1] for labels, _ in bins[:8]] == [*"123456", "missing", "outside"]
    shares = named(made, "reference_bin_ratio").rows
    assert sum(number(v) for _, v in shares[:8]) == pytest.approx(1.0)
    states = {labels[2:]: value for labels, value in named(made, "drift_state").rows}
    assert states == {("feature", "age"): -1, ("feature", "faith"): -1, ("prediction", ""): -1}
    assert not any(f.name in ("remora_feature_drift", "remora_drift_evidence") for f in made)


def test_every_code_of_a_request_is_there_before_it_happens() -> None:
    rows = named(scraped(), "requests_total").rows
    assert [labels[-1] for labels, _ in rows] == list(CODES)


def test_bins_add_up_to_the_rows() -> None:
    rows = named(scraped(), "feature_bin_total").rows
    by_feature = {"age": 0.0, "faith": 0.0}
    for labels, value in rows:
        by_feature[labels[3]] += number(value)
    assert by_feature == {"age": 2_000.0, "faith": 2_000.0}


def test_a_restored_snapshot_starts_its_counters_from_zero() -> None:
    before = watch("v1", rows=2_000)
    after = VersionWatch("v1", reference(), Settings())
    after.restore(before.state())
    rows = named(scraped(watches={"v1": after}), "feature_bin_total").rows
    assert {value for _, value in rows} == {0.0}
    assert sum(sum(bins.values()) for bins in after.bins().values()) == 0
    assert all(pair == (0.0, 0.0) for s in after.scores().values() for pair in s.values())
    after.data.update({"age": 20 + 50 * spread(500), "faith": np.full(500, "first-faith", object)})
    assert sum(after.bins()["age"].values()) == 500
    assert sum(before.bins()["age"].values()) == 2_000


def wide(features: int) -> VersionWatch:
    """A version with many features, the later ones moved more."""
    names = [f"f{i:03}" for i in range(features)]
    made = VersionWatch("v1", build_reference({name: spread(2_000) for name in names}), Settings())
    made.data.update({name: spread(1_000) + 0.004 * i for i, name in enumerate(names)})
    return made


@pytest.mark.parametrize("max_series", [8, 64, 100, 2_000])
def test_no_family_about_features_has_more_series_than_allowed(max_series: int) -> None:
    made = scraped(watches={"v1": wide(40)}, max_series=max_series)
    for family in made:
        if "feature" in family.labels:
            assert len(family.rows) <= max_series, family.name


def test_of_too_many_features_the_fixed_ones_come_first_and_the_most_drifted_are_shown() -> None:
    made = scraped(watches={"v1": wide(40)}, max_series=64)
    assert {labels[3] for labels, _ in named(made, "feature_bin_total").rows} == {
        f"f{i:03}" for i in range(8)
    }
    shown = {labels[2] for labels, _ in named(made, "feature_drift").rows}
    assert shown == {f"f{i:03}" for i in range(24, 40)}


def test_configured_features_are_the_fixed_ones() -> None:
    made = scraped(features=("faith", "unknown"))
    assert {labels[3] for labels, _ in named(made, "feature_bin_total").rows} == {"faith"}


def test_categories_of_a_sensitive_feature_are_named_nowhere() -> None:
    assert "first-faith" not in text(scraped())
    assert "second-faith" not in text(scraped())


def test_a_provisional_reference_shows_effects_and_believes_none() -> None:
    made = scraped(watches={}, provisional=watch("v1", shift=30.0))
    states = [value for _, value in named(made, "drift_state").rows]
    assert states == [-1.0] * 3
    assert any(labels[3] == "psi" for labels, _ in named(made, "feature_drift").rows)
    assert not any(family.name == "remora_feature_bin_total" for family in made)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("age", "age"),
        ('quo"te', 'quo\\"te'),
        ("back\\slash", "back\\\\slash"),
        ("two\nlines", "two\\nlines"),
        ("ä" * 64, "ä" * 64),
    ],
)
def test_names_are_escaped(name: str, shown: str) -> None:
    made = VersionWatch("v1", build_reference({name: spread(1_000)}), Settings())
    assert f'feature="{shown}"' in text(scraped(watches={"v1": made}))


@given(st.text(max_size=200), st.text(max_size=200))
def test_labels_are_short_readable_and_apart(one: str, other: str) -> None:
    for name in (one, other):
        assert len(label(name)) <= 64
        label(name).encode()
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", label(name)) is None
    assert (label(one) == label(other)) == (one == other)


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = ["x" * 70 + "1", "x" * 70 + "2"]
    made = VersionWatch("v1", build_reference({name: spread(1_000) for name in names}), Settings())
    found = {
        labels[3] for labels, _ in named(scraped(watches={"v1": made}), "feature_bin_total").rows
    }
    assert len(found) == 2
    assert all(len(name) == 64 for name in found)


def test_half_a_character_does_not_cost_the_scrape() -> None:
    assert label("half \ud800").encode().startswith(b"half ")
