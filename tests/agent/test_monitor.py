"""The pure middle: references learnt and shown, versions apart, restarts that change nothing."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.inference import Inference
from agent.labels import Joined
from agent.monitor import OTHERS, UNEXPECTED_MAX, VERSIONS_MAX, ModelMonitor, MonitorSettings
from agent.schema import SchemaSettings
from agent.state import Snapshot
from detectors import Reading, Reference, State

TICK_S = 30.0
SMALL = MonitorSettings(tick_rows=200, learn_rows=1_200, provisional_rows=400)


def monitor(settings: MonitorSettings = SMALL, **schema: Any) -> ModelMonitor:
    return ModelMonitor(settings, SchemaSettings(**schema), stable="v1")


def request(seed: int, *, count: int = 200, shift: float = 0.0, **changes: Any) -> Inference:
    """A request of `count` rows: age, income and job, and a class for each."""
    rng = np.random.default_rng(seed)
    cells = zip(
        rng.normal(40 + shift, 9, count).tolist(),
        rng.lognormal(8, 0.5, count).tolist(),
        rng.choice(["clerk", "nurse", "smith"], count, p=[0.5, 0.3, 0.2]).tolist(),
        strict=True,
    )
    said = np.where(rng.random(count) < 0.3 + shift / 50, "yes", "no").tolist()
    fields: dict[str, Any] = {
        "id": f"r-{seed}", "aliases": (), "at": 0.0, "version": "v1", "slot": "stable",
        "weight": 1.0, "uniform": True, "latency_s": 0.01, "names": ("age", "income", "job"),
        "rows": [list(row) for row in cells], "outputs": {"y": said},
    }  # fmt: skip
    return Inference(**(fields | changes))


def joined(number: int, wrong: bool, version: str = "v1") -> Joined:
    return Joined(
        id=f"l-{number}", row=0, prediction="yes", score=None, label="no" if wrong else "yes",
        version=version, slot="stable", weight=1.0, uniform=True, predicted_at=0.0, labelled_at=0.0,
    )  # fmt: skip


def labels(start: int, rows: int, share: float) -> list[Joined]:
    wrong = np.random.default_rng(start).random(rows) < share
    return [joined(start + n, bool(w)) for n, w in enumerate(wrong)]


def run(watching: ModelMonitor, seeds: Sequence[int], **changes: Any) -> list[Reading]:
    """One tick for each seed, TICK_S apart."""
    return [
        reading
        for seed in seeds
        for tick in watching.take(request(seed, **changes), seed * TICK_S)
        for reading in tick.readings
    ]


def learnt() -> ModelMonitor:
    watching = monitor()
    assert run(watching, range(6)) == []
    return watching


def reference_of(watching: ModelMonitor, version: str = "v1") -> Reference:
    found = watching.reference(version)
    assert found is not None
    return found


# Learning.


def test_the_first_rows_become_the_reference() -> None:
    watching = monitor()
    run(watching, range(5))
    assert watching.reference("v1") is None
    assert watching.learnt_rows == 1_000
    run(watching, [5])
    reference = reference_of(watching)
    assert (reference.rows, reference.learnt, reference.accepted) == (1_200, True, False)
    assert reference.feature_names == ("age", "income", "job")
    assert reference.prediction is not None
    assert (reference.prediction.kind, reference.task) == ("categorical", "classification")
    assert run(watching, range(6, 12)) == []
    assert {r.subject for r in run(watching, range(12, 16), shift=15)} >= {"age"}


def test_before_that_effects_are_shown_and_no_state_is_claimed() -> None:
    watching = monitor()
    run(watching, range(3))
    shown = watching.provisional
    assert shown is not None
    assert shown.provisional
    run(watching, [3], shift=20)
    effects = shown.data.effects(1_000)
    assert float(effects["age"]["psi"]) > 0.1
    assert {str(figures["state"]) for figures in effects.values()} == {"insufficient_data"}
    assert list(watching.findings) == []
    assert watching.watch("v1") is None  # nothing acts on it
    run(watching, [4, 5])
    watch = watching.watch("v1")
    assert watch is not None
    assert not watch.provisional


def test_a_candidate_teaches_nothing() -> None:
    watching = monitor()
    run(watching, range(20), version="v2", slot="candidate")
    assert (watching.learnt_rows, watching.reference("v2")) == (0, None)


def test_only_uniform_rows_teach() -> None:
    watching = monitor()
    run(watching, range(20), uniform=False)
    assert watching.learnt_rows == 0


def test_what_is_sensitive_stays_without_names_in_what_is_learnt() -> None:
    watching = monitor(sensitive=frozenset({"job"}))
    run(watching, range(6))
    [job] = [p for p in reference_of(watching).features if p.name == "job"]
    assert job.sensitive
    assert b"nurse" not in reference_of(watching).to_bytes()
    assert b"nurse" in reference_of(learnt()).to_bytes()


def test_a_feature_may_be_called_prediction() -> None:
    watching = monitor()
    run(watching, range(6), names=("prediction", "income", "job"))
    reference = reference_of(watching)
    assert reference.feature_names == ("prediction", "income", "job")
    assert reference.prediction is not None
    assert reference.prediction.name != "prediction"
    kinds = {r.kind.value for r in run(watching, range(6, 9), shift=20)}
    assert kinds >= {"data_drift", "prediction_drift"}


def test_acceptance_is_for_what_was_learnt_and_once() -> None:
    watching = monitor()
    assert watching.accept_reference() is None
    watching = learnt()
    digest = reference_of(watching).digest
    accepted = watching.accept_reference()
    assert accepted is not None
    assert (accepted.accepted, accepted.digest) == (True, digest)
    assert watching.accept_reference() is None
    watch = watching.watch("v1")
    assert watch is not None
    assert watch.reference.accepted
    again = monitor()
    again.restore(json_trip(watching))
    assert reference_of(again).accepted


# Labels.


def test_labels_need_no_reference() -> None:
    watching = monitor()
    run(watching, [0])
    watching.take_labelled(labels(0, 300, 0.1), 1.0)
    run(watching, [1, 2])
    assert watching.provisional is not None
    assert watching.provisional.metrics()["accuracy"].rows == 300
    watching.take_labelled(labels(300, 900, 0.1), 60.0)
    run(watching, range(3, 6))
    watch = watching.watch("v1")
    assert watch is not None
    assert watch.metrics()["accuracy"].rows == 1_200
    assert watch.concept_status is State.OK
    # Without a watch yet, labels of a tick that ends later make none.
    assert watching.take_labelled([joined(1, False, version="v0")], 61.0) == []


def test_more_errors_are_found_per_version() -> None:
    watching = learnt()
    run(watching, range(6, 8), version="v2", slot="candidate")
    watching.take_labelled(labels(0, 1_200, 0.1), 300.0)
    readings = watching.take_labelled(labels(2_000, 900, 0.4), 360.0)
    assert [(r.kind.value, r.version) for r in readings] == [("concept_drift", "v1")]
    other = watching.watch("v2")
    assert other is not None
    assert other.concept_status is State.INSUFFICIENT_DATA
    assert readings[0] in watching.findings


# Versions.


def test_versions_are_kept_apart() -> None:
    watching = learnt()
    found = run(watching, range(6, 10), version="v2", slot="candidate", shift=20)
    assert {reading.version for reading in found} == {"v2"}
    stable, other = watching.watch("v1"), watching.watch("v2")
    assert stable is not None
    assert other is not None
    assert State.DRIFT not in stable.data.states().values()
    assert State.DRIFT in other.data.states().values()


def test_a_promoted_version_brings_its_reference_and_starts_calm() -> None:
    watching = learnt()
    own = monitor()
    run(own, range(6), shift=20)
    run(watching, range(6, 10), version="v2", slot="candidate", shift=20)
    before = reference_of(watching)
    watching.install("v2", reference_of(own))
    watching.make_stable("v2")
    assert run(watching, range(10, 14), version="v2", shift=20) == []
    # And back again.
    watching.make_stable("v1")
    assert reference_of(watching).digest == before.digest
    watching.forget("v2")
    assert (watching.watch("v2"), reference_of(watching, "v2")) == (None, before)
    watching.forget("v1")
    assert watching.watch("v1") is not None


def test_a_promoted_version_without_a_reference_keeps_the_old_one() -> None:
    watching = learnt()
    digest = reference_of(watching).digest
    watching.make_stable("v2")
    watching.install("v1", None)
    assert reference_of(watching, "v2").digest == digest


def test_the_versions_that_are_remembered_have_a_limit() -> None:
    watching = learnt()
    for number in range(2, 30):
        run(watching, [number + 10], version=f"v{number}", slot="candidate")
        watching.install(f"w{number}", reference_of(watching))
    state = watching.state()
    for known in ("references", "watches", "last_tick_at", "last_labels_at"):
        assert len(state[known]) <= VERSIONS_MAX
    assert watching.watch("v1") is not None
    assert watching.watch("v29") is not None


def test_names_from_requests_are_counted_within_a_limit() -> None:
    watching = monitor(features=("age", "income", "job"))
    for number in range(1, 40):
        names = ("age", "income", "job", *(f"x{number}-{n}" for n in range(60)))
        rows = [[1.0, 2.0, "clerk", *[0.0] * 60]] * 200
        watching.take(request(number, names=names, rows=rows), 1.0)
    assert len(watching.unexpected) == UNEXPECTED_MAX + 1
    assert watching.unexpected[OTHERS] > 0
    assert sum(watching.unexpected.values()) == 39 * 60 * 200


# Odd input.


def test_missing_constant_and_new_categories() -> None:
    watching = learnt()
    rows = [[None, 5.0, "gig"]] * 200
    found = [r for n in range(6, 9) for r in run(watching, [n], rows=rows)]
    assert {(r.subject, r.state) for r in found if r.kind.value == "data_drift"} == {
        ("age", State.DRIFT), ("income", State.DRIFT), ("job", State.DRIFT),
    }  # fmt: skip
    # Only readings about the values themselves name one, and only after 20 rows.
    naming = [reading for reading in found if "gig" in json.dumps(reading.to_json())]
    assert {(r.subject, r.detector) for r in naming} == {
        ("job", "new_category"),
        ("job", "constant"),
    }


@pytest.mark.slow
def test_thousands_of_columns() -> None:
    settings_ = replace(SMALL, tick_rows=100, learn_rows=200, provisional_rows=10**6)
    watching = monitor(settings_)
    names = tuple(f"c{n}" for n in range(3_000))
    for seed in range(3):
        rows = np.random.default_rng(seed).normal(size=(100, 3_000))
        watching.take(request(seed, rows=rows, names=names, outputs={}), seed * 60.0)
    watch = watching.watch("v1")
    assert watch is not None
    assert (len(watch.data.names), watch.rows) == (3_000, 100)
    wider = np.zeros((100, 6_000))
    watching.take(request(9, rows=wider, names=None, outputs={}), 600.0)
    assert watching.watch("v1") is watch


def test_a_tick_is_its_share_of_the_budget() -> None:
    """Rows that come at once share the budget of the time since the tick before."""
    watching = learnt()
    [tick] = watching.take(request(6), 5 * TICK_S)  # no time has passed
    watch = watching.watch("v1")
    assert watch is not None
    assert max(watch.data.evidence().values()) < -200
    assert tick.readings == ()
    watching.take(request(7), 5 * TICK_S + 3_600)
    assert max(watch.data.evidence().values()) > -10


# Restarts.


def json_trip(watching: ModelMonitor) -> Any:
    """A snapshot's state, without the disk."""
    return watching.state()


def play(watching: ModelMonitor, start: int, stop: int) -> list[Any]:
    """Ticks of the stable version and a candidate, labels, drift from the tenth on."""
    said: list[Any] = []
    for n in range(start, stop):
        shift = 15.0 if n >= 10 else 0.0
        now = n * TICK_S
        said += [t.readings for t in watching.take(request(n, shift=shift), now)]
        if n >= 8:
            candidate = request(n + 100, version="v2", slot="candidate")
            said += [t.readings for t in watching.take(candidate, now + 1)]
        said.append(watching.take_labelled(labels(n * 1_000, 150, 0.4 if shift else 0.1), now + 2))
    return said


@settings(max_examples=8)
@given(cut=st.integers(6, 16))
def test_a_restart_at_any_tick_gives_the_same_readings(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    through = monitor()
    expected = play(through, 0, 16)
    assert {r.kind.value for r in through.findings} >= {"data_drift", "concept_drift"}
    before = monitor()
    got = play(before, 0, cut)
    snapshot = Snapshot(tmp_path_factory.mktemp("s") / "snapshot.npz")
    snapshot.save(before.state(), now=1.0)
    loaded = snapshot.load()
    assert loaded is not None
    after = monitor()
    after.restore(loaded[0])
    assert after.rows_since_start == 0
    assert got + play(after, cut, 16) == expected
    assert after.rows_total == through.rows_total
    assert [r.to_json() for r in after.findings] == [r.to_json() for r in through.findings]


def test_learning_goes_on_after_a_restart(tmp_path: Path) -> None:
    settings_ = replace(SMALL, learn_rows=4_000, provisional_rows=1_000)
    before = monitor(settings_)
    run(before, range(10))
    before.take_labelled(labels(0, 100, 0.1), 600.0)
    snapshot = Snapshot(tmp_path / "snapshot.npz")
    snapshot.save(before.state(), now=1.0)
    loaded = snapshot.load()
    assert loaded is not None
    after = monitor(settings_)
    after.restore(loaded[0])
    assert after.learnt_rows == 2_000
    assert after.provisional is not None
    assert after.provisional.metrics()["accuracy"].rows == 100
    run(after, range(10, 20))
    reference = reference_of(after)
    assert reference.rows == 4_000
    assert run(after, range(20, 30)) == []
    assert {r.subject for r in run(after, range(30, 34), shift=15)} >= {"age"}
    whole = monitor(settings_)
    run(whole, range(20))
    for one, other in zip(reference.features, reference_of(whole).features, strict=True):
        assert (one.name, one.kind, one.rows) == (other.name, other.kind, other.rows)
        assert (one.median == pytest.approx(other.median, rel=0.02)) or one.kind == "categorical"


def test_a_snapshot_that_cannot_be_used_changes_nothing() -> None:
    state = learnt().state()
    for broken in ("watches", "references", "findings", "schema", "rows_total"):
        watching = monitor()
        with pytest.raises((KeyError, TypeError, ValueError)):
            watching.restore({**state, broken: {"v1": {"wrong": 1}}})
        assert watching.rows_total == 0
        assert run(watching, range(6)) == []
        assert watching.reference("v1") is not None


def test_a_snapshot_of_another_reference_brings_no_evidence() -> None:
    saved = learnt()
    run(saved, range(6, 9), shift=20)
    state = saved.state()
    other = monitor()
    run(other, range(50, 56))
    state["references"] = other.state()["references"]
    watching = monitor()
    watching.restore(state)
    watch = watching.watch("v1")
    assert watch is not None
    assert watch.reference.digest == reference_of(other).digest
    assert watch.rows == 0


def test_a_day_without_rows_is_said_once_and_so_is_their_return() -> None:
    watching = learnt()
    began = 6 * TICK_S
    for minute in range(3 * 24 * 60):
        assert watching.advance(began + 60.0 * minute) == []
    [silent] = watching.findings
    assert (silent.kind.value, silent.detector, silent.state) == (
        "data_quality", "silence", State.WARNING,
    )  # fmt: skip
    assert silent.at is not None
    assert 24 * 3_600 <= silent.at - began < 24 * 3_600 + 300
    back = watching.take(request(6), began + 4 * 86_400.0)
    assert [r.state for tick in back for r in tick.readings if r.detector == "silence"] == [
        State.OK
    ]


def test_embeddings_are_learnt_and_a_turn_in_their_space_is_drift() -> None:
    watching = monitor()

    def embedded(seed: int, turned: bool = False) -> Inference:
        rng = np.random.default_rng(seed)
        centre = np.zeros(24)
        centre[1 if turned else 0] = 6.0
        points = (centre + rng.normal(size=(200, 24))).astype(np.float32)
        plain = request(seed)
        return replace(plain, at=seed * TICK_S, vectors={"embedding": points})

    def told(seeds: Sequence[int], turned: bool = False) -> list[Reading]:
        return [
            reading
            for seed in seeds
            for tick in watching.take(embedded(seed, turned), seed * TICK_S)
            for reading in tick.readings
        ]

    assert told(range(16)) == []
    assert "embedding.norm" in reference_of(watching).feature_names
    assert {reading.subject for reading in told(range(16, 20), turned=True)} >= {"embedding.cosine"}
