"""CPU per feature-value of drift detection: Remora against Evidently's DataDriftPreset.

Same rows, same machine, same run: windows of 10,000 rows x 20 features (gaussian, t, lognormal,
Poisson and binary by turns) against a reference of 10,000 rows. Both sides run in processes of
their own that take turns; the figure is process CPU time (threads included, imports and reading
the rows left out), the ratio that of the medians over the rounds.

Remora's side is the whole path: columns to bins, evidence, windows, and every distance. Evidently
gets a pandas frame and runs its preset; it keeps no profile, so it looks at the reference rows anew
for each window: that is how it is used.

    python benchmarks/detection.py

Exits 0 if the ratio is at least --floor, 1 if it is not, 2 if Evidently cannot be had.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
ROWS, FEATURES = 10_000, 20
WINDOWS_PER_ROUND = 20

PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np, pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
data = np.load(sys.argv[1])
names = [f"f{i}" for i in range(data["reference"].shape[0])]
reference = pd.DataFrame(dict(zip(names, data["reference"])))
window = pd.DataFrame(dict(zip(names, data["window"])))
print("ready", flush=True)
for _ in sys.stdin:
    started = time.process_time()
    Report([DataDriftPreset()]).run(window, reference).dict()
    print(json.dumps({"cpu_s": time.process_time() - started, "values": window.size}), flush=True)
"""

OURS = """
import json, sys, time
sys.path.insert(0, sys.argv[2])
import numpy as np
from detectors import Monitor, build_reference
data = np.load(sys.argv[1])
names = [f"f{i}" for i in range(data["reference"].shape[0])]
reference = build_reference(dict(zip(names, data["reference"])))
window = dict(zip(names, data["window"]))
monitor = Monitor(reference)
kept = sum(array.nbytes for array in monitor.state().values()) / len(names)
print("ready", kept, len(reference.to_bytes()) / len(names), flush=True)
for _ in sys.stdin:
    started = time.process_time()
    for _ in range(int(sys.argv[3])):
        monitor.update(window)
        monitor.effects()
    spent = time.process_time() - started
    values = int(sys.argv[3]) * data["window"].size
    print(json.dumps({"cpu_s": spent, "values": values}), flush=True)
"""


class Side:
    """One contender in a process of its own, which runs a round whenever it is told to."""

    def __init__(self, python: str, source: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [python, "-c", source, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.ready = self._line()

    def round(self) -> float:
        """Run one round; give nanoseconds of CPU per feature-value."""
        stdin: IO[str] | None = self._process.stdin
        assert stdin is not None
        stdin.write("go\n")
        stdin.flush()
        result = json.loads(self._line())
        return float(result["cpu_s"] / result["values"] * 1e9)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise RuntimeError("a contender ended early")
        return line


def write_rows(path: Path) -> None:
    """Write reference and window, [features, rows] each, as both sides will read them."""
    import numpy as np

    rng = np.random.default_rng(11)

    def rows() -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        draws = [
            rng.normal(size=ROWS),
            rng.standard_t(3, ROWS),
            rng.lognormal(size=ROWS),
            rng.poisson(3, ROWS).astype(np.float64),
            rng.integers(0, 2, ROWS).astype(np.float64),
        ]
        return np.stack([draws[i % len(draws)] * (1 + i) for i in range(FEATURES)])

    np.savez(path, reference=rows(), window=rows())


def main() -> int:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    # `make setup` brings Evidently into .venv; an environment of its own goes before it.
    own = ROOT / ".venv-peers" / "bin" / "python"
    default = own if own.exists() else Path(sys.executable)
    parser.add_argument("--peer-python", default=str(default), help="interpreter with evidently")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--floor", type=float, default=500.0, help="ratio below which to exit 1")
    asked = parser.parse_args()
    check = [asked.peer_python, "-c", "import evidently; print(evidently.__version__)"]
    try:
        found = subprocess.run(check, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        print(
            f"benchmarks/detection.py: no evidently in {asked.peer_python}; install it with: "
            "python3 -m venv .venv-peers && "
            ".venv-peers/bin/pip install 'evidently>=0.7,<0.8' 'pandas<3'",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        write_rows(rows)
        ours = Side(sys.executable, OURS, str(rows), str(ROOT), str(WINDOWS_PER_ROUND))
        peer = Side(asked.peer_python, PEER, str(rows))
        try:
            ours.round(), peer.round()  # the first round of each warms up and is not counted
            rounds = [(ours.round(), peer.round()) for _ in range(asked.rounds)]
        finally:
            ours.close()
            peer.close()
    mine, theirs = zip(*rounds, strict=True)
    ratio = statistics.median(theirs) / statistics.median(mine)
    state, profile = (float(figure) for figure in ours.ready.split()[1:])
    print(f"windows of {ROWS:,} rows x {FEATURES} features, {asked.rounds} rounds, CPU time")
    for name, figures in (("Remora", mine), (f"Evidently {found.stdout.strip()}", theirs)):
        low, middle, high = min(figures), statistics.median(figures), max(figures)
        print(f"  {name:<18} {middle:>10,.1f} ns per feature-value  ({low:,.1f} to {high:,.1f})")
    print(f"  ratio of medians   {ratio:>10,.0f}  (floor {asked.floor:,.0f})")
    print(f"  Remora keeps {state:,.0f} bytes of state and {profile:,.0f} of profile per feature")
    return 0 if ratio >= asked.floor else 1


if __name__ == "__main__":
    sys.exit(main())
