"""Delays of labels: ordinary ones say nothing, longer ones are said, a restart forgets neither."""

import json

import numpy as np

from agent.label_delays import LEARN_ROWS, DelayWatch
from detectors.reading import Kind, State


def octaves(rng: np.random.Generator, mean_s: float, rows: int) -> list[float]:
    found: list[float] = np.log2(1.0 + rng.exponential(mean_s, rows)).tolist()
    return found


def learnt(rng: np.random.Generator) -> DelayWatch:
    watch = DelayWatch()
    assert watch.take(octaves(rng, 3_600.0, LEARN_ROWS), 1.0) == []
    return watch


def test_delays_as_usual_say_nothing() -> None:
    rng = np.random.default_rng(1)
    watch = DelayWatch()
    assert watch.state is State.INSUFFICIENT_DATA
    watch = learnt(rng)
    for _ in range(400):
        assert watch.take(octaves(rng, 3_600.0, 130), 1.0) == []
    assert watch.state is State.OK


def test_labels_that_take_longer_are_said_once() -> None:
    rng = np.random.default_rng(2)
    watch = learnt(rng)
    said = [change for _ in range(30) for change in watch.take(octaves(rng, 14_400.0, 130), 1.0)]
    assert [change.state.value for change in said] in (["drift"], ["warning", "drift"])
    assert (said[0].kind, said[0].subject) == (Kind.DATA_QUALITY, "label_delay")
    assert "label_delay" in said[0].explain


def test_a_restart_at_any_time_changes_nothing() -> None:
    for cut in (0, 10, 36, 45, 50):
        rng = np.random.default_rng(3)
        parts = [octaves(rng, 3_600.0 if n < 42 else 20_000.0, 140) for n in range(55)]
        through, watch = DelayWatch(), DelayWatch()
        expected = [through.take(part, 1.0) for part in parts]
        got = [watch.take(part, 1.0) for part in parts[:cut]]
        again = DelayWatch(json.loads(json.dumps(watch.saved())))
        assert got + [again.take(part, 1.0) for part in parts[cut:]] == expected
        assert any(expected)


def test_what_cannot_be_read_is_learnt_anew() -> None:
    saved = learnt(np.random.default_rng(4)).saved()
    for spoilt in ({"state": "AAAA"}, {"reference": "{}"}):
        assert DelayWatch({**saved, **spoilt}).state is State.INSUFFICIENT_DATA
