"""Operating characteristics of the canary analysis against threshold rules, by simulation.

Claim: errors are controlled without knowing the base rate or the traffic. The peers are the
decision rules of Flagger (any window out of range counts, roll back at the fifth) and of Argo
Rollouts (roll back at the first failed measurement of five), re-implemented as rules, no code of
theirs: they are excellent where threshold and traffic happen to fit, and far off where not. Seeded;
requests are those of the candidate. Run: `python benchmarks/rollout.py`, under a minute.
"""

import math
import time

import numpy as np

from retrain.analysis import Analysis, Outcome
from retrain.betting import PairedBets
from retrain.guards import AnalysisPlan

RUNS = 200
WEIGHT = 0.1
DELTA = 0.002
REQUESTS_MAX = 10_000


def betting(rng: np.random.Generator, control: float, candidate: float) -> int | None:
    """Candidate requests until Remora rolls back at alpha .01, None when it never does."""
    bets = PairedBets(delta=[DELTA], margin=[0.01])
    bets.pace(WEIGHT)
    look_every = 10
    while bets.count[1] < REQUESTS_MAX:
        on_trial = rng.random(int(look_every / WEIGHT)) < WEIGHT
        bad = rng.random(len(on_trial)) < np.where(on_trial, candidate, control)
        bets.update(on_trial, bad[:, None].astype(float))
        if bets.rollback_peak >= math.log(100):
            return bets.count[1]
        look_every = 10 if bets.count[1] < 1_000 else 100
    return None


def flagger_like(rng: np.random.Generator, candidate: float, bar: float, window: int) -> bool:
    """Ten windows, rolled back at the fifth whose success rate is below the bar."""
    failed = rng.binomial(window, candidate, size=10) / window > 1 - bar + 1e-12
    return int(failed.sum()) >= 5


def argo_like(rng: np.random.Generator, candidate: float, bar: float, window: int) -> bool:
    """Five measurements, failureLimit 0."""
    failed = rng.binomial(window, candidate, size=5) / window > 1 - bar + 1e-12
    return bool(failed.any())


def operating_characteristics() -> None:
    rng = np.random.default_rng(20)
    print(f"{'rule':<44}{'false rollback':>15}{'caught at 3%':>14}   (true rate 1%)")
    for name, rule in (("Flagger-like", flagger_like), ("Argo-like", argo_like)):
        for bar, window in ((0.99, 200), (0.98, 50), (0.98, 200), (0.98, 1_000), (0.95, 200)):
            false = np.mean([rule(rng, 0.01, bar, window) for _ in range(5_000)])
            caught = np.mean([rule(rng, 0.03, bar, window) for _ in range(5_000)])
            words = f"{name}, success >= {bar:.0%}, {window} per window"
            print(f"{words:<44}{false:>15.3f}{caught:>14.3f}")
    false = np.mean([betting(rng, 0.01, 0.01) is not None for _ in range(RUNS)])
    caught = np.mean([betting(rng, 0.01, 0.03) is not None for _ in range(RUNS)])
    words = f"Remora, delta {DELTA}, alpha .01, no threshold"
    print(f"{words:<44}{false:>15.3f}{caught:>14.3f}")


def delays() -> None:
    rng = np.random.default_rng(21)
    print(f"\n{'errors, candidate requests to roll back':<44}{'mean':>8}{'p50':>8}{'p90':>8}")
    for control, candidate in ((0.01, 0.02), (0.01, 0.03), (0.01, 0.1), (0.001, 0.01), (0.01, 1.0)):
        found = [betting(rng, control, candidate) for _ in range(RUNS // 2)]
        caught = [requests for requests in found if requests is not None]
        words = f"{control:.1%} to {candidate:.1%}, {len(caught)}/{len(found)} caught"
        p50, p90 = np.quantile(caught, [0.5, 0.9])
        print(f"{words:<44}{np.mean(caught):>8,.0f}{p50:>8,.0f}{p90:>8,.0f}")


def throughput() -> None:
    """The whole analysis, three guards, as the agent feeds it."""
    rng = np.random.default_rng(22)
    analysis = Analysis(AnalysisPlan())
    analysis.begin_step(step=0, weight=WEIGHT, at=0.0)
    outcomes = [
        Outcome(
            arm="candidate" if rng.random() < WEIGHT else "stable",
            at=index / 5_000,
            error=bool(rng.random() < 0.01),
            duration_s=float(0.05 * rng.lognormal(0.0, 0.5)),
        )
        for index in range(100_000)
    ]
    began = time.process_time()
    for start in range(0, len(outcomes), 500):
        analysis.observe(outcomes[start : start + 500])
    spent_s = time.process_time() - began
    print(f"\noutcomes analysed per CPU second: {len(outcomes) / spent_s:,.0f} (needed: 5,000)")


if __name__ == "__main__":
    operating_characteristics()
    delays()
    throughput()
