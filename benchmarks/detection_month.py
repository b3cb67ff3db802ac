"""False alarms in a month in which nothing changes: 43,200 ticks x 100 features x 1,000 rows.

Rows are drawn as counts per bin from one distribution per feature (equal bins, few values, rare
values, categories, missing values from none to one in three), given to the detector as the agent
gives them, one tick a minute. The reference is either that very distribution, or estimated from
5,000 or 50,000 rows of it. A false alarm is the first `warning` or `drift` of a feature; after it
the feature counts again when it has recovered.

    python benchmarks/detection_month.py [--quick] [--seeds 5] [--json FILE]

A detector that always fires and one that never fires go through the same months. Exits 1 if the
mean over the months is above 1 false alarm, or one month above 2.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from detectors import DriftDetector, FeatureProfile, Reference, State, build_reference

MONTH, FEATURES, ROWS = 43_200, 100, 1_000
#: Of the agent's one false alarm in a month, what data drift has by default.
BUDGET = 0.5
REFERENCES = {"known": None, "50,000 rows": 50_000, "5,000 rows": 5_000}
WIDTH, MISSING, OUTSIDE = 18, 16, 17
MEAN_MAX, MONTH_MAX = 1.0, 2
_CHUNK = 360  # ticks drawn at a time

Shares = NDArray[np.float64]


class Always:
    """A detector that fires whatever it sees."""

    def __init__(self, features: int) -> None:
        self.features = features

    def observe(self, counts: NDArray[np.int64], *, rows: int) -> int:
        """Say that every feature drifts."""
        return self.features


class Never:
    """A detector that never fires."""

    def observe(self, counts: NDArray[np.int64], *, rows: int) -> int:
        """Say nothing."""
        return 0


class Ours:
    """The detector under test, and how often it was wrong."""

    def __init__(self, reference: Reference) -> None:
        self.detector = DriftDetector(reference, false_alarms_per_month=BUDGET)
        self.by_path: dict[str, int] = {}

    def observe(self, counts: NDArray[np.int64], *, rows: int) -> int:
        """Count the features that stopped being `ok` in this tick."""
        before = self.detector.states()
        alarms = 0
        for reading in self.detector.observe(counts, rows=rows):
            if reading.state in (State.WARNING, State.DRIFT) and before[reading.subject] in (
                State.OK,
                State.INSUFFICIENT_DATA,
            ):
                alarms += 1
                self.by_path[reading.detector] = self.by_path.get(reading.detector, 0) + 1
                print(f"    {reading.explain} ({reading.detector})")
        return alarms


def truth(seed: int) -> tuple[list[FeatureProfile], Shares]:
    """Give 100 features of several kinds and the distribution of each over its 18 bins."""
    rng = np.random.default_rng(seed)
    ordered = build_reference({"x": np.arange(16.0).repeat(4)}).features[0]
    names = np.array([f"c{i}" for i in range(40)], dtype=object)
    chances = np.arange(40, 0, -1.0) ** 2
    words = build_reference({"x": rng.choice(names, 20_000, p=chances / chances.sum())}).features[0]
    profiles, shares = [], np.zeros((FEATURES, WIDTH))
    for j in range(FEATURES):
        kind = j % 5
        shape = words if kind == 4 else ordered
        live = shape.live()
        if kind < 2:  # bins of a continuous feature: equal shares
            inside = np.full(16, 1 / 16)
        elif kind == 2:  # few values: Poisson-like shares that fall to one in a million
            inside = np.exp(-np.cumsum(np.linspace(0.0, 2.0, 16)))
        else:  # anything
            inside = rng.dirichlet(np.full(16, 0.5)) + 1e-6
        inside = np.where(live[:16], inside, 0.0)
        missing = (0.0, 1e-5, 1e-3, 0.01, 0.3)[(j // 5) % 5]
        outside = (0.0, 1e-5, 1e-3)[(j // 25) % 3]
        shares[j, :16] = inside / inside.sum() * (1 - missing - outside)
        shares[j, MISSING], shares[j, OUTSIDE] = missing, outside
        profiles.append(replace(shape, name=f"f{j}"))
    return profiles, shares


def reference_of(
    profiles: list[FeatureProfile], shares: Shares, rows: int | None, rng: np.random.Generator
) -> Reference:
    """Give the profiles as `rows` rows show them; None is the distribution itself."""
    counts = shares * 1e12 if rows is None else rng.multinomial(rows, shares).astype(float)
    features = tuple(
        replace(profile, counts=tuple(row.tolist()))
        for profile, row in zip(profiles, counts, strict=True)
    )
    shape = build_reference({"x": np.arange(64.0)})
    return replace(shape, features=features, rows=rows or 10**12)


def month(seed: int, rows: int | None, ticks: int) -> dict[str, Any]:
    """Run one month through all detectors; give false alarms of each and CPU seconds of ours."""
    rng = np.random.default_rng((seed, rows or 0))
    profiles, shares = truth(seed)
    ours = Ours(reference_of(profiles, shares, rows, rng))
    contenders: dict[str, Callable[..., int]] = {
        "remora": ours.observe,
        "always": Always(FEATURES).observe,
        "never": Never().observe,
    }
    alarms = dict.fromkeys(contenders, 0)
    spent = 0.0
    for start in range(0, ticks, _CHUNK):
        chunk = min(_CHUNK, ticks - start)
        drawn = rng.multinomial(ROWS, shares, size=(chunk, FEATURES))
        started = time.process_time()
        for counts in drawn:
            alarms["remora"] += contenders["remora"](counts, rows=ROWS)
        spent += time.process_time() - started
        for name in ("always", "never"):
            alarms[name] += sum(contenders[name](counts, rows=ROWS) for counts in drawn)
    return {"alarms": alarms, "cpu_s": spent, "by_path": ours.by_path}


def main() -> int:
    """Run the months and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of a month, two seeds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    asked = parser.parse_args()
    ticks, seeds = (MONTH // 20, 2) if asked.quick else (MONTH, asked.seeds)
    print(f"{ticks:,} ticks x {FEATURES} features x {ROWS:,} rows, budget {BUDGET} a month")
    found: list[dict[str, Any]] = []
    for name, rows in REFERENCES.items():
        for seed in range(1, seeds + 1):
            result = month(seed, rows, ticks)
            found.append({"reference": name, "seed": seed} | result)
            print(
                f"  reference {name:<12} seed {seed}: {result['alarms']['remora']} false alarms, "
                f"{result['cpu_s']:.0f} s of CPU",
                flush=True,
            )
    print(
        f"\n  {'false alarms per month':<22} {'known':>12} {'50,000 rows':>12} {'5,000 rows':>12}"
    )
    for who in ("remora", "always", "never"):
        means = [
            float(np.mean([f["alarms"][who] for f in found if f["reference"] == name]))
            for name in REFERENCES
        ]
        print(f"  {who:<22} " + " ".join(f"{mean:>12,.1f}" for mean in means))
    counts = [f["alarms"]["remora"] for f in found]
    kept = float(np.mean(counts)) <= MEAN_MAX and max(counts) <= MONTH_MAX
    print(f"  mean {np.mean(counts):.2f} (at most {MEAN_MAX}), worst {max(counts)} ({MONTH_MAX})")
    if asked.json:
        asked.json.write_text(json.dumps({"ticks": ticks, "budget": BUDGET, "months": found}))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
