"""What is said about the data itself: when, in which words, and never without need."""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors import Change, Kind, Reference, State, build_reference
from detectors.data_quality.schema import NAMED_MAX, UNEXPECTED_MAX
from detectors.data_quality.watch import DataQuality
from detectors.rows.binning import Binner
from detectors.rows.columns import as_table

Columns = dict[str, NDArray[Any]]


def rows(n: int, rng: np.random.Generator) -> Columns:
    return {
        "x": rng.normal(size=n),
        "n": rng.poisson(3, n),
        "flag": rng.random(n) < 0.3,
        "city": rng.choice(np.array(["a", "b", "c", None], dtype=object), n),
    }


def reference(n: int = 20_000, seed: int = 0) -> Reference:
    rng = np.random.default_rng(seed)
    columns = rows(n, rng) | {"score": rng.random(n)}
    return build_reference(columns, prediction="score", kinds={"city": "categorical"})


REFERENCE = reference()


def watch(given_: Reference = REFERENCE, **options: Any) -> DataQuality:
    return DataQuality(given_, false_alarms_per_month=0.1, **options)


def said(quality: DataQuality, columns: Any, **options: Any) -> list[tuple[str, str, str]]:
    changes = quality.update(as_table(columns), **options)
    assert all(change.kind is Kind.DATA_QUALITY for change in changes)
    return [(change.detector, change.subject, change.state.value) for change in changes]


def test_unchanged_rows_say_nothing() -> None:
    rng = np.random.default_rng(1)
    quality = watch()
    assert [said(quality, rows(1_000, rng)) for _ in range(100)] == [[]] * 100


def test_counts_of_the_drift_detector_change_no_answer() -> None:
    rng = np.random.default_rng(2)
    counter = Binner([(profile.name, profile.bins) for profile in REFERENCE.features])
    with_counts, without = watch(), watch()
    answers = []
    for tick in range(20):
        columns = rows(500, rng)
        if tick > 5:
            columns["x"] = np.full(500, 0.25)
        if tick > 8:
            columns["city"][:100] = "new"
        counts = counter.count(columns, 500)
        answers.append(said(without, columns))
        assert said(with_counts, columns, counts=counts) == answers[-1]
    assert [answer for tick in answers for answer in tick] == [
        ("constant", "x", "warning"),
        ("new_category", "city", "warning"),
    ]


def test_a_stuck_feature_is_said_once_and_its_recovery_too() -> None:
    rng = np.random.default_rng(3)
    quality = watch()
    [change] = quality.update(as_table(rows(500, rng) | {"x": np.full(500, 1.5)}))
    assert change.explain == "x was 1.5 in all of 500 rows; in the reference it varied"
    assert change.evidence is not None
    assert change.evidence >= change.threshold
    assert said(quality, rows(500, rng) | {"x": np.full(500, 1.5)}) == []
    assert said(quality, rows(500, rng)) == [("constant", "x", "ok")]


def test_an_output_that_never_varies_is_told_from_a_feature() -> None:
    rng = np.random.default_rng(4)
    quality = watch()
    [change] = quality.update(as_table(rows(500, rng)), prediction=np.full(500, 0.7))
    assert (change.subject, change.scope.value) == ("score", "model")
    assert change.explain.startswith("the model's output does not vary: score was 0.7")


def test_a_column_without_any_value_is_no_run_of_a_value() -> None:
    rng = np.random.default_rng(5)
    empty = rows(400, rng) | {"x": np.full(400, np.nan), "city": np.full(400, None, dtype=object)}
    changes = watch().update(as_table(empty))
    assert [change.explain for change in changes] == [
        "city had no value in any of 400 rows",
        "x had no value in any of 400 rows",
    ]


def test_what_hardly_varied_in_the_reference_may_be_constant_for_long() -> None:
    rng = np.random.default_rng(6)
    rare = {"alarm": (rng.random(20_000) < 0.001), "x": rng.normal(size=20_000)}
    quality = watch(build_reference(rare))
    quiet = [
        said(quality, {"alarm": np.zeros(1_000, dtype=bool), "x": rng.normal(size=1_000)})
        for _ in range(5)
    ]
    assert quiet == [[]] * 5


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_runs_of_a_sticky_feature_stay_within_the_budget(share: float) -> None:
    # A two-state chain: runs are 20 times as long as those of independent rows. The budget is
    # spent in 1,000 ticks instead of a month, so that one alarm in all seeds is expected at most.
    alarms = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)

        def chain(n: int, rng: np.random.Generator = rng) -> NDArray[np.float64]:
            fresh = (rng.random(n) < share).astype(float)
            kept = np.where(rng.random(n) < 0.05, np.arange(n), 0)
            result: NDArray[np.float64] = fresh[np.maximum.accumulate(kept)]
            return result

        sticky = build_reference({"x": chain(50_000)}, tick_rows=100)
        quality = DataQuality(sticky, false_alarms_per_month=0.1, ticks_per_month=1_000)
        stream = chain(100_000)
        for start in range(0, 100_000, 100):
            changes = quality.update(as_table({"x": stream[start : start + 100]}))
            alarms += sum(change.state is State.WARNING for change in changes)
    assert alarms <= 2


def test_new_categories_are_named_only_after_twenty_rows_with_their_share() -> None:
    rng = np.random.default_rng(7)
    quality = watch()
    columns = rows(1_000, rng)
    columns["city"][:19] = "Atlantis"
    assert said(quality, columns) == []
    columns["city"][:30] = "Atlantis"
    [change] = quality.update(as_table(columns))
    assert change.explain.startswith("city: 2.")
    assert "'Atlantis' the most frequent of them (2." in change.explain
    names = quality.new_categories()["city"]
    assert [(name, count) for name, count, _ in names] == [("Atlantis", 49)]
    back = [said(quality, rows(1_000, rng)) for _ in range(8)]
    assert [change for tick in back for change in tick] == [("new_category", "city", "ok")]
    assert quality.new_categories() == {}


def test_a_sensitive_feature_has_no_category_named_nor_value_shown() -> None:
    rng = np.random.default_rng(8)
    hidden = build_reference(
        rows(20_000, rng), kinds={"city": "categorical"}, sensitive=("city", "x")
    )
    quality = watch(hidden)
    columns = rows(1_000, rng) | {"x": np.full(1_000, 1.25)}
    columns["city"][:100] = "Atlantis"
    changes = quality.update(as_table(columns))
    assert {change.detector for change in changes} == {"constant", "new_category"}
    kept = pickle.dumps(quality.state())
    assert not any("Atlantis" in change.explain or "1.25" in change.explain for change in changes)
    assert b"Atlantis" not in kept


def test_a_storm_of_new_categories_is_one_reading_and_bounded_state() -> None:
    rng = np.random.default_rng(9)
    quality = watch()
    heard = []
    for tick in range(30):
        columns = rows(10_000, rng)
        columns["city"] = np.array([f"storm {tick} {k}" * 40 for k in range(10_000)], dtype=object)
        heard += quality.update(as_table(columns))
    assert [change.detector for change in heard] == ["new_category"]
    assert "none of them in 20 rows so far" in heard[0].explain
    assert quality.new_categories() == {"city": []}
    assert len(pickle.dumps(quality.state())) < 20_000


def test_identifiers_that_are_always_new_are_expected_to_be_new() -> None:
    rng = np.random.default_rng(10)

    def column(first: int, n: int) -> NDArray[Any]:
        names = [f"id{first + k}" if rng.random() < 0.01 else "known" for k in range(n)]
        return np.array(names, dtype=object)

    quality = watch(build_reference({"key": column(0, 20_000)}, kinds={"key": "categorical"}))
    ticks = [said(quality, {"key": column(1_000_000 + 1_000 * t, 1_000)}) for t in range(100)]
    assert ticks == [[]] * 100


def test_a_missing_column_is_said_once_and_a_flapping_one_less_and_less() -> None:
    rng = np.random.default_rng(11)
    quality = watch()
    heard = []
    for tick in range(1_000):
        columns = rows(100, rng)
        if tick % 2:
            del columns["x"]
        heard += [answer for answer in said(quality, columns) if answer[0] == "schema"]
    assert heard == [("schema", "x", "warning"), ("schema", "x", "ok"), ("schema", "x", "warning")]


def test_other_order_of_columns_is_said_with_the_two_that_changed_places() -> None:
    rng = np.random.default_rng(12)
    quality = watch()
    columns = rows(200, rng)
    turned = {name: columns[name] for name in ("n", "x", "flag", "city")}
    [change] = quality.update(as_table(turned))
    assert (change.subject, change.state) == ("(order)", State.WARNING)
    assert "(n before x)" in change.explain
    assert quality.update(as_table(turned)) == []
    assert said(quality, columns) == [("schema", "(order)", "ok")]


def test_a_storm_of_columns_is_named_in_part_and_remembered_in_part() -> None:
    rng = np.random.default_rng(13)
    quality = watch()
    heard: list[Change] = []
    for tick in range(20):
        odd = {f"odd {tick} {k}": np.zeros(10) for k in range(5_000)}
        heard += quality.update(as_table(rows(10, rng) | odd))
    assert len(heard) == 2 * (NAMED_MAX + 1)  # they came, and those remembered went
    assert quality.schema.unexpected_total == 100_000
    assert len(quality.state()["schema"]["unexpected"]) <= UNEXPECTED_MAX + 1


def test_five_thousand_columns_that_go_and_come_are_two_times_a_few_readings() -> None:
    rng = np.random.default_rng(14)
    wide = build_reference({f"c{j}": rng.normal(size=60) for j in range(5_000)})
    quality = watch(wide)
    all_of_them = {f"c{j}": rng.normal(size=50) for j in range(5_000)}
    assert quality.update(as_table(all_of_them)) == []
    gone = quality.update(as_table({"c0": all_of_them["c0"]}))
    assert len(gone) == NAMED_MAX + 1
    assert gone[-1].explain == "4,979 more columns are in the same trouble"
    assert len(quality.update(as_table(all_of_them))) == NAMED_MAX + 1


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("x", ["1.5"] * 400, "numbers that come as text"),
        ("x", ["none of yours"] * 400, "text where the reference has numbers"),
        ("n", np.full(400, 1.5) + np.arange(400), "fractions where the reference has only"),
    ],
)
def test_a_change_of_type_is_said_and_taken_back(name: str, values: Any, words: str) -> None:
    rng = np.random.default_rng(15)
    typed = rows(20_000, rng)
    quality = watch(build_reference(typed, kinds={"city": "categorical"}))
    heard = quality.update(as_table(rows(400, rng) | {name: values}))
    [change] = [change for change in heard if change.detector == "types"]
    assert words in change.explain
    after = [said(quality, rows(400, rng)) for _ in range(20)]
    assert [a for tick in after for a in tick if a[0] == "types"] == [("types", name, "ok")]


def test_a_few_cells_of_another_type_are_no_news() -> None:
    rng = np.random.default_rng(16)
    quality = watch()
    for _ in range(100):
        assert said(quality, rows(1_000, rng), type_changes={"x": 0, "unknown": 5}) == []
    assert said(quality, rows(1_000, rng), type_changes={"x": 19}) == []
    assert said(quality, rows(1_000, rng), type_changes={"x": 19}) == [("types", "x", "warning")]


def test_silence_is_said_after_a_day_and_ended_by_rows() -> None:
    rng = np.random.default_rng(17)
    quality = watch()
    nothing = as_table({"x": np.empty(0)})
    heard = [quality.update(nothing) for _ in range(1_440)]
    assert [len(tick) for tick in heard] == [0] * 1_439 + [1]
    assert quality.update(nothing) == []
    assert said(quality, rows(10, rng)) == [("silence", "(rows)", "ok")]


def odd_column(kind: int, n: int, rng: np.random.Generator) -> Any:
    choices: list[Any] = [
        np.full(n, np.nan),
        np.full(n, np.inf),
        np.array([1e308, -1e308, 5e-324, 0.0] * (n // 4 + 1))[:n],
        np.array([None, "a", 1, b"b", 2.5, [1], {}, float("nan")] * n, dtype=object)[:n],
        np.array(["2026-01-01"] * n, dtype="datetime64[D]"),
        np.full(n, 1 + 2j),
        [10**400] * n,
        np.zeros((n, 2)),
        np.ma.masked_array(rng.normal(size=n), mask=rng.random(n) < 0.5),
        np.full(n, "text"),
        rng.normal(size=n),
    ]
    return choices[kind]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(
                st.sampled_from(["x", "n", "flag", "city", "score", "odd"]), st.integers(0, 10)
            ),
            st.sampled_from([0, 1, 2, 40, 300]),
        ),
        max_size=12,
    ),
    st.integers(0, 11),
)
def test_nothing_raises_and_a_restart_anywhere_changes_nothing(
    ticks: list[tuple[dict[str, int], int]], cut: int
) -> None:
    rng = np.random.default_rng(18)
    facts = {"duplicate_ratio": 0.0, "duplicate_spread": 0.0, "duplicate_blocks": 40.0}
    known = reference()
    object.__setattr__(known, "quality", facts)
    quality, restarted = watch(known), watch(known)
    for number, (kinds, n) in enumerate(ticks):
        if number == cut:
            state = pickle.loads(pickle.dumps(quality.state()))
            restarted = watch(known)
            restarted.restore(state)
        columns = {name: odd_column(kind, n, rng) for name, kind in kinds.items()}
        first = quality.update(as_table(columns))
        second = restarted.update(as_table(columns))
        assert repr(first) == repr(second)


def test_a_state_of_another_reference_is_refused() -> None:
    other = watch(build_reference({"x": np.arange(500.0)}))
    with pytest.raises(ValueError, match="expected"):
        watch().restore(other.state())
    with pytest.raises(ValueError, match="malformed"):
        watch().restore({})


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_budget_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        DataQuality(REFERENCE, false_alarms_per_month=budget)


def test_a_stuck_seasonal_feature_is_found_though_its_bins_change_with_the_hour() -> None:
    rng = np.random.default_rng(19)
    times: NDArray[np.float64] = np.arange(40_000, dtype=np.float64) * 216.0  # 100 days
    daily = 10 * np.sin(2 * np.pi * times / 86_400) + rng.normal(size=40_000)
    seasonal = build_reference({"x": daily}, timestamps=times, ordered=True)
    assert seasonal.features[0].phases
    counter = Binner([(profile.name, profile.bins) for profile in seasonal.features])
    stuck = {"x": np.full(400, 0.5)}
    counts = counter.count(stuck, 400, times[:400])
    assert counts.max() < 400  # the hours tell the same value apart
    heard = watch(seasonal).update(as_table(stuck), counts=counts)
    assert [(change.detector, change.subject) for change in heard] == [("constant", "x")]


def test_what_stands_is_told_by_detector_until_it_is_over() -> None:
    rng = np.random.default_rng(15)
    quality = watch()
    columns = rows(1_000, rng) | {"x": np.full(1_000, 1.25), "strange": np.ones(1_000)}
    columns["city"][:100] = "Atlantis"
    quality.update(as_table(columns))
    found = {"schema": ["strange"], "constant": ["x"], "new_category": ["city"]}
    assert quality.standing() == found
    restored = watch()
    restored.restore(quality.state())
    assert restored.standing() == found
    for _ in range(8):
        restored.update(as_table(rows(1_000, rng)))
    assert restored.standing() == {}
