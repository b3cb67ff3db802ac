"""What detectors know, as the status tells it: of a real model whose day goes badly."""

import json
from typing import Any

import numpy as np
import pytest

from agent.admin.openapi import OPENAPI
from agent.detection_status import NAMES_MAX, PARTS_MAX, detection_status
from agent.feature_view import FeatureView
from agent.labels import Joined
from agent.standing import STANDING_MAX, standing_of
from agent.version_watch import VersionWatch
from detectors import Reading, Reference, State, build_reference
from detectors.settings import Settings
from tests.admin.described import strangers
from tests.admin.stand_in_detection import DETECTION, QUIET
from tests.agent.loan_watch import Loans, feed, loan_watch, troubled

SCHEMAS = OPENAPI["components"]["schemas"]
FOUND = (
    *("standing", "states", "multivariate", "concept", "concept_detectors", "label_state"),
    *("quality", "estimated", "estimates_hold", "fairness", "outliers", "data_quality"),
    *("segments", "quality_by_class"),
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Loans(1).reference()


@pytest.fixture(scope="module")
def bad_day(reference: Reference) -> tuple[VersionWatch, list[Reading]]:
    loans, watch = Loans(2), loan_watch(reference)
    said = [r for minute in range(5) for r in feed(watch, loans.rows(1_000), minute=minute)]
    assert said == []
    return watch, troubled(watch, loans)


def test_without_a_watch_every_member_is_there_and_empty() -> None:
    status = detection_status(None, ())
    assert set(status) == set(FOUND)
    assert strangers(status, SCHEMAS["Status"]) == []


def test_on_a_quiet_day_nothing_stands(reference: Reference) -> None:
    loans, watch = Loans(3), loan_watch(reference)
    said = [r for minute in range(5) for r in feed(watch, loans.rows(1_000), minute=minute)]
    status = detection_status(watch, said)
    assert status["standing"] == []
    assert set(status["states"]) == {"ok"}
    assert status["multivariate"]["state"] == "ok"
    assert status["multivariate"]["drifted"] == []
    assert status["data_quality"]["state"] == "ok"
    assert status["estimates_hold"]
    assert strangers(status, SCHEMAS["Status"]) == []


def test_a_bad_day_is_told_member_by_member(
    bad_day: tuple[VersionWatch, list[Reading]],
) -> None:
    status = detection_status(*bad_day)
    assert strangers(status, SCHEMAS["Status"]) == []
    assert set(status) == set(FOUND)
    assert set(status["concept_detectors"]) == {"bernoulli", "calibration"}
    assert status["concept"] == "drift"
    [city] = status["data_quality"]["new_category"]
    assert (city["feature"], city["categories"][0]["name"]) == ("city", "Atlantis")
    assert city["categories"][0]["share"] == pytest.approx(0.14, abs=0.02)
    assert status["data_quality"]["schema"] == ["strange"]
    assert "disparate_impact" in status["fairness"]["sex"]["beyond"]
    assert status["fairness"]["sex"]["groups"]["f"]["selection"] < 0.5
    assert status["fairness"]["region"]["beyond"] == []
    odd = status["outliers"]["oddest"][0]["features"]
    assert {"name": "income", "what": "high"} in odd
    assert not status["estimates_hold"]
    assert {part["name"] for part in status["segments"]["segments"]} == {"north", "south"}
    for part in status["segments"]["segments"]:
        assert {"income", "city"} <= set(part["drifted"])


def test_realised_and_estimated_say_what_their_intervals_are(
    bad_day: tuple[VersionWatch, list[Reading]],
) -> None:
    status = detection_status(*bad_day)
    realised, estimated = status["quality"]["accuracy"], status["estimated"]["accuracy"]
    assert (realised["basis"], realised["kind"]) == ("realised", "betting")
    assert (estimated["basis"], estimated["kind"]) == ("estimated", "sampling")
    assert realised["upper"] < estimated["lower"]  # labels contradict the estimate
    without = status["quality"]["calibration_error"]
    assert (without["kind"], without["lower"], without["upper"]) == ("none", None, None)


def test_what_stands_is_the_detectors_state_in_the_words_of_the_newest_finding(
    bad_day: tuple[VersionWatch, list[Reading]],
) -> None:
    watch, said = bad_day
    standing = standing_of(watch, said)
    subjects = {(entry["kind"], entry["subject"]) for entry in standing}
    for expected in (
        ("concept_drift", "error_rate"),
        ("concept_drift", "calibration"),
        ("data_drift", "income"),
        ("data_drift", "debt~spending"),
        ("prediction_drift", "score"),
        ("data_quality", "city"),
        ("quality", "sex:disparate_impact"),
        ("quality", "estimation"),
    ):
        assert expected in subjects, expected
    assert all(entry["explain"] for entry in standing)
    order = [entry["state"] for entry in standing]
    assert order == sorted(order)  # "drift" before "warning"
    # Forgotten findings take the words along, and nothing else.
    bare = standing_of(watch, ())
    assert {(e["kind"], e["subject"]) for e in bare} >= subjects - {("concept_drift", "error_rate")}
    assert all(entry["explain"] is None for entry in bare)
    # Another version's words are not put into this one's mouth.
    others = [Reading.from_json(r.to_json() | {"version": "v6"}) for r in said]
    assert all(entry["explain"] is None for entry in standing_of(watch, others))


def test_what_follows_is_no_event_of_its_own(reference: Reference) -> None:
    """Label drift beside a changed concept; a projection of features that drift; a segment that
    drifts with the whole.
    """
    loans, watch = Loans(4), loan_watch(reference)
    said = []
    for minute in range(6):
        columns = loans.rows(1_000)
        columns["debt"] = columns["debt"] + 3.0
        columns["truth"] = loans.rng.random(1_000) < 0.2
        said += feed(watch, columns, minute=minute)
    status = detection_status(watch, said)
    drifted = status["multivariate"]["drifted"]
    assert drifted
    assert all(entry["explained_by"] == ["debt"] for entry in drifted)
    assert status["label_state"] == "drift"
    kinds = [(entry["kind"], entry["scope"]) for entry in status["standing"]]
    assert ("data_drift", "multivariate") not in kinds
    assert "label_drift" not in {kind for kind, _ in kinds}
    assert not any("segment" in entry for entry in status["standing"])


def test_a_segment_alone_says_which_it_is(reference: Reference) -> None:
    loans, watch = Loans(5), loan_watch(reference)
    said = []
    for minute in range(4):
        columns = loans.rows(1_000)
        north = columns["region"] == "north"
        columns["sex"] = np.where(north, "f", "m").astype(object)  # as many of each as ever
        said += feed(watch, columns, labelled=False, minute=minute)
    assert watch.data.states()["sex"] is State.OK
    entries = [e for e in detection_status(watch, said)["standing"] if "segment" in e]
    assert {(e["subject"], e["segment"]) for e in entries} == {("sex", "north"), ("sex", "south")}
    assert all(f"region={e['segment']}" in e["explain"] for e in entries)


def test_a_sensitive_attribute_has_no_group_or_category_named() -> None:
    loans = Loans(6)
    watch = loan_watch(loans.reference(sensitive=("sex", "city")))
    said = troubled(watch, loans)
    status = detection_status(watch, said)
    assert sorted(status["fairness"]["sex"]["groups"]) == ["group 1", "group 2"]
    [city] = status["data_quality"]["new_category"]
    assert city == {"feature": "city", "categories": []}
    assert "Atlantis" not in json.dumps(status)


def test_a_provisional_reference_claims_no_state() -> None:
    loans = Loans(7)
    watch = loan_watch(loans.reference(labelled=False), provisional=True)
    said = troubled(watch, loans)
    status = detection_status(watch, said)
    assert status["standing"] == []
    assert set(status["states"]) == {"insufficient_data"}
    assert set(status["concept_detectors"].values()) == {"insufficient_data"}
    assert strangers(status, SCHEMAS["Status"]) == []


def test_lists_have_limits_however_much_drifts() -> None:
    rng = np.random.default_rng(8)
    names = [f"f{j} {'x' * 80}" for j in range(300)]

    def rows(shift: float) -> dict[str, Any]:
        return {name: rng.normal(shift, 1.0, 400) for name in names}

    watch = VersionWatch("v1", build_reference(rows(0.0)), Settings())
    said = [r for _ in range(3) for r in watch.monitor.update(rows(2.0), at=1.0)]
    surprise = {f"new {j}": np.ones(400) for j in range(60)}
    said += watch.monitor.update(rows(2.0) | surprise, at=2.0)
    status = detection_status(watch, said)
    assert status["states"]["drift"] >= 300
    assert len(status["standing"]) == STANDING_MAX
    assert len(status["data_quality"]["schema"]) == NAMES_MAX
    multivariate = status["multivariate"]
    if multivariate is not None:
        assert all(len(entry["columns"]) <= PARTS_MAX for entry in multivariate["drifted"])
    assert len(json.dumps(status)) < 100_000


def test_what_stand_ins_show_is_of_the_same_shape() -> None:
    for shape in (DETECTION, QUIET):
        assert strangers(shape, SCHEMAS["Status"]) == []
        assert set(shape) == {*FOUND, "label_cohorts"}


# Features.


def test_projections_are_no_features_and_features_say_which_they_are_part_of(
    bad_day: tuple[VersionWatch, list[Reading]],
) -> None:
    watch, _ = bad_day
    entries = {entry["name"]: entry for entry in FeatureView().entries(watch)}
    assert list(entries) == [
        *("debt", "spending", "income", "city", "sex", "region"),
        *("approved", "score"),
    ]
    assert "debt~spending" in entries["debt"]["projections"]
    assert entries["income"]["projections"] == []
    assert entries["score"]["kind"] == "prediction"
    assert strangers({"features": list(entries.values())}, SCHEMAS["Features"]) == []
    assert FeatureView().one(watch, "debt~spending") is None
    assert FeatureView().one(None, "debt") is None


def test_one_feature_is_told_over_all_windows(
    bad_day: tuple[VersionWatch, list[Reading]],
) -> None:
    watch, _ = bad_day
    view = FeatureView()
    view.note(watch, 5.0)
    income = view.one(watch, "income")
    assert income is not None
    assert strangers(income, SCHEMAS["Feature"]) == []
    assert set(income) == set(SCHEMAS["Feature"]["properties"])
    assert set(income["effects"]) == {"1000", "10000", "100000", "since"}
    assert [income["effects"][over]["rows"] for over in ("1000", "since")] == [1_000, 12_000]
    detector = watch.data
    for rows in (1_000, 10_000, 100_000):
        figures = detector.effects(rows)["income"]
        assert income["effects"][str(rows)]["cramers_v_corrected"] == figures["cramers_v_corrected"]
    profile = next(p for p in watch.reference.features if p.name == "income")
    assert (income["phi"], income["tolerance"]) == (profile.phi, profile.tolerance)
    assert income["seasonal"] is None
    assert income["history"][-1]["at"] == 5.0
    score = view.one(watch, "score")
    assert score is not None
    assert set(score) == set(SCHEMAS["Feature"]["properties"])


def test_figures_are_those_of_the_newest_tick(reference: Reference) -> None:
    loans, watch, view = Loans(9), loan_watch(reference), FeatureView()
    feed(watch, loans.rows(1_000))
    before = {entry["name"]: entry["psi"] for entry in view.entries(watch)}
    feed(watch, loans.rows(1_000, richer=6.0), minute=1)
    after = {entry["name"]: entry["psi"] for entry in view.entries(watch)}
    assert after["income"] > before["income"] + 0.05
    restored = loan_watch(reference)
    restored.restore(watch.state())
    assert {entry["name"]: entry["psi"] for entry in view.entries(restored)} == after


def test_of_more_than_two_classes_each_has_figures_of_its_own() -> None:
    rng = np.random.default_rng(3)
    said = np.array(["a", "b", "c"], object)[rng.integers(0, 3, 4_000)]
    of = build_reference(
        {"x": rng.normal(size=4_000), "said": said}, prediction="said", task="classification"
    )
    watch = VersionWatch("v1", of, Settings())
    rows = [
        Joined(
            id=f"r{n}", row=0, prediction=str(said[n]), score=None,
            label=str(said[n]) if n % 5 else "a", version="v1", slot="stable", weight=1.0,
            uniform=True, predicted_at=0.0, labelled_at=0.0,
        )
        for n in range(900)
    ]  # fmt: skip
    watch.take_labelled(rows, ticks=1.0, at=1.0)
    found = detection_status(watch, ())["quality_by_class"]
    assert set(found) == {"a", "b", "c"}
    assert found["a"]["precision"]["value"] == 1.0
    assert found["b"]["precision"]["value"] < 0.9
