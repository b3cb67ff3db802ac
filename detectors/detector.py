"""The contract of a detector: batches in, readings out, and a state that survives a restart.

What the caller may assume: `update` never raises for what stands in a column, does no input or
output, looks at no clock, and gives a reading only when the state of a subject changes; the same
batches in the same order give the same state; `state()` is a flat dictionary of arrays that
`numpy.savez` takes without pickle, and a detector restored from it goes on as if nothing had
happened. What a detector may assume: one call is one tick, rows come in their order, and `ticks` is
the share of the false-alarm budget that this tick brings.
"""

from typing import Any, Protocol

from detectors.reading import Reading


class Detector(Protocol):
    """Anything that turns batches of columns into readings."""

    def update(self, columns: Any, *, ticks: float = 1.0, at: float | None = None) -> list[Reading]:
        """Take one tick's columns and give the changes of state."""
        ...

    def state(self) -> dict[str, Any]:
        """Give all that a restart must keep."""
        ...

    def reset(self) -> None:
        """Forget evidence and latched states."""
        ...
