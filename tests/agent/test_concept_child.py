"""ADWIN in its own process: fed, answering, restarted, and never waited for."""

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from agent.concept_child import (
    BITS_MAX,
    CATALOG,
    RECENT_ROWS,
    VERSIONS_MAX,
    AdwinChange,
    ConceptChild,
    Rated,
    adwin_reading,
    error_bits,
    makers,
    serve,
)
from agent.config.detection import ConceptConfig, ConceptDetector
from agent.labels import Joined

ROOT = Path(__file__).parents[2]

# Says its process id at once, and dies of the first packet.
STAND_IN = """
import json, os, socket, sys
control = socket.socket(fileno=int(sys.argv[-1]))
fields = {"version": "v1", "state": "drift", "before": 0.1, "after": 0.2}
fields |= {"rows": 5, "seen": os.getpid()}
control.send(json.dumps(fields).encode())
control.recv(65536)
os._exit(1)
"""
WITHOUT_RIVER = """
import sys
sys.modules["river"] = None
from agent.concept_child import main
raise SystemExit(main(sys.argv[1:]))
"""


class Heard:
    """Changes as they come, one after the other."""

    def __init__(self) -> None:
        self.changes: asyncio.Queue[AdwinChange] = asyncio.Queue()

    async def next(self) -> AdwinChange:
        return await asyncio.wait_for(self.changes.get(), 30)


def bits(rate: float, count: int, seed: int) -> bytes:
    return bytes((np.random.default_rng(seed).random(count) < rate).astype(np.uint8))


def joined(said: Any, truth: Any, **changes: Any) -> Joined:
    fields: dict[str, Any] = {
        "id": "a", "row": 0, "prediction": said, "score": None, "label": truth, "version": "v1",
        "slot": "stable", "weight": 1.0, "uniform": True, "predicted_at": 0.0, "labelled_at": 0.0,
    }  # fmt: skip
    return Joined(**(fields | changes))


@pytest.mark.real
async def test_adwin_finds_a_change_and_says_whose() -> None:
    if importlib.util.find_spec("river") is None:
        pytest.fail("river is missing: make setup installs it")
    heard = Heard()
    child = ConceptChild(heard.changes.put_nowait)
    child.start()
    await asyncio.wait_for(child.up.wait(), 30)
    pid = child.pid
    assert pid is not None
    assert child.feed("quiet", bits(0.05, 2_000, 1))
    assert child.feed("v2", bits(0.05, 4_000, 2) + bits(0.3, 1_500, 3) + bits(0.05, 3_000, 4))
    first = await heard.next()
    assert first.version == "v2"
    assert first.before == pytest.approx(0.05, abs=0.01)
    assert 4_000 < first.seen < 4_500
    assert first.state in ("warning", "drift")
    states: list[str] = [first.state]
    while states[-1] != "ok":
        change = await heard.next()
        states.append(change.state)
        assert change.before == first.before
    assert states[-2:] == ["drift", "ok"]
    assert change.seen > 5_500
    await child.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await child.stop()


@pytest.mark.real
async def test_every_detector_of_the_catalog_sees_a_model_that_fails() -> None:
    heard = Heard()
    child = ConceptChild(heard.changes.put_nowait, detectors=tuple(CATALOG))
    child.start()
    await asyncio.wait_for(child.up.wait(), 30)
    assert child.feed("v1", bits(0.05, 2_000, 7) + bits(0.9, 3_000, 8))
    waited: set[str] = set()
    while waited != set(CATALOG):
        change = await heard.next()
        waited.add(change.detector)
        assert change.seen <= 5_000
    await child.stop()


def test_the_configuration_names_just_the_catalog() -> None:
    assert get_args(ConceptDetector) == tuple(CATALOG)
    asked = ConceptConfig(adwin=True, detectors=("ddm", "adwin"))
    assert asked.named == ("adwin", "ddm")
    assert ConceptConfig().named == ()
    with pytest.raises(KeyError):
        makers(["oracle"])


def test_what_a_detector_does_not_say_is_counted_beside_it() -> None:
    class Once:
        seen = 0

        @property
        def drift_detected(self) -> bool:
            return self.seen == 200

        def update(self, bit: int) -> None:
            self.seen += 1

    rated = Rated(Once())
    for bit in [0] * 150 + [1] * 50:
        rated.update(bit)
    assert (rated.drift_detected, rated.width, rated.estimation) == (True, RECENT_ROWS, 0.5)
    rated.update(1)
    assert (rated.drift_detected, rated.width) == (False, RECENT_ROWS + 1)


@pytest.mark.real
async def test_a_child_that_dies_is_started_again() -> None:
    heard = Heard()
    child = ConceptChild(
        heard.changes.put_nowait, command=(sys.executable, "-c", STAND_IN), backoff_s=(0.0,)
    )
    child.start()
    first = await heard.next()
    assert child.pid == first.seen
    assert child.feed("v1", b"\0\1")
    second = await heard.next()
    assert second.seen != first.seen
    os.kill(second.seen, signal.SIGKILL)
    third = await heard.next()
    assert child.restarts == 2
    assert child.pid == third.seen
    await child.stop()


@pytest.mark.real
async def test_without_river_there_is_no_child_and_no_restarting() -> None:
    child = ConceptChild(lambda _: None, command=(sys.executable, "-c", WITHOUT_RIVER))
    child.start()
    assert child._task is not None
    await asyncio.wait_for(child._task, 30)
    assert child.refused == "river is not installed: pip install 'remora[concept]'"
    assert child.restarts == 0
    assert not child.feed("v1", b"\1" * 7)
    assert child.dropped == {"concept_feed": 7}


@pytest.mark.real
def test_the_one_line_names_the_extra() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIVER, "remora-concept",
         "--detectors", "adwin", "--control-fd", "0"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr == "remora-concept: river is missing: pip install 'remora[concept]'\n"


async def test_a_child_that_cannot_be_started_is_tried_again() -> None:
    tried = asyncio.Event()

    class Impatient(ConceptChild):
        async def _live(self) -> int:
            status = await super()._live()
            tried.set()
            return status

    child = Impatient(lambda _: None, command=("/no/such/program",), backoff_s=(0.0,))
    child.start()
    await asyncio.wait_for(tried.wait(), 10)
    await child.stop()
    assert child.pid is None


async def test_bits_that_are_not_taken_are_dropped_and_counted() -> None:
    child = ConceptChild(lambda _: None)
    assert not child.feed("v1", b"\0" * 5)  # there is no child yet
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours, theirs:
        child._socket = ours
        sent = 0
        while child.feed("v1", b"\0" * BITS_MAX):
            sent += BITS_MAX
        assert 0 < sent < 100 * BITS_MAX  # a child that does not read holds up nobody
        assert child.dropped["concept_feed"] == 5 + BITS_MAX
        assert child.feed("v1", b"")


# The child's loop, with a detector that cries at every second error.


class Crier:
    made = 0

    def __init__(self) -> None:
        Crier.made += 1
        self.errors = self.width = 0
        self.estimation = 0.0
        self.drift_detected = False

    def update(self, bit: int) -> None:
        self.width += 1
        self.errors += bit
        self.estimation = self.errors / self.width
        self.drift_detected = bool(bit) and self.errors % 2 == 0


def served(*packets: bytes) -> list[str]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for packet in packets:
            ours.send(packet)
        ours.shutdown(socket.SHUT_WR)
        serve(theirs, {"crier": Crier})
        theirs.close()
        answers = []
        while answer := ours.recv(65_536):
            answers.append(answer.decode())
    return answers


def test_each_version_has_a_detector_of_its_own() -> None:
    [answer] = served(b"v1\0\0\1\0", b"v2\0\1", b"v1\0\1\0", b"v2\0\0")
    assert AdwinChange(**json.loads(answer)) == AdwinChange(
        version="v1", state="drift", before=1 / 3, after=0.5, rows=4, seen=4, detector="crier"
    )


def test_versions_have_a_limit() -> None:
    Crier.made = 0
    names = [f"v{n}" for n in range(VERSIONS_MAX + 1)]
    served(*(f"{name}\0\1".encode() for name in [*names, names[-1], names[0]]))
    assert Crier.made == VERSIONS_MAX + 2  # the first was forgotten, and made anew
    assert served(b"no bits\0", b"\xff\0\1", b"nothing") == []


def test_a_version_goes_from_ok_to_drift_and_back_once() -> None:
    """A cut, then a window that grows: what it says first counts once there are rows enough."""
    errors = bytes([0, 1] * 300)
    right = bytes(40_000)
    answers = [json.loads(answer) for answer in served(b"v\0\0\0\1" + errors, b"v\0" + right)]
    assert [answer["state"] for answer in answers] == ["drift", "ok"]


# What it is fed, and what is said of its answers.


def test_only_evidence_is_fed() -> None:
    rows = [
        joined("yes", "yes"),
        joined("yes", "no"),
        joined("1", True),
        joined("yes", "no", version="v2"),
        joined("yes", "no", old_label="yes"),
        joined("yes", "no", uniform=False),
        joined(None, "no"),
        joined(1.5, 2.0),  # a regression's error is no bit
    ]
    assert error_bits(rows) == {"v1": b"\0\1\0", "v2": b"\1"}


@pytest.mark.parametrize("state", ["drift", "warning", "ok"])
def test_a_change_is_a_reading_like_any_other(state: Any) -> None:
    change = AdwinChange(version="v1", state=state, before=0.05, after=0.2, rows=300, seen=5_000)
    event = adwin_reading(change, labelled_rows=9_000, reference="abc", at=0.0).to_json()
    assert (event["kind"], event["scope"], event["detector"]) == ("concept_drift", "model", "adwin")
    assert (event["state"], event["version"], event["reference"]) == (state, "v1", "abc")
    assert event["window"] == {"rows": 300, "from": 8_700, "to": 9_000}
    assert event["evidence"] is None
    assert "from 0.050 to 0.200" in event["explain"]
