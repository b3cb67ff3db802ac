"""NannyML's side of benchmarks/estimation.py: its data sets as arrays, and what its CBPE says.

Writes the rows of both data sets into the folder it is given, and then for each line on standard
input, the name of a data set, fits to the reference rows, estimates the analysis rows and prints
the CPU time of either and figures by chunk. The one thing not to break: it runs in NannyML's
environment, on its default settings but for the chunks.
"""

import importlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

METRICS = ("roc_auc", "accuracy", "f1")
#: Estimated but not compared: Remora gives these too, so both sides do the same work.
ALSO = ("precision", "recall", "specificity", "average_precision")
#: loader, truth, prediction, probability
DATA_SETS = {
    "car_loan": ("load_synthetic_car_loan_dataset", "repaid", "y_pred", "y_pred_proba"),
    "employment": (
        "load_us_census_ma_employment_data",
        "employed",
        "prediction",
        "predicted_probability",
    ),
}


def loaded(name: str, folder: Path, chunk_rows: int) -> tuple[Any, Any]:
    """Give reference rows, and analysis rows in whole chunks; write both as arrays."""
    nannyml = importlib.import_module("nannyml")
    loader, truth, prediction, probability = DATA_SETS[name]
    reference, analysis, target = getattr(nannyml, loader)()
    analysis = analysis.iloc[: len(analysis) // chunk_rows * chunk_rows]
    labels = analysis[["id"]].merge(target[["id", truth]], on="id", how="left")[truth]
    outputs = analysis[[probability, prediction]].to_numpy(np.float64)
    np.savez(
        folder / f"{name}.npz",
        reference=reference[[probability, prediction, truth]].to_numpy(np.float64),
        analysis=np.column_stack([outputs, labels]),
    )
    return reference, analysis


def estimated(name: str, reference: Any, analysis: Any, chunk_rows: int) -> dict[str, Any]:
    """Fit and estimate; give what it took and what it says."""
    nannyml = importlib.import_module("nannyml")
    _, truth, prediction, probability = DATA_SETS[name]
    started = time.process_time()
    estimator = nannyml.CBPE(
        metrics=[*METRICS, *ALSO],
        y_pred_proba=probability,
        y_pred=prediction,
        y_true=truth,
        problem_type="classification_binary",
        chunk_size=chunk_rows,
    )
    estimator.fit(reference)
    fitted = time.process_time()
    result = estimator.estimate(analysis)
    ended = time.process_time()
    table = result.filter(period="analysis").to_df()
    return {
        "fit_s": fitted - started,
        "cpu_s": ended - fitted,
        "rows": len(analysis),
        "figures": {metric: table[(metric, "value")].tolist() for metric in METRICS},
    }


def main() -> None:
    """Get ready, then fit and estimate for every line."""
    folder, chunk_rows = Path(sys.argv[1]), int(sys.argv[2])
    warnings.filterwarnings("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    ready = {name: loaded(name, folder, chunk_rows) for name in DATA_SETS}
    print(json.dumps({"data_sets": list(ready)}), file=answers, flush=True)
    for line in sys.stdin:
        name = line.strip()
        answer = estimated(name, *ready[name], chunk_rows)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
