"""What becomes of each configured source, for the status page and the metrics.

Values in, values out. A source that does not run says why, in a sentence for people.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.config import Config, PushSource, SourceConfig, TailSource, TapSource
from agent.sources.proxy import SourceCounters

Processes = Mapping[str, Mapping[str, Any]]
Status = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a source in a process of its own has lost."""

    completeness: float | None
    dropped: Mapping[str, int]


class TapLosses:
    """Sums over restarts of the tap, which counts from zero each time."""

    def __init__(self) -> None:
        self._ended: Counter[str] = Counter()
        self._latest = SourceCounters(dropped={}, completeness=None)

    def take(self, counters: SourceCounters) -> None:
        """Cumulative; a number that fell is another process'."""
        before = self._latest.dropped
        if any(counters.dropped.get(reason, 0) < n for reason, n in before.items()):
            self._ended.update(before)
        self._latest = counters

    @property
    def dropped(self) -> Counter[str]:
        """By reason, all of them from zero once a tap has been heard."""
        found = Counter(self._ended)
        found.update(self._latest.dropped)
        return found

    @property
    def counted(self) -> Counted:
        return Counted(completeness=self._latest.completeness, dropped=self.dropped)


def source_status(
    config: Config,
    processes: Processes,
    *,
    proxy: Counted,
    tap: Counted,
    tasks: Sequence[Mapping[str, Any]],
) -> list[Status]:
    """One entry for each configured source, in that order.

    Parameters
    ----------
    processes: what the supervisor said last of its children.
    tasks: the sources that run here, each kind in the order of the configuration.
    """
    here = list(tasks)
    counted = {"proxy": proxy, "tap": tap}
    found = []
    for source in config.sources:
        status: Status = {"state": "starts", "completeness": None, "dropped": {}}
        if source.kind in counted:
            child = "edge" if source.kind == "proxy" else source.kind
            status = _of_children(_named(processes, child))
            status["completeness"] = counted[source.kind].completeness
            status["dropped"] = dict(counted[source.kind].dropped)
        else:
            mine = next((task for task in here if task["kind"] == source.kind), None)
            if mine is not None:
                here.remove(mine)
                status = dict(mine)
        found.append({"kind": source.kind, "of": _subject(source), "reason": None, **status})
    return found


def completeness(statuses: Sequence[Status]) -> dict[str, float]:
    """By kind of source, of several the worst; absent where a source cannot know."""
    found: dict[str, float] = {}
    for status in statuses:
        if status["completeness"] is not None:
            ratio = float(status["completeness"])
            found[status["kind"]] = min(ratio, found.get(status["kind"], 1.0))
    return found


def _named(processes: Processes, name: str) -> list[Mapping[str, Any]]:
    return [p for known, p in processes.items() if known == name or known.startswith(f"{name}-")]


def _of_children(children: Sequence[Mapping[str, Any]]) -> Status:
    """Together: it runs while one of them does."""
    refused = [child["refused"] for child in children if child.get("refused")]
    if any(child.get("ready") for child in children):
        return {"state": "runs", "reason": None}
    if refused:
        return {"state": "refused", "reason": refused[0]}
    return {"state": "starts", "reason": None}


def _subject(source: SourceConfig) -> str:
    if isinstance(source, TapSource):
        return f"{source.interface} port {source.port}"
    if isinstance(source, TailSource):
        return source.path
    if isinstance(source, PushSource):
        return source.listen
    main = f"{source.listen} to {source.upstream}"
    grpc = source.grpc
    return main if grpc is None else f"{main}, {grpc.listen} to {grpc.upstream}"
