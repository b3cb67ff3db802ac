"""Arithmetic over streams of batches: from rows to readings.

Pure: no input or output, no clock, nothing of ours imported; the same batches give the same state.
"""

from detectors.drift.detector import DriftDetector
from detectors.monitor import Monitor
from detectors.reading import (
    STATE_NUMBER,
    Change,
    Effect,
    Kind,
    Moment,
    Reading,
    Scope,
    State,
    Window,
)
from detectors.reference import FeatureProfile, LabelledBaseline, ProfileError, Reference
from detectors.references.building import ReferenceBuilder, build_reference
from detectors.references.merging import merge

__all__ = [
    "STATE_NUMBER",
    "Change",
    "DriftDetector",
    "Effect",
    "FeatureProfile",
    "Kind",
    "LabelledBaseline",
    "Moment",
    "Monitor",
    "ProfileError",
    "Reading",
    "Reference",
    "ReferenceBuilder",
    "Scope",
    "State",
    "Window",
    "build_reference",
    "merge",
]
