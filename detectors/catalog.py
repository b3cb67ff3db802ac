"""The detectors that exist, by name. The set is closed: adding one is a line here.

Each is made from a reference and settings; None says that the reference has nothing for it. Order
matters for people only: readings of one tick come in it.
"""

from collections.abc import Callable, Mapping
from typing import Final

from detectors.detector import Detector
from detectors.parts import (
    calibration,
    data_quality,
    drift,
    errors,
    estimation,
    fairness,
    performance,
    residuals,
    segments,
    slices,
    trust,
    truth,
)
from detectors.reference import Reference
from detectors.settings import Settings

Make = Callable[[Reference, Settings], Detector | None]

DETECTORS: Final[Mapping[str, Make]] = {
    "data_quality": data_quality.columns,
    "features": drift.features,
    "projections": drift.projections,
    "prediction": drift.prediction,
    "segments": segments.segments,
    "outliers": segments.outliers,
    "estimation": estimation.estimation,
    "error_rate": errors.error_rate,
    "calibration": calibration.calibration,
    "residuals": residuals.residuals,
    "label": truth.label,
    "trust": trust.trust,
    "performance": performance.performance,
    "fairness": fairness.fairness,
    "slices": slices.slices,
}

#: Parts that learn from labels, and those of them that rest on no reference.
LABELLED: Final = (
    "error_rate",
    "calibration",
    "residuals",
    "label",
    "trust",
    "performance",
)
KEPT: Final = frozenset({"performance"})
