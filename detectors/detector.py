"""The contract of a detector: batches in, readings out, and a state that survives a restart.

What the caller may assume: `update` never raises for what stands in a column, does no input or
output, looks at no clock, and gives a reading only when the state of a subject changes; the same
batches in the same order give the same state; `state()` holds JSON values and arrays, nested, and a
detector restored from it goes on as if nothing had happened. What a detector may assume: batches
come in their order, each is a tick of rows or a few labelled rows, and it passes by what does not
concern it.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from detectors.batches import Batch
from detectors.reading import Reading, State


class Detector(Protocol):
    """Anything that turns batches into readings."""

    def update(self, batch: Batch) -> list[Reading]:
        """Take one batch and give the changes of state."""
        ...

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError for what does not fit."""
        ...

    def reset(self) -> None:
        """Forget evidence and latched states."""
        ...


@runtime_checkable
class Judge(Protocol):
    """A detector of concept drift: it has one state, under a name of its own."""

    @property
    def concept(self) -> str:
        """What it is called in `remora_concept_drift_state`."""
        ...

    @property
    def status(self) -> State:
        """Its state now."""
        ...
