"""The reference profile that an artifact carries: the rows that its model is expected to be served.

After a retraining that is the world as it came last, not the mixture that was trained on: against
the mixture, the very drift that was just learnt would be found again.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.references.building import build_reference
from retrain.pipeline.data import Prepared, Rows, concatenate
from retrain.pipeline.recipe import Recipe
from retrain.pipeline.validate import Served
from retrain.preprocess import Kind, Task, decode_output

# Fewer captured rows than this say too little of a distribution, and the original rows are taken.
CAPTURED_ROWS_MIN = 1_000
# No feature may be called so: names of the model's outputs, and of what turned out true.
PREDICTION, SCORE, LABEL = "prediction", "prediction (score)", "prediction (label)"


def reference_profile(
    recipe: Recipe, prepared: Prepared, model: Served
) -> tuple[bytes, dict[str, Any]]:
    """`reference.json` and its account. The labelled baseline rests on rows not trained on."""
    rows, trained, source = _rows(recipe, prepared)
    answer = model.answer(model.encode(rows))
    decoded = decode_output(answer, model.preprocess)
    said = decoded.prediction
    columns: dict[str, NDArray[Any]] = {
        feature.name: rows.columns[feature.name] for feature in recipe.features
    }
    kinds = {feature.name: feature.kind.value for feature in recipe.features}
    classify = recipe.task is Task.CLASSIFICATION
    kinds[PREDICTION] = (Kind.CATEGORICAL if classify else Kind.NUMERIC).value
    outputs: dict[str, NDArray[Any]] = {PREDICTION: said}
    # What the model learnt from says nothing of how good it is: those rows have no label here.
    outputs[LABEL] = rows.target.astype(object)
    outputs[LABEL][trained] = None
    if classify:
        # Of two classes the score that is served: the second's, and not the higher one of both.
        score = decoded.score if answer.shape[1] == 2 else None
        outputs[SCORE] = answer if score is None else score
    reference = build_reference(
        {**columns, **outputs},
        kinds=kinds,
        tick_rows=recipe.data.tick_rows,
        # Captures come in order of time; of a file of training rows nobody knows.
        ordered=source == "captured",
        prediction=PREDICTION,
        score=SCORE if classify else None,
        label=LABEL,
        sensitive=recipe.data.sensitive,
        task=recipe.task.value,
    )
    account = {"source": source, "rows": len(rows), "digest": reference.digest}
    return reference.to_bytes(), account


def _rows(recipe: Recipe, prepared: Prepared) -> tuple[Rows, NDArray[np.bool_], str]:
    """Rows for the profile, which of them were trained on, and where they come from."""
    seen = concatenate([prepared.train, prepared.validation])
    captured = seen.take(seen.captured)
    older = captured.take(np.argsort(captured.at, kind="stable"))
    if len(older) + len(prepared.recent) >= CAPTURED_ROWS_MIN:
        room = max(0, recipe.data.reference_rows - len(prepared.recent))
        older = older.take(np.arange(max(0, len(older) - room), len(older)))
        both, source = [older, prepared.recent], "captured"
    else:
        original = seen.take(~seen.captured)
        both, source = [original, prepared.holdout], "original"
    trained = np.concatenate([np.ones(len(both[0]), bool), np.zeros(len(both[1]), bool)])
    return concatenate(both), trained, source
