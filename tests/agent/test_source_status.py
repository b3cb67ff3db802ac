"""What is told of each source: its state, its reason, its losses."""

from typing import Any

from agent.config import Config, load_config
from agent.source_status import Counted, TapLosses, completeness, source_status
from agent.sources.proxy import SourceCounters

NOTHING = Counted(completeness=None, dropped={})


def of(*sources: dict[str, Any]) -> Config:
    overrides = {
        f"sources.{index}.{key}": value
        for index, source in enumerate(sources)
        for key, value in source.items()
    }
    return load_config(None, environ={}, overrides=overrides)


PROXY = {"kind": "proxy", "upstream": "http://127.0.0.1:8000"}
TAP = {"kind": "tap", "port": 8000}
PUSH = {"kind": "push"}
TAIL = {"kind": "tail", "path": "/var/log/x", "format": "json_lines"}


def child(*, ready: bool = False, refused: str | None = None) -> dict[str, Any]:
    return {"pid": 1, "restarts": 0, "ready": ready, "refused": refused}


def test_each_in_the_order_of_the_configuration() -> None:
    tasks: list[dict[str, Any]] = [
        {"kind": "push", "state": "runs", "reason": None, "completeness": 1.0, "dropped": {}},
        {
            "kind": "tail",
            "state": "waits",
            "reason": "no such file",
            "completeness": None,
            "dropped": {"unreadable": 1},
        },
    ]
    found = source_status(
        of(TAIL, PROXY, TAP, PUSH),
        {
            "edge-1": child(),
            "edge-2": child(ready=True),
            "tap": child(refused="needs CAP_NET_RAW"),
        },
        proxy=Counted(completeness=0.5, dropped={"channel_full": 2}),
        tap=NOTHING,
        tasks=tasks,
    )
    assert [(one["kind"], one["state"], one["reason"]) for one in found] == [
        ("tail", "waits", "no such file"),
        ("proxy", "runs", None),
        ("tap", "refused", "needs CAP_NET_RAW"),
        ("push", "runs", None),
    ]
    assert found[0]["of"] == "/var/log/x"
    assert found[1]["dropped"] == {"channel_full": 2}
    assert completeness(found) == {"proxy": 0.5, "push": 1.0}


def test_before_anybody_has_spoken_all_of_them_start() -> None:
    found = source_status(of(PROXY, PUSH), {}, proxy=NOTHING, tap=NOTHING, tasks=[])
    assert [one["state"] for one in found] == ["starts", "starts"]


def test_of_several_of_a_kind_the_worst_counts() -> None:
    statuses = [
        {"kind": "tail", "completeness": ratio, "state": "runs"} for ratio in (1.0, 0.25, None)
    ]
    assert completeness(statuses) == {"tail": 0.25}


def test_the_taps_losses_rise_over_its_restarts() -> None:
    losses = TapLosses()
    for gap, other in ((3, 0), (5, 1), (1, 0), (2, 0)):  # the third is of another process
        dropped = {"tap_gap": gap, "tap_other": other}
        losses.take(SourceCounters(dropped=dropped, completeness=0.9))
    assert losses.dropped == {"tap_gap": 7, "tap_other": 1}
    assert losses.counted.completeness == 0.9


def test_the_door_for_grpc_is_named_beside_the_main_one() -> None:
    grpc = {"listen": ":9001", "upstream": "http://127.0.0.1:8001"}
    (proxy,) = source_status(of({**PROXY, "grpc": grpc}), {}, proxy=NOTHING, tap=NOTHING, tasks=[])
    assert proxy["of"].endswith(", :9001 to http://127.0.0.1:8001")
