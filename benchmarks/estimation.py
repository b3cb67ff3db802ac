"""Quality without labels: Remora's histogram CBPE against NannyML's CBPE, and both against truth.

The two data sets are those of NannyML's own package: synthetic car loans, and employment in the
American Community Survey of Massachusetts (a model of 2015, rows of 2016 to 2018). Windows of 5,000
rows; AUC, accuracy and F1 are estimated for each without a look at its labels, then compared with
what the labels say. Printed for each figure: how far either estimate is from the truth on average,
how far apart the two ever are, and the sampling floor: how far the truth itself strays by chance
from what a perfect estimate would say (from random labels drawn with the calibrated probabilities).

An estimator that always says the reference's figure stands in the table; it is the one to beat.

Speed is process CPU time of fit and of estimates, the two taking turns on the same rows in one run;
medians over the rounds, after one that does not count (imports, caches). Both give ROC AUC, average
precision, accuracy, precision, recall, specificity and F1 of every window with their intervals;
Remora's log loss and Brier score come on top. The ratio that counts is of the whole job, reference
rows to figures of all windows; that of the estimates alone is printed beside it, and is smaller:
NannyML works in numpy too, and its calibration and thresholds are what takes time.

    make peers && python benchmarks/estimation.py [--rounds 3] [--json FILE]

Exits 0 if AUC, accuracy and F1 are never more than .0015 from NannyML's and the whole job is at
least 50 times as quick on either data set, 1 if not, 2 if NannyML's environment is missing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers.sides import MissingPeer, python_of, quiet_environment, version_of
from detectors.performance.estimation import EstimationBuilder, EstimationTable, Estimator
from detectors.performance.quality import Quality

Floats = NDArray[np.float64]

PEER = Path(__file__).resolve().parent / "peers" / "nannyml_estimates.py"
CHUNK_ROWS = 5_000
METRICS = ("roc_auc", "accuracy", "f1")
DIFFERENCE_MAX, RATIO_MIN = 0.0015, 50.0
FLOOR_DRAWS = 20


class Peer:
    """NannyML in a process of its own, which fits to a data set and estimates it when told to."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            [python, PEER, str(folder), str(CHUNK_ROWS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=quiet_environment(),
        )
        self.data_sets: list[str] = self._answer()["data_sets"]

    def estimate(self, name: str) -> dict[str, Any]:
        """Fit and estimate: give CPU seconds of either, rows and figures by chunk."""
        stdin: IO[str] | None = self._process.stdin
        assert stdin is not None
        stdin.write(f"{name}\n")
        stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise RuntimeError("NannyML ended early")
        answer: dict[str, Any] = json.loads(line)
        return answer


def built(reference: Floats) -> tuple[EstimationTable, float]:
    """Give the table of the reference, and the CPU time it took, in chunks of 10,000 rows."""
    score, predicted, truth = (np.ascontiguousarray(column) for column in reference.T)
    started = time.process_time()
    builder = EstimationBuilder("classification")
    for start in range(0, len(score), 10_000):
        part = slice(start, start + 10_000)
        builder.update(score[part], predicted[part], truth[part])
    table = builder.finish()
    assert table is not None
    return table, time.process_time() - started


def estimates(table: EstimationTable, analysis: Floats) -> tuple[dict[str, list[float]], float]:
    """Give figures by chunk, and the CPU time they took."""
    score, predicted, _ = (np.ascontiguousarray(column) for column in analysis.T)
    found: dict[str, list[float]] = {metric: [] for metric in METRICS}
    started = time.process_time()
    # One block of a chunk's rows: when it is full the window is just this chunk.
    estimator = Estimator(table, window_rows=CHUNK_ROWS, blocks=1)
    for start in range(0, len(score), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        estimator.update(score[part], predicted[part])
        figures = estimator.metrics()
        for metric in METRICS:
            found[metric].append(figures[metric].value)
    return found, time.process_time() - started


def realised(rows: Floats) -> dict[str, float]:
    """What labels say, of one window of any length."""
    quality = Quality(task="classification", window_rows=max(2, len(rows)))
    score, predicted, truth = rows.T
    quality.update(predicted, truth, score=score)
    figures = quality.metrics()
    return {metric: figures[metric].value for metric in METRICS}


def by_chunk(rows: Floats) -> dict[str, list[float]]:
    """What labels say, of every chunk."""
    chunks = [realised(rows[i : i + CHUNK_ROWS]) for i in range(0, len(rows), CHUNK_ROWS)]
    return {metric: [chunk[metric] for chunk in chunks] for metric in METRICS}


def sampling_floor(table: EstimationTable, analysis: Floats) -> dict[str, float]:
    """Mean distance between an estimate and the truth where the estimate's assumption is true.

    Labels are drawn with the calibrated probabilities, for the first chunks in turn.
    """
    rng = np.random.default_rng(7)
    gaps: dict[str, list[float]] = {metric: [] for metric in METRICS}
    chunks = len(analysis) // CHUNK_ROWS
    for draw in range(FLOOR_DRAWS):
        start = draw % chunks * CHUNK_ROWS
        rows = analysis[start : start + CHUNK_ROWS].copy()
        chance = table.calibration()[table.tables[0].places(rows[:, 0])]
        rows[:, 2] = rng.random(len(rows)) < chance
        said, _ = estimates(table, rows)
        true = realised(rows)
        for metric in METRICS:
            gaps[metric].append(abs(said[metric][0] - true[metric]))
    return {metric: float(np.mean(listed)) for metric, listed in gaps.items()}


def compare(name: str, peer: Peer, data: Any, rounds: int) -> dict[str, Any]:
    """Everything about one data set."""
    reference, analysis = data["reference"], data["analysis"]
    ours: dict[str, list[float]] = {"fit_s": [], "cpu_s": []}
    theirs: dict[str, list[float]] = {"fit_s": [], "cpu_s": []}
    for number in range(rounds + 1):
        table, fit_s = built(reference)
        ours_found, spent_s = estimates(table, analysis)
        answer = peer.estimate(name)
        if number:  # the first one imports what comes late and fills caches, on either side
            ours["fit_s"].append(fit_s)
            ours["cpu_s"].append(spent_s)
            for key, listed in theirs.items():
                listed.append(float(answer[key]))
    truth, before = by_chunk(analysis), realised(reference)
    floor = sampling_floor(table, analysis)
    figures = {}
    for metric in METRICS:
        true, mine = np.array(truth[metric]), np.array(ours_found[metric])
        other = np.array(answer["figures"][metric])
        figures[metric] = {
            "realised": [float(true.min()), float(true.max())],
            "error_no_change": float(np.abs(before[metric] - true).mean()),
            "error_nannyml": float(np.abs(other - true).mean()),
            "error_remora": float(np.abs(mine - true).mean()),
            "sampling_floor": floor[metric],
            "difference_max": float(np.abs(mine - other).max()),
        }
    fit_s, mine_s = statistics.median(ours["fit_s"]), statistics.median(ours["cpu_s"])
    their_fit_s, their_s = statistics.median(theirs["fit_s"]), statistics.median(theirs["cpu_s"])
    return {
        "rows": len(analysis),
        "figures": figures,
        "rows_per_cpu_s": {"remora": len(analysis) / mine_s, "nannyml": len(analysis) / their_s},
        "ratio_of_estimates": their_s / mine_s,
        "fit_cpu_s": {"remora": fit_s, "nannyml": their_fit_s},
        "ratio": (their_fit_s + their_s) / (fit_s + mine_s),
        "table_bytes": len(json.dumps(table.tree())),
    }


def show(name: str, found: dict[str, Any]) -> None:
    """One data set as a table for people."""
    print(f"{name}: {found['rows']:,} rows in windows of {CHUNK_ROWS:,}; mean distance from truth")
    head = ("realised", "no change", "NannyML", "Remora", "floor", "apart, at most")
    print(f"  {'':<10}{head[0]:>16}" + "".join(f"{word:>15}" for word in head[1:]))
    for metric, figure in found["figures"].items():
        low, high = figure["realised"]
        cells = (
            figure[key]
            for key in (
                "error_no_change",
                "error_nannyml",
                "error_remora",
                "sampling_floor",
                "difference_max",
            )
        )
        print(
            f"  {metric:<10}{f'{low:.3f} to {high:.3f}':>16}"
            + "".join(f"{c:>15.4f}" for c in cells)
        )
    rows, fit = found["rows_per_cpu_s"], found["fit_cpu_s"]
    print(
        f"  rows per CPU second: Remora {rows['remora']:,.0f}, NannyML {rows['nannyml']:,.0f}, "
        f"ratio {found['ratio_of_estimates']:,.1f}\n"
        f"  fit: {fit['remora']:.4f} s and {fit['nannyml']:.3f} s; fit and estimate, ratio "
        f"{found['ratio']:,.1f}; table {found['table_bytes']:,} bytes of JSON\n"
    )


def main() -> int:
    """Run the rounds, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    asked = parser.parse_args()
    try:
        python = python_of("nannyml")
    except MissingPeer as missing:
        print(f"benchmarks/estimation.py: {missing}", file=sys.stderr)
        return 2
    print(f"Remora's CBPE against NannyML {version_of(python, 'nannyml')}\n")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(python, Path(folder))
        try:
            for name in peer.data_sets:
                with np.load(Path(folder) / f"{name}.npz") as data:
                    found[name] = compare(name, peer, data, asked.rounds)
                show(name, found[name])
        finally:
            peer.close()
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    apart = max(f["difference_max"] for one in found.values() for f in one["figures"].values())
    ratio = min(one["ratio"] for one in found.values())
    good = apart <= DIFFERENCE_MAX and ratio >= RATIO_MIN
    alone = min(one["ratio_of_estimates"] for one in found.values())
    print(
        f"never more than {apart:.4f} apart (limit {DIFFERENCE_MAX}), the whole job at least "
        f"{ratio:,.0f} times as quick (limit {RATIO_MIN:,.0f}; estimates alone {alone:,.0f}): "
        f"{'held' if good else 'NOT HELD'}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
