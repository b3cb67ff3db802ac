"""Labels are believed when their cohort is mature: once each, in order, across restarts and jumps
of the clock.
"""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.label_cohorts import COHORTS_LEARNT, DELAYS_MAX, DELAYS_MIN, JoinWatch, delay_step
from agent.label_database import SCHEMA
from agent.labels import Joined, Label, LabelStore
from detectors.reading import State
from tests.agent.ticks import tick

NOW = 10_000.0
DAY_S = 86_400.0
Open = Callable[..., LabelStore]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """`opened(maturity_s=3)` is a store on the same file each time."""
    stores: list[LabelStore] = []

    def open_store(**changes: Any) -> LabelStore:
        limits: dict[str, Any] = {"ttl_s": 30 * DAY_S, "pending_s": 100.0, "rows_max": 100_000}
        stores.append(LabelStore(tmp_path / "labels.db", **(limits | changes)))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def label(id: str, value: Any = "yes") -> Label:
    return Label(request_id=id, label=value)


def remember(store: LabelStore, made: dict[str, float], now: float = NOW) -> None:
    store.remember(tick(list(made), at=list(made.values())), now)


def ids(rows: list[Joined]) -> list[str]:
    return [row.id for row in rows]


def test_rows_wait_until_their_cohort_is_mature_and_come_in_their_order(opened: Open) -> None:
    store = opened(maturity_s=1_000.0)
    remember(store, {"a": NOW - 300, "b": NOW - 100, "c": NOW - 200})
    counts, joined = store.take([label("b"), label("a", "no")], NOW)
    assert (dict(counts), joined) == ({"joined": 2}, [])  # it is said at once, and used later
    assert store.ripe(NOW + 699) == []
    [first] = store.ripe(NOW + 700)
    assert (first.id, first.label, first.delay_s) == ("a", "no", 300.0)
    store.take([label("c")], NOW + 750)
    assert ids(store.ripe(NOW + 2_000)) == ["c", "b"]
    assert store.ripe(NOW + 3_000) == []


def test_a_label_of_a_mature_cohort_is_used_at_once(opened: Open) -> None:
    store = opened(maturity_s=1_000.0)
    remember(store, {"a": NOW - 1_000, "b": NOW - 999})
    _, joined = store.take([label("a"), label("b")], NOW)
    assert ids(joined) == ["a"]


def test_without_maturity_nothing_waits(opened: Open) -> None:
    store = opened(maturity_s=0.0)
    remember(store, {"a": NOW})
    _, joined = store.take([label("a")], NOW)
    assert ids(joined) == ["a"]
    assert store.ripe(NOW + DAY_S) == []


def test_a_correction_before_the_row_was_used_is_its_label(opened: Open) -> None:
    store = opened(maturity_s=1_000.0)
    remember(store, {"a": NOW})
    store.take([label("a", "no")], NOW)
    counts, joined = store.take([label("a", "yes")], NOW + 1)
    assert (dict(counts), joined) == ({"corrected": 1}, [])
    [row] = store.ripe(NOW + 1_000)
    assert (row.label, row.old_label) == ("yes", None)
    counts, [after] = store.take([label("a", "no")], NOW + 1_001)
    assert (after.label, after.old_label) == ("no", "yes")


def test_what_waits_is_there_after_a_restart(opened: Open) -> None:
    store = opened(maturity_s=1_000.0)
    remember(store, {"a": NOW, "b": NOW + 1})
    store.take([label("a"), label("b")], NOW + 2)
    assert ids(store.ripe(NOW + 1_000)) == ["a"]
    store.close()
    assert ids(opened(maturity_s=1_000.0).ripe(NOW + 1_001)) == ["b"]


def test_a_label_that_came_first_waits_for_its_cohort_too(opened: Open) -> None:
    store = opened(maturity_s=1_000.0)
    store.take([label("a")], NOW)
    assert store.remember(tick(["a"], at=[NOW + 1]), NOW + 2) == []
    assert ids(store.ripe(NOW + 1_001)) == ["a"]


def test_a_clock_that_jumps_loses_no_label(opened: Open) -> None:
    store = opened(maturity_s=1_000.0)
    remember(store, {"a": NOW, "late": NOW + 1}, NOW + 1)
    store.take([label("a"), label("late")], NOW + 2)
    # Back by a day: when these would be mature nobody can say.
    assert ids(store.ripe(NOW - DAY_S)) == ["a", "late"]
    remember(store, {"ahead": NOW + 20 * 365 * DAY_S}, NOW)
    _, joined = store.take([label("ahead")], NOW + 5)
    assert ids(joined) == ["ahead"]
    store.look(NOW + 20 * 365 * DAY_S)
    store.look(NOW)


def test_the_cut_off_is_learnt_from_what_labels_take(opened: Open) -> None:
    store = opened(maturity_s=None)
    rng = np.random.default_rng(1)
    delays = rng.exponential(3_600.0, 2 * DELAYS_MIN)
    for number, delay in enumerate(delays.tolist()):
        remember(store, {f"r{number}": NOW}, NOW)
        store.take([label(f"r{number}")], NOW + delay)
        if number == DELAYS_MIN - 2:
            assert store.cohorts.maturity_s == 0.0  # too few to say
    learnt = store.cohorts.maturity_s
    assert learnt == pytest.approx(float(np.quantile(delays, 0.99)), rel=0.12)
    store.close()
    assert opened(maturity_s=None).cohorts.maturity_s == pytest.approx(learnt)


def test_labels_that_come_at_once_are_not_waited_for(opened: Open) -> None:
    store = opened(maturity_s=None)
    for number in range(DELAYS_MIN + 5):
        remember(store, {f"r{number}": NOW}, NOW)
        _, joined = store.take([label(f"r{number}")], NOW + 20)
        assert len(joined) == 1
    assert store.cohorts.maturity_s == 0.0


def test_cohorts_are_never_waited_for_until_their_rows_are_gone(opened: Open) -> None:
    assert opened(ttl_s=1_000.0, maturity_s=1e9).cohorts.maturity_s == 900.0


def test_delays_have_a_memory(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(maturity_s=None)
    store.cohorts._delays = {delay_step(100.0): float(DELAYS_MAX), delay_step(1e9): 1.0}
    store.look(NOW)
    assert sum(store.cohorts._delays.values()) == DELAYS_MAX / 2 + 0.5
    store.look(NOW)
    assert delay_step(1e9) in store.cohorts._delays


def test_the_share_of_rows_that_get_a_label_is_that_of_mature_cohorts(opened: Open) -> None:
    store = opened(maturity_s=3_600.0, ttl_s=DAY_S)
    start = 100 * DAY_S
    remember(store, {f"old{n}": start + n for n in range(10)}, start + 10)
    remember(store, {f"new{n}": start + 7_000 + n for n in range(10)}, start + 7_010)
    store.take([label(f"old{n}") for n in range(8)], start + 100)
    store.look(start + 7_100)
    assert store.cohorts.join_ratio == 0.8


def test_rows_that_get_no_label_any_more_are_said_to() -> None:
    rng = np.random.default_rng(3)
    watch = JoinWatch(None)
    assert watch.state is State.INSUFFICIENT_DATA
    for _ in range(COHORTS_LEARNT + 200):
        # Cohorts differ among themselves by more than chance: labels come in batches.
        share = rng.beta(90, 10)
        assert watch.take(500, int(rng.binomial(500, share))) == []
    watch = JoinWatch(watch.saved())
    said = [change for _ in range(20) for change in watch.take(500, 250)]
    assert [change.state.value for change in said][:1] == ["drift"]
    assert said[0].subject == "label_join"
    assert "without a label in time rose" in said[0].explain


def test_labels_that_come_as_they_always_did_say_nothing_of_themselves(opened: Open) -> None:
    """Sixty days, a file of labels four times a day; wrong answers are known first."""
    store, rng = opened(ttl_s=40 * DAY_S, maturity_s=None), np.random.default_rng(7)
    waiting: list[tuple[float, str, str]] = []
    said, handed, made = [], [], 0
    for hour in range(60 * 24):
        now = hour * 3_600.0
        remember(store, {f"r{made + n}": now + n for n in range(30)}, now + 60)
        for n in range(30):
            wrong = rng.random() < 0.1
            days = rng.exponential(0.5 if wrong else 3.0)
            waiting.append((now + days * DAY_S, f"r{made + n}", "no" if wrong else "yes"))
        made += 30
        if hour % 6 == 0:
            come = sorted(entry for entry in waiting if entry[0] <= now)
            waiting = [entry for entry in waiting if entry[0] > now]
            given = [label(id, value) for _, id, value in come]
            handed += [(now, row) for row in store.take(given, now + 61)[1]]
        handed += [(now, row) for row in store.ripe(now + 62)]
        said += store.look(now + 63)
    assert said == []
    assert store.cohorts.join_state is State.OK
    assert 11 * DAY_S < store.cohorts.maturity_s < 16 * DAY_S
    assert store.cohorts.join_ratio is not None
    assert store.cohorts.join_ratio > 0.98
    late = [row.label == "no" for at, row in handed if at > 20 * DAY_S]
    assert np.mean(late) == pytest.approx(0.1, abs=0.01)


def test_a_batch_of_labels_is_not_a_row_of_equal_delays(opened: Open) -> None:
    store = opened(maturity_s=None)
    made = {f"r{n}": NOW - 100.0 * n for n in range(400)}
    remember(store, made)
    store.take([label(id) for id in made], NOW)
    fresh = list(store.cohorts._fresh)
    assert len(fresh) == 400
    assert abs(np.mean(fresh[:100]) - np.mean(fresh[-100:])) < 1.0
    assert store.cohorts.as_json()["waiting"] == 0


def test_a_file_of_the_version_before_is_brought_along(opened: Open, tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "labels.db")
    added = ",\n    told INTEGER NOT NULL DEFAULT 1,\n    groups TEXT\n"
    before = SCHEMA.replace(added, "\n")
    assert before != SCHEMA
    old.executescript(f"BEGIN; {before} PRAGMA user_version=2; COMMIT")
    old.execute(
        "INSERT INTO predictions (key, row, id, at, version, slot, prediction, weight, uniform,"
        " label, labelled_at) VALUES (1, 0, 'a', 5.0, 'v1', 'stable', '1', 1.0, 1, '1', 6.0)"
    )
    old.execute("INSERT INTO counts VALUES ('rows', 1), ('labelled', 1)")
    old.commit()
    old.close()
    store = opened(maturity_s=1_000.0)
    assert (store.rows, store.labelled_rows(), dict(store.dropped)) == (1, 1, {})
    assert store.ripe(1e12) == []  # what is in it was used long ago
    remember(store, {"b": NOW})
    store.take([label("b")], NOW)
    assert ids(store.ripe(NOW + 1_000)) == ["b"]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["made", "label", "ripe", "restart"]), st.integers(0, 9)),
        max_size=60,
    ),
    jumps=st.lists(st.floats(-5_000, 20_000), min_size=60, max_size=60),
)
def test_every_labelled_row_is_handed_on_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], jumps: list[float]
) -> None:
    path = tmp_path_factory.mktemp("cohorts") / "labels.db"

    def fresh() -> LabelStore:
        return LabelStore(path, ttl_s=1e9, pending_s=1e9, rows_max=10_000, maturity_s=3_000.0)

    store, now = fresh(), 1e6
    made: set[str] = set()
    labelled: set[str] = set()
    handed: list[str] = []
    for (what, number), jump in zip(steps, jumps, strict=False):
        now = max(now + jump, 0.0)
        name = f"r{number}"
        if what == "made" and name not in made:
            handed += ids(store.remember(tick([name], at=[now]), now))
            made.add(name)
        elif what == "label":
            handed += ids(store.take([label(name)], now)[1])
            labelled.add(name)
        elif what == "ripe":
            store.look(now)
            handed += ids(store.ripe(now))
        elif what == "restart":
            store.close()
            store = fresh()
    handed += ids(store.ripe(now + 1e8))
    assert sorted(handed) == sorted(made & labelled)
    store.close()
