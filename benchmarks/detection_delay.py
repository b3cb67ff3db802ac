"""How many rows until a change of one feature in a hundred is seen, and what that costs in false
alarms.

A reference of 50,000 rows, ticks of 50 rows, 5,000 unchanged rows first. Remora has the budget that
data drift has by default, half a false alarm in a month of 43,200 ticks over all 100 features, a
third of it for the ladder. Peers that look at windows get windows of 1,000 rows of the same rows;
river's detectors get the changed feature's values one by one. Beside each delay stand the false
alarms on unchanged rows, as feature-alarms in a month of 43,200 ticks (windows for peers, 1,000
rows for river's).

    python benchmarks/detection_delay.py [--quick] [--repeats 20] [--json FILE]

Exits 1 if Remora misses a target. The correlation of features is benchmarks/detection_correlation.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peers.drift_rules import WINDOW_PEERS, Rows, first_alarm
from detectors import DriftDetector, Reference, build_reference

FEATURES, REFERENCE_ROWS, TICK_ROWS, WINDOW_ROWS = 100, 50_000, 50, 1_000
BEFORE_ROWS, LATEST_ROWS = 5_000, 40_000
BUDGET, MONTH = 0.5, 43_200
MISSING = 0.01  # the share of missing values before anything changes

#: Changes one feature's rows in place: (rows of that feature, generator).
Change = Callable[[Rows, np.random.Generator], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A change, and what Remora has to reach: rows, the median and the ninth decile."""

    name: str
    change: Change
    median_max: int
    p90_max: int | None = None


def shift(size: float) -> Change:
    """Give a change of the mean, in standard deviations."""

    def change(rows: Rows, rng: np.random.Generator) -> None:
        rows += size

    return change


def wider(rows: Rows, rng: np.random.Generator) -> None:
    """Half as much variance again."""
    rows *= np.sqrt(1.5)


def more_missing(rows: Rows, rng: np.random.Generator) -> None:
    """Three missing values in a hundred instead of one."""
    lost = (0.03 - MISSING) / (1 - MISSING)
    rows[rng.random(rows.shape) < lost] = np.nan


CASES = [
    Case(name=".1 sigma", change=shift(0.1), median_max=11_000),
    Case(name=".3 sigma", change=shift(0.3), median_max=600, p90_max=1_000),
    Case(name=".5 sigma", change=shift(0.5), median_max=300),
    Case(name="1.0 sigma", change=shift(1.0), median_max=150),
    Case(name="variance x1.5", change=wider, median_max=2_500),
    Case(name="missing 1 to 3 %", change=more_missing, median_max=3_300),
]


def unchanged(rng: np.random.Generator, rows: int) -> Rows:
    """Draw rows [100, rows]: normal, one in a hundred missing."""
    drawn = rng.normal(size=(FEATURES, rows))
    drawn[rng.random(drawn.shape) < MISSING] = np.nan
    return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A reference as Remora knows it, and as the peers do: sorted, missing values left out."""

    reference: Reference
    ordered: Rows


def world(seed: int) -> World:
    """Draw a reference."""
    rows = unchanged(np.random.default_rng((seed, 1)), REFERENCE_ROWS)
    names = [f"f{j}" for j in range(FEATURES)]
    reference = build_reference(dict(zip(names, rows, strict=True)), ordered=False)
    kept = min(int((~np.isnan(row)).sum()) for row in rows)
    ordered = np.array([np.sort(row[~np.isnan(row)][:kept]) for row in rows])
    return World(reference=reference, ordered=ordered)


def stream(case: Case, seed: int, feature: int) -> Callable[[int], Rows]:
    """Give ticks of rows [100, 50] by number, from 0 on; the change begins after BEFORE_ROWS."""
    rng = np.random.default_rng((seed, feature, 2))

    def tick(number: int) -> Rows:
        rows = unchanged(rng, TICK_ROWS)
        if number * TICK_ROWS >= BEFORE_ROWS:
            case.change(rows[feature], rng)
        return rows

    return tick


def ours(held: World, case: Case, seed: int, feature: int) -> tuple[int | None, int, str]:
    """Give Remora's delay in rows, its false alarms, and the path that alarmed."""
    detector = DriftDetector(held.reference, false_alarms_per_month=BUDGET, ticks_per_month=MONTH)
    tick, false = stream(case, seed, feature), 0
    for number in range((BEFORE_ROWS + LATEST_ROWS) // TICK_ROWS):
        columns = dict(zip(detector.names, tick(number), strict=True))
        for reading in detector.update(columns):
            if reading.state.value == "ok":
                continue
            if reading.subject == f"f{feature}" and number * TICK_ROWS >= BEFORE_ROWS:
                return (number + 1) * TICK_ROWS - BEFORE_ROWS, false, reading.detector
            false += 1
    return None, false, ""


def window_delays(held: World, case: Case, seed: int, feature: int) -> dict[str, int | None]:
    """Give each window rule's delay in rows, for the same rows as Remora's."""
    tick, delays = stream(case, seed, feature), dict.fromkeys([p.name for p in WINDOW_PEERS], None)
    found: dict[str, int | None] = dict(delays)
    per_window = WINDOW_ROWS // TICK_ROWS
    for number in range((BEFORE_ROWS + LATEST_ROWS // 2) // WINDOW_ROWS):
        window = np.concatenate([tick(number * per_window + k) for k in range(per_window)], axis=1)
        if number * WINDOW_ROWS < BEFORE_ROWS:
            continue
        for peer in WINDOW_PEERS:
            if found[peer.name] is None and peer.rule(held.ordered, window)[feature]:
                found[peer.name] = (number + 1) * WINDOW_ROWS - BEFORE_ROWS
        if all(found[p.name] is not None for p in WINDOW_PEERS if p.name != "never fires"):
            break
    return found


def window_false_alarms(held: World, seed: int, windows: int) -> dict[str, int]:
    """Give each window rule's feature-alarms on so many windows of unchanged rows."""
    rng = np.random.default_rng((seed, 3))
    alarms = dict.fromkeys((peer.name for peer in WINDOW_PEERS), 0)
    for _ in range(windows):
        rows = unchanged(rng, WINDOW_ROWS)
        for peer in WINDOW_PEERS:
            alarms[peer.name] += int(peer.rule(held.ordered, rows).sum())
    return alarms


def river_figures(name: str, repeats: int, rows: int) -> dict[str, Any]:
    """Give the delays of one of river's detectors by case, its false alarms, and how many a month
    has for each of them.
    """
    delays: dict[str, list[int | None]] = {}
    alarms = seen = 0
    for case in CASES:
        delays[case.name] = []
        for feature in range(repeats):
            rng = np.random.default_rng((5, feature))
            values = unchanged(rng, rows)[0]
            case.change(values[rows // 2 :], rng)
            early, delay = first_alarm(name, values, rows // 2)
            alarms, seen = alarms + early, seen + rows // 2
            delays[case.name].append(delay)
    return {"delays": delays, "false": alarms, "month": MONTH * WINDOW_ROWS * FEATURES / seen}


def quantile(delays: list[int | None], share: float) -> float:
    """Give a quantile of delays, infinite where it was missed."""
    known = sorted(float("inf") if delay is None else float(delay) for delay in delays)
    return known[min(int(share * len(known)), len(known) - 1)]


def shown(value: float) -> str:
    """Write a delay."""
    return "missed" if value == float("inf") else f"{value:,.0f}"


def remora(worlds: list[World], repeats: int) -> tuple[dict[str, Any], bool]:
    """Run Remora through all cases; give its figures and whether all targets were met."""
    figures: dict[str, Any] = {}
    met, false = True, 0
    for case in CASES:
        runs = []
        for repeat in range(repeats):
            held = worlds[repeat % len(worlds)]
            runs.append(ours(held, case, repeat % len(worlds), repeat % FEATURES))
        delays = [delay for delay, _, _ in runs]
        false += sum(count for _, count, _ in runs)
        median, p90 = quantile(delays, 0.5), quantile(delays, 0.9)
        good = median <= case.median_max and (case.p90_max is None or p90 <= case.p90_max)
        met &= good
        ladder = sum(path == "ladder" for _, _, path in runs)
        figures[case.name] = {"median": median, "p90": p90, "by_ladder": ladder / repeats}
        wanted = f"at most {case.median_max:,}"
        wanted += f", p90 {case.p90_max:,}" if case.p90_max else ""
        print(
            f"  {case.name:<18} median {shown(median):>7}  p90 {shown(p90):>7}  "
            f"{'ok' if good else 'MISSED'} ({wanted}); {ladder} of {repeats} by the ladder",
            flush=True,
        )
    figures["false"] = false
    return figures, met


def peers(worlds: list[World], repeats: int, quick: bool) -> dict[str, Any]:
    """Run the peers through all cases; give medians by case, and false alarms."""
    delays: dict[str, dict[str, list[int | None]]] = {p.name: {} for p in WINDOW_PEERS}
    for case in CASES:
        for repeat in range(repeats):
            held = worlds[repeat % len(worlds)]
            found = window_delays(held, case, repeat % len(worlds), repeat % FEATURES)
            for name, delay in found.items():
                delays[name].setdefault(case.name, []).append(delay)
    windows = 10 if quick else 60
    false = window_false_alarms(worlds[0], 0, windows)
    table: dict[str, Any] = {
        name: {"delays": by, "false": false[name], "month": MONTH / windows}
        for name, by in delays.items()
    }
    table["ADWIN"] = river_figures("ADWIN", repeats, 10_000 if quick else 40_000)
    table["KSWIN"] = river_figures("KSWIN", 2 if quick else 5, 2_000)
    return table


def main() -> int:
    """Run everybody and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    asked = parser.parse_args()
    repeats = 5 if asked.quick else asked.repeats
    worlds = [world(seed) for seed in range(1 if asked.quick else 3)]
    print(f"one of {FEATURES} features changes, reference {REFERENCE_ROWS:,}, {repeats} repeats")
    figures, met = remora(worlds, repeats)
    table = peers(worlds, 3 if asked.quick else 7, asked.quick)
    rows_before = repeats * len(CASES) * BEFORE_ROWS
    print(f"\n  Remora: {figures['false']} false alarms in {rows_before:,} unchanged rows")
    print(f"\n  {'median delay, rows':<20}" + "".join(f"{c.name:>18}" for c in CASES), end="")
    print(f"{'false alarms/month':>20}")
    mine = "".join(f"{shown(figures[case.name]['median']):>18}" for case in CASES)
    print(f"  {'Remora':<20}{mine}{'budget ' + str(BUDGET):>20}")
    notes = {peer.name: peer.note for peer in WINDOW_PEERS}
    for name, row in table.items():
        cells = "".join(f"{shown(quantile(row['delays'][c.name], 0.5)):>18}" for c in CASES)
        if row["false"] or name == "never fires":
            false = f"{row['false'] * row['month']:,.0f}"
        else:
            false = f"none; one is {row['month']:,.0f}"  # what was looked at has a limit
        print(f"  {name:<20}{cells}{false:>20}  {notes.get(name, '')}")
    if asked.json:
        asked.json.write_text(json.dumps({"remora": figures, "peers": table}, default=str))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
