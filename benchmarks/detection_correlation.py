"""How soon a broken correlation is seen: two of 100 features, marginals unchanged.

A reference of 50,000 rows, ticks of 50 rows; after a stationary stretch the correlation of two
features goes from --before to --after (.4 to 0). Watched side by side on the same rows:

- projections (principal components, relations of pairs), budget .1 false alarms in 30 days;
- the features one by one, budget .5: their marginals do not change, so they must stay silent;
- a detector that always fires and one that never does.

A delay is rows from the change to the end of the first tick that says `warning` or `drift`; a row
of the table whose detector fired before the change is no delay but a false alarm. The last lines
are stationary rows alone: ticks of 1,000, false alarms counted.

    python benchmarks/detection_correlation.py [--json FILE]

Exits 0 if the median delay of the projections is at most --rows and nothing fired too soon, else 1.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from detectors import DriftDetector, Reference, build_reference
from detectors.relations.derivation import Derivation
from detectors.rows.columns import Table, as_table

FEATURES, REFERENCE_ROWS, TICK_ROWS, CHUNK_ROWS = 100, 50_000, 50, 10_000
QUIET_TICKS = 100
LATE_ROWS_MAX = 20_000
BUDGET_PROJECTIONS, BUDGET_FEATURES = 0.1, 0.5

#: Says of one tick whether it fires.
Watch: TypeAlias = Callable[[Table], bool]


def rows_of(rng: np.random.Generator, rows: int, rho: float) -> Table:
    """Rows of 100 standard normal features, independent but for the first two."""
    values = rng.normal(size=(FEATURES, rows))
    values[1] = rho * values[0] + math.sqrt(1 - rho**2) * values[1]
    return as_table({f"f{i:03d}": values[i] for i in range(FEATURES)})


def joined(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """The chunks' columns, one after the other."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def learn(
    rng: np.random.Generator, rho: float, fourier: int, rows: int
) -> tuple[Derivation | None, Reference | None, Reference]:
    """The derivation, the reference of what it derives, and the reference of the features."""
    chunk = min(CHUNK_ROWS, rows)
    tables = [rows_of(rng, chunk, rho) for _ in range(rows // chunk)]
    kinds = dict.fromkeys(tables[0].columns, "numeric")
    derivation = Derivation.fit(tables, kinds, fourier=fourier)
    options: dict[str, Any] = {"tick_rows": 1_000}
    features = joined([table.columns for table in tables])
    if derivation is None:
        return None, None, _reference(features, options)
    derived = joined([derivation.derive(table) for table in tables])
    return derivation, _reference(derived, options), _reference(features, options)


def _reference(columns: dict[str, Any], options: dict[str, Any]) -> Reference:
    return build_reference(columns, derive=False, **options)


def watches(
    derivation: Derivation | None, projections: Reference | None, features: Reference
) -> dict[str, Watch]:
    """The contenders, new."""
    single = DriftDetector(features, false_alarms_per_month=BUDGET_FEATURES)
    found: dict[str, Watch] = {
        "features one by one": lambda table: bool(single.update(table)),
        "always fires": lambda table: True,
        "never fires": lambda table: False,
    }
    if derivation is None or projections is None:
        return {"projections (none worth watching)": lambda table: False} | found
    together = DriftDetector(projections, false_alarms_per_month=BUDGET_PROJECTIONS)
    return {"projections": lambda table: bool(together.update(derivation.derive(table)))} | found


def delays(seed: int, asked: argparse.Namespace) -> tuple[dict[str, tuple[bool, float]], int]:
    """For each contender: fired too soon, and its delay; and how many projections there are."""
    rng = np.random.default_rng(seed)
    learnt = learn(rng, asked.before, asked.fourier, REFERENCE_ROWS)
    contenders = watches(*learnt)
    soon = dict.fromkeys(contenders, False)
    for _ in range(QUIET_TICKS):
        table = rows_of(rng, TICK_ROWS, asked.before)
        for name, watch in contenders.items():
            soon[name] |= watch(table)
    delay = dict.fromkeys(contenders, math.inf)
    rows = 0
    while rows < LATE_ROWS_MAX:
        table = rows_of(rng, TICK_ROWS, asked.after)
        rows += TICK_ROWS
        for name, watch in contenders.items():
            if watch(table):
                delay[name] = min(delay[name], rows)
    count = 0 if learnt[0] is None else len(learnt[0].projections)
    return {name: (soon[name], delay[name]) for name in contenders}, count


def stationary(asked: argparse.Namespace, reference_rows: int) -> tuple[int, int]:
    """False alarms of projections in --ticks stationary ticks of 1,000 rows, and ticks."""
    alarms = 0
    ticks = asked.ticks
    rng = np.random.default_rng(1_000 + reference_rows)
    derivation, projections, _ = learn(rng, asked.before, asked.fourier, reference_rows)
    if derivation is None or projections is None:
        return 0, ticks
    detector = DriftDetector(projections, false_alarms_per_month=BUDGET_PROJECTIONS)
    for _ in range(ticks):
        table = rows_of(rng, 1_000, asked.before)
        alarms += sum(r.state.value != "ok" for r in detector.update(derivation.derive(table)))
    return alarms, ticks


def show_delays(runs: list[tuple[dict[str, tuple[bool, float]], int]]) -> dict[str, Any]:
    """Print a line for each contender and give its figures; null where most never fired."""
    table: dict[str, Any] = {}
    print(f"{'':36}{'fired too soon':>16}{'median':>9}{'p90':>9}{'missed':>8}")
    for name in runs[0][0]:
        late = np.array([run[0][name][1] for run in runs])
        soon, missed = sum(run[0][name][0] for run in runs), int(np.isinf(late).sum())
        ninth = float(np.sort(late)[max(math.ceil(0.9 * len(late)) - 1, 0)])
        median = float(np.median(late))
        shown = [f"{v:.0f}" if math.isfinite(v) else "never" for v in (median, ninth)]
        print(f"{name:36}{soon:>13}/{len(runs)}{shown[0]:>9}{shown[1]:>9}{missed:>8}")
        table[name] = {
            "fired_too_soon": soon,
            "median": median if math.isfinite(median) else None,
            "p90": ninth if math.isfinite(ninth) else None,
            "missed": missed,
        }
    return table


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--ticks", type=int, default=1_500, help="stationary ticks of 1,000 rows")
    parser.add_argument("--before", type=float, default=0.4, help="correlation in the reference")
    parser.add_argument("--after", type=float, default=0.0)
    parser.add_argument("--fourier", type=int, default=0, help="random Fourier features as well")
    parser.add_argument("--rows", type=float, default=500, help="median delay that must be kept")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    return parser.parse_args()


def main() -> int:
    """Run all seeds and print the table."""
    asked = arguments()
    print(f"correlation {asked.before:g} to {asked.after:g}, {asked.seeds} seeds, rows of delay")
    runs = [delays(seed, asked) for seed in range(asked.seeds)]
    table = show_delays(runs)
    counts = [run[1] for run in runs]
    print(f"projections watched: {min(counts)} to {max(counts)}")
    quiet = {}
    for reference_rows in (5_000, REFERENCE_ROWS):
        alarms, ticks = stationary(asked, reference_rows)
        quiet[str(reference_rows)] = {"alarms": alarms, "ticks": ticks}
        print(f"stationary, reference {reference_rows:,}: {alarms} false alarms in {ticks:,} ticks")
    if asked.json is not None:
        tree = {
            "benchmark": "detection_correlation",
            "before": asked.before,
            "after": asked.after,
            "fourier": asked.fourier,
            "seeds": asked.seeds,
            "delay_rows": table,
            "stationary": quiet,
        }
        asked.json.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    first = next(iter(table.values()))
    good = first["median"] is not None and first["median"] <= asked.rows
    good = good and not first["fired_too_soon"]
    return 0 if good and not any(q["alarms"] for q in quiet.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
