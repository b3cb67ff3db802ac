"""A monitor as its users see it: when it speaks, what it says, and what it never does."""

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors import DriftDetector, ProfileError, Reference, State, build_reference
from detectors.drift.export import LABELS

Columns = dict[str, NDArray[Any]]
RNG = np.random.default_rng(0)


def rows(n: int, rng: np.random.Generator, shift: float = 0.0) -> Columns:
    return {
        "x": rng.normal(shift, 1, n),
        "n": rng.poisson(3, n),
        "flag": rng.random(n) < 0.3,
        "city": rng.choice(np.array(["a", "b", "c", None], dtype=object), n),
    }


REFERENCE = build_reference(rows(20_000, RNG))


def said(monitor: DriftDetector, columns: Any) -> list[tuple[str, str]]:
    return [(reading.subject, reading.state.value) for reading in monitor.update(columns)]


def test_it_speaks_only_when_something_changes() -> None:
    rng = np.random.default_rng(1)
    monitor = DriftDetector(REFERENCE)
    assert [said(monitor, rows(1_000, rng)) for _ in range(20)] == [[]] * 20
    assert said(monitor, rows(1_000, rng, shift=1.0)) == [("x", "drift")]
    assert [said(monitor, rows(1_000, rng, shift=1.0)) for _ in range(20)] == [[]] * 20
    back = [said(monitor, rows(1_000, rng)) for _ in range(8)]
    assert [change for changes in back for change in changes] == [("x", "ok")]
    assert said(monitor, rows(1_000, rng, shift=1.0)) == [("x", "drift")]


def test_evidence_without_effect_is_a_warning_and_effect_makes_it_drift() -> None:
    rng = np.random.default_rng(2)
    monitor = DriftDetector(REFERENCE, effect={"psi": 0.2, "ks": 0.3})
    first = [change for _ in range(10) for change in said(monitor, rows(1_000, rng, shift=0.3))]
    assert first == [("x", "warning")]
    then = [change for _ in range(10) for change in said(monitor, rows(1_000, rng, shift=2.0))]
    assert then == [("x", "drift")]


def test_a_small_shift_that_stays_is_not_called_recovered() -> None:
    rng = np.random.default_rng(3)
    monitor = DriftDetector(REFERENCE)
    changes = [change for _ in range(60) for change in said(monitor, rows(1_000, rng, shift=0.12))]
    assert changes == [("x", "warning")]


def test_the_effect_is_that_of_the_rows_since_the_evidence_left_its_floor() -> None:
    rng = np.random.default_rng(4)
    monitor = DriftDetector(REFERENCE)
    for _ in range(50):
        monitor.update(rows(1_000, rng))
    (reading,) = monitor.update(rows(1_000, rng, shift=1.0), at=1_700_000_000.0)
    assert (reading.window.start, reading.window.end, reading.window.rows) == (
        50_000,
        51_000,
        1_000,
    )
    assert reading.effect is not None
    assert reading.effect.value > 0.5
    assert reading.evidence is not None
    assert reading.evidence > reading.threshold == monitor.evidence_threshold
    assert reading.reference == REFERENCE.digest
    assert reading.explain.startswith("x rose: median bin moved from ")
    assert reading.explain.endswith("over 1,000 rows since row 50,000")
    json.dumps(reading.to_json(), allow_nan=False)


def test_readings_say_in_words_what_moved() -> None:
    def explain(**changed: Any) -> str:
        monitor = DriftDetector(REFERENCE)
        (reading,) = monitor.update(rows(1_000, np.random.default_rng(5)) | changed)
        return reading.explain.split(";")[0]

    missing = np.where(
        np.arange(1_000) % 3 == 0, np.nan, np.random.default_rng(6).normal(size=1_000)
    )
    assert explain(x=missing) == "x: missing values went from 0.0% to 33.4%"
    storm = np.array([f"k{i}" for i in range(1_000)], dtype=object)
    assert explain(city=storm) == "city: unseen categories went from 0.0% to 100.0%"
    assert explain(n=np.full(1_000, 99)) == (
        "n: values outside the reference range went from 0.0% to 100.0%"
    )
    assert explain(flag=np.ones(1_000, dtype=bool)).startswith("flag rose: median bin moved from f")


def test_before_any_row_there_is_insufficient_data() -> None:
    monitor = DriftDetector(REFERENCE)
    assert monitor.update({name: column[:0] for name, column in rows(1, RNG).items()}) == []
    assert set(monitor.states().values()) == {State.INSUFFICIENT_DATA}
    monitor.update(rows(10, RNG))
    assert set(monitor.states().values()) == {State.OK}


def test_a_column_that_is_absent_malformed_or_new_counts_nothing_and_stops_no_other() -> None:
    rng = np.random.default_rng(7)
    monitor = DriftDetector(REFERENCE)
    odd = rows(1_000, rng, shift=2.0) | {"new": np.zeros(1_000), "n": np.zeros(3)}
    del odd["flag"]
    assert said(monitor, odd) == [("x", "drift")]
    seen = {name: int(counts.sum()) for name, counts in monitor.bin_counts().items()}
    assert seen == {"x": 1_000, "n": 0, "flag": 0, "city": 1_000}
    assert monitor.states()["flag"] is State.INSUFFICIENT_DATA
    assert said(monitor, rows(1_000, rng, shift=2.0)) == []
    assert monitor.states()["flag"] is State.OK


def test_it_watches_the_profiles_and_speaks_in_the_scope_that_it_is_given() -> None:
    rng = np.random.default_rng(8)
    projections = build_reference({"pc1": rng.normal(size=9_000)}).features
    monitor = DriftDetector(REFERENCE, profiles=projections, scope="multivariate")
    (reading,) = monitor.update({"pc1": rng.normal(1, 1, 1_000), "x": rng.normal(9, 1, 1_000)})
    assert (reading.scope, reading.subject, reading.kind) == ("multivariate", "pc1", "data_drift")
    again = DriftDetector.restore(REFERENCE, monitor.state(), profiles=projections)
    assert again.states() == {"pc1": State.DRIFT}
    assert again.scope is monitor.scope
    with pytest.raises(ProfileError, match="malformed"):
        DriftDetector.restore(REFERENCE, monitor.state())


def test_a_prediction_is_watched_by_itself_and_surprises_nobody() -> None:
    rng = np.random.default_rng(9)
    reference = build_reference(
        {"x": rng.normal(size=9_000), "score": rng.random(9_000)}, prediction="score"
    )
    features = DriftDetector(reference)
    predictions = DriftDetector(reference, kind="prediction_drift")
    drifted = {"x": rng.normal(size=1_000), "score": rng.random(1_000) ** 2}
    assert features.update(drifted) == []
    (reading,) = predictions.update(drifted)
    assert (reading.kind, reading.scope, reading.subject) == ("prediction_drift", "model", "score")
    with pytest.raises(ProfileError, match="no prediction"):
        DriftDetector(REFERENCE, kind="prediction_drift")


@given(
    seed=st.integers(0, 100),
    cut=st.integers(0, 12),
    shifts=st.lists(st.sampled_from([0.0, 0.0, 0.3, 1.0]), min_size=12, max_size=12),
)
def test_a_restart_changes_nothing(seed: int, cut: int, shifts: list[float]) -> None:
    rng = np.random.default_rng(seed)
    batches = [rows(500, rng, shift) for shift in shifts]
    batches[5].pop("n")
    one = DriftDetector(REFERENCE, version="v7", false_alarms_per_month=2.0)
    expected = [reading for batch in batches for reading in one.update(batch)]
    other = DriftDetector(REFERENCE, version="v7", false_alarms_per_month=2.0)
    found = [reading for batch in batches[:cut] for reading in other.update(batch)]
    saved = io.BytesIO()
    np.savez(saved, **other.state())
    saved.seek(0)
    other = DriftDetector.restore(Reference.from_bytes(REFERENCE.to_bytes()), np.load(saved))
    found += [reading for batch in batches[cut:] for reading in other.update(batch)]
    assert found == expected
    assert other.effects() == one.effects()
    assert other.evidence() == one.evidence()
    assert other.score_counters() == one.score_counters()


def test_state_of_another_reference_or_damaged_is_refused() -> None:
    state = DriftDetector(REFERENCE).state()
    with pytest.raises(ProfileError, match="of reference"):
        DriftDetector.restore(build_reference({"x": np.arange(9.0)}), state)
    with pytest.raises(ProfileError, match="malformed"):
        DriftDetector.restore(REFERENCE, {**state, "wealth": np.zeros(3)})
    with pytest.raises(ProfileError, match="malformed"):
        DriftDetector.restore(REFERENCE, {"options": state["options"]})


@given(
    ticks=st.floats(allow_nan=True, allow_infinity=True),
    values=st.lists(
        st.none() | st.floats() | st.text(max_size=3) | st.integers(), min_size=1, max_size=30
    ),
)
def test_no_content_raises_and_no_clock_jump_buys_evidence(ticks: float, values: list[Any]) -> None:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    monitor = DriftDetector(REFERENCE)
    for _ in range(3):
        monitor.update(dict.fromkeys(("x", "n", "flag", "city"), column), ticks=ticks)
    assert all(np.isfinite(value) for value in monitor.evidence().values())
    usual = DriftDetector(REFERENCE)
    usual.update(rows(100, np.random.default_rng(0)), ticks=1e9)
    assert max(usual.evidence().values()) <= 1.5


def test_constant_and_empty_reference_columns_are_ordinary() -> None:
    none = np.full(5_000, None, dtype=object)
    monitor = DriftDetector(build_reference({"constant": np.full(5_000, 3.0), "empty": none}))
    assert monitor.update({"constant": np.full(1_000, 3.0), "empty": none[:1_000]}) == []
    alive = {"constant": RNG.normal(size=1_000), "empty": RNG.normal(size=1_000)}
    assert sorted(said(monitor, alive)) == [("constant", "drift"), ("empty", "drift")]


def test_identifiers_that_are_always_new_do_not_drift() -> None:
    def ids(start: int, n: int) -> Columns:
        return {"id": np.array([f"u{start + i}" for i in range(n)], dtype=object)}

    for size in (800, 20_000):  # fewer and more than the table of categories holds
        monitor = DriftDetector(build_reference(ids(0, size)))
        assert [said(monitor, ids(10**6 + 500 * t, 500)) for t in range(20)] == [[]] * 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_five_thousand_columns_work_within_the_state_promised() -> None:
    rng = np.random.default_rng(10)
    names = [f"f{i}" for i in range(5_000)]
    reference = build_reference(dict(zip(names, rng.normal(size=(5_000, 600)), strict=True)))
    monitor = DriftDetector(reference)
    assert monitor.update(dict(zip(names, rng.normal(size=(5_000, 200)), strict=True))) == []
    shifted = rng.normal(size=(5_000, 200))
    shifted[77] += 2
    assert said(monitor, dict(zip(names, shifted, strict=True))) == [("f77", "drift")]
    kept = sum(array.nbytes for array in monitor.state().values())
    assert kept / 5_000 <= 2_500


def test_counts_are_exported_in_eight_fixed_bins_and_match_the_reference() -> None:
    monitor = DriftDetector(REFERENCE)
    monitor.update(rows(10_000, np.random.default_rng(11)))
    shares = monitor.export_reference()
    for name, counts in monitor.export_bins().items():
        assert tuple(counts) == tuple(shares[name]) == LABELS
        assert sum(counts.values()) == 10_000
        assert sum(shares[name].values()) == pytest.approx(1)
        for label in LABELS:
            assert counts[label] / 10_000 == pytest.approx(shares[name][label], abs=0.02)


def test_what_a_page_shows_adds_up() -> None:
    monitor = DriftDetector(REFERENCE)
    monitor.update(rows(2_000, np.random.default_rng(12)))
    for shown in monitor.distributions().values():
        assert len(shown["labels"]) == len(shown["reference"]) == len(shown["current"])
        assert sum(shown["current"]) == pytest.approx(1)
        assert all(shown["labels"])
    assert monitor.distributions()["flag"]["labels"][:2] == ["false", "true"]
    assert set(monitor.distributions()["city"]["labels"][:3]) == {"a", "b", "c"}
    effects = monitor.effects()["x"]
    assert effects["rows"] == 2_000
    assert effects["state"] == "ok"


def test_reset_forgets_latches_and_keeps_counters() -> None:
    rng = np.random.default_rng(13)
    monitor = DriftDetector(REFERENCE)
    monitor.update(rows(1_000, rng, shift=2.0))
    monitor.reset()
    assert monitor.states()["x"] is State.OK
    assert monitor.bin_counts()["x"].sum() == 1_000
    assert said(monitor, rows(1_000, rng, shift=2.0)) == [("x", "drift")]


@pytest.mark.parametrize(
    "options",
    [{"false_alarms_per_month": 0}, {"ticks_per_month": -1}, {"effect": {"w": 1}}, {"kind": "x"}],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        DriftDetector(REFERENCE, **options)
