"""What every detector of the catalog keeps: it never raises, a restart changes nothing, the same
batches give the same readings, and rows in which nothing happens give none.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest

from agent.state import Snapshot
from detectors import Monitor, Reading, Reference, build_reference
from detectors.catalog import DETECTORS, LABELLED
from detectors.settings import FairnessSettings, Settings

ROWS = 8_000
TICK_ROWS = 400
SETTINGS = Settings(fairness=(FairnessSettings(attribute="job"),))
Columns = dict[str, Any]


def columns(seed: int, rows: int = TICK_ROWS, shift: float = 0.0) -> Columns:
    """Two numbers that go together, a category, a flag, and a model's score and class."""
    rng = np.random.default_rng(seed)
    age = rng.normal(40 + 10 * shift, 10, rows)
    score = 1 / (1 + np.exp(-(age - 40) / 10 - rng.normal(0, 1, rows)))
    return {
        "age": age,
        "income": 100 * age + rng.normal(0, 800, rows),
        "job": rng.choice(np.array(["clerk", "nurse", "smith"], object), rows),
        "member": rng.random(rows) < 0.3,
        "score": score,
        "said": np.where(score > 0.5, "1", "0").astype(object),
    }


def truths(of: Columns, seed: int, flip: float = 0.0) -> Any:
    rng = np.random.default_rng(seed + 10_000)
    true = rng.random(len(of["score"])) < of["score"]
    return np.where(true ^ (rng.random(len(true)) < flip), "1", "0").astype(object)


@cache
def made(task: Literal["classification", "regression"]) -> Reference:
    """A reference with everything that a detector may ask for."""
    rows = columns(1, ROWS)
    said = "said" if task == "classification" else "score"
    label = truths(rows, 1) if task == "classification" else rows["score"] + 0.1
    return build_reference(
        {**rows, "label": label},
        prediction=said,
        score="score" if task == "classification" else None,
        label="label",
        segment="job",
        task=task,
        tick_rows=TICK_ROWS,
    )


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> Reference:
    """Residuals are a regression's; all else has something for a classifier."""
    of = getattr(request.node, "callspec", None)
    residuals = of is not None and of.params.get("name") == "residuals"
    return made("regression" if residuals else "classification")


def run(
    monitor: Monitor, ticks: range, *, shift: float = 0.0, flip: float = 0.0
) -> Iterator[Reading]:
    for seed in ticks:
        rows = columns(seed, shift=shift)
        yield from monitor.update(rows, at=60.0 * seed)
        of_number = monitor.reference.task == "regression"
        said = rows["score"] if of_number else rows["said"]
        noise = np.random.default_rng(seed).normal(flip, 0.1, TICK_ROWS)
        yield from monitor.update_labels(
            said,
            said + noise if of_number else truths(rows, seed, flip),
            score=rows["score"],
            groups={"job": rows["job"]},
            columns=rows,
            keys=np.arange(TICK_ROWS) + seed * TICK_ROWS,
            at=60.0 * seed,
        )


def only(reference: Reference, name: str) -> Monitor:
    """A monitor of which only one part is left."""
    monitor = Monitor(reference, settings=SETTINGS)
    monitor.parts = {name: monitor.parts[name]}
    return monitor


def test_only_residuals_are_left_out_of_a_whole_reference(reference: Reference) -> None:
    missing = set(DETECTORS) - set(Monitor(reference, settings=SETTINGS).parts)
    assert missing == {"residuals"}


def test_what_learns_from_labels_is_named_so() -> None:
    assert set(LABELLED) < set(DETECTORS)


@pytest.mark.parametrize("name", DETECTORS)
def test_rows_in_which_nothing_happens_give_no_reading(reference: Reference, name: str) -> None:
    monitor = only(reference, name)
    assert [r.explain for r in run(monitor, range(10, 40))] == []


@pytest.mark.parametrize("name", DETECTORS)
def test_the_same_batches_give_the_same_readings(reference: Reference, name: str) -> None:
    first, second = (list(changed(only(reference, name))) for _ in range(2))
    assert first == second
    for reading in first:
        assert Reading.from_json(json.loads(json.dumps(reading.to_json()))) is not None
        assert reading.explain
        assert reading.reference == reference.digest


def changed(monitor: Monitor) -> Iterator[Reading]:
    yield from run(monitor, range(10, 14))
    yield from run(monitor, range(14, 24), shift=1.0, flip=0.3)


@pytest.mark.parametrize("cut", [1, 5, 9])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_restart_changes_nothing(
    reference: Reference, name: str, cut: int, tmp_path: Any
) -> None:
    through = only(reference, name)
    expected = [*run(through, range(10, 14)), *run(through, range(14, 22), shift=1.0, flip=0.3)]
    before = only(reference, name)
    ticks = [(seed, 1.0 if seed >= 14 else 0.0) for seed in range(10, 22)]
    got = [r for s, x in ticks[:cut] for r in run(before, range(s, s + 1), shift=x, flip=0.3 * x)]
    snapshot = Snapshot(tmp_path / "snapshot.npz")
    snapshot.save(before.state(), now=0.0)
    loaded = snapshot.load()
    assert loaded is not None
    after = Monitor.restore(reference, loaded[0], settings=SETTINGS)
    after.parts = {name: after.parts[name]}
    got += [r for s, x in ticks[cut:] for r in run(after, range(s, s + 1), shift=x, flip=0.3 * x)]
    assert got == expected


def objects(*values: object) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


ODD: Mapping[str, Callable[[], Columns]] = {
    "no rows": lambda: columns(2, 0),
    "one row": lambda: columns(2, 1),
    "no columns": dict,
    "one column": lambda: {"age": np.ones(5)},
    "another length": lambda: {**columns(2), "age": np.ones(7)},
    "all missing": lambda: {
        n: np.full(50, np.nan) if c.dtype.kind == "f" else objects(*[None] * 50)
        for n, c in columns(2, 50).items()
    },
    "infinite and huge": lambda: {
        **columns(2, 6),
        "age": np.array([np.inf, -np.inf, 1e308, -1e308, 5e-324, np.nan]),
        "score": np.array([np.inf, -1.0, 2.0, np.nan, 1e308, 0.5]),
    },
    "anything": lambda: {
        name: objects(None, "x", 10**400, [1], {"a": 1}, b"\xff", 1 + 2j, True)
        for name in columns(2)
    },
    "a matrix": lambda: {**columns(2), "age": np.ones((TICK_ROWS, 3))},
    "new columns": lambda: {**columns(2), **{f"new{i}": np.ones(TICK_ROWS) for i in range(300)}},
    "a storm of categories": lambda: {
        **columns(2),
        "job": objects(*[f"gig{i}" for i in range(TICK_ROWS)]),
        "said": objects(*[f"class{i}" for i in range(TICK_ROWS)]),
    },
    "one value": lambda: {n: np.repeat(c[:1], TICK_ROWS) for n, c in columns(2).items()},
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_that_stands_in_a_column_raises(reference: Reference, name: str, what: str) -> None:
    monitor = only(reference, name)
    list(run(monitor, range(10, 12)))
    for at in (float("nan"), 1e300, -1e12, None):  # a clock that jumps
        odd = ODD[what]()
        monitor.update(odd, ticks=float("nan"), at=at)
        said = odd.get("said", objects())
        monitor.update_labels(
            said, said, score=odd.get("score"), groups={"job": odd.get("job", said)}, at=at
        ) if len(said) == len(odd.get("score", ())) == len(odd.get("job", said)) else None
    list(run(monitor, range(12, 14)))
    json.dumps(_plain(monitor.parts[name].state()), allow_nan=True)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_reset_forgets_what_was_latched(reference: Reference, name: str) -> None:
    monitor = only(reference, name)
    list(changed(monitor))
    monitor.reset()
    again = list(run(monitor, range(30, 40), shift=1.0, flip=0.3))
    fresh = list(run(only(reference, name), range(30, 40), shift=1.0, flip=0.3))
    assert bool(again) == bool(fresh)


def _plain(state: Any) -> Any:
    """A state without its arrays: what is left must be JSON."""
    if isinstance(state, Mapping):
        return {str(key): _plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [_plain(value) for value in state]
    return None if isinstance(state, np.ndarray | np.generic) else state
