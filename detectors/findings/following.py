"""What follows from another finding is one event, and is said once.

Where P(y given x) changes P(y) nearly always changes with it, and label drift beside concept drift
tells nobody anything new; no more does a projection that moved because a feature in it did. Such a
reading waits a little; if what explains it stands by then, it waits until that is over. What is
over before it was said is never said. States are shown all the same; only readings wait, never
evidence.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from detectors.reading import Reading, State

#: Labelled rows that label drift waits to see whether a change of the concept explains it.
LABEL_WAIT_ROWS: Final = 2_000
#: States in which something is found.
STANDING: Final = frozenset({State.WARNING, State.DRIFT})


class Following:
    """Holds readings back that `concerns` picks, for `wait_rows` rows at least; others pass."""

    def __init__(self, concerns: Callable[[Reading], bool], *, wait_rows: int) -> None:
        self._concerns, self._wait_rows = concerns, wait_rows
        self._held: dict[str, Reading] = {}  # by subject and segment: not said yet
        self._waited: dict[str, int] = {}
        self._said: set[str] = set()

    def update(
        self, readings: Sequence[Reading], explained: Callable[[Reading], bool], *, rows: int
    ) -> list[Reading]:
        """Take the readings of a batch of `rows` rows; give those that are said now.

        `explained` says whether something that stands explains a reading that is held.
        """
        passed = []
        for reading in readings:
            if not self._concerns(reading):
                passed.append(reading)
                continue
            key = _key(reading)
            if reading.state in STANDING:
                if key in self._said:
                    passed.append(reading)
                    continue
                self._held[key] = reading
                self._waited.setdefault(key, -rows)  # those of this batch are no wait
            elif key in self._said:
                self._said.discard(key)
                passed.append(reading)
            else:
                self._held.pop(key, None)
                self._waited.pop(key, None)
        for subject, reading in list(self._held.items()):
            waited = 0 if explained(reading) else self._waited[subject] + rows
            self._waited[subject] = waited
            if waited >= self._wait_rows and not explained(reading):
                del self._held[subject], self._waited[subject]
                self._said.add(subject)
                passed.append(reading)
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


def _key(reading: Reading) -> str:
    """What a reading is about: its subject, and its segment where it is of one."""
    return f"{reading.subject}|{reading.detector.partition(':')[2]}"
