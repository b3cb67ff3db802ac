"""Columns that are gone, come unasked, cannot be read, or stand in another order.

These are facts, not evidence: each is said once when it begins and once when it ends, and a column
that flaps is believed less each time (see `latches`). Names come from outside: at most 100
unexpected ones are remembered, and of many changes in one tick the first 20 are named and the rest
counted.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from detectors.data_quality.latches import Latches
from detectors.drift.explain import shown
from detectors.reading import Change, Kind, Scope, State
from detectors.rows.columns import Table

#: Names of unexpected columns that are remembered; more are counted and not named.
UNEXPECTED_MAX: Final = 100
#: Changes of one tick that are named; the rest come as one.
NAMED_MAX: Final = 20
OTHERS: Final = "(others)"
ORDER: Final = "(order)"


class Schema:
    """Compares the columns of each tick with those of the reference.

    `expected` columns, in their order, are missed when absent; `known` ones (the prediction, say)
    surprise nobody.
    """

    def __init__(self, *, expected: Sequence[str], known: Collection[str] = ()) -> None:
        self._expected = tuple(expected)
        self._place = {name: place for place, name in enumerate(self._expected)}
        self._known = frozenset(known) | frozenset(self._expected)
        self._absent = Latches(patience_rows=0)
        self._unexpected = Latches(patience_rows=0)
        self._order = Latches(patience_rows=0)
        self._seen: tuple[str, ...] = ()  # the columns last judged to be in order
        self.absent_total = 0  # ticks x columns
        self.unexpected_total = 0

    def update(self, table: Table) -> list[Change]:
        """Take one tick's columns and give what changed; a tick without rows changes nothing."""
        if not table.rows:
            return []
        return [
            *self._missed(table),
            *self._surprises(table),
            *self._ordered(table),
        ]

    def standing(self) -> list[str]:
        """Give what is said to be wrong now: columns absent or unexpected, and the order."""
        parts = (self._absent, self._unexpected, self._order)
        return [name for part in parts for name in part.standing()]

    def _missed(self, table: Table) -> list[Change]:
        absent = self._place.keys() - table.columns.keys() - table.vectors.keys()
        self.absent_total += len(absent)
        changes = []
        changed = self._absent.step(absent, table.rows)
        for name in sorted(changed, key=self._place.__getitem__):
            if changed[name] is State.OK:
                explain = f"column {shown(name)} is back"
            else:
                trouble = table.malformed.get(name, "is missing")
                explain = f"column {shown(name)} {trouble}; nothing of it was counted"
            changes.append(_change(name, changed[name], table.rows, explain))
        return _bounded(changes, table.rows)

    def _surprises(self, table: Table) -> list[Change]:
        names = (*table.columns, *table.vectors)
        unexpected = set(names) - self._known
        self.unexpected_total += len(unexpected)
        if not unexpected and not self._unexpected:
            return []
        remembered = {name for name in unexpected if name in self._unexpected}
        room = UNEXPECTED_MAX - len(self._unexpected)
        new = [name for name in names if name in unexpected and name not in remembered]
        taken = remembered | set(new[: max(room, 0)])
        if len(new) > max(room, 0):
            taken.add(OTHERS)
        changes = []
        for name, state in self._unexpected.step(taken, table.rows).items():
            if name == OTHERS:
                said = f"more than {UNEXPECTED_MAX} columns are not in the reference; no more of "
                said += "them are named"
                over = "no more columns than can be named are outside the reference"
                explain = over if state is State.OK else said
            elif state is State.OK:
                explain = f"column {shown(name)}, which is not in the reference, no longer comes"
            else:
                explain = f"column {shown(name)} is not in the reference and is not watched"
            changes.append(_change(name, state, table.rows, explain))
        return _bounded(changes, table.rows)

    def _ordered(self, table: Table) -> list[Change]:
        names = tuple(table.columns)
        troubled = set()
        first = ("", "")
        if names != self._seen:
            places = [self._place[name] for name in names if name in self._place]
            falls = [k for k in range(1, len(places)) if places[k] < places[k - 1]]
            if falls:
                k = falls[0]
                first = (self._expected[places[k - 1]], self._expected[places[k]])
                troubled = {ORDER}
            else:
                self._seen = names
        changed = self._order.step(troubled, table.rows)
        if ORDER not in changed:
            return []
        if changed[ORDER] is State.OK:
            explain = "columns stand in the order of the reference again"
        else:
            explain = (
                f"columns stand in another order than in the reference ({shown(first[0])} before "
                f"{shown(first[1])}): harmless if the model goes by name, wrong if by position"
            )
        return [_change(ORDER, changed[ORDER], table.rows, explain)]

    def reset(self) -> None:
        """Forget what was said."""
        self._absent, self._unexpected, self._order = (Latches(patience_rows=0) for _ in range(3))

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as JSON values."""
        return {
            "absent": self._absent.state(),
            "unexpected": self._unexpected.state(),
            "order": self._order.state(),
            "absent_total": self.absent_total,
            "unexpected_total": self.unexpected_total,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave. Raises ValueError for what it cannot have given."""
        self._absent.restore(state["absent"])
        self._unexpected.restore(state["unexpected"])
        self._order.restore(state["order"])
        self.absent_total = int(state["absent_total"])
        self.unexpected_total = int(state["unexpected_total"])


def _change(subject: str, state: State, rows: int, explain: str) -> Change:
    return Change(
        kind=Kind.DATA_QUALITY,
        scope=Scope.MODEL if subject in (ORDER, OTHERS) else Scope.FEATURE,
        subject=subject,
        detector="schema",
        state=state,
        statistic=0.0 if state is State.OK else 1.0,
        threshold=1.0,
        rows=rows,
        explain=explain,
    )


def _bounded(changes: list[Change], rows: int) -> list[Change]:
    """Name the first of many changes and count the rest, for each state."""
    result = []
    for state in (State.WARNING, State.OK):
        those = [change for change in changes if change.state is state]
        result += those[:NAMED_MAX]
        if len(those) > NAMED_MAX:
            what = "in the same trouble" if state is State.WARNING else "well again"
            explain = f"{len(those) - NAMED_MAX:,} more columns are {what}"
            result.append(_change(OTHERS, state, rows, explain))
    return result
