"""The detectors over columns that exist, by name. The set is closed: adding one is a line here."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from detectors.detector import Detector
from detectors.drift import DriftDetector
from detectors.reference import Reference

#: Name -> how to make it from a reference, and how to restore it from its state.
DETECTORS: Final[Mapping[str, Callable[[Reference], Detector]]] = {
    "data_drift": partial(DriftDetector, kind="data_drift"),
    "prediction_drift": partial(DriftDetector, kind="prediction_drift"),
}

RESTORE: Final[Mapping[str, Callable[[Reference, Mapping[str, Any]], Detector]]] = {
    "data_drift": DriftDetector.restore,
    "prediction_drift": DriftDetector.restore,
}
