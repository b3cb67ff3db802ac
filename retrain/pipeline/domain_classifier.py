"""Two sets of rows, told apart by a classifier: how well that goes says how much they differ, and
what it looks at says in what.

A job for somebody who asks why, not a detector: it has no budget of false alarms, and it needs the
rows themselves. Runs in a process of its own (`python -m retrain.pipeline.domain_classifier
ROWS.npz`), because scikit-learn takes 150 MB. What must not be broken: folds are blocks of
successive rows. Neighbours resemble each other, and a classifier that has seen a row's neighbours
knows which file it comes from although nothing has changed.

The interval rests on DeLong's variance (1988) within folds, widened for what the folds' training
rows have in common (Nadeau and Bengio 2003): without that it left out chance for one of four pairs
of equal sets. It takes rows for independent, which rows in time hardly are.
"""

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FOLDS: Final = 5
ROWS_MIN: Final = 50
#: The classifier's own limit of categories in one column; what is beyond counts as another one.
CATEGORIES_MAX: Final = 50
#: AUC that one feature may hold before a reader is told that it may be a clock or a row number.
SUSPECT_AUC: Final = 0.99
#: Importances below are those that permuting an unused feature gives as well.
IMPORTANCE_MIN: Final = 0.005
NAMED_MAX: Final = 3

_NORMAL_95: Final = 1.96
_TREES: Final = 60
_LEAVES: Final = 15

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """How well two sets of rows are told apart.

    `auc` in [0, 1], .5 being chance, with a 95 % interval; `features` are (name, loss of AUC when
    the feature is permuted), largest first; `alone` is the AUC of the first feature by itself.
    """

    auc: float
    auc_low: float
    auc_high: float
    alone: float
    features: tuple[tuple[str, float], ...]
    rows_reference: int
    rows_current: int

    @property
    def differs(self) -> bool:
        """Whether chance is outside the interval."""
        return self.auc_low > 0.5

    def sentence(self) -> str:
        """Say it plainly."""
        level = f"AUC {self.auc:.3f}, 95 % interval {self.auc_low:.3f} to {self.auc_high:.3f}"
        if not self.differs:
            return f"a classifier cannot tell the current rows from the reference rows ({level})"
        named = [(name, loss) for name, loss in self.features if loss >= IMPORTANCE_MIN]
        mostly = ", ".join(f"{name} ({loss:.3f})" for name, loss in named[:NAMED_MAX])
        by = f", mostly by {mostly}" if mostly else ", by many features together"
        said = f"a classifier tells current rows from reference rows ({level}){by}"
        if named and self.alone >= SUSPECT_AUC:
            said += (
                f"; {named[0][0]} alone is enough: if it is a clock or a number of rows, leave it"
                f" out and ask again"
            )
        return said


def separate(
    reference: Matrix, current: Matrix, names: Sequence[str], categorical: Sequence[bool]
) -> Separation:
    """Train and judge the classifier, on [rows, features] matrices in the order of the rows.

    Categories are whole numbers below 50; NaN is missing. The same rows give the same answer.
    Raises ValueError if either side has fewer than 50 rows, or there is no feature.
    """
    if min(len(reference), len(current)) < ROWS_MIN:
        raise ValueError(f"at least {ROWS_MIN} rows on each side are needed to tell them apart")
    if not names:
        raise ValueError("there is no column that both sides have")
    rows = np.concatenate([reference, current])
    labels = np.repeat([0, 1], [len(reference), len(current)])
    folds = np.concatenate([_blocks(len(reference)), _blocks(len(current))])
    areas, variances = np.zeros(FOLDS), np.zeros(FOLDS)
    losses = np.zeros(len(names))
    draw = np.random.default_rng(0)
    for fold in range(FOLDS):
        held = folds == fold
        model, judged = _trained(rows, labels, held, categorical)
        truth = labels[held]
        areas[fold], variances[fold] = area(_scores(model, judged), truth)
        for j in range(len(names)):
            mixed = judged.copy()
            mixed[:, j] = draw.permutation(mixed[:, j])
            losses[j] += (areas[fold] - area(_scores(model, mixed), truth)[0]) / FOLDS
    auc = float(areas.mean())
    # folds share most of what they were trained on, so that their areas err together
    margin = _NORMAL_95 * math.sqrt(float(variances.mean()) * (1 / FOLDS + 1 / (FOLDS - 1)))
    order = np.argsort(-losses, kind="stable")
    return Separation(
        auc=auc,
        auc_low=max(auc - margin, 0.0),
        auc_high=min(auc + margin, 1.0),
        alone=_alone(rows[:, order[0]], labels, folds, bool(categorical[order[0]])),
        features=tuple((names[j], float(losses[j])) for j in order),
        rows_reference=len(reference),
        rows_current=len(current),
    )


def area(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Give the area under the ROC curve, ties counting half, and its variance (DeLong 1988, by
    midranks). Both labels must occur.
    """
    ranks = _midranks(scores)
    positive = labels == 1
    m, n = int(positive.sum()), int((~positive).sum())
    above = (ranks[positive] - _midranks(scores[positive])) / n
    below = 1 - (ranks[~positive] - _midranks(scores[~positive])) / m
    variance = float(above.var(ddof=1)) / m + float(below.var(ddof=1)) / n
    return float(above.mean()), variance


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def _blocks(rows: int) -> NDArray[np.int64]:
    blocks: NDArray[np.int64] = np.arange(rows) * FOLDS // rows
    return blocks


def _trained(
    rows: Matrix, labels: NDArray[np.int64], held: NDArray[np.bool_], categorical: Sequence[bool]
) -> tuple[Any, Matrix]:
    """Give a classifier trained on the rows that are not held out, and those that are."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    # scikit-learn refuses a column that is all missing: there is nothing in it to learn from
    blank = np.isnan(rows[~held]).all(axis=0)
    filled = np.where(blank, 0.0, rows)
    model = HistGradientBoostingClassifier(
        max_iter=_TREES,
        max_leaf_nodes=_LEAVES,
        categorical_features=list(categorical),
        class_weight="balanced",
        early_stopping=False,
        random_state=0,
    )
    return model.fit(filled[~held], labels[~held]), filled[held]


def _scores(model: Any, rows: Matrix) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = model.decision_function(rows)
    return scores


def _alone(
    column: NDArray[np.float64],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    categorical: bool,
) -> float:
    """AUC of a classifier that sees one feature only."""
    rows = column[:, None]
    areas = []
    for fold in range(FOLDS):
        held = folds == fold
        model, judged = _trained(rows, labels, held, [categorical])
        areas.append(area(_scores(model, judged), labels[held])[0])
    return float(np.mean(areas))


def main(argv: Sequence[str]) -> int:
    """Read the matrices that the command wrote, print one JSON line. Exit 0, or 2 with an error."""
    with np.load(Path(argv[0]), allow_pickle=False) as file:
        reference, current = file["reference"], file["current"]
        described = json.loads(str(file["described"]))
    try:
        found = separate(reference, current, described["names"], described["categorical"])
    except ValueError as error:
        sys.stdout.write(json.dumps({"step": "refused", "error": str(error)}) + "\n")
        return 2
    told = asdict(found) | {"differs": found.differs, "explain": found.sentence()}
    sys.stdout.write(json.dumps({"step": "finished", "separation": told}) + "\n")
    return 0


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    sys.exit(main(sys.argv[1:]))
