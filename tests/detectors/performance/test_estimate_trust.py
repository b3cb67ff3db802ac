"""Trust in estimates: how often it is withdrawn for nothing, how soon for a reason."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detectors.performance.estimate_trust import CALM_ROWS, EstimateTrust
from detectors.performance.estimation import EstimationBuilder, EstimationTable
from detectors.reading import Change

Floats = NDArray[np.float64]


def rows(rng: np.random.Generator, count: int, *, less: float = 0.0) -> tuple[Floats, Any, Any]:
    """Scores that are right as often as they say, less so much for the positive ones."""
    score = rng.beta(0.8, 0.8, count)
    return score, score > 0.5, rng.random(count) < score - less * (score > 0.5)


def table_of(score: Any, predicted: Any, truth: Any, task: Any = "classification") -> Any:
    builder = EstimationBuilder(task)
    builder.update(score, predicted, truth)
    table = builder.finish()
    assert isinstance(table, EstimationTable)
    return table


def feed(trust: EstimateTrust, *parts: Any, tick_rows: int = 100) -> list[tuple[int, Change]]:
    """Changes with the row at whose tick's end they were made."""
    score, predicted, truth = parts
    found = []
    for start in range(0, len(truth), tick_rows):
        part = slice(start, start + tick_rows)
        changes = trust.update(None if score is None else score[part], predicted[part], truth[part])
        found += [(start + tick_rows, change) for change in changes]
    return found


def test_estimates_of_an_unchanged_model_are_believed_whatever_its_reference_had() -> None:
    """The bound is .02 in 43,200 ticks: none in these 6,000, also where scores come in another
    mix than the reference's.
    """
    alarms = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        trust = EstimateTrust(table_of(*rows(rng, 3_000)))
        score = rng.beta(0.8, 0.8 if seed % 2 else 2.0, 20_000)
        alarms += len(feed(trust, score, score > 0.5, rng.random(20_000) < score))
    assert alarms == 0


def test_a_larger_budget_is_kept_as_well() -> None:
    """One false alarm in a hundred ticks is allowed here: at most 60 in 6,000."""
    warnings = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        trust = EstimateTrust(table_of(*rows(rng, 3_000)), false_alarms_per_month=432.0)
        changes = feed(trust, *rows(rng, 20_000))
        warnings += sum(change.state.value == "warning" for _, change in changes)
    assert warnings <= 60


@pytest.mark.parametrize(("less", "rows_max"), [(0.15, 4_000), (0.3, 1_200), (-0.2, 4_000)])
def test_a_changed_meaning_of_scores_is_said_soon(less: float, rows_max: int) -> None:
    delays = []
    for seed in range(7):
        rng = np.random.default_rng(seed)
        trust = EstimateTrust(table_of(*rows(rng, 5_000)))
        assert feed(trust, *rows(rng, 5_000)) == []
        changed = feed(trust, *rows(rng, 12_000, less=less))
        assert changed, seed
        row, change = changed[0]
        assert change.state.value == "warning"
        assert change.statistic * less < 0.0
        assert not trust.trusted
        delays.append(row)
    assert np.median(delays) <= rows_max, delays


def test_trust_comes_back_when_scores_mean_what_they_did() -> None:
    rng = np.random.default_rng(1)
    trust = EstimateTrust(table_of(*rows(rng, 10_000)))
    gone = feed(trust, *rows(rng, 6_000, less=0.3))
    assert [change.state.value for _, change in gone] == ["warning"]
    back = feed(trust, *rows(rng, 4 * CALM_ROWS))
    assert [change.state.value for _, change in back] == ["ok"]
    assert trust.trusted
    assert "can again be believed" in back[0][1].explain


def test_many_classes_are_compared_by_the_class_that_was_said() -> None:
    rng = np.random.default_rng(2)

    def draw(count: int, wrong: float) -> tuple[Floats, Any, Any]:
        score = rng.dirichlet([0.6] * 4, count)
        truth = (score.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
        return score, score.argmax(axis=1), np.where(rng.random(count) < wrong, 0, truth)

    trust = EstimateTrust(table_of(*draw(10_000, 0.0)))
    assert feed(trust, *draw(10_000, 0.0)) == []
    assert feed(trust, *draw(5_000, 0.2))


def test_errors_of_a_regression_that_grew_are_said_in_its_own_unit() -> None:
    rng = np.random.default_rng(3)

    def draw(count: int, spread: float) -> tuple[None, Floats, Floats]:
        said = rng.gamma(4.0, 25.0, count)
        return None, said, said + rng.normal(0, spread * said)

    trust = EstimateTrust(table_of(*draw(20_000, 0.1), task="regression"))
    assert feed(trust, *draw(20_000, 0.1)) == []
    [(row, change)] = feed(trust, *draw(4_000, 0.15))
    assert row <= 2_000
    assert 2.0 < change.statistic < 6.0  # mean absolute error from 8 to 12
    assert "the mean absolute error was" in change.explain


def test_a_restart_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    table = table_of(*rows(rng, 5_000))
    stream = [
        np.concatenate(pair)
        for pair in zip(rows(rng, 2_000), rows(rng, 3_000, less=0.3), strict=True)
    ]
    through = EstimateTrust(table)
    wanted = feed(through, *stream)
    assert wanted
    for cut in (0, 1_000, 2_600, 4_900):
        before, after = EstimateTrust(table), EstimateTrust(table)
        found = feed(before, *(column[:cut] for column in stream))
        after.restore(json.loads(json.dumps(before.state())))
        found += [(cut + row, c) for row, c in feed(after, *(column[cut:] for column in stream))]
        assert found == wanted
        assert after.state() == through.state()


def test_rows_that_say_nothing_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(5)
    trust = EstimateTrust(table_of(*rows(rng, 1_000)))
    odd = np.array([None, np.nan, [1], {}, np.inf, "", "x"], dtype=object)
    assert trust.update(np.full(7, 0.5), odd, odd) == []
    assert trust.update(np.array([np.nan, np.inf]), np.ones(2), np.ones(2)) == []
    assert trust.update(np.ones((2, 5)), np.ones(2), np.ones(2)) == []
    assert trust.update(None, np.ones(2), np.ones(2)) == []
    assert trust.update(np.empty(0), np.empty(0), np.empty(0)) == []
    assert trust.left_out == 13
    said = np.array([1.0, 2.0] * 300)
    same = EstimateTrust(table_of(None, said, said, task="regression"))
    assert same.update(None, said, said * 8e307) == []  # no error ever: nothing to scale by


def test_senseless_arguments_and_states_are_refused() -> None:
    rng = np.random.default_rng(6)
    table = table_of(*rows(rng, 1_000))
    for budget in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a budget"):
            EstimateTrust(table, false_alarms_per_month=budget)
    trust = EstimateTrust(table)
    with pytest.raises(ValueError, match="different lengths"):
        trust.update(np.ones(2), np.ones(2), np.ones(3))
    spoilt_ones: list[dict[str, Any]] = [{"mix": [[1.0]]}, {"calm": None}, {"since": [0]}]
    for spoilt in spoilt_ones:
        with pytest.raises(ValueError, match=r".+"):
            trust.restore(trust.state() | spoilt)
