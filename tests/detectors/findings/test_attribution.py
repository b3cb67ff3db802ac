"""Attribution: the feature that does it is named, in shares that sum to one, and at what cost."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors import build_reference
from detectors.findings.attribution import Attribution, Cost, cost_of, sentence
from detectors.performance.intervals import Estimate
from detectors.references.bin_means import BinMeans, BinMeansBuilder
from detectors.rows.binning import Binner

Columns = dict[str, NDArray[Any]]


def rows(n: int, rng: np.random.Generator, **shifts: float) -> Columns:
    return {name: rng.normal(shifts.get(name, 0.0), 1, n) for name in ("income", "age", "noise")}


def said(columns: Columns) -> NDArray[np.float64]:
    score: NDArray[np.float64] = 0.3 * columns["income"] + 0.1 * columns["age"]
    return score


def wrong(columns: Columns, rng: np.random.Generator) -> NDArray[np.float64]:
    """More often where age is high; income does not matter."""
    chance = 1 / (1 + np.exp(2 - columns["age"]))
    errors: NDArray[np.float64] = (rng.random(len(chance)) < chance).astype(float)
    return errors


RNG = np.random.default_rng(0)
KNOWN = rows(40_000, RNG)
REFERENCE = build_reference(KNOWN)
BINNER = Binner([(profile.name, profile.bins) for profile in REFERENCE.features])


def means(*, score: bool = True, loss: bool = True) -> BinMeans | None:
    builder = BinMeansBuilder([(p.name, p.bins) for p in REFERENCE.features])
    for part in np.array_split(np.arange(40_000), 5):
        columns = {name: column[part] for name, column in KNOWN.items()}
        rng = np.random.default_rng(int(part[0]))
        builder.update(
            columns, said(columns) if score else None, wrong(columns, rng) if loss else None
        )
    return builder.finish()


def attribution(**known: bool) -> Attribution:
    return Attribution(REFERENCE.features, means(**known))


def counts(columns: Columns) -> NDArray[np.int64]:
    return BINNER.count(columns, len(columns["age"]))


def test_the_feature_that_changes_the_errors_is_named_not_the_one_that_moved_most() -> None:
    rng = np.random.default_rng(1)
    now = counts(rows(5_000, rng, income=2.0, age=0.7, noise=2.0))
    found = attribution().explain(now, ["income", "age", "noise"])
    assert found is not None
    assert (found.basis, next(iter(found.shares))) == ("loss", "age")
    assert found.shares["age"] > 0.95


def test_without_labels_what_the_model_says_decides() -> None:
    rng = np.random.default_rng(2)
    now = counts(rows(5_000, rng, income=1.0, age=1.0, noise=3.0))
    found = attribution(loss=False).explain(now, ["income", "age", "noise"])
    assert found is not None
    assert found.basis == "score"
    assert found.shares["income"] == pytest.approx(0.75, abs=0.06)
    assert found.shares["age"] == pytest.approx(0.25, abs=0.06)
    # the changes themselves are those of the mean score, 0.3 and 0.1 of a shift of one, but for
    # what the last bins hide
    assert found.change["income"] == pytest.approx(0.3, abs=0.06)


def test_without_means_the_shift_itself_decides() -> None:
    rng = np.random.default_rng(3)
    now = counts(rows(5_000, rng, income=0.5, noise=2.0))
    found = Attribution(REFERENCE.features).explain(now, ["income", "noise"])
    assert found is not None
    assert found.basis == "psi"
    assert list(found.shares) == ["noise", "income"]


def test_values_never_seen_are_not_given_a_loss() -> None:
    rng = np.random.default_rng(4)
    now = counts(rows(5_000, rng, income=0.5, noise=50.0))
    found = attribution().explain(now, ["income", "noise"])
    assert found is not None
    assert found.basis == "psi"


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from(["income", "age", "noise", "unknown"]), max_size=4),
    st.sampled_from([0, 1, 50, 3_000]),
    st.booleans(),
)
def test_shares_sum_to_one_or_there_are_none(
    seed: int, drifted: list[str], n: int, with_means: bool
) -> None:
    rng = np.random.default_rng(seed)
    now = counts(rows(n, rng, income=rng.normal(), age=rng.normal(), noise=rng.normal()))
    known = attribution() if with_means else Attribution(REFERENCE.features)
    found = known.explain(now, drifted)
    expected = set(drifted) - {"unknown"} if n else set()
    assert (found is None) == (not expected)
    if found is not None:
        assert set(found.shares) == expected
        assert sum(found.shares.values()) == pytest.approx(1.0)
        assert min(found.shares.values()) >= 0
        assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)


def test_means_are_those_of_the_rows_and_survive_a_file() -> None:
    known = means()
    assert known is not None
    edges = np.quantile(KNOWN["income"], [0.25, 0.5])
    inside = (KNOWN["income"] > edges[0]) & (KNOWN["income"] <= edges[1])
    direct = said(KNOWN)[inside].mean()
    j = known.names.index("income")
    part = known.sums[0, j, 4:8]
    assert part[:, 1].sum() / part[:, 0].sum() == pytest.approx(direct, abs=0.01)
    again = BinMeans.from_tree(json.loads(json.dumps(known.tree())))
    assert np.array_equal(again.sums, known.sums)
    assert np.array_equal(known.merged(again).sums, 2 * known.sums)
    with pytest.raises(ValueError, match="shape"):
        BinMeans.from_tree({"names": ["a"], "sums": []})


def test_rows_beyond_the_first_65_536_are_thinned() -> None:
    builder = BinMeansBuilder([(p.name, p.bins) for p in REFERENCE.features])
    columns = rows(70_000, np.random.default_rng(5))
    for _ in range(2):
        builder.update(columns, said(columns), None)
    known = builder.finish()
    assert known is not None
    assert known.rows("score").sum(axis=1).tolist() == [70_000 + 70_000 / 16] * 3
    assert np.isnan(known.means("loss")).all()


def estimate(value: float, half: float = 0.005) -> Estimate:
    return Estimate(value=value, lower=value - half, upper=value + half, rows=5_000)


def test_what_it_costs_is_said_in_errors_and_by_the_day() -> None:
    cost = cost_of({"accuracy": 0.91}, {"accuracy": estimate(0.88)}, rows_per_day=100_000)
    assert sentence(None, cost) == (
        "estimated accuracy fell from 0.91 to 0.88, about 30 more errors in 1,000 rows "
        "(3,000 a day)"
    )
    rng = np.random.default_rng(6)
    now = counts(rows(5_000, rng, income=2.0, age=0.7))
    found = attribution(loss=False).explain(now, ["income", "age"])
    text = sentence(found, cost_of({"accuracy": 0.91}, {"accuracy": estimate(0.88)}))
    assert text.startswith("income explains 8")
    assert "% of the change of what the model says, age 1" in text
    assert text.endswith("about 30 more errors in 1,000 rows")


@pytest.mark.parametrize(
    ("was", "now", "text"),
    [
        (0.91, estimate(0.912), "estimated accuracy is 0.912, not surely another than 0.910"),
        (0.91, estimate(0.93), "rose from 0.91 to 0.93, about 20 fewer errors in 1,000 rows"),
        (0.91, estimate(float("nan")), ""),
        (float("nan"), estimate(0.9), ""),
    ],
)
def test_a_cost_that_is_none_is_not_made_one(was: float, now: Estimate, text: str) -> None:
    words = sentence(None, cost_of({"accuracy": was}, {"accuracy": now}))
    assert words.endswith(text)
    assert bool(words) == bool(text)


def test_a_regression_costs_error_and_no_wrong_rows() -> None:
    cost = cost_of({"mae": 10.0}, {"mae": estimate(12.5)}, rows_per_day=1e6)
    assert isinstance(cost, Cost)
    assert sentence(None, cost) == "estimated mae rose from 10.00 to 12.50"
