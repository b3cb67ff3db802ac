"""One contender of benchmarks/detection.py, in a process and an environment of its own.

Reads reference and window from a file of numpy, says what it keeps per feature, and for each line
on standard input takes the window so many times and prints the CPU time that took. Imports and the
making of frames are left out, for every contender alike. The one thing not to break: this file runs
in the peers' environments, so at its top it imports numpy and nothing else that is installed.
"""

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: [features, rows]
Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """`run` takes one window; `kept` gives bytes of state and of profile, of all features."""

    run: Callable[[], object]
    kept: Callable[[], tuple[int, int]] = lambda: (0, 0)


def names(rows: Rows) -> list[str]:
    """Give the columns' names."""
    return [f"f{i}" for i in range(len(rows))]


def frame(rows: Rows) -> Any:
    """Give a pandas frame."""
    return importlib.import_module("pandas").DataFrame(dict(zip(names(rows), rows, strict=True)))


def held_bytes(state: object) -> int:
    """Bytes of arrays and of everything else as JSON, however deep."""
    if isinstance(state, np.ndarray):
        return state.nbytes if state.ndim else len(str(state))
    if isinstance(state, Mapping):
        return sum(held_bytes(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(held_bytes(value) for value in state)
    return len(json.dumps(state, default=str))


def detectors_of(reference: Rows) -> tuple[Any, Any]:
    """Give Remora's package, and a reference of the rows."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    package = importlib.import_module("detectors")
    return package, package.build_reference(dict(zip(names(reference), reference, strict=True)))


def remora(reference: Rows, window: Rows) -> Contender:
    """What peers do, whole: columns to bins, evidence, windows, and every distance."""
    package, built = detectors_of(reference)
    detector = package.DriftDetector(built)
    columns = dict(zip(names(window), window, strict=True))
    return Contender(
        run=lambda: (detector.update(columns), detector.effects()),
        kept=lambda: (held_bytes(detector.state()), len(built.to_bytes())),
    )


def monitor(reference: Rows, window: Rows) -> Contender:
    """Remora with all it has: the same, and data quality, outliers, drift of relations."""
    package, built = detectors_of(reference)
    whole = package.Monitor(built)
    columns = dict(zip(names(window), window, strict=True))
    return Contender(
        run=lambda: (whole.update(columns), whole.effects()),
        kept=lambda: (held_bytes(whole.state()), len(built.to_bytes())),
    )


def never(reference: Rows, window: Rows) -> Contender:
    """Looks at nothing and finds nothing."""
    return Contender(run=list)


def always(reference: Rows, window: Rows) -> Contender:
    """Looks at nothing and says each time that every feature drifted."""
    columns = names(window)
    return Contender(run=lambda: [(name, "drift") for name in columns])


def evidently(reference: Rows, window: Rows) -> Contender:
    """DataDriftPreset; it keeps no profile, so it looks at the reference anew each time."""
    preset = importlib.import_module("evidently.presets").DataDriftPreset
    report = importlib.import_module("evidently").Report
    before, after = frame(reference), frame(window)
    return Contender(run=lambda: report([preset()]).run(after, before).dict())


def whylogs(reference: Rows, window: Rows) -> Contender:
    """A profile of the window from pandas, which is its quicker way; it gives no verdict yet."""
    profile = importlib.import_module("whylogs.core").DatasetProfile
    after = frame(window)
    return Contender(run=lambda: profile().track(after))


def nannyml(reference: Rows, window: Rows) -> Contender:
    """Jensen-Shannon of every feature, one chunk; fitting is left out."""
    calculator = importlib.import_module("nannyml").UnivariateDriftCalculator(
        column_names=names(reference),
        continuous_methods=["jensen_shannon"],
        chunk_size=window.shape[1],
    )
    calculator.fit(frame(reference))
    after = frame(window)
    return Contender(run=lambda: calculator.calculate(after))


def alibi(reference: Rows, window: Rows) -> Contender:
    """KSDrift at p < .05 with Bonferroni, as it comes."""
    drift = importlib.import_module("alibi_detect.cd").KSDrift(
        np.ascontiguousarray(reference.T), p_val=0.05
    )
    rows = np.ascontiguousarray(window.T)
    return Contender(run=lambda: drift.predict(rows))


def deepchecks(reference: Rows, window: Rows) -> Contender:
    """FeatureDrift of all features, kinds inferred as it does, without its pictures."""
    dataset = importlib.import_module("deepchecks.tabular").Dataset
    check = importlib.import_module("deepchecks.tabular.checks").FeatureDrift
    before, after = dataset(frame(reference)), frame(window)
    # Else it looks at five features only.
    asked = {"n_top_columns": len(reference)}
    return Contender(run=lambda: check(**asked).run(before, dataset(after), with_display=False))


def datasketches(reference: Rows, window: Rows) -> Contender:
    """A KLL sketch (k = 200) of every feature of the window; it gives no verdict."""
    sketch = importlib.import_module("datasketches").kll_doubles_sketch

    def run() -> list[object]:
        made = [sketch(200) for _ in window]
        for one, values in zip(made, window, strict=True):
            one.update(values)
        return made

    return Contender(run=run)


CONTENDERS: Mapping[str, Callable[[Rows, Rows], Contender]] = {
    one.__name__: one
    for one in (
        remora,
        monitor,
        never,
        always,
        evidently,
        whylogs,
        nannyml,
        alibi,
        deepchecks,
        datasketches,
    )
}


def main() -> None:
    """Get ready, then run a round for every line."""
    name, path, windows = sys.argv[1], sys.argv[2], int(sys.argv[3])
    warnings.filterwarnings("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr  # some peers chat on standard output
    data = np.load(path)
    contender = CONTENDERS[name](data["reference"], data["window"])
    contender.run()
    state, profile = contender.kept()
    print(json.dumps({"state": state, "profile": profile}), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.process_time()
        for _ in range(windows):
            contender.run()
        print(json.dumps({"cpu_s": time.process_time() - started}), file=answers, flush=True)


if __name__ == "__main__":
    main()
