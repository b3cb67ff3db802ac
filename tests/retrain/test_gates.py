"""Verdicts and the arithmetic they speak."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from retrain import gates
from retrain.artifact import Signature, TensorSpec
from retrain.gates import GateReport, Measurement, Verdict
from retrain.preprocess import Feature, Kind, Preprocess, Task


def outcomes(right: int, rows: int) -> NDArray[np.float64]:
    return np.concatenate([np.ones(right), np.zeros(rows - right)])


def compare(
    candidate: NDArray[np.float64], stable: NDArray[np.float64], margin: float = 0.01
) -> Measurement:
    return gates.quality(
        gate="quality_recent",
        metric="accuracy",
        candidate=candidate,
        stable=stable,
        margin=margin,
        rows_min=200,
    )


def test_a_better_candidate_passes_and_says_both_numbers() -> None:
    got = compare(outcomes(1684, 2000), outcomes(1662, 2000))
    assert got.verdict is Verdict.SUCCESSFUL
    assert got.words.startswith("accuracy .842 >= stable .831 - margin .010 (difference +.011 +- ")
    assert got.words.endswith("2000 rows)")


def test_a_worse_candidate_fails() -> None:
    got = compare(outcomes(1500, 2000), outcomes(1662, 2000))
    assert got.verdict is Verdict.FAILED
    assert "accuracy .750 < stable .831 - margin .010" in got.words


def test_too_few_rows_are_inconclusive_however_good_they_look() -> None:
    got = compare(np.ones(199), np.zeros(199))
    assert got.verdict is Verdict.INCONCLUSIVE
    assert got.words == "199 labelled rows < minimum 200"


def test_noise_wider_than_the_margin_is_inconclusive() -> None:
    rng = np.random.default_rng(0)
    got = compare((rng.random(250) < 0.8).astype(float), (rng.random(250) < 0.8).astype(float))
    assert got.verdict is Verdict.INCONCLUSIVE
    assert "cannot be told from" in got.words


def test_two_models_that_agree_on_a_short_holdout_are_not_proven_equal() -> None:
    assert compare(np.ones(200), np.ones(200)).verdict is Verdict.INCONCLUSIVE
    assert compare(np.ones(400), np.ones(400)).verdict is Verdict.SUCCESSFUL


def test_pairing_sees_what_two_averages_cannot() -> None:
    # 3% of rows become worse, on 3,000 rows: unpaired, the noise of each mean would hide it.
    stable = outcomes(2490, 3000)
    candidate = stable.copy()
    candidate[:90] = 0
    assert compare(candidate, stable).verdict is Verdict.FAILED


def test_a_truly_worse_candidate_is_rarely_let_through() -> None:
    rng = np.random.default_rng(11)
    # Both right, only the stable, only the candidate, neither: one point worse, on the margin.
    shares = [0.8175, 0.0325, 0.0225, 0.1275]
    passed = 0
    for _ in range(1000):
        pair = rng.choice(4, size=2000, p=shares)
        candidate, stable = np.isin(pair, (0, 2)), np.isin(pair, (0, 1))
        got = compare(candidate.astype(float), stable.astype(float))
        passed += got.verdict is Verdict.SUCCESSFUL
    assert passed <= 71  # one-sided 5% of 1,000, and three standard errors


def test_predictions_that_are_not_finite_are_an_error_not_a_comparison() -> None:
    bad = np.ones(300)
    bad[7] = np.nan
    assert compare(bad, np.ones(300)).verdict is Verdict.ERROR


def test_gains_must_be_paired() -> None:
    with pytest.raises(ValueError, match="not paired"):
        compare(np.ones(300), np.ones(301))


def test_latency_is_a_ratio_by_round() -> None:
    rng = np.random.default_rng(1)
    weather = rng.uniform(1, 5, 31)  # neighbours: the same for both models of a round
    got = gates.latency(
        gate="latency_b1",
        candidate_us=list(20 * weather),
        stable_us=list(40 * weather),
        ratio_max=1.5,
        rounds_min=9,
    )
    assert got.verdict is Verdict.SUCCESSFUL
    assert "= 0.50 <= 1.5 (0.50 to 0.50, 31 rounds)" in got.words
    slow = gates.latency(
        gate="latency_b1",
        candidate_us=list(80 * weather),
        stable_us=list(40 * weather),
        ratio_max=1.5,
        rounds_min=9,
    )
    assert slow.verdict is Verdict.FAILED


def test_latency_that_wavers_about_the_bound_or_has_few_rounds_is_inconclusive() -> None:
    ratios = [1.0, 2.0] * 10
    wavering = gates.latency(
        gate="latency_b1",
        candidate_us=ratios,
        stable_us=[1.0] * 20,
        ratio_max=1.5,
        rounds_min=9,
    )
    assert wavering.verdict is Verdict.INCONCLUSIVE
    few = gates.latency(
        gate="latency_b1", candidate_us=[1.0], stable_us=[1.0], ratio_max=1.5, rounds_min=9
    )
    assert few.words == "1 rounds < minimum 9"


def test_an_absolute_latency_is_a_gate_only_where_a_limit_is_given() -> None:
    assert gates.latency_absolute(candidate_us=[10.0], us_max=None).required is False
    assert gates.latency_absolute(candidate_us=[10.0], us_max=9.0).verdict is Verdict.FAILED
    assert gates.latency_absolute(candidate_us=[], us_max=9.0).verdict is Verdict.INCONCLUSIVE


def test_size_takes_the_tighter_of_two_bounds() -> None:
    good = gates.size(candidate_bytes=90, stable_bytes=100, ratio_max=1.5, bytes_max=None)
    assert good.words == "90 bytes <= 150 (stable 100 x 1.5)"
    bad = gates.size(candidate_bytes=90, stable_bytes=100, ratio_max=1.5, bytes_max=80)
    assert (bad.verdict, bad.words) == (Verdict.FAILED, "90 bytes > 80")
    first = gates.size(candidate_bytes=90, stable_bytes=None, ratio_max=1.5, bytes_max=None)
    assert not first.required


def test_one_output_that_is_not_finite_is_enough_to_fail_and_none_run_is_not_success() -> None:
    assert gates.finite(rows=1000, rows_not_finite=1).verdict is Verdict.FAILED
    assert gates.finite(rows=0, rows_not_finite=0).verdict is Verdict.INCONCLUSIVE


def test_a_signature_may_gain_categories_and_nothing_else() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("b", 2))
    sides = Signature(inputs=(spec,), outputs=(spec,))
    feature = Feature(name="work", kind=Kind.CATEGORICAL, categories=("a",))
    rows = Preprocess(
        task=Task.CLASSIFICATION, target="t", features=(feature,), classes=("no", "yes")
    )

    def against(candidate: Preprocess, signature: Signature = sides) -> Measurement:
        return gates.signature(
            candidate=signature, stable=sides, candidate_rows=candidate, stable_rows=rows
        )

    wider = dataclasses.replace(feature, categories=("a", "b"))
    assert against(dataclasses.replace(rows, features=(wider,))).verdict is Verdict.SUCCESSFUL
    renamed = dataclasses.replace(feature, name="job")
    assert against(dataclasses.replace(rows, features=(renamed,))).verdict is Verdict.FAILED
    assert against(dataclasses.replace(rows, classes=("yes", "no"))).verdict is Verdict.FAILED
    other = Signature(inputs=(dataclasses.replace(spec, dtype="float64"),), outputs=(spec,))
    assert against(rows, other).words.startswith("inputs ")


def entry(verdict: Verdict, required: bool = True) -> Measurement:
    return Measurement(gate=f"g-{verdict}", verdict=verdict, words="words", required=required)


@pytest.mark.parametrize(
    ("verdicts", "adds_up_to"),
    [
        ([], Verdict.INCONCLUSIVE),
        ([Verdict.SUCCESSFUL], Verdict.SUCCESSFUL),
        ([Verdict.SUCCESSFUL, Verdict.INCONCLUSIVE], Verdict.INCONCLUSIVE),
        ([Verdict.ERROR, Verdict.INCONCLUSIVE], Verdict.ERROR),
        ([Verdict.ERROR, Verdict.FAILED, Verdict.SUCCESSFUL], Verdict.FAILED),
    ],
)
def test_a_report_is_its_worst_required_measurement(
    verdicts: list[Verdict], adds_up_to: Verdict
) -> None:
    report = GateReport(measurements=tuple(entry(verdict) for verdict in verdicts))
    assert report.verdict is adds_up_to
    assert report.passed is (adds_up_to is Verdict.SUCCESSFUL)


def test_what_is_not_required_never_decides() -> None:
    report = GateReport(measurements=(entry(Verdict.SUCCESSFUL), entry(Verdict.FAILED, False)))
    assert report.passed
    assert not GateReport(measurements=(entry(Verdict.SUCCESSFUL, False),)).passed


def test_a_report_read_back_is_judged_again() -> None:
    report = GateReport(measurements=(entry(Verdict.FAILED),))
    forged = {**report.as_json(), "passed": True, "verdict": "successful"}
    assert GateReport.from_json(forged) == report
    assert not GateReport.from_json(forged).passed
    assert report.words == "g-failed: words"
