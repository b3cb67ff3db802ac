"""A real agent, pushed to by `curl`, and following a real log through rotation and kills."""

import asyncio
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import Agent, free_ports, until
from tests.e2e.model import Model
from tests.sources import kserve_wire as kserve

ACCESS = '2026-11-23T04:50:00,118 - /127.0.0.1:6403 "POST /predictions/m HTTP/1.1" 200 118\n'
pytestmark = pytest.mark.slow


def with_sources(new_agent: Callable[..., Agent], model: Model, *more: Any) -> Agent:
    agent = new_agent(
        detect={"tick_rows": 1, "tick_s": 1},
        capture={"enabled": True},
    )
    agent.config["sources"] += more
    return agent


def captured(agent: Agent) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for segment in sorted((agent.state / "captures").glob("rows-*.jsonl")):
        rows += [json.loads(line) for line in segment.read_text().splitlines()]
    return rows


async def test_events_rows_and_labels_are_pushed_with_curl(
    new_agent: Callable[..., Agent],
    model: Model,
    program: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    (port,) = free_ports(1)
    access = tmp_path / "access_log.log"
    access.write_text(ACCESS * 3)
    agent = with_sources(
        new_agent,
        model,
        {"kind": "push", "listen": f"127.0.0.1:{port}"},
        {"kind": "tail", "path": str(access), "format": "torchserve"},
    )
    await agent.start()
    curl = str(program("curl"))

    async def post(path: str, body: bytes, *headers: str) -> tuple[str, dict[str, Any]]:
        argv = [curl, "-sS", "-m", "30", "--data-binary", "@-", "-w", "\n%{http_code}"]
        argv += [part for header in headers for part in ("-H", header)]
        done = await asyncio.to_thread(
            subprocess.run,
            [*argv, f"http://127.0.0.1:{port}{path}"],
            input=body,
            capture_output=True,
            check=True,
        )
        text, _, code = done.stdout.decode().rpartition("\n")
        return code, json.loads(text)

    for type, body in ((kserve.REQUEST, kserve.ASKED), (kserve.RESPONSE, kserve.SAID)):
        event = ("Ce-Specversion: 1.0", "Ce-Id: e-1", f"Ce-Type: {type}", "Ce-Source: curl")
        assert (await post("/", body, *event, "Content-Type: application/json"))[0] == "200"
    names = ("0", "1", "2", "3")
    rows = [{"request_id": f"r-{n}", **dict.fromkeys(names, n), "prediction": 1} for n in range(5)]
    code, answer = await post("/api/v1/rows", json.dumps(rows).encode())
    assert (code, answer["rows"]) == ("200", 5)
    label = {"request_id": "r-3", "label": 0}

    async def joined() -> bool:
        _, counts = await post("/api/v1/labels", json.dumps(label).encode())
        return bool(counts["joined"] + counts["unchanged"])

    await until(joined, "the label meets its row")
    await until(lambda: len(captured(agent)) == 7, "two rows of events and five pushed ones")
    assert Counter(row["request_id"] for row in captured(agent))["e-1"] == 2
    metrics = await agent.metrics()
    assert metrics.sum("remora_capture_completeness_ratio", source="push") == 1.0
    # TorchServe's access log beside it: requests without rows.
    assert metrics.sum("remora_requests_total", code="2xx") == 3
    assert metrics.sum("remora_request_duration_seconds_sum") == pytest.approx(0.354)
    status = await agent.status()
    assert status is not None
    (push,) = [source for source in status["sources"] if source["kind"] == "push"]
    assert (push["state"], push["dropped"]) == ("runs", {})


async def test_no_line_is_lost_through_rotation_and_kills_of_analysis(
    new_agent: Callable[..., Agent], model: Model, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "app.jsonl"
    log.parent.mkdir()
    tail = {"kind": "tail", "path": str(log), "format": "json_lines", "poll_s": 0.05}
    agent = with_sources(new_agent, model, tail)
    await agent.start()
    ids: list[str] = []

    def write(count: int) -> None:
        with log.open("a") as file:
            for _ in range(count):
                ids.append(f"line-{len(ids)}")
                row = {"request_id": ids[-1], "x": len(ids) % 7, "prediction": len(ids) % 2}
                file.write(json.dumps(row) + "\n")

    def seen() -> int:
        return len({row["request_id"] for row in captured(agent)})

    for turn in range(2):
        write(300)
        await until(lambda: seen() >= len(ids) - 200, "some lines are taken")
        old = agent.signal("analysis", signal.SIGKILL)  # in the middle of the rest
        write(50)
        os.rename(log, log.with_name(f"app.jsonl.{turn + 1}"))  # as logrotate does
        write(50)
        await agent.restarted("analysis", old)
        await until(lambda: seen() == len(ids), "every line is taken")
    os.truncate(log, 0)  # as copytruncate does
    write(30)
    await until(lambda: seen() == len(ids), "lines after the cut")
    counts = Counter(row["request_id"] for row in captured(agent))
    assert set(counts) == set(ids)
    # The line whose taking was interrupted may be seen twice: one for each kill at most.
    assert sum(counts.values()) - len(counts) <= 2
    assert max(counts.values()) <= 2


async def test_a_flood_is_shed_and_analysis_stays_as_small_as_it_was(
    new_agent: Callable[..., Agent], model: Model
) -> None:
    (port,) = free_ports(1)
    push = {
        "kind": "push",
        "listen": f"127.0.0.1:{port}",
        "queue_bytes_max": 4_000_000,
        "body_bytes_max": 1_000_000,
        "pair_bytes_max": 2_000_000,
    }
    agent = with_sources(new_agent, model, push)
    await agent.start()
    body = b'{"instances": [[' + b"1.5, " * 20_000 + b"1]]}"
    statuses: Counter[int] = Counter()

    async def flood(client: int, count: int) -> None:
        for n in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                # Requests alone: none of them ever meets its response.
                writer.write(kserve.event(kserve.REQUEST, body, id=f"{client}-{n}"))
                line = await asyncio.wait_for(reader.readline(), 40.0)
                statuses[int(line.split(b" ")[1]) if line else 0] += 1
            except ConnectionError:
                statuses[0] += 1
            finally:
                writer.close()

    async def round(count: int) -> int:
        await asyncio.gather(*(flood(client, count) for client in range(16)))
        return rss_bytes(agent.pid("analysis"))

    first = await round(15)
    last = await round(60)
    assert statuses[200] + statuses[429] == sum(statuses.values()), statuses
    # 96 MB went through: what is kept of it is what pair_bytes_max allows.
    assert last - first < 24_000_000, (first, last)


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
