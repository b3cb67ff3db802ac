"""The detectors over columns that exist, by name. The set is closed: adding one is a line here."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from detectors.detector import Detector
from detectors.monitor import Monitor
from detectors.reference import Reference

#: Name -> how to make it from a reference, and how to restore it from its state.
DETECTORS: Final[Mapping[str, Callable[[Reference], Detector]]] = {
    "data_drift": partial(Monitor, kind="data_drift"),
    "prediction_drift": partial(Monitor, kind="prediction_drift"),
}

RESTORE: Final[Mapping[str, Callable[[Reference, Mapping[str, Any]], Detector]]] = {
    "data_drift": Monitor.restore,
    "prediction_drift": Monitor.restore,
}
