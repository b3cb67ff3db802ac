"""What detection costs in the running agent: 10,000 rows a second with 100 features, pushed.

A real `remora run` with a push source on loopback, the budgets of the governor set so high that it
rests. Rows come as JSON Lines, each a request of its own. The first 10,000 make the reference; then
so many are pushed as --rows says, at 10,000 a second or as fast as they are taken. Detection is all
that analysis does with a row once it is decoded: putting rows together to ticks, and every detector
on them (agent.monitor.ModelMonitor.take and advance). Its CPU time is measured inside the analysis
process, by a wrapper around these calls that Python loads at its start (sitecustomize), less what
reading the clock takes, which is printed; decoding, HTTP and the rest of the process are told apart
from it and printed beside it.

    python benchmarks/detection_agent.py [--rows 60000] [--json FILE]

Exits 1 if detection takes more than 10 % of a core at 10,000 rows/s (CPU time per row, so that a
busy machine does not matter), or analysis has more than 110 MiB resident.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
RATE, FEATURES, BODY_ROWS, LEARN_ROWS = 10_000, 100, 500, 10_000
CORE_SHARE_MAX, RSS_MIB_MAX = 0.10, 110.0
START_S_MAX, DONE_S_MAX = 60.0, 240.0

#: Loaded by every Python that the agent starts; acts in the analysis process only.
WRAPPER = """
import asyncio, json, os, sys, time

spent = {"detection": 0.0, "detectors": 0.0, "calls": 0, "rows": 0, "ticks": 0}
clock, run = time.process_time, asyncio.run

started = clock()
for _ in range(20_000):
    clock()
reading_s = (clock() - started) / 20_000

def told(written=[0]):
    if spent["ticks"] == written[0]:
        return
    written[0] = spent["ticks"]
    whole = spent | {"process": clock(), "clock": reading_s * spent["calls"]}
    with open(os.environ["REMORA_SPENT"] + ".new", "w") as file:
        json.dump(whole, file)
    os.replace(os.environ["REMORA_SPENT"] + ".new", os.environ["REMORA_SPENT"])

def timed(owner, name, part):
    inner = getattr(owner, name)

    def outer(self, *args, **kwargs):
        started = clock()
        try:
            return inner(self, *args, **kwargs)
        finally:
            spent[part] += clock() - started
            if part == "detectors":
                spent["ticks"] += 1
            else:
                spent["calls"] += 1
                spent["rows"] = self.rows_total
                told()

    setattr(owner, name, outer)

def wrapped_run(*args, **kwargs):
    # Analysis has loaded what it loads by now, and nothing else was loaded for it.
    from agent.monitor import ModelMonitor
    from agent.version_watch import VersionWatch

    timed(VersionWatch, "take", "detectors")
    timed(ModelMonitor, "take", "detection")
    timed(ModelMonitor, "advance", "detection")
    return run(*args, **kwargs)

if "agent.analysis" in sys.orig_argv:
    asyncio.run = wrapped_run
"""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


@contextmanager
def agent(folder: Path, push: int, admin: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A running agent, its analysis wrapped."""
    (folder / "sitecustomize.py").write_text(WRAPPER)
    config = {
        "sources": [{"kind": "push", "listen": f"127.0.0.1:{push}"}],
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "state": {"dir": str(folder / "state")},
        "reference": {"learn_rows": LEARN_ROWS},
        "sampling": {"cpu_budget": 1_000.0, "memory_bytes_max": 1 << 40},
    }
    (folder / "remora.yaml").write_text(yaml.safe_dump(config))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "REMORA_SPENT": str(folder / "spent.json"),
    }
    command = [sys.executable, "-m", "agent", "run", "--config", str(folder / "remora.yaml")]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def post(url: str, body: bytes) -> bool:
    """Send rows; false if they have to come later."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/x-ndjson"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code in (429, 503):
            return False
        raise SystemExit(f"{error.code}: {error.read()[:500]!r}") from None
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def bodies(rows: int, seed: int) -> Iterator[bytes]:
    """JSON Lines of normal and category features, [BODY_ROWS] at a time."""
    rng = np.random.default_rng(seed)
    names = [f"f{i}" for i in range(FEATURES)]
    for body in range(rows // BODY_ROWS):
        values = rng.normal(size=(BODY_ROWS, FEATURES)).round(6).tolist()
        lines = [
            json.dumps({"request_id": f"r{seed}-{body}-{i}", **dict(zip(names, row, strict=True))})
            for i, row in enumerate(values)
        ]
        yield "\n".join(lines).encode()


def send(url: str, rows: int, seed: int, *, per_second: float) -> None:
    """Push rows at a pace, each body again until it is taken."""
    started = time.monotonic()
    for number, body in enumerate(bodies(rows, seed)):
        time.sleep(max(0.0, started + number * BODY_ROWS / per_second - time.monotonic()))
        until = time.monotonic() + DONE_S_MAX
        while not post(url, body):
            if time.monotonic() > until:
                raise SystemExit("rows are not taken")
            time.sleep(0.1)


def analysis_of(supervisor: int) -> int:
    """The analysis process among a supervisor's children."""
    for task in Path(f"/proc/{supervisor}/task").iterdir():
        for child in (task / "children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip().startswith("remora-analysis"):
                return int(child)
    raise SystemExit("there is no analysis process")


def rss_mib(process: int) -> float:
    """Resident memory."""
    rows = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return next(int(row.split()[1]) for row in rows if row.startswith("Rss:")) / 1_024


def spent(folder: Path, rows: int) -> Mapping[str, Any]:
    """What the wrapper wrote, once so many rows are through."""
    until = time.monotonic() + DONE_S_MAX
    path = folder / "spent.json"
    while time.monotonic() < until:
        if path.exists():
            found: Mapping[str, Any] = json.loads(path.read_text())
            if found["rows"] >= rows - 1_000:
                return found
        time.sleep(0.2)
    raise SystemExit(f"not all rows came through: {(folder / 'log.txt').read_text()[-2_000:]}")


def measure(folder: Path, rows: int) -> dict[str, float]:
    """Push, and give CPU microseconds per row by part, and resident memory."""
    push, admin = free_ports(2)
    url = f"http://127.0.0.1:{push}/api/v1/rows"
    with agent(folder, push, admin) as process:
        send(url, LEARN_ROWS + 2_000, 1, per_second=5_000)
        before = spent(folder, LEARN_ROWS + 2_000)
        pid = analysis_of(process.pid)
        started = time.monotonic()
        send(url, rows, 2, per_second=RATE)
        after = spent(folder, LEARN_ROWS + 2_000 + rows)
        taken = after["rows"] - before["rows"]
        figures = {
            f"{part}_us": (after[part] - before[part]) / taken * 1e6
            for part in ("process", "detection", "detectors")
        }
        # Each call that is timed contains one reading of the clock, which is a system call.
        figures["clock_us"] = (after["clock"] - before["clock"]) / taken * 1e6
        figures["detection_us"] -= figures["clock_us"]
        figures["ticks_of_rows_us"] = figures["detection_us"] - figures["detectors_us"]
        rate = taken / (time.monotonic() - started)
        return figures | {"rows_per_s": rate, "rss_mib": rss_mib(pid), "rows": taken}


def main() -> int:
    """Measure, print, and say whether it is little enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), asked.rows)
    share = figures["detection_us"] * RATE / 1e6
    met = share <= CORE_SHARE_MAX and figures["rss_mib"] <= RSS_MIB_MAX
    print(f"{figures['rows']:,.0f} rows x {FEATURES} features, {figures['rows_per_s']:,.0f} rows/s")
    for part, what in (
        ("detection", f"detection (at most {CORE_SHARE_MAX:.0%})"),
        ("ticks_of_rows", "  of it: rows to ticks"),
        ("detectors", "  of it: detectors"),
        ("process", "all of analysis, decoding and HTTP included"),
    ):
        us = figures[f"{part}_us"]
        print(f"  {what:<46}{us:>8.2f} us/row {us * RATE / 1e6:>8.1%} of a core at {RATE:,} rows/s")
    print(f"  less {figures['clock_us']:.2f} us/row for reading the clock around each row")
    print(f"  analysis has {figures['rss_mib']:.1f} MiB resident (at most {RSS_MIB_MAX:.0f})")
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures | {"core_share": share, "met": met}) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
