"""Outcomes of both arms in the order in which their requests finished.

The edge ships them slot by slot: all of stable's, then all of the candidate's, of a fiftieth of a
second or, after an outage of ours, of a minute. The canary analysis pairs each candidate outcome
with the controls just before it; fed slot by slot it would compare one moment with another.
"""

from collections.abc import Iterable

from agent.sources.proxy import Outcome


class InOrder:
    """Holds outcomes back until what finished before them has arrived as well.

    `take` is called at regular intervals; whatever the edge sent together must arrive within one.
    """

    def __init__(self) -> None:
        self._earlier: list[Outcome] = []  # here at the last call
        self._since: list[Outcome] = []

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Outcomes as they arrive, in whatever order."""
        self._since.extend(outcomes)

    def take(self) -> list[Outcome]:
        """Those that nothing earlier can still overtake, in order."""
        if not self._earlier:
            self._earlier, self._since = self._since, []
            return []
        until = max(outcome.at for outcome in self._earlier)
        everything = sorted(self._earlier + self._since, key=lambda outcome: outcome.at)
        ready = [outcome for outcome in everything if outcome.at <= until]
        self._earlier = everything[len(ready) :]
        self._since = []
        return ready

    def take_all(self) -> list[Outcome]:
        """Whatever is here: before an end."""
        everything = sorted(self._earlier + self._since, key=lambda outcome: outcome.at)
        self._earlier, self._since = [], []
        return everything
