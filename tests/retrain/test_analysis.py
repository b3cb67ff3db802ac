"""The error bounds and delays of the canary analysis, by simulation with fixed seeds."""

import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.analysis import Analysis, LabelledLoss, Outcome
from retrain.betting import BoundBets, PairedBets
from retrain.gates import Verdict
from retrain.guards import AnalysisPlan

PLAN = AnalysisPlan(latency_tolerance=0.0)


def stream(
    rng: np.random.Generator,
    requests: int,
    *,
    weight: float = 0.1,
    control: float = 0.01,
    candidate: float = 0.01,
    slower: float = 1.0,
    sigma: float = 0.5,
    start: float = 0.0,
) -> Iterator[Outcome]:
    """Requests of both arms, 50 a second, errors at the given rates, durations around 50 ms."""
    on_trial = rng.random(requests) < weight
    errors = rng.random(requests) < np.where(on_trial, candidate, control)
    durations = 0.05 * np.exp(sigma * rng.standard_normal(requests))
    durations *= np.where(on_trial, slower, 1.0)
    for index in range(requests):
        yield Outcome(
            arm="candidate" if on_trial[index] else "stable",
            at=start + index / 50,
            error=bool(errors[index]),
            duration_s=float(durations[index]),
        )


def begun(plan: AnalysisPlan = PLAN, weight: float = 0.1) -> Analysis:
    analysis = Analysis(plan)
    analysis.begin_step(step=0, weight=weight, at=0.0)
    return analysis


def crossing(
    rng: np.random.Generator,
    rates: tuple[float, float],
    *,
    delta: float = 0.0,
    margin: float = 0.01,
    evidence_min: float = 100.0,
    promote: bool = False,
    weight: float = 0.1,
    candidates_max: int = 20_000,
    look_every: int = 10,
) -> int | None:
    """Candidate requests until the evidence is there, looked at after every few of them."""
    bets = PairedBets(delta=[delta], margin=[margin])
    bets.pace(weight)
    while bets.count[1] < candidates_max:
        on_trial = rng.random(int(look_every / weight)) < weight
        bad = rng.random(len(on_trial)) < np.where(on_trial, rates[1], rates[0])
        bets.update(on_trial, bad[:, None].astype(float))
        found = bets.promote_evidence if promote else bets.rollback_peak
        if found >= math.log(evidence_min):
            return bets.count[1]
    return None


@pytest.mark.parametrize(
    ("rates", "delta", "table"),
    [
        ((0.01, 0.03), 0.0, 682),
        ((0.01, 0.03), 0.002, 855),
        ((0.01, 0.10), 0.002, 128),
        ((0.001, 0.01), 0.001, 1_486),
        ((0.01, 1.0), 0.002, 10),
    ],
)
def test_a_worse_candidate_is_caught_about_as_fast_as_the_table_says(
    rates: tuple[float, float], delta: float, table: int
) -> None:
    rng = np.random.default_rng(11)
    found = [crossing(rng, rates, delta=delta) for _ in range(60)]
    caught = [requests for requests in found if requests is not None]
    assert len(caught) == 60
    # The table pairs each candidate request with exactly nine controls; random assignment does
    # not, and looks here come every ten requests or so.
    assert 0.8 * table <= np.mean(caught) <= 1.35 * table + 10


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.1, 0.5])
def test_equal_arms_are_rarely_rolled_back_even_when_the_base_rate_breathes(weight: float) -> None:
    """Ville: at most 5%. A day of 1% to 5% errors passes four times, outages hit both arms."""
    rng, runs, crossed = np.random.default_rng(5), 200, 0
    requests = int(4_000 / weight)
    for _ in range(runs):
        bets = PairedBets(delta=[0.0], margin=[0.01])
        bets.pace(weight)
        day = 0.03 + 0.02 * np.sin(np.arange(requests) / requests * 8 * math.pi + rng.random() * 6)
        day[(np.arange(requests) + rng.integers(2_000)) % 2_000 < 40] = 0.9
        on_trial = rng.random(requests) < weight
        bets.update(on_trial, (rng.random(requests) < day)[:, None].astype(float))
        crossed += bets.rollback_peak >= math.log(20)
    # 200 runs at exactly 5%: more than 19 would be a one in two hundred accident.
    assert crossed <= 19


@pytest.mark.slow
def test_a_candidate_worse_by_the_margin_is_rarely_promoted() -> None:
    rng = np.random.default_rng(3)
    found = [
        crossing(
            rng, (0.01, 0.02), evidence_min=20, promote=True, look_every=50, candidates_max=5_000
        )
        for _ in range(100)
    ]
    # 5% of 100; more than 12 would be a one in two hundred accident.
    assert sum(requests is not None for requests in found) <= 12


def test_an_equal_candidate_is_shown_to_be_no_worse() -> None:
    rng = np.random.default_rng(2)
    found = [crossing(rng, (0.01, 0.01), evidence_min=20, promote=True) for _ in range(40)]
    assert None not in found
    # 1,396 in the table.
    assert 1_000 <= np.mean([requests or 0 for requests in found]) <= 2_100


def test_the_whole_analysis_promotes_an_equal_candidate_with_arithmetic_in_words() -> None:
    analysis = begun()
    analysis.observe(stream(np.random.default_rng(1), 60_000))
    assessment = analysis.assess(1_200.0)
    assert assessment.verdict is Verdict.SUCCESSFUL
    assert assessment.interim
    error, slow, quality = assessment.measurements
    assert error.control is not None
    assert error.candidate is not None
    counts = (error.candidate.count, error.control.count)
    assert f"/{counts[0]:,} against" in error.words
    assert f"/{counts[1]:,} control: not worse by the margin, evidence" in error.words
    assert slow.words.startswith("slow (above q9")
    # Nobody labelled anything: quality neither stands in the way nor succeeds.
    assert quality.verdict is Verdict.INCONCLUSIVE
    assert not quality.required


def test_errors_roll_back_with_both_numbers_in_words() -> None:
    analysis = begun()
    analysis.observe(stream(np.random.default_rng(1), 8_000, candidate=0.15))
    assessment = analysis.assess(160.0)
    assert assessment.verdict is Verdict.FAILED
    assert assessment.measurements[0].verdict is Verdict.FAILED
    assert ">= 600" in assessment.words
    assert "errors" in assessment.words


@pytest.mark.parametrize(("slower", "sigma", "requests"), [(1.3, 0.25, 3_500), (1.3, 0.5, 7_000)])
def test_a_slower_candidate_is_rolled_back(slower: float, sigma: float, requests: int) -> None:
    caught = 0
    for seed in range(5):
        analysis, rng = begun(), np.random.default_rng(seed)
        analysis.observe(stream(rng, requests, slower=slower, sigma=sigma))
        found = {m.guard: m.verdict for m in analysis.assess(200.0).measurements}
        assert found["error"] is not Verdict.FAILED
        caught += found["slow"] is Verdict.FAILED
    assert caught >= 4


def test_nothing_faster_than_the_slo_is_slow() -> None:
    analysis = begun(AnalysisPlan(slo_latency_s=5.0))
    analysis.observe(stream(np.random.default_rng(0), 20_000, slower=1.5))
    slow = analysis.assess(400.0).measurements[1]
    assert slow.verdict is Verdict.SUCCESSFUL
    assert slow.rollback_evidence < 1.5


def test_worse_labels_roll_back_and_missing_labels_promise_nothing() -> None:
    rng = np.random.default_rng(4)
    analysis = begun(AnalysisPlan(quality="required"))
    analysis.observe(stream(rng, 60_000))
    assert analysis.assess(1_200.0).verdict is Verdict.INCONCLUSIVE
    arms = rng.random(8_000) < 0.5
    wrong = rng.random(8_000) < np.where(arms, 0.25, 0.15)
    analysis.observe_losses(
        LabelledLoss(arm="candidate" if arm else "stable", at=1.0, loss=float(bad))
        for arm, bad in zip(arms, wrong, strict=True)
    )
    assessment = analysis.assess(1_300.0)
    assert assessment.verdict is Verdict.FAILED
    assert "loss" in assessment.words


def test_a_loss_that_is_no_number_is_as_bad_as_can_be() -> None:
    analysis = begun()
    analysis.observe_losses(
        loss
        for _ in range(50)
        for loss in (
            LabelledLoss(arm="stable", at=1.0, loss=0.0),
            LabelledLoss(arm="candidate", at=1.0, loss=math.nan),
        )
    )
    assert analysis.assess(2.0).verdict is Verdict.FAILED


def test_silence_is_not_success() -> None:
    analysis = begun()
    for now in (0.0, 1e6):
        assessment = analysis.assess(now)
        assert assessment.verdict is Verdict.INCONCLUSIVE
        assert not assessment.interim
        assert assessment.idle


def test_a_few_clean_requests_are_not_success_either() -> None:
    analysis = begun()
    analysis.observe(stream(np.random.default_rng(0), 1_500, control=0.0, candidate=0.0))
    assert analysis.assess(30.0).verdict is Verdict.INCONCLUSIVE


def test_ten_failures_in_a_row_stop_at_once() -> None:
    analysis = begun()
    analysis.observe(stream(np.random.default_rng(0), 130, candidate=1.0, control=0.0))
    assessment = analysis.assess(2.0)
    assert assessment.hard_stop == "all_failing"
    assert assessment.verdict is Verdict.FAILED


def test_an_outage_of_both_arms_is_no_fault_of_the_candidate() -> None:
    analysis = begun(weight=0.5)
    rng = np.random.default_rng(0)
    analysis.observe(stream(rng, 3_000, weight=0.5))
    analysis.observe(stream(rng, 600, weight=0.5, candidate=1.0, control=1.0, start=60))
    assessment = analysis.assess(80.0)
    assert assessment.hard_stop is None
    assert assessment.frozen
    assert assessment.verdict is Verdict.INCONCLUSIVE
    assert "sick" in assessment.words
    # It passes, and the canary goes on.
    analysis.observe(stream(rng, 3_000, weight=0.5, start=80))
    assessment = analysis.assess(140.0)
    assert not assessment.frozen
    assert assessment.measurements[0].verdict is not Verdict.FAILED


def test_a_sick_stable_model_lets_nobody_look_good() -> None:
    analysis = begun()
    analysis.observe(stream(np.random.default_rng(0), 60_000, control=0.4, candidate=0.0))
    assessment = analysis.assess(1_200.0)
    assert assessment.frozen
    assert assessment.verdict is Verdict.INCONCLUSIVE


def test_looking_good_beside_a_sick_stable_model_is_not_remembered() -> None:
    analysis, rng = begun(weight=0.02), np.random.default_rng(0)
    analysis.observe(stream(rng, 20_000, weight=0.02, control=0.5, candidate=0.0))
    analysis.observe(stream(rng, 600, weight=0.02, start=400.0))
    assessment = analysis.assess(420.0)
    assert not assessment.frozen
    # A few requests before the sickness was noticed count; four hundred would say e^100.
    assert assessment.measurements[0].promote_evidence < 20


def test_a_starved_arm_is_a_hard_stop_and_a_quiet_night_is_not() -> None:
    analysis = begun()
    analysis.observe(stream(np.random.default_rng(0), 30_000, weight=0.0))
    assert analysis.assess(250.0).hard_stop is None
    assert analysis.assess(600.0).hard_stop == "starved"
    quiet = begun(weight=0.01)
    quiet.observe(stream(np.random.default_rng(0), 500, weight=0.0))
    assert quiet.assess(86_400.0).hard_stop is None


def test_an_output_that_is_no_number_stops_a_candidate_and_only_a_candidate() -> None:
    analysis = begun()
    analysis.observe_invalid_output("stable", "NaN")
    assert analysis.assess(1.0).hard_stop is None
    analysis.observe_invalid_output("candidate", "NaN in output 0")
    assert analysis.assess(1.0).words == "invalid_output: the candidate answered NaN in output 0"


def test_one_bad_client_counts_once_a_minute() -> None:
    analysis = begun(AnalysisPlan(clustered=True))
    rng = np.random.default_rng(0)
    for outcome in stream(rng, 5_000, control=0.0):
        bad = outcome.arm == "candidate"
        key = 1 if bad else int(rng.integers(1 << 40))
        analysis.observe(
            [Outcome(arm=outcome.arm, at=outcome.at, error=bad, duration_s=0.05, key_hash=key)]
        )
    assessment = analysis.assess(100.0)
    assert assessment.requests == 2  # 100 seconds touch two minutes
    assert assessment.verdict is Verdict.INCONCLUSIVE


def test_the_bake_watches_against_the_past_of_the_control() -> None:
    analysis = begun()
    rng = np.random.default_rng(0)
    analysis.observe(stream(rng, 20_000))
    analysis.begin_bake(400.0)
    analysis.observe(stream(rng, 20_000, weight=1.0, start=400.0))
    assessment = analysis.assess(800.0)
    assert assessment.baking
    assert assessment.verdict is Verdict.INCONCLUSIVE
    assert assessment.bake_requests == 20_000
    analysis.observe(stream(rng, 20_000, weight=1.0, candidate=0.06, start=800.0))
    assessment = analysis.assess(1_200.0)
    assert assessment.verdict is Verdict.FAILED
    assert "against a bound of" in assessment.words


def test_ten_seconds_of_outage_in_bake_are_survived_and_ten_minutes_are_not() -> None:
    analysis = begun()
    rng = np.random.default_rng(0)
    analysis.observe(stream(rng, 20_000))
    analysis.begin_bake(400.0)
    analysis.observe(stream(rng, 500, weight=1.0, candidate=1.0, start=400.0))
    assert analysis.assess(411.0).verdict is Verdict.INCONCLUSIVE
    analysis.observe(stream(rng, 30_000, weight=1.0, candidate=1.0, start=410.0))
    assert analysis.assess(1_011.0).verdict is Verdict.FAILED


def test_the_false_alarms_of_a_bake_stay_within_the_bound() -> None:
    rng, crossed = np.random.default_rng(8), 0
    for _ in range(200):
        bets = BoundBets(bound=[0.02])
        bets.update(rng.binomial(100, 0.02, size=(2_000, 1)) / 100)
        crossed += bets.peak >= math.log(20)
    assert crossed <= 19


@given(st.lists(st.integers(1, 700), max_size=12), st.integers(0, 5))
def test_how_the_outcomes_were_cut_does_not_matter(cuts: list[int], seed: int) -> None:
    outcomes = list(stream(np.random.default_rng(seed), 3_000, candidate=0.05, weight=0.3))
    whole, cut = begun(weight=0.3), begun(weight=0.3)
    whole.observe(outcomes)
    start = 0
    for size in cuts:
        cut.observe(outcomes[start : start + size])
        # A restart at any place changes nothing.
        cut = Analysis.restore(PLAN, json.loads(json.dumps(cut.state())))
        start += size
    cut.observe(outcomes[start:])
    assert cut.state() == whole.state()


def test_a_restart_in_the_middle_of_a_bake_changes_nothing() -> None:
    analysis = begun()
    rng = np.random.default_rng(0)
    analysis.observe(stream(rng, 20_000))
    analysis.begin_bake(400.0)
    outcomes = list(stream(rng, 2_003, weight=1.0, start=400.0))
    analysis.observe(outcomes[:777])
    again = Analysis.restore(PLAN, json.loads(json.dumps(analysis.state())))
    analysis.observe(outcomes[777:])
    again.observe(outcomes[777:])
    assert again.state() == analysis.state()
    assert again.assess(450.0) == analysis.assess(450.0)


def test_a_restart_counts_no_client_twice() -> None:
    plan = AnalysisPlan(clustered=True)
    analysis = begun(plan)
    one = Outcome(arm="candidate", at=10.0, error=False, duration_s=0.1, key_hash=1)
    analysis.observe([one])
    again = Analysis.restore(plan, json.loads(json.dumps(analysis.state())))
    again.observe([one])
    assert again.assess(11.0).requests == 1
    later = Outcome(arm="candidate", at=70.0, error=False, duration_s=0.1, key_hash=1)
    again.observe([later])
    assert again.assess(71.0).requests == 2


def test_the_state_stays_small() -> None:
    analysis = begun()
    analysis.observe(stream(np.random.default_rng(0), 50_000))
    assert len(json.dumps(analysis.state())) < 20_000


def test_a_plan_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"error: 0 <= delta \(0.02\) <= margin \(0.01\)"):
        AnalysisPlan(delta_error=0.02)


def test_a_candidate_that_is_held_starves_in_peace() -> None:
    analysis = begun()
    analysis.observe(stream(np.random.default_rng(0), 2_000))
    analysis.begin_step(step=0, weight=0.0, at=40.0)
    analysis.observe(stream(np.random.default_rng(0), 30_000, weight=0.0, start=40.0))
    assert analysis.assess(700.0).hard_stop is None
