"""Label drift that comes with concept drift is one event: it waits, and is said at most once."""

from typing import Any

import numpy as np
import pytest

from detectors import Monitor, build_reference
from detectors.findings.following import LABEL_WAIT_ROWS as WAIT_ROWS
from detectors.findings.following import STANDING, Following
from detectors.reading import Change, Kind, Moment, Reading, Scope, State

NOTHING: list[Reading] = []


def reading(state: State, kind: Kind = Kind.LABEL_DRIFT, row: int = 10) -> Reading:
    change = Change(
        kind=kind,
        scope=Scope.MODEL,
        subject="default",
        detector="d",
        state=state,
        statistic=1.0,
        threshold=1.0,
        rows=5,
        explain="it moved",
    )
    return Moment(row=row, at=None).reading(change)


def held() -> Following:
    return Following(lambda of: of.kind is Kind.LABEL_DRIFT, wait_rows=WAIT_ROWS)


def told(following: Following, *ticks: tuple[list[Reading], Any, int]) -> list[Reading]:
    said = []
    for given, concept, rows in ticks:
        stands = any(state in STANDING for state in concept)

        def explained(_: Reading, stands: bool = stands) -> bool:
            return stands

        said += following.update(given, explained, rows=rows)
    return said


def test_alone_it_is_said_after_it_waited() -> None:
    drift = reading(State.DRIFT)
    waited = told(held(), ([drift], [State.OK], 500), *[(NOTHING, [State.OK], 500)] * 3)
    assert waited == []
    following = held()
    said = told(following, ([drift], [State.OK], 500), (NOTHING, [State.OK], WAIT_ROWS))
    assert said == [drift]
    assert told(following, (NOTHING, [State.OK], 10_000)) == []
    back = reading(State.OK)
    assert told(following, ([back], [State.OK], 10)) == [back]


@pytest.mark.parametrize("concept", [State.WARNING, State.DRIFT])
def test_beside_concept_drift_it_is_not_said(concept: State) -> None:
    following = held()
    drift, over = reading(State.DRIFT), reading(State.OK)
    assert told(following, ([drift], [State.OK], 500), (NOTHING, [concept], 500)) == []
    assert told(following, *[(NOTHING, [State.OK, concept], 5_000)] * 4) == []
    assert told(following, ([over], [concept], 500), (NOTHING, [State.OK], 9_000)) == []


def test_what_stays_when_the_concept_is_back_is_said_then() -> None:
    following = held()
    drift = reading(State.DRIFT)
    assert told(following, ([drift], [State.DRIFT], 500), (NOTHING, [State.OK], 1_500)) == []
    assert told(following, (NOTHING, [State.OK], 600)) == [drift]


def test_a_warning_that_becomes_a_drift_while_it_waits_is_one_reading() -> None:
    warning, drift = reading(State.WARNING), reading(State.DRIFT, row=20)
    following = held()
    said = told(
        following,
        ([warning], [State.OK], 500),
        ([drift], [State.OK], 500),
        (NOTHING, [State.OK], 5_000),
    )
    assert said == [drift]


def test_all_else_passes_at_once() -> None:
    other = [reading(State.DRIFT, kind) for kind in Kind if kind is not Kind.LABEL_DRIFT]
    assert held().update(other, lambda _: True, rows=1) == other


def test_a_restart_changes_nothing() -> None:
    before, after = held(), held()
    drift = reading(State.DRIFT)
    assert told(before, ([drift], [State.OK], 500), (NOTHING, [State.OK], 1_000)) == []
    after.restore(before.state())
    assert told(after, (NOTHING, [State.OK], 1_000)) == [drift]
    again = held()
    again.restore(after.state())
    back = reading(State.OK)
    assert told(again, ([back], [State.OK], 1)) == [back]
    again.reset()
    assert again.state() == held().state()


def test_labels_that_shift_alone_are_said_by_a_monitor() -> None:
    """A label's own state must not count as the concept's that explains it."""
    rng = np.random.default_rng(1)

    def rows(count: int, shift: float) -> tuple[Any, Any]:
        said = np.where(rng.random(count) < 0.3 + shift, "1", "0").astype(object)
        wrong = rng.random(count) < 0.1
        return said, np.where(wrong, np.where(said == "1", "0", "1"), said).astype(object)

    said, true = rows(8_000, 0.0)
    reference = build_reference(
        {"x": rng.normal(size=8_000), "said": said, "true": true},
        prediction="said",
        label="true",
        task="classification",
    )
    monitor = Monitor(reference)
    readings = []
    for tick in range(20):
        readings += monitor.update_labels(*rows(500, 0.3 if tick >= 10 else 0.0))
    assert set(monitor.concept_states()) == {"bernoulli"}
    assert [(r.kind, r.subject, r.state) for r in readings] == [
        (Kind.LABEL_DRIFT, "true", State.DRIFT)
    ]


def test_a_projection_is_not_said_beside_the_feature_that_it_is_made_of() -> None:
    rng = np.random.default_rng(2)

    def rows(count: int, shift: float, bond: float) -> dict[str, Any]:
        """`pay` goes with `age`, and is spread alike however close the bond."""
        age, rest = rng.normal(size=count), rng.normal(size=(3, count))
        pay = bond * age + np.sqrt(1 - bond**2) * rest[0]
        return {"age": age + shift, "pay": pay, "x": rest[1], "y": rest[2]}

    reference = build_reference(rows(30_000, 0.0, 0.8))
    assert reference.projections

    def found(shift: float, bond: float) -> set[str]:
        monitor = Monitor(reference)
        readings = []
        for tick in range(9):
            quiet = tick < 3
            now = rows(1_000, 0.0, 0.8) if quiet else rows(1_000, shift, bond)
            readings += monitor.update(now)
        return {f"{r.scope.value} {r.subject}" for r in readings}

    assert found(1.0, 0.8) == {"feature age"}
    assert {subject.split()[0] for subject in found(0.0, 0.0)} == {"multivariate"}
