"""CPU per feature-value of drift detection: Remora against six peers, on the same rows.

Windows of 10,000 rows, 20 and 100 features (gaussian, t, lognormal, Poisson and binary by turns),
against a reference of 10,000 rows. Every contender has a process (and each peer an environment) of
its own, and they take turns, round by round; the figure is process CPU time, threads included,
imports and the reading of rows left out; the ratio is that of the medians over the rounds.

Remora's side is the whole path from columns to verdicts on every feature: bins, evidence, windows,
and every distance. The row `monitor` is its public Monitor, which watches more than any peer does
in the same call (relations between features, data quality, outliers). The peers run as they come:
what they do per window is said in benchmarks/peers/contender.py. whylogs and DataSketches only
sketch the window and give no verdict.

A detector that looks at nothing, and one that cries at everything, stand in the table as well: they
are the quickest of all, so speed alone says nothing. What is found is in benchmarks/detection_*.py.

    make peers && python benchmarks/detection.py [--peers alibi,nannyml] [--json FILE]

Exits 0 if every ratio is at least its floor and state per feature at most 2,500 bytes, 1 if not, 2
if a peer's environment is missing.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers.sides import MissingPeer, own_python, python_of, sides, version_of

ROWS, WIDTHS = 10_000, (20, 100)
STATE_BYTES_MAX = 2_500.0
OWN = ("remora", "monitor", "never", "always")

#: Ratio below which to exit 1, and windows per round: enough for a quarter of a second.
FLOORS = {
    "evidently": 1_000.0,
    "whylogs": 100.0,
    "nannyml": 15.0,
    "alibi": 40.0,
    "deepchecks": 30.0,
    "datasketches": 4.0,
}
WINDOWS = {
    "remora": 100,
    "monitor": 50,
    "never": 1_000,
    "always": 1_000,
    "evidently": 1,
    "whylogs": 1,
    "nannyml": 3,
    "alibi": 2,
    "deepchecks": 2,
    "datasketches": 20,
}
PACKAGES = {name: name for name in FLOORS} | {"alibi": "alibi-detect"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One contender at one width: nanoseconds of CPU per feature-value, and times Remora's."""

    name: str
    features: int
    ns: float
    ns_least: float
    ns_most: float
    ratio: float
    floor: float | None

    @property
    def met(self) -> bool:
        """Whether Remora is so many times as quick as it has to be."""
        return self.floor is None or self.ratio >= self.floor


def write_rows(path: Path, features: int) -> None:
    """Write reference and window, [features, rows] each, as all sides will read them."""
    rng = np.random.default_rng(11)

    def rows() -> NDArray[np.float64]:
        draws = [
            rng.normal(size=ROWS),
            rng.standard_t(3, ROWS),
            rng.lognormal(size=ROWS),
            rng.poisson(3, ROWS).astype(np.float64),
            rng.integers(0, 2, ROWS).astype(np.float64),
        ]
        return np.stack([draws[i % len(draws)] * (1 + i) for i in range(features)])

    np.savez(path, reference=rows(), window=rows())


def measure(features: int, pythons: dict[str, Path], rounds: int) -> tuple[list[Figure], float]:
    """Give every contender's figure, and the bytes of state that Remora keeps per feature."""
    spent: dict[str, list[float]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        write_rows(rows, features)
        with sides(pythons, rows, WINDOWS) as contenders:
            for _ in range(rounds):
                for one in contenders:
                    cpu_s = one.round()
                    spent[one.name].append(cpu_s / (WINDOWS[one.name] * ROWS * features) * 1e9)
            state = float(contenders[0].ready["state"]) / features
    own = statistics.median(spent["remora"])
    figures = [
        Figure(
            name=name,
            features=features,
            ns=statistics.median(ns),
            ns_least=min(ns),
            ns_most=max(ns),
            ratio=statistics.median(ns) / own,
            floor=FLOORS.get(name),
        )
        for name, ns in spent.items()
    ]
    return figures, state


def print_table(figures: list[Figure], versions: dict[str, str]) -> None:
    """Print one width's table."""
    for one in figures:
        floor = "" if one.floor is None else f"{one.floor:>7,.0f}  {'' if one.met else 'MISSED'}"
        name = f"{one.name} {versions.get(one.name, '')}".strip()
        print(
            f"  {name:<22}{one.ns:>12,.2f} ns ({one.ns_least:,.2f} to {one.ns_most:,.2f})"
            f"{one.ratio:>12,.1f} x{floor}"
        )


def main() -> int:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", default=",".join(FLOORS), help="names, separated by commas")
    parser.add_argument("--features", default=",".join(map(str, WIDTHS)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    peers = [name for name in asked.peers.split(",") if name]
    if unknown := set(peers) - set(FLOORS):
        parser.error(f"unknown peers {sorted(unknown)}; known are {', '.join(FLOORS)}")
    try:
        pythons = dict.fromkeys(OWN, own_python()) | {name: python_of(name) for name in peers}
    except MissingPeer as error:
        print(f"benchmarks/detection.py: {error}", file=sys.stderr)
        return 2
    versions = {name: version_of(pythons[name], PACKAGES[name]) for name in peers}
    everything: list[Figure] = []
    state = 0.0
    for features in (int(text) for text in asked.features.split(",")):
        print(f"windows of {ROWS:,} rows x {features} features, {asked.rounds} rounds, CPU time")
        figures, kept = measure(features, pythons, asked.rounds)
        state = max(state, kept)
        print_table(figures, versions)
        everything += figures
    met = all(one.met for one in everything) and state <= STATE_BYTES_MAX
    print(f"Remora keeps {state:,.0f} bytes of state per feature (at most {STATE_BYTES_MAX:,.0f})")
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "benchmark": "detection",
            "met": met,
            "versions": versions,
            "state_bytes": state,
            "figures": [asdict(one) | {"met": one.met} for one in everything],
        }
        asked.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
