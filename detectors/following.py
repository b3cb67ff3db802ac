"""A label's share that moves because the concept moved is one event, and is said once.

Where P(y given x) changes P(y) nearly always changes with it, and label drift beside concept drift
tells nobody anything new. A reading of label drift therefore waits for the next `WAIT_ROWS`
labelled rows; if a detector of concept drift speaks meanwhile, or did already and was not taken
back, it waits until that is over. What is over before it was said is never said. The state of the
label is shown all the same; only readings wait, never evidence.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from detectors.reading import Kind, Reading, State

#: Labelled rows that a reading waits to see whether a change of the concept explains it.
WAIT_ROWS: Final = 2_000
_STANDING: Final = frozenset({State.WARNING, State.DRIFT})


class Following:
    """Holds readings of label drift back; all others pass."""

    def __init__(self) -> None:
        self._held: dict[str, Reading] = {}  # by subject: what is not said yet
        self._waited: dict[str, int] = {}
        self._said: set[str] = set()

    def update(
        self, readings: Sequence[Reading], concept: Iterable[State], *, rows: int
    ) -> list[Reading]:
        """Take the readings of a tick of `rows` labelled rows; give those that are said now."""
        passed = []
        for reading in readings:
            if reading.kind is not Kind.LABEL_DRIFT:
                passed.append(reading)
            elif reading.state in _STANDING:
                if reading.subject in self._said:
                    passed.append(reading)
                    continue
                self._held[reading.subject] = reading
                self._waited.setdefault(reading.subject, 0)
            elif reading.subject in self._said:
                self._said.discard(reading.subject)
                passed.append(reading)
            else:
                self._held.pop(reading.subject, None)
                self._waited.pop(reading.subject, None)
        explained = any(state in _STANDING for state in concept)
        for subject in list(self._held):
            self._waited[subject] = 0 if explained else self._waited[subject] + rows
            if self._waited[subject] > WAIT_ROWS:
                passed.append(self._held.pop(subject))
                del self._waited[subject]
                self._said.add(subject)
        return passed

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as JSON values."""
        return {
            "held": {subject: reading.to_json() for subject, reading in self._held.items()},
            "waited": dict(self._waited),
            "said": sorted(self._said),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._held = {str(s): Reading.from_json(event) for s, event in state["held"].items()}
        self._waited = {subject: int(state["waited"][subject]) for subject in self._held}
        self._said = {str(subject) for subject in state["said"]}

    def reset(self) -> None:
        """Forget what waits."""
        self._held, self._waited, self._said = {}, {}, set()
