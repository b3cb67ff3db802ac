"""Hysteresis for facts that need no statistics: said when they begin, taken back when they stay
away.

A subject that flaps is believed less each time: the rows that it must stay calm before it counts as
well double with every relapse, so that what it says is bounded however it behaves. Only subjects
in trouble, or lately so, are remembered; who adds subjects from outside bounds them there.
"""

from collections.abc import Mapping
from typing import Any, Final

from detectors.reading import State

#: The first relapse asks for so many calm rows, the next for twice as many.
PATIENCE_ROWS: Final = 1_000
PATIENCE_ROWS_MAX: Final = 64_000
#: A subject that was well for so many rows is trusted again, and forgotten.
FORGET_ROWS: Final = 200_000


class Latches:
    """One latch per subject; `patience_rows` are the calm rows that the first recovery takes.

    >>> latches = Latches(patience_rows=0)
    >>> latches.step({"age"}, 1_000), latches.step({"age"}, 1_000), latches.step(set(), 1_000)
    ({'age': <State.WARNING: 'warning'>}, {}, {'age': <State.OK: 'ok'>})
    """

    def __init__(self, *, patience_rows: int) -> None:
        self._first = patience_rows
        self._entries: dict[str, list[int]] = {}  # subject: troubled, calm rows, patience

    def __contains__(self, subject: str) -> bool:
        """Say whether the subject is remembered at all."""
        return subject in self._entries

    def __len__(self) -> int:
        """Give the number of subjects remembered."""
        return len(self._entries)

    def troubled(self, subject: str) -> bool:
        """Say whether the subject is in trouble by what was said last."""
        return subject in self._entries and bool(self._entries[subject][0])

    def any_troubled(self) -> bool:
        """Say whether any subject is in trouble."""
        return any(entry[0] for entry in self._entries.values())

    def standing(self) -> list[str]:
        """Give the subjects in trouble, in the order in which they were first met."""
        return [name for name, entry in self._entries.items() if entry[0]]

    def step(self, troubled: set[str], rows: int) -> dict[str, State]:
        """Take the subjects that are in trouble in this tick of `rows` rows; give those whose state
        changed.
        """
        changed: dict[str, State] = {}
        for subject in sorted(troubled):
            entry = self._entries.get(subject)
            if entry is None:
                self._entries[subject] = [1, 0, self._first]
                changed[subject] = State.WARNING
                continue
            entry[1] = 0
            if not entry[0]:
                entry[0] = 1
                entry[2] = min(max(2 * entry[2], PATIENCE_ROWS), PATIENCE_ROWS_MAX)
                changed[subject] = State.WARNING
        for subject in [name for name in self._entries if name not in troubled]:
            entry = self._entries[subject]
            entry[1] += rows
            if entry[0] and entry[1] >= entry[2]:
                entry[0] = entry[1] = 0
                changed[subject] = State.OK
            elif not entry[0] and entry[1] >= FORGET_ROWS:
                del self._entries[subject]
        return changed

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as JSON values."""
        return {name: list(entry) for name, entry in self._entries.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError for what it cannot have given."""
        entries = {str(name): [int(v) for v in entry] for name, entry in state.items()}
        if any(len(entry) != 3 or min(entry) < 0 for entry in entries.values()):
            raise ValueError("latches: an entry is no troubled, calm rows, patience")
        self._entries = entries
