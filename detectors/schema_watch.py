"""Columns that go missing, come unasked or cannot be read: said once when it begins, once when it
ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from detectors.columns import Table
from detectors.explain import shown
from detectors.reading import State

#: Names of unexpected columns that are remembered; more are counted and not named.
UNEXPECTED_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChange:
    """One column changed: `warning` when something is wrong with it, `ok` when it is back."""

    subject: str
    state: State
    explain: str


class SchemaWatch:
    """Compares the columns of each batch with those of the reference.

    `expected` columns are missed when absent; `known` ones (the prediction, say) surprise nobody.
    """

    def __init__(self, *, expected: Sequence[str], known: frozenset[str]) -> None:
        self._expected, self._known = tuple(expected), known
        self._troubled: dict[str, str] = {}
        self._unexpected: dict[str, None] = {}
        self.missing_total = 0
        self.unexpected_total = 0

    def update(self, table: Table) -> list[SchemaChange]:
        """Take one batch's columns and give what changed."""
        changes = []
        for name in self._expected:
            trouble = "" if name in table.columns else table.malformed.get(name, "is missing")
            self.missing_total += bool(trouble)
            before = self._troubled.get(name, "")
            if bool(trouble) == bool(before):
                continue
            if trouble:
                self._troubled[name] = trouble
                explain = f"column {shown(name)} {trouble}; nothing of it was counted"
                changes.append(SchemaChange(subject=name, state=State.WARNING, explain=explain))
            else:
                del self._troubled[name]
                explain = f"column {shown(name)} is back"
                changes.append(SchemaChange(subject=name, state=State.OK, explain=explain))
        return changes + self._surprises(table)

    def _surprises(self, table: Table) -> list[SchemaChange]:
        changes = []
        for name in table.columns:
            if name in self._known:
                continue
            self.unexpected_total += 1
            if name in self._unexpected or len(self._unexpected) >= UNEXPECTED_MAX:
                continue
            self._unexpected[name] = None
            explain = f"column {shown(name)} is not in the reference and is not watched"
            changes.append(SchemaChange(subject=name, state=State.WARNING, explain=explain))
        return changes

    def state(self) -> dict[str, Any]:
        """Give what a restart must keep, as JSON values."""
        return {
            "troubled": self._troubled,
            "unexpected": list(self._unexpected),
            "missing_total": self.missing_total,
            "unexpected_total": self.unexpected_total,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self._troubled = {str(name): str(why) for name, why in state["troubled"].items()}
        self._unexpected = dict.fromkeys(str(name) for name in state["unexpected"])
        self.missing_total = int(state["missing_total"])
        self.unexpected_total = int(state["unexpected_total"])
