"""NannyML's side of benchmarks/estimation.py: its data sets as arrays, and what its CBPE says.

Writes the rows of both data sets into the folder it is given, fits, and then for each line on
standard input, the name of a data set, estimates the analysis rows and prints CPU time and figures
by chunk. The one thing not to break: it runs in NannyML's environment, on its default settings but
for the chunks.
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
#: Estimated but not compared, so that both sides estimate the same figures.
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


def fitted(name: str, folder: Path, chunk_rows: int) -> tuple[Any, Any, float]:
    """Give an estimator, the analysis rows in whole chunks, and the CPU time it took to fit."""
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
    estimator = nannyml.CBPE(
        metrics=[*METRICS, *ALSO],
        y_pred_proba=probability,
        y_pred=prediction,
        y_true=truth,
        problem_type="classification_binary",
        chunk_size=chunk_rows,
    )
    started = time.process_time()
    estimator.fit(reference)
    return estimator, analysis, time.process_time() - started


def main() -> None:
    """Get ready, then estimate for every line."""
    folder, chunk_rows = Path(sys.argv[1]), int(sys.argv[2])
    warnings.filterwarnings("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    ready = {name: fitted(name, folder, chunk_rows) for name in DATA_SETS}
    fits = {name: fit_s for name, (_, _, fit_s) in ready.items()}
    print(json.dumps({"fit_s": fits}), file=answers, flush=True)
    for line in sys.stdin:
        estimator, analysis, _ = ready[line.strip()]
        started = time.process_time()
        result = estimator.estimate(analysis)
        spent_s = time.process_time() - started
        table = result.filter(period="analysis").to_df()
        figures = {metric: table[(metric, "value")].tolist() for metric in METRICS}
        answer = {"cpu_s": spent_s, "rows": len(analysis), "figures": figures}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
