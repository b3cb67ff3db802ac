"""What a peer's own code says about every tick of a stream, for benchmarks/detection_real_rows.py.

    python verdicts.py NAME STREAM.npz

The file holds `reference` [features, rows], `live` [features, rows] and `tick_rows`; standard
output gets one JSON list a tick: the numbers of the features that alarm. The one thing not to
break: this file runs in the peers' environments, and every peer keeps its defaults.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: [features, rows]
Rows = NDArray[np.float64]


def frame(rows: Rows) -> Any:
    """Give a pandas frame with columns f0, f1, ..."""
    pandas = importlib.import_module("pandas")
    return pandas.DataFrame({f"f{i}": row for i, row in enumerate(rows)})


def ticks(live: Rows, tick_rows: int) -> Iterator[Rows]:
    """Cut into ticks; what is left over is left out."""
    for start in range(0, live.shape[1] - tick_rows + 1, tick_rows):
        yield live[:, start : start + tick_rows]


def nannyml(reference: Rows, live: Rows, tick_rows: int) -> Iterator[list[int]]:
    """Jensen-Shannon with the thresholds that it makes from chunks of the reference."""
    columns = [f"f{i}" for i in range(len(reference))]
    calculator = importlib.import_module("nannyml").UnivariateDriftCalculator(
        column_names=columns, chunk_size=tick_rows
    )
    calculator.fit(frame(reference))
    whole = live[:, : live.shape[1] // tick_rows * tick_rows]
    table = calculator.calculate(frame(whole)).filter(period="analysis").to_df()
    alerts = np.array([table[name]["jensen_shannon"]["alert"] for name in columns], dtype=bool)
    for tick in alerts.T:
        yield np.flatnonzero(tick).tolist()


def alibi(reference: Rows, live: Rows, tick_rows: int) -> Iterator[list[int]]:
    """KSDrift, p < .05 with Bonferroni over features; without missing values, which it refuses."""
    middle = np.nanmedian(reference, axis=1)[:, None]
    known = np.where(np.isnan(reference), middle, reference)
    drift = importlib.import_module("alibi_detect.cd").KSDrift(np.ascontiguousarray(known.T))
    for tick in ticks(np.where(np.isnan(live), middle, live), tick_rows):
        said = drift.predict(np.ascontiguousarray(tick.T), drift_type="feature")["data"]
        low = said["p_val"] < 0.05 / len(live)
        yield np.flatnonzero(low).tolist()


def evidently(reference: Rows, live: Rows, tick_rows: int) -> Iterator[list[int]]:
    """DataDriftPreset; a p-value alarms below its threshold, a distance above."""
    preset = importlib.import_module("evidently.presets").DataDriftPreset
    report = importlib.import_module("evidently").Report
    before = frame(reference)
    for tick in ticks(live, tick_rows):
        found = []
        for metric in report([preset()]).run(frame(tick), before).dict()["metrics"]:
            asked = metric["config"]
            if "column" in asked:
                small = "p_value" in asked["method"]
                value, bound = float(metric["value"]), float(asked["threshold"])
                if value < bound if small else value >= bound:
                    found.append(int(asked["column"][1:]))
        yield found


def main() -> None:
    """Print what one peer says."""
    warnings.filterwarnings("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    data = np.load(sys.argv[2])
    rules = {one.__name__: one for one in (nannyml, alibi, evidently)}
    rule = rules[sys.argv[1]]
    for found in rule(data["reference"], data["live"], int(data["tick_rows"])):
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
