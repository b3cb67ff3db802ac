"""Exchanges and labels in, readings out; nothing that comes in, and no disk, stops it."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from agent.concept_child import AdwinChange
from agent.config import Config
from agent.config.serving import SamplingConfig
from agent.exchange import Exchange
from agent.intake import DELAY_BOUNDS_S, EXPIRE_EVERY_S, Intake, monitor_settings, schema_settings
from agent.labels import Joined, Label, LabelStore
from agent.monitor import Tick
from agent.sampling import Strategies, edge_keeps
from detectors import Reading, Reference, build_reference
from detectors.reading import Change, Kind, Scope, State


class House:
    """An intake, its clock, and what its callbacks were told."""

    def __init__(self, store: LabelStore, config: Config, reference: Reference | None) -> None:
        self.now = 1_000.0
        self.ticks: list[Tick] = []
        self.joined: list[Joined] = []
        self.readings: list[Reading] = []
        self.intake = Intake(
            config,
            stable="v1",
            reference=reference,
            labels=store,
            on_tick=self.ticks.append,
            on_labelled=self._labelled,
            clock=lambda: self.now,
        )

    def _labelled(self, joined: Sequence[Joined], readings: Sequence[Reading]) -> None:
        self.joined += joined
        self.readings += readings

    def predict(self, id: str, rows: Any, said: Any, **changes: Any) -> None:
        self.intake.take(exchange(id, {"instances": rows}, {"predictions": said}, **changes))


def exchange(id: str, asked: Any, said: Any, **changes: Any) -> Exchange:
    fields: dict[str, Any] = {
        "id": id, "minted": False, "id_from": "x-request-id", "source": "proxy", "version": "v1",
        "slot": "stable", "method": "POST", "path": "/v1/models/m:predict", "query": "",
        "request_headers": {"content-type": "application/json"},
        "request_body": asked if isinstance(asked, bytes) else orjson.dumps(asked),
        "request_truncated": False, "status": 200,
        "response_headers": {"content-type": "application/json"},
        "response_body": said if isinstance(said, bytes) else orjson.dumps(said),
        "response_truncated": False, "started_at": 990.0, "first_byte_s": 0.01,
        "duration_s": 0.02, "outcome": "ok", "weight": 1.0,
    }  # fmt: skip
    return Exchange(**(fields | changes))


def configured(**sections: Any) -> Config:
    """Ticks of ten rows, and a reference of forty."""
    given = {
        "sources": [{"upstream": "http://127.0.0.1:1"}],
        "detect": {"tick_rows": 10},
        "reference": {"learn_rows": 40, "provisional_rows": 20},
    }
    return Config.model_validate(given | sections)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    stores: list[LabelStore] = []

    def build(
        reference: Reference | None = None, maturity_s: float = 0.0, **sections: Any
    ) -> House:
        limits: dict[str, Any] = {"ttl_s": 1e4, "pending_s": 100.0, "rows_max": 1_000}
        stores.append(LabelStore(tmp_path / "labels.db", maturity_s=maturity_s, **limits))
        return House(stores[-1], configured(**sections), reference)

    yield build
    for store in stores:
        store.close()


Build = Callable[..., House]


def test_exchanges_become_ticks_and_labels_join_them(house: Build) -> None:
    it = house()
    for number in range(5):
        it.predict(f"r-{number}", [[1.0, 2.0], [3.0, 4.0]], ["yes", "no"])
    assert [tick.batch.rows for tick in it.ticks] == [10]
    given = [
        Label(request_id="r-0", row=0, label="yes"),
        Label(request_id="r-0", row=1, label="yes"),
    ]
    assert it.intake.take_labels(given) == {"joined": 2}
    assert [(row.prediction, row.label) for row in it.joined] == [("yes", "yes"), ("no", "yes")]
    assert it.intake.delays.counts == [0, 1 + 1, *[0] * (len(DELAY_BOUNDS_S) - 1)]  # ten seconds
    assert it.intake.delays.sum_s == 20.0
    assert it.intake.take_labels(given) == {"unchanged": 2}
    assert it.intake.delays.sum_s == 20.0


def test_labels_are_used_when_their_cohort_is_mature(house: Build) -> None:
    it = house(maturity_s=500.0)
    for number in range(10):
        it.predict(f"r-{number}", [[1.0]], ["yes"], started_at=990.0 - number)
    given = [Label(request_id=f"r-{number}", label="yes") for number in range(10)]
    assert it.intake.take_labels(given) == {"joined": 10}
    it.now = 1_485.0
    it.intake.advance()
    assert [row.id for row in it.joined] == ["r-9", "r-8", "r-7", "r-6", "r-5"]
    it.now = 1_500.0
    it.intake.advance()
    assert [row.id for row in it.joined][5:] == ["r-4", "r-3", "r-2", "r-1", "r-0"]
    assert sum(it.intake.delays.counts) == 10


def test_rows_that_get_no_label_any_more_are_a_reading(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = house()
    for number in range(50):
        it.predict(f"r-{number}", [[1.0]], ["yes"])
    change = Change(
        kind=Kind.DATA_QUALITY, scope=Scope.MODEL, subject="label_join", detector="bernoulli",
        state=State.DRIFT, statistic=1.0, threshold=0.0, rows=5, explain="fewer",
    )  # fmt: skip
    monkeypatch.setattr(it.intake.labels, "look", lambda now: [change])
    it.now += 61
    it.intake.advance()
    [reading] = [r for r in it.readings if r.subject == "label_join"]
    assert (reading.version, reading.at) == ("v1", it.now)
    assert reading in it.intake.monitor.findings


def test_a_label_that_came_first_joins_when_the_tick_ends(house: Build) -> None:
    it = house()
    it.predict("r-0", [[1.0]], ["yes"])
    assert it.intake.take_labels([Label(request_id="r-0", label="no")]) == {"pending": 1}
    assert it.joined == []
    it.now += 61
    it.intake.advance()
    assert [row.id for row in it.joined] == ["r-0"]
    assert it.intake.labels.outcomes["joined"] == 1


def test_what_waited_too_long_goes_now_and_then(house: Build) -> None:
    it = house()
    it.intake.advance()
    it.intake.take_labels([Label(request_id="ghost", label=1)])
    it.now += EXPIRE_EVERY_S
    it.intake.advance()
    assert it.intake.labels.outcomes["unmatched"] == 0
    it.now += EXPIRE_EVERY_S
    it.intake.advance()
    assert it.intake.labels.outcomes["unmatched"] == 1


def test_a_flush_closes_what_is_open(house: Build) -> None:
    it = house()
    it.predict("r-0", [[1.0]], ["yes"])
    it.intake.flush()
    assert [tick.batch.ids for tick in it.ticks] == [("r-0",)]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"[]", b"null", b'{"instances": []}', b'{"instances": [[1], [1, 2]]}',
        b'{"instances": [[NaN]]}', b'{"instances": [["\\ud800"]]}', b"\xff\xfe", b"[" * 50_000,
        orjson.dumps({"instances": [[0.0] * 10_000]}),
    ],
)  # fmt: skip
def test_nothing_that_comes_in_stops_it(house: Build, body: bytes) -> None:
    it = house()
    it.intake.take(exchange("bad", body, {"predictions": ["yes"]}))
    it.intake.take(exchange("bad", {"instances": [[1.0]]}, body))
    it.intake.take(exchange("cut", {"instances": [[1.0]]}, b'{"pred', response_truncated=True))
    for number in range(10):
        it.predict(f"r-{number}", [[1.0]], ["yes"])
    it.intake.flush()
    assert sum(tick.batch.rows for tick in it.ticks) >= 10
    assert len(it.intake.last_errors) >= 1
    assert it.intake.dropped == {}


def test_a_fault_of_ours_costs_one_exchange(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    it = house()
    with monkeypatch.context() as broken:
        broken.setattr(it.intake.decoding, "decode", lambda _: 1 / 0)
        it.predict("r-0", [[1.0]], ["yes"])
    it.predict("r-1", [[1.0]], ["yes"])
    it.intake.flush()
    assert it.intake.dropped == {"intake_failed": 1}
    assert [tick.batch.ids for tick in it.ticks] == [("r-1",)]


def test_a_disk_that_refuses_costs_labels_and_not_the_watching(
    house: Build, tmp_path: Path
) -> None:
    it = house()
    other = sqlite3.connect(tmp_path / "labels.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for number in range(10):
        it.predict(f"r-{number}", [[1.0]], ["yes"])
    assert [tick.batch.rows for tick in it.ticks] == [10]
    assert it.intake.take_labels([Label(request_id="r-0", label="yes")]) is None
    assert it.intake.dropped == {"label_store": 2}
    other.execute("ROLLBACK")
    other.close()
    assert it.intake.take_labels([Label(request_id="r-0", label="yes")]) == {"pending": 1}


def test_a_label_store_that_turns_out_to_be_damaged_is_replaced(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = house()

    def damaged(*_: Any) -> Any:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(it.intake.labels, "take", damaged)
        assert it.intake.take_labels([Label(request_id="a", label=1)]) is None
    assert it.intake.labels.dropped == {"store_unreadable": 1}
    assert it.intake.take_labels([Label(request_id="a", label=1)]) == {"pending": 1}


# What configuration and reference say of the columns.


def reference() -> Reference:
    rows = np.arange(600)
    return build_reference(
        {"age": rows % 70, "job": np.where(rows % 2, "nurse", "clerk"), "y": rows % 2},
        prediction="y",
        sensitive=["job"],
        task="classification",
    )


def test_a_reference_says_what_the_columns_are(house: Build) -> None:
    given = schema_settings(configured(), reference())
    assert (given.features, given.target) == (("age", "job"), "class")
    assert given.kinds == {"age": "numeric", "job": "categorical"}
    assert given.sensitive == {"job"}
    it = house(reference())
    assert it.intake.monitor.reference("v1") == reference()


def test_configuration_wins_and_adds_to_what_is_sensitive() -> None:
    schema = {
        "features": [
            {"name": "job", "kind": "boolean"},
            {"name": "pay", "kind": "numeric", "sensitive": True},
        ],
        "task": "regression",
    }
    given = schema_settings(configured(schema=schema), reference())
    assert (given.features, given.target) == (("job", "pay"), "number")
    assert given.kinds["job"] == "boolean"
    assert given.sensitive == {"job", "pay"}


def test_the_budget_is_configured() -> None:
    config = configured(detect={"tick_rows": 7, "replicas": 4, "effect": {"psi": 0.3}})
    made = monitor_settings(config)
    assert (made.tick_rows, made.learn_rows, made.provisional_rows) == (7, 40, 20)
    assert made.watch.effect == {"psi": 0.3, "ks": 0.1}
    assert made.watch.budget.of("data") == 0.125


def test_a_second_opinion_on_concept_drift_joins_the_readings(house: Build) -> None:
    it = house(reference())
    fed: list[tuple[str, bytes]] = []
    it.intake.feed_concept = lambda version, bits: fed.append((version, bits))
    for number in range(10):
        it.predict(f"r-{number}", [[1.0, "nurse"]], ["yes"])
    it.intake.take_labels(
        [Label(request_id=f"r-{n}", label="no" if n else "yes") for n in range(3)]
    )
    assert fed == [("v1", b"\0\1\1")]
    change = AdwinChange(version="v1", state="drift", before=0.1, after=0.3, rows=2, seen=3)
    it.intake.take_concept_change(change)
    [reading] = it.readings
    assert (reading.detector, reading.row, reading.at) == ("adwin", 3, it.now)
    assert list(it.intake.monitor.findings)[-1] == reading
    it.intake.take_concept_change(change)  # the same state again is no news
    it.intake.take_concept_change(replace(change, version="gone"))
    assert len(it.readings) == 1


def test_rules_choose_among_what_was_decoded_and_evidence_does_not_hear_of_it(
    house: Build,
) -> None:
    it = house(reference(), detect={"tick_rows": 10_000})
    config = SamplingConfig.model_validate(
        {
            "rate": 0.25,
            "errors": True,
            "classes": [{"prediction": "yes", "rate": 1.0}],
            "segments": [{"feature": "job", "value": "clerk", "rate": 0.5}],
        }
    )
    sampler = it.intake.sampler
    sampler.ask_for(Strategies.of(config), scale=1.0)
    for number in range(400):
        job, said = ("clerk", "no") if number % 4 == 0 else ("nurse", "yes" if number % 2 else "no")
        asked = {"instances": [{"age": 30.0, "job": job}]}
        assert it.intake.take(exchange(f"r-{number}", asked, {"predictions": [said]}))
    it.intake.flush()
    [tick] = it.ticks
    batch = tick.batch
    assert batch.prediction is not None
    found = list(
        zip(batch.prediction.tolist(), batch.columns["job"].tolist(), batch.weight, strict=True)
    )
    assert {w for said, _, w in found if said == "yes"} == {1.0}
    assert {w for said, job, w in found if (said, job) == ("no", "clerk")} == {2.0}
    assert {w for said, job, w in found if (said, job) == ("no", "nurse")} == {4.0}
    assert sum(said == "yes" for said, _, _ in found) == 200
    assert sum(batch.weight) == pytest.approx(400, abs=60)
    share = {f"r-{n}" for n in range(400) if edge_keeps(f"r-{n}", rate=0.25, salt=b"")}
    assert {id for id, uniform in zip(batch.ids, batch.uniform, strict=True) if uniform} == share
    watch = it.intake.monitor.watch("v1")
    assert watch is not None
    assert watch.rows == len(share)
    assert it.intake.dropped == {}  # what no rule wants is no loss
    assert sampler.dropped == 400 - batch.rows
