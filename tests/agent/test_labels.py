"""Labels find their predictions, whichever comes first, once, and across any death of the agent."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import labels as labels_module
from agent.edge.capture import Capture
from agent.edge.counters import Counters
from agent.edge.settings import EdgeSettings
from agent.label_database import BUSY_WAIT_S
from agent.labels import Joined, Label, LabelStore
from agent.sampling import edge_keeps
from tests.agent.ticks import tick

NOW = 1_000.0
Open = Callable[..., LabelStore]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """`opened(rows_max=3)` is a store on the same file each time."""
    stores: list[LabelStore] = []

    def open_store(**changes: Any) -> LabelStore:
        limits: dict[str, Any] = {"ttl_s": 1_000.0, "pending_s": 100.0, "rows_max": 1_000}
        stores.append(LabelStore(tmp_path / "labels.db", **(limits | changes)))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Open) -> LabelStore:
    return opened()


def label(id: str, value: Any = "yes", row: int = 0, at: float | None = None) -> Label:
    return Label(request_id=id, row=row, label=value, at=at)


def outcome(store: LabelStore, given: Label, now: float = NOW) -> str:
    counts, _ = store.take([given], now)
    [name] = counts
    return name


def test_a_row_keeps_the_groups_it_belongs_to(opened: Open) -> None:
    store = opened(attributes=["sex", "absent"])
    cells = {"sex": np.array(["f", None, "m"], object), "age": np.array([1.0, 2.0, 3.0])}
    store.remember(tick(["a", "b", "c"], columns=cells), NOW)
    store.close()
    again = opened(attributes=["age"])  # asked for something else meanwhile
    again.remember(tick(["d"], columns={"age": np.array([40.0])}), NOW)
    _, joined = again.take([label(id) for id in "abcd"], NOW)
    assert [dict(row.groups) for row in joined] == [{"sex": "f"}, {}, {"sex": "m"}, {"age": "40"}]


def test_a_label_joins_its_row(store: LabelStore) -> None:
    ticked = tick(["a", "a", "b"], predictions=["yes", "no", "no"], weight=np.array([4.0] * 3))
    store.remember(ticked, NOW)
    counts, [joined] = store.take([label("a", "yes", row=1, at=150.0)], NOW)
    assert counts == {"joined": 1}
    assert joined == Joined(
        id="a", row=1, prediction="no", score=None, label="yes", version="v1", slot="stable",
        weight=4.0, uniform=True, predicted_at=100.0, labelled_at=150.0,
    )  # fmt: skip
    assert joined.delay_s == 50.0
    assert (store.rows, store.labelled_rows()) == (3, 1)


def test_the_same_label_again_has_no_effect(store: LabelStore) -> None:
    store.remember(tick(["a"]), NOW)
    assert outcome(store, label("a", 1)) == "joined"
    for same in (1, 1.0):
        counts, joined = store.take([label("a", same)], NOW)
        assert (dict(counts), joined) == ({"unchanged": 1}, [])
    assert store.labelled_rows() == 1


def test_another_label_is_a_correction_and_says_what_it_corrects(store: LabelStore) -> None:
    store.remember(tick(["a"]), NOW)
    store.take([label("a", "no")], NOW)
    counts, [joined] = store.take([label("a", "yes")], NOW)
    assert counts == {"corrected": 1}
    assert (joined.old_label, joined.label) == ("no", "yes")
    # True is not 1: a client that means a class by it says so.
    assert outcome(store, label("a", True)) == "corrected"
    assert outcome(store, label("a", 1)) == "corrected"


def test_a_label_that_comes_first_waits_for_its_prediction(store: LabelStore) -> None:
    assert outcome(store, label("a", "no", at=140.0)) == "pending"
    assert outcome(store, label("a", "yes", at=150.0)) == "pending"  # the later word counts
    [joined] = store.remember(tick(["b", "a"]), NOW + 5)
    assert (joined.id, joined.label, joined.labelled_at) == ("a", "yes", 150.0)
    assert outcome(store, label("a", "yes")) == "unchanged"
    assert store.outcomes == {"pending": 2, "joined": 1, "unchanged": 1}
    assert store.remember(tick(["c"]), NOW + 6) == []


def test_a_label_nobody_asks_for_is_unmatched_in_the_end(store: LabelStore) -> None:
    assert outcome(store, label("ghost")) == "pending"
    store.expire(NOW + 99)
    assert store.outcomes["unmatched"] == 0
    store.expire(NOW + 101)
    assert store.outcomes["unmatched"] == 1
    assert store.remember(tick(["ghost"]), NOW + 102) == []


def test_a_row_that_the_request_does_not_have_is_unmatched(store: LabelStore) -> None:
    store.remember(tick(["a", "a", "b"]), NOW)
    assert outcome(store, label("a", row=2)) == "unmatched"


def test_a_request_cut_by_the_end_of_a_tick_may_have_more_rows(store: LabelStore) -> None:
    store.remember(tick(["a", "b", "b"]), NOW)
    assert outcome(store, label("b", row=2)) == "pending"
    [joined] = store.remember(tick(["b"], row_numbers=np.array([2])), NOW)
    assert (joined.id, joined.row) == ("b", 2)


def test_a_label_past_its_time_is_late_and_changes_nothing(store: LabelStore) -> None:
    store.remember(tick(["a", "b"]), NOW)
    store.take([label("a", "no")], NOW)
    assert outcome(store, label("b", "no"), now=1_101.0) == "late"
    assert outcome(store, label("a", "yes"), now=1_101.0) == "late"
    assert outcome(store, label("a", "no"), now=1_101.0) == "unchanged"
    assert store.labelled_rows() == 1
    store.expire(1_349.0)
    assert store.rows == 2
    store.expire(1_351.0)  # a quarter of its life after its end it is forgotten
    assert (store.rows, store.labelled_rows()) == (0, 0)
    assert outcome(store, label("b"), now=1_352.0) == "pending"


def test_a_live_id_used_again_cannot_be_labelled(store: LabelStore) -> None:
    store.remember(tick(["a", "b"], at=[100.0, 101.0]), NOW)
    store.remember(tick(["c", "a", "a"], at=[150.0, 151.0, 151.0]), NOW)
    assert store.dropped == {"duplicate_id": 1}
    assert outcome(store, label("a")) == "unmatched"
    assert outcome(store, label("a", row=1)) == "unmatched"
    assert outcome(store, label("b")) == outcome(store, label("c")) == "joined"


def test_an_id_used_twice_within_a_tick_cannot_be_labelled(store: LabelStore) -> None:
    store.remember(tick(["a", "b", "a"], at=[100.0, 101.0, 102.0]), NOW)
    assert store.dropped == {"duplicate_id": 1}
    assert outcome(store, label("a")) == "unmatched"
    assert outcome(store, label("b")) == "joined"


def test_the_rest_of_a_duplicate_is_no_more_usable_than_its_start(store: LabelStore) -> None:
    store.remember(tick(["a"], at=1.0), NOW)
    store.remember(tick(["a", "a"], at=2.0), NOW)
    store.remember(tick(["a"], at=2.0, row_numbers=np.array([2])), NOW)
    assert outcome(store, label("a", row=2)) == "unmatched"


def test_any_id_of_an_exchange_will_do(store: LabelStore) -> None:
    outcome(store, label("trace-1", "no"))
    [early] = store.remember(tick(["a", "b"], aliases={"trace-1": "a", "body-2": "b"}), NOW)
    assert (early.id, early.label) == ("a", "no")
    assert outcome(store, label("body-2")) == "joined"
    assert outcome(store, label("b")) == "unchanged"


def test_an_alias_of_two_requests_means_neither(store: LabelStore) -> None:
    store.remember(tick(["a"], aliases={"1": "a"}), NOW)
    store.remember(tick(["b"], aliases={"1": "b"}), NOW)
    assert outcome(store, label("1")) == "unmatched"
    assert outcome(store, label("a")) == "joined"
    # A request's own id wins over what another is also called.
    store.remember(tick(["c", "d"], aliases={"c": "d"}), NOW)
    _, [joined] = store.take([label("c")], NOW)
    assert joined.id == "c"


def test_the_oldest_go_when_there_is_no_more_room(opened: Open) -> None:
    store = opened(rows_max=3)
    store.remember(tick(["a", "b"], at=1.0, aliases={"alias": "a"}), NOW)
    store.take([label("a")], NOW)
    store.remember(tick(["c", "d"], at=2.0), NOW)
    assert (store.rows, store.labelled_rows()) == (3, 0)
    assert store.dropped == {"prediction_evicted": 1}
    assert outcome(store, label("a")) == "pending"
    assert outcome(store, label("b")) == "joined"
    store.remember(tick(["e", "f", "g"], at=3.0), NOW)
    assert outcome(store, label("alias")) == "pending"  # forgotten with its request


def test_waiting_labels_have_a_limit_too(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "PENDING_MAX", 2)
    store = opened()
    store.take([label("a"), label("b"), label("c")], NOW)
    assert store.dropped == {"label_evicted": 1}
    assert store.outcomes == {"pending": 3, "unmatched": 1}
    assert {joined.id for joined in store.remember(tick(["a", "b", "c"]), NOW)} == {"b", "c"}


def test_letting_go_is_done_in_portions(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "EXPIRED_AT_ONCE_MAX", 2)
    store = opened()
    store.remember(tick(["a", "b", "c"]), NOW)
    assert store.expire(9_999.0) is True
    assert store.rows == 1
    assert store.expire(9_999.0) is False
    assert store.rows == 0


def test_rows_without_a_prediction_are_kept_as_such(store: LabelStore) -> None:
    assert store.remember(tick(["a"], prediction=None), NOW) == []
    assert store.rows == 0
    ticked = tick(["b", "c"], predictions=[1.5, float("nan")], score=np.array([0.5, np.nan]))
    store.remember(ticked, NOW)
    _, [b, c] = store.take([label("b", 2), label("c", 2)], NOW)
    assert (b.prediction, b.score) == (1.5, 0.5)
    assert (c.prediction, c.score) == (None, None)


# Sampling.


def test_what_was_not_sampled_is_said_to_be(opened: Open) -> None:
    store = opened(was_kept=lambda id: not id.startswith("out"))
    assert outcome(store, label("out-1")) == "not_sampled"
    assert outcome(store, label("in-1")) == "pending"
    assert store.remember(tick(["in-1"]), NOW)


def test_sampling_is_not_asked_about_ids_that_it_does_not_hash(opened: Open) -> None:
    store = opened(was_kept=lambda id: False)
    store.remember(tick(["a"]), NOW)  # it is here, whatever the hash of its name says
    assert outcome(store, label("b")) == "pending"
    assert outcome(store, label("c"), now=NOW + 101) == "not_sampled"


@given(
    id=st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True),
    rate=st.floats(0, 1),
    salt=st.binary(max_size=70),
)
def test_the_hash_agrees_with_the_edge(id: str, rate: float, salt: bytes) -> None:
    settings = EdgeSettings.of({"sampling_rate": rate, "sampling_salt": salt.hex()})
    capture = Capture(settings, Counters(()), outbox=None)  # type: ignore[arg-type]
    kept = capture.on and capture.begin(id.encode()) is not None
    assert edge_keeps(id, rate=rate, salt=salt) == kept


# Disks and deaths.


def test_what_is_on_disk_is_there_after_a_restart(opened: Open) -> None:
    first = opened()
    first.remember(tick(["a", "b"], aliases={"x": "a"}), NOW)
    first.take([label("b"), label("c")], NOW)
    first.close()
    second = opened()
    assert (second.rows, second.labelled_rows()) == (2, 1)
    assert outcome(second, label("x")) == "joined"
    assert [joined.id for joined in second.remember(tick(["c"]), NOW)] == ["c"]


WRITER = """
import sys
from pathlib import Path
from agent.labels import LabelStore
from tests.agent.ticks import tick
store = LabelStore(Path(sys.argv[1]), ttl_s=1e9, pending_s=1e9, rows_max=10**9)
number = 0
while True:
    store.remember(tick([f"{number}-{row}" for row in range(100)]), 1.0)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.real
def test_a_kill_costs_at_most_the_open_transaction(opened: Open, tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "labels.db")],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(30)]
    os.kill(writer.pid, signal.SIGKILL)
    told += [int(line) for line in writer.stdout.read().splitlines()]
    writer.wait()
    writer.stdout.close()
    store = opened(ttl_s=1e9)
    last = told[-1]
    counts, _ = store.take([label(f"{n}-{r}") for n in range(last + 1) for r in (0, 99)], NOW)
    assert counts == {"joined": 2 * (last + 1)}
    # The tick that was being written is there as a whole or not at all.
    assert store.rows in (100 * (last + 1), 100 * (last + 2))


@pytest.mark.parametrize("junk", [b"no database", b"", b"SQLite format 3\0" + b"\xff" * 5_000])
def test_a_damaged_file_is_set_aside(opened: Open, tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "labels.db").write_bytes(junk)
    store = opened()
    store.remember(tick(["a"]), NOW)
    assert outcome(store, label("a")) == "joined"
    if junk:
        assert store.dropped == {"store_unreadable": 1}
        assert (tmp_path / "labels.unreadable").read_bytes() == junk


def test_a_file_of_another_version_is_set_aside(opened: Open, tmp_path: Path) -> None:
    opened().close()
    with sqlite3.connect(tmp_path / "labels.db") as other:
        other.execute("PRAGMA user_version=99")
    other.close()
    assert opened().dropped == {"store_unreadable": 1}


def test_damage_that_shows_later_begins_anew(opened: Open, tmp_path: Path) -> None:
    first = opened()
    first.remember(tick([f"id-{n}" for n in range(500)]), NOW)
    index = first._database.number(
        "SELECT rootpage FROM sqlite_master WHERE name='predictions_key'"
    )
    first.close()
    with (tmp_path / "labels.db").open("r+b") as file:
        file.seek((index - 1) * 4_096)
        file.write(b"\xa5" * 4_096)
    store = opened()
    with pytest.raises(sqlite3.DatabaseError) as caught:
        store.remember(tick(["a"]), NOW)
    assert store.start_anew(caught.value)
    store.remember(tick(["a"]), NOW)
    assert (store.rows, store.dropped["store_unreadable"]) == (1, 1)
    assert not store.start_anew(sqlite3.OperationalError("database is locked"))


def test_a_lock_is_said_soon_and_nothing_is_counted_twice(opened: Open, tmp_path: Path) -> None:
    store = opened()
    store.remember(tick(["a"]), NOW)
    other = sqlite3.connect(tmp_path / "labels.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError):
        store.remember(tick(["b"]), NOW)
    with pytest.raises(sqlite3.OperationalError):
        store.take([label("a")], NOW)
    other.execute("COMMIT")
    other.close()
    assert BUSY_WAIT_S <= 1.0
    assert (store.rows, dict(store.outcomes)) == (1, {})
    store.remember(tick(["b"]), NOW)
    assert store.rows == 2
    assert outcome(store, label("a")) == "joined"


def test_a_full_disk_loses_the_call_and_nothing_else(opened: Open) -> None:
    store = opened()
    store.remember(tick(["a"]), NOW)
    pages = store._database.number("PRAGMA page_count")
    store._database.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.remember(tick([f"id-{n}" for n in range(2_000)]), NOW)
    assert store.rows == 1
    store._database.execute("PRAGMA max_page_count=100000")
    store.remember(tick(["b"]), NOW)
    assert store.rows == 2
    assert outcome(store, label("a")) == "joined"


def test_a_call_that_fails_in_the_end_has_counted_nothing(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.remember(tick(["a"]), NOW)

    def fail(*_: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(store, "_evict", fail)
        with pytest.raises(sqlite3.OperationalError):
            store.remember(tick(["b", "c"]), NOW)
        broken.setattr(store, "_bound_pending", fail)
        with pytest.raises(sqlite3.OperationalError):
            store.take([label("a"), label("ghost")], NOW)
    assert (store.rows, store.labelled_rows(), dict(store.outcomes)) == (1, 0, {})
    assert outcome(store, label("a")) == "joined"
    assert store.remember(tick(["b", "ghost"]), NOW) == []
    assert (store.rows, store.labelled_rows()) == (3, 1)


def test_another_thread_reads_beside_the_writer(store: LabelStore) -> None:
    store.remember(tick(["a", "a", "b", "c"], at=[1.0, 1.0, 2.0, 3.0]), NOW)
    store.take([label("a", 1, row=1), label("b", "no"), label("c", "no")], NOW)
    store.remember(tick(["c"], at=4.0), NOW)  # its label could be anybody's now
    with store.reader() as labels_of:
        assert labels_of(["a", "b", "c", "d"]) == {("a", 1): 1, ("b", 0): "no"}
        store.take([label("a", 0)], NOW)
        assert labels_of(["a"]) == {("a", 0): 0, ("a", 1): 1}


# Against a plain model.

IDS = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.lists(IDS, min_size=1, max_size=4, unique=True)),
        st.tuples(st.just("label"), st.tuples(IDS, st.sampled_from(["x", "y"]))),
    ),
    max_size=25,
)


@given(steps=STEPS)
def test_any_order_of_predictions_and_labels(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.db"
    store = LabelStore(path, ttl_s=1e6, pending_s=1e6, rows_max=100)
    known: dict[str, str | None] = {}
    twice: set[str] = set()
    waiting: dict[str, str] = {}
    for number, (what, given_) in enumerate(steps):
        if what == "tick":
            joined = store.remember(tick(given_, at=float(number)), NOW)
            fresh = [id for id in given_ if id not in known]
            twice |= {id for id in given_ if id in known}
            assert {j.id: j.label for j in joined} == {
                id: waiting.pop(id) for id in fresh if id in waiting
            }
            known |= dict.fromkeys(fresh) | {j.id: str(j.label) for j in joined}
            continue
        id, value = given_
        if id not in known:
            expected = "pending"
            waiting[id] = value
        elif id in twice:
            expected = "unmatched"
        elif known[id] is None:
            expected, known[id] = "joined", value
        else:
            expected = "unchanged" if known[id] == value else "corrected"
            known[id] = value
        assert outcome(store, label(id, value)) == expected
    assert store.rows == len(known)
    assert store.labelled_rows() == sum(value is not None for value in known.values())
    store.close()
