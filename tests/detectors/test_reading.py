"""The event contract of INTERFACE.md, key by key."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import STATE_NUMBER, Effect, Kind, Reading, Scope, State, Window

READING = Reading(
    at=1_700_000_000.25,
    row=9_000,
    kind=Kind.DATA_DRIFT,
    scope=Scope.FEATURE,
    subject="income",
    detector="e_detector",
    state=State.DRIFT,
    statistic=7.5,
    threshold=6.6,
    evidence=7.5,
    effect=Effect(name="psi", value=0.31),
    window=Window(rows=1_240, start=7_760, end=9_000),
    reference="ab" * 32,
    version="v1",
    explain="income rose",
)


def test_the_event_has_exactly_the_documented_keys_in_their_order() -> None:
    assert json.dumps(READING.to_json()) == (
        '{"at": "2023-11-14T22:13:20.250Z", "row": 9000, "kind": "data_drift", '
        '"scope": "feature", "subject": "income", "detector": "e_detector", "state": "drift", '
        '"statistic": 7.5, "threshold": 6.6, "evidence": 7.5, '
        '"effect": {"name": "psi", "value": 0.31}, '
        '"window": {"rows": 1240, "from": 7760, "to": 9000}, '
        f'"reference": "{"ab" * 32}", "version": "v1", "explain": "income rose"}}'
    )


@given(
    at=st.none() | st.integers(0, 4_000_000_000),
    evidence=st.none() | st.floats(-300, 300),
    effect=st.none() | st.just(Effect(name="ks", value=0.5)),
    state=st.sampled_from(State),
    kind=st.sampled_from(Kind),
    scope=st.sampled_from(Scope),
)
def test_a_reading_survives_json(
    at: int | None,
    evidence: float | None,
    effect: Effect | None,
    state: State,
    kind: Kind,
    scope: Scope,
) -> None:
    reading = replace(
        READING,
        at=None if at is None else float(at),
        evidence=evidence,
        effect=effect,
        state=state,
        kind=kind,
        scope=scope,
    )
    assert Reading.from_json(json.loads(json.dumps(reading.to_json()))) == reading


def test_figures_that_json_has_no_word_for_become_null() -> None:
    event = replace(READING, statistic=math.nan, evidence=math.inf, at=math.inf).to_json()
    assert event["statistic"] is None
    assert event["evidence"] is None
    assert event["at"] is None
    json.dumps(event, allow_nan=False)


def test_an_absurd_clock_gives_no_time_and_no_exception() -> None:
    assert replace(READING, at=1e18).to_json()["at"] is None


def test_a_missing_and_an_unknown_key_are_named() -> None:
    event = READING.to_json()
    event["colour"] = event.pop("window")
    with pytest.raises(ValueError, match=r"missing \['window'\], unknown \['colour'\]"):
        Reading.from_json(event)


def test_states_have_the_numbers_of_the_gauge() -> None:
    assert [STATE_NUMBER[state] for state in State] == [0, 1, 2, -1]
