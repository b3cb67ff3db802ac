"""One version's detectors: data, prediction, concept and quality, across restarts."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent.labels import Joined
from agent.policy_wiring import quality_of
from agent.state import Snapshot
from agent.version_watch import VersionWatch, as_columns
from detectors import LabelledBaseline, Reading, Reference, State, build_reference
from detectors.budget import Budget
from detectors.parts.errors import ErrorRate
from detectors.parts.residuals import RESIDUAL_ROWS
from detectors.settings import FairnessSettings, QualitySettings, Settings
from tests.agent.ticks import column, columns, tick

SETTINGS = Settings()


def reference(*, rows: int = 8_000, task: Any = None, **changes: Any) -> Reference:
    table = {**columns(rows, seed=7), "prediction": says(rows, 0.3, seed=8)}
    return build_reference(table, prediction="prediction", learnt=True, task=task, **changes)


def says(rows: int, share: float, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return column(np.where(rng.random(rows) < share, "yes", "no").tolist())


def batch(seed: int, *, shift: float = 0.0, share: float = 0.3, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "columns": columns(1_000, seed, shift), "prediction": says(1_000, share, seed + 500),
    }  # fmt: skip
    return tick([f"{seed}-{row}" for row in range(1_000)], **(fields | changes))


def joined(number: int, said: Any, truth: Any, **changes: Any) -> Joined:
    fields: dict[str, Any] = {
        "id": f"r-{number}", "row": 0, "prediction": said, "score": None, "label": truth,
        "version": "v1", "slot": "stable", "weight": 1.0, "uniform": True,
        "predicted_at": 0.0, "labelled_at": 1.0,
    }  # fmt: skip
    return Joined(**(fields | changes))


def labelled(rows: int, errors: float, seed: int, start: int = 0) -> list[Joined]:
    wrong = np.random.default_rng(seed).random(rows) < errors
    return [joined(start + n, "yes", "no" if bad else "yes") for n, bad in enumerate(wrong)]


def watch(**changes: Any) -> VersionWatch:
    return VersionWatch("v1", reference(**changes), SETTINGS)


def status(watched: VersionWatch) -> str:
    return watched.concept_status.value


def test_still_traffic_says_nothing_and_a_shift_is_drift() -> None:
    watched = watch()
    for seed in range(5):
        assert watched.take(batch(seed), ticks=1.0) == []
    readings = watched.take(batch(9, shift=15), ticks=1.0)
    assert [(r.subject, r.state, r.kind.value) for r in readings] == [
        ("age", State.DRIFT, "data_drift")
    ]
    assert readings[0].version == "v1"
    assert readings[0].reference == watched.reference.digest


def test_predictions_drift_on_their_own() -> None:
    watched = watch()
    readings = [r for seed in range(3) for r in watched.take(batch(seed, share=0.6), ticks=1.0)]
    assert {(r.kind.value, r.scope.value, r.subject) for r in readings} == {
        ("prediction_drift", "model", "prediction")
    }


def test_only_the_uniform_rows_are_evidence() -> None:
    watched = watch()
    uniform = np.zeros(1_000, dtype=bool)
    assert watched.take(batch(1, shift=15, uniform=uniform), ticks=1.0) == []
    assert watched.rows == 0
    uniform[:300] = True
    watched.take(batch(1, uniform=uniform), ticks=1.0)
    assert watched.rows == 300
    assert len(as_columns(batch(1, uniform=uniform))["age"]) == 300


def test_a_category_never_seen_is_said() -> None:
    watched = watch()
    cells = {**columns(1_000, 3), "job": column(["gig"] * 400 + ["clerk"] * 600)}
    named, reading = watched.take(batch(3, columns=cells), ticks=1.0)
    assert (reading.subject, reading.state) == ("job", State.DRIFT)
    assert (named.kind.value, named.detector) == ("data_quality", "new_category")
    assert "'gig' the most frequent of them (40.0%)" in named.explain


def test_missing_constant_and_absent_columns_are_ordinary() -> None:
    watched = watch()
    empty = {"age": np.full(1_000, np.nan), "job": column([None] * 1_000)}
    readings = watched.take(batch(1, columns=empty), ticks=1.0)
    drifted = [r for r in readings if r.kind.value == "data_drift" and r.scope.value == "feature"]
    assert {(r.subject, r.state) for r in drifted} == {("age", State.DRIFT), ("job", State.DRIFT)}
    absent = {"job": columns(1_000, 1)["job"], "new": np.ones(1_000)}
    said = {(r.subject, r.kind.value) for r in watched.take(batch(2, columns=absent), ticks=1.0)}
    assert {("age", "data_quality"), ("new", "data_quality")} <= said


def test_a_provisional_reference_shows_effects_and_claims_no_state() -> None:
    watched = VersionWatch("v1", reference(), SETTINGS, provisional=True)
    for seed in range(3):
        watched.take(batch(seed, shift=15), ticks=0.0)
    effects = watched.data.effects()
    assert float(effects["age"]["psi"]) > 0.5
    assert {str(figures["state"]) for figures in effects.values()} == {"insufficient_data"}
    assert set(watched.data.states().values()) == {State.INSUFFICIENT_DATA}


# Labels.


def test_more_errors_than_the_baseline_are_concept_drift() -> None:
    watched = watch(errors=np.arange(5_000) % 20 == 0)
    assert status(watched) == "ok"
    assert watched.take_labelled(labelled(2_000, 0.05, 1), ticks=1.0, at=5.0) == []
    [reading] = watched.take_labelled(labelled(1_000, 0.2, 2, 2_000), ticks=1.0, at=9.0)
    assert (reading.kind.value, reading.scope.value, reading.state) == (
        "concept_drift", "model", State.DRIFT,
    )  # fmt: skip
    # One call brought a thousand rows; the change is found among them all the same.
    assert 2_000 < reading.row < 2_400
    assert reading.window.end == reading.row
    assert reading.window.start == reading.row - reading.window.rows
    assert reading.effect is not None
    assert reading.effect.value > 0.05
    assert status(watched) == "drift"
    assert json.dumps(reading.to_json())


def test_neither_corrections_nor_silence_nor_other_strata_are_evidence() -> None:
    watched = watch(errors=np.arange(5_000) % 20 == 0)
    rows = [
        *[joined(n, "yes", "no", old_label="yes") for n in range(500)],
        *[joined(n, None, "no") for n in range(500)],
        *[joined(n, "yes", "no", uniform=False, weight=3.0) for n in range(500)],
    ]
    assert watched.take_labelled(rows, ticks=1.0, at=None) == []
    assert watched.labelled_rows == 0
    assert watched.metrics()["accuracy"].rows == 500  # the other stratum's, by its weight


def test_quality_follows_corrections() -> None:
    watched = watch()
    rows = labelled(100, 0.5, 3)
    watched.take_labelled(rows, ticks=1.0, at=None)
    wrong = [row for row in rows if row.label == "no"]
    watched.take_labelled(
        [joined(int(r.id[2:]), "yes", "yes", old_label="no") for r in wrong], ticks=1.0, at=None
    )
    assert watched.metrics()["accuracy"].value == 1.0
    assert watched.metrics()["accuracy"].rows == 100


def test_numbers_are_a_regression_whose_residual_is_watched() -> None:
    rng = np.random.default_rng(5)
    watched = watch()

    def residuals(count: int, bias: float, start: int) -> list[Joined]:
        noise = rng.normal(bias, 1, count)
        return [joined(start + n, 10.0, 10.0 + float(e)) for n, e in enumerate(noise)]

    assert status(watched) == "insufficient_data"
    assert watched.take_labelled(residuals(RESIDUAL_ROWS, 0, 0), ticks=1.0, at=None) == []
    watched.take_labelled(residuals(500, 0, 2_000), ticks=1.0, at=None)
    assert status(watched) == "ok"
    assert 0.9 < watched.metrics()["rmse"].value < 1.1
    readings = watched.take_labelled(residuals(1_000, 3, 5_000), ticks=1.0, at=None)
    assert [(r.kind.value, r.scope.value, r.subject, r.state) for r in readings] == [
        ("concept_drift", "model", "residual", State.DRIFT)
    ]
    assert readings[0].reference == watched.reference.digest
    assert status(watched) == "drift"
    # What is no number, or none that a double can hold, is passed by.
    odd = [joined(1, 10.0, "ten"), joined(2, 10.0, 10**400), joined(3, 10.0, True)]
    watched.take_labelled(odd, ticks=1.0, at=None)


@pytest.mark.parametrize(
    ("said", "truth"),
    [("1", 1), ("1", True), ("true", True), ("true", 1), ("1", "1.0"), ("yes", "yes"), ("0", 0.0)],
)
def test_a_class_is_one_however_a_client_spells_it(said: Any, truth: Any) -> None:
    watched = watch(task="classification")
    watched.take_labelled([joined(1, said, truth)], ticks=1.0, at=None)
    assert watched.metrics()["accuracy"].value == 1.0


# Restarts.


def steps(watched: VersionWatch, start: int, stop: int) -> list[Reading]:
    """Ticks of everything, drifting from the fourth on."""
    readings: list[Reading] = []
    for seed in range(start, stop):
        drifted = seed > 2
        ticked = batch(seed, shift=8.0 * drifted, share=0.3 + 0.2 * drifted)
        readings += watched.take(ticked, ticks=0.7)
        rows = labelled(400, 0.25 if drifted else 0.05, seed, 400 * seed)
        rows += [joined(400 * seed, "yes", "no", old_label="yes")] if seed else []
        readings += watched.take_labelled(rows, ticks=0.3, at=float(seed))
    return readings


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4, 5])
def test_a_restart_at_any_tick_changes_nothing(tmp_path: Any, cut: int) -> None:
    of = reference(errors=np.arange(5_000) % 20 == 0)
    through = VersionWatch("v1", of, SETTINGS)
    expected = steps(through, 0, 6)
    assert {r.kind.value for r in expected} >= {"data_drift", "prediction_drift", "concept_drift"}
    before = VersionWatch("v1", of, SETTINGS)
    got = steps(before, 0, cut)
    snapshot = Snapshot(tmp_path / "snapshot.npz")
    snapshot.save(before.state(), now=1.0)
    loaded = snapshot.load()
    assert loaded is not None
    after = VersionWatch("v1", of, SETTINGS)
    after.restore(loaded[0])
    assert got + steps(after, cut, 6) == expected
    assert after.metrics() == through.metrics()
    assert after.data.evidence() == through.data.evidence()


def test_new_settings_hold_after_a_restart() -> None:
    before = watch()
    before.take(batch(1), ticks=1.0)
    settings = Settings(budget=Budget(false_alarms_per_month=9.0), effect={"psi": 0.3, "ks": 0.4})
    after = VersionWatch("v1", before.reference, settings)
    after.restore(before.state())
    assert after.data.effect == {"psi": 0.3, "ks": 0.4}
    assert after.data.evidence_threshold < before.data.evidence_threshold
    assert after.data.rows == 1_000


def test_the_state_of_another_reference_is_refused() -> None:
    other = VersionWatch("v1", reference(rows=4_000), SETTINGS)
    with pytest.raises(ValueError, match="another reference"):
        other.restore(watch().state())


def test_a_baseline_of_the_reference_is_what_errors_are_compared_with() -> None:
    of = reference(errors=np.arange(5_000) % 20 == 0)
    assert of.baseline == LabelledBaseline(rows=5_000, errors=250)
    part = VersionWatch("v1", of, SETTINGS).monitor.parts["error_rate"]
    assert isinstance(part, ErrorRate)
    rate = part.detector.baseline_rate
    assert rate == pytest.approx(0.05, abs=1e-3)


def test_groups_of_people_are_compared_with_labels_and_without() -> None:
    settings = Settings(fairness=(FairnessSettings(attribute="job", positive="yes", gap_max=0.1),))
    watched = VersionWatch("v1", reference(task="classification"), settings)
    watched.take(batch(1), ticks=1.0)
    assert set(watched.monitor.fairness()["job"]) == {"demographic_parity", "disparate_impact"}
    rng = np.random.default_rng(4)
    rows = [
        joined(n, "yes" if rng.random() < (0.9 if n % 2 else 0.4) else "no", "yes",
               groups={"job": "clerk" if n % 2 else "nurse"})
        for n in range(2_000)
    ]  # fmt: skip
    readings = watched.take_labelled(rows, ticks=1.0, at=1.0)
    found = {r.subject: r for r in readings if r.detector == "fairness"}
    assert set(found) >= {"job:equal_opportunity"}
    assert "outside the false-alarm budget" in found["job:equal_opportunity"].explain
    gap = watched.monitor.fairness()["job"]["equal_opportunity"]
    assert gap.lower < 0.5 < gap.upper


def test_a_policy_hears_of_estimates_only_while_labels_do_not_disagree() -> None:
    rng = np.random.default_rng(6)

    def rows(count: int, right: bool) -> tuple[Any, Any, Any]:
        score = rng.random(count)
        said = column(np.where(score > 0.5, "1", "0").tolist())
        truth = rng.random(count) < (score if right else 1 - score)
        return score, said, column(np.where(truth, "1", "0").tolist())

    score, said, true = rows(8_000, True)
    of = build_reference(
        {**columns(8_000, seed=7), "prediction": said, "score": score, "true": true},
        prediction="prediction",
        score="score",
        label="true",
        task="classification",
    )
    watched = VersionWatch("v1", of, SETTINGS)
    score, said, _ = rows(1_000, True)
    ticked = tick([f"{n}" for n in range(1_000)], columns=columns(1_000, 3), prediction=said)
    watched.take(replace(ticked, score=score), ticks=1.0)
    assert {quality.basis for quality in quality_of(watched)} == {"estimated"}
    score, said, true = rows(3_000, False)
    late = [
        joined(n, s, t, score=float(p))
        for n, (s, t, p) in enumerate(zip(said, true, score, strict=True))
    ]
    readings = watched.take_labelled(late, ticks=1.0, at=1.0)
    assert ("quality", "estimation") in {(r.kind.value, r.subject) for r in readings}
    assert {quality.basis for quality in quality_of(watched)} == {"realised"}


def test_quality_is_measured_as_it_is_asked_for_also_after_a_restart() -> None:
    asked = QualitySettings(window_rows=1_000, error_max=5.0, quantile=0.9)
    watched = VersionWatch("v1", reference(task="regression"), Settings(quality=asked))
    noise = np.random.default_rng(2).normal(size=600)
    rows = [joined(n, 1.0, 1.0 + float(e)) for n, e in enumerate(noise)]
    watched.take_labelled(rows, ticks=1.0, at=1.0)
    found = watched.metrics()
    assert {"pinball", "mae"} <= set(found)
    assert found["mae"].kind == "betting"
    other = VersionWatch("v1", watched.reference, Settings(quality=QualitySettings()))
    other.restore(watched.state())  # under another window it begins anew, and nothing else does
    assert other.metrics() == {}
    assert other.labelled_rows == 600


def test_a_model_of_three_classes_is_estimated_from_the_scores_of_all_of_them() -> None:
    rng = np.random.default_rng(8)
    names = np.array(["a", "b", "c"], dtype=object)

    def rows(count: int) -> tuple[Any, Any, Any]:
        scores = rng.dirichlet([1.0, 1.0, 1.0], count)
        truth = names[(rng.random(count)[:, None] > scores.cumsum(axis=1)).sum(axis=1).clip(0, 2)]
        return scores, names[scores.argmax(axis=1)], truth

    scores, said, true = rows(6_000)
    of = build_reference(
        {**columns(6_000, seed=7), "prediction": said, "score": scores, "true": true},
        prediction="prediction",
        score="score",
        label="true",
        task="classification",
    )
    watched = VersionWatch("v1", of, SETTINGS)
    scores, said, true = rows(1_000)
    ticked = tick([f"{n}" for n in range(1_000)], columns=columns(1_000, 3), prediction=said)
    full = replace(ticked, score=scores.max(axis=1), scores=scores)
    assert [r for r in watched.take(full, ticks=1.0) if r.state is not State.OK] == []
    estimated = watched.monitor.estimated()
    assert set(estimated) >= {"accuracy", "roc_auc", "log_loss"}
    assert estimated["accuracy"].value == pytest.approx(np.mean(said == true), abs=0.04)
    # Labels come with the score of the class that was said: what that means is learnt from them.
    late = [
        joined(n, s, t, score=float(p))
        for n, (s, t, p) in enumerate(zip(said, true, scores.max(axis=1), strict=True))
    ]
    watched.take_labelled(late, ticks=1.0, at=1.0)
    assert watched.monitor.concept_states()["calibration"] is State.INSUFFICIENT_DATA
    for seed in range(3):
        scores, said, true = rows(1_000)
        more = [
            joined(1_000 * (seed + 1) + n, s, t, score=float(p))
            for n, (s, t, p) in enumerate(zip(said, true, scores.max(axis=1), strict=True))
        ]
        assert watched.take_labelled(more, ticks=1.0, at=2.0) == []
    assert watched.monitor.concept_states()["calibration"] is State.OK


def test_classes_that_are_whole_numbers_are_watched_as_classes() -> None:
    """A prediction of 0 and 1 beside a score: the score must not take its place."""
    rng = np.random.default_rng(9)
    score = rng.random(6_000)
    of = build_reference(
        {**columns(6_000, seed=7), "said": (score > 0.5).astype(int), "p": score},
        prediction="said",
        score="p",
        task="classification",
    )
    fair = FairnessSettings(attribute="job", positive="1")
    watched = VersionWatch("v1", of, Settings(fairness=(fair,)))
    now = rng.random(1_000)
    said = column(np.where(now > 0.5, "1", "0").tolist())
    ticked = tick([f"{n}" for n in range(1_000)], columns=columns(1_000, 3), prediction=said)
    assert watched.take(replace(ticked, score=now), ticks=1.0) == []
    assert watched.monitor.fairness()["job"]["disparate_impact"].value > 0.5
    ones = column(["1"] * 1_000)
    readings = watched.take(replace(ticked, prediction=ones, score=now), ticks=1.0)
    assert {r.subject for r in readings if r.kind.value == "prediction_drift"} == {"said"}
