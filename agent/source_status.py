"""What becomes of each configured source, for the status page and the metrics.

Values in, values out. A source that does not run says why, in a sentence for people.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.config import Config, PushSource, SourceConfig, TailSource, TapSource
from agent.edge_totals import EdgeTotals

Processes = Mapping[str, Mapping[str, Any]]
Status = dict[str, Any]


def source_status(
    config: Config, processes: Processes, totals: EdgeTotals, tasks: Sequence[Mapping[str, Any]]
) -> list[Status]:
    """One entry for each configured source, in that order.

    Parameters
    ----------
    processes: what the supervisor said last of its children.
    tasks: the sources that run here, each kind in the order of the configuration.
    """
    here = list(tasks)
    found = []
    for source in config.sources:
        status: Status
        if source.kind == "proxy":
            status = _of_children(_named(processes, "edge"))
            status |= {"completeness": totals.completeness, "dropped": dict(totals.lost)}
        elif source.kind == "tap":
            status = _of_children(_named(processes, "tap"))
            status |= {"completeness": None, "dropped": {}}
        else:
            mine = next((task for task in here if task["kind"] == source.kind), None)
            if mine is not None:
                here.remove(mine)
            status = dict(mine or {"state": "starts", "completeness": None, "dropped": {}})
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
    return f"{source.listen} to {source.upstream}"
