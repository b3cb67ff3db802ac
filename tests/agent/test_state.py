"""Snapshots: what goes in comes out, whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from agent import state as state_module
from agent.state import Snapshot
from detectors import DriftDetector, build_reference

KEYS = st.text(max_size=5) | st.sampled_from(["__array__", "__pairs__", "tree", "a0"])
DTYPES: Any = [np.dtype(code) for code in ("f8", "i8", "u2", "?")]
LEAVES: Any = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st_numpy.arrays(
        st.sampled_from(DTYPES),
        st_numpy.array_shapes(min_side=0, max_side=3),
    )
)


def nested(of: Any) -> Any:
    return st.lists(of, max_size=3) | st.dictionaries(KEYS, of, max_size=3)


TREES = st.dictionaries(KEYS, st.recursive(LEAVES, nested), max_size=4)


def same(a: Any, b: Any) -> bool:
    """Equal in value and type, NaN included."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return (
            isinstance(b, list)
            and len(a) == len(b)
            and all(same(x, y) for x, y in zip(a, b, strict=True))
        )
    return type(a) is type(b) and (a == b or (a != a and b != b))


@given(state=TREES)
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any]
) -> None:
    snapshot = Snapshot(tmp_path_factory.mktemp("s") / "snapshot.npz")
    snapshot.save(state, now=12.5)
    loaded = snapshot.load()
    assert loaded is not None
    assert same(loaded[0], state)
    assert loaded[1] == 12.5


def watched(features: int) -> DriftDetector:
    rng = np.random.default_rng(3)
    rows = {f"f{n}": rng.normal(size=2_000) for n in range(features)}
    monitor = DriftDetector(build_reference(rows))
    for _ in range(12):
        monitor.update({name: rng.permutation(column) for name, column in rows.items()})
    return monitor


def test_a_monitor_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    before = watched(5)
    snapshot = Snapshot(tmp_path / "snapshot.npz")
    snapshot.save({"watch": {"data": before.state()}}, now=1.0)
    loaded = snapshot.load()
    assert loaded is not None
    after = DriftDetector.restore(before.reference, loaded[0]["watch"]["data"])
    drifted = {name: np.full(1_000, 2.0) for name in before.names}
    assert after.update(drifted) == before.update(drifted) != []
    assert after.evidence() == before.evidence()


def test_a_hundred_features_are_saved_and_read_in_no_time(tmp_path: Path) -> None:
    monitor = watched(100)
    snapshot = Snapshot(tmp_path / "snapshot.npz")
    began = time.process_time()
    snapshot.save({"data": monitor.state()}, now=1.0)
    loaded = snapshot.load()
    assert loaded is not None
    DriftDetector.restore(monitor.reference, loaded[0]["data"])
    assert time.process_time() - began < 1.0  # about .05 s where nobody else is at work


@pytest.mark.parametrize("keep", [0, 1, 20, 90, 200, -1])
def test_a_truncated_file_is_set_aside(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "snapshot.npz"
    snapshot = Snapshot(path)
    snapshot.save({"a": np.arange(5)}, now=1.0)
    path.write_bytes(path.read_bytes()[:keep])
    assert snapshot.load() is None
    assert snapshot.set_aside == 1
    assert not path.exists()
    assert path.with_suffix(".unusable").exists()
    assert snapshot.load() is None  # there is none any longer, and that is no fault
    assert snapshot.set_aside == 1


@pytest.mark.parametrize("place", [3, 40, 100, -10])
def test_a_flipped_bit_is_seen(tmp_path: Path, place: int) -> None:
    path = tmp_path / "snapshot.npz"
    snapshot = Snapshot(path)
    snapshot.save({"a": np.arange(5)}, now=1.0)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    assert snapshot.load() is None
    assert snapshot.set_aside == 1


def test_a_newer_format_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = Snapshot(tmp_path / "snapshot.npz")
    with monkeypatch.context() as newer:
        newer.setattr(state_module, "FORMAT", 99)
        snapshot.save({"a": 1}, now=1.0)
    assert snapshot.load() is None
    assert snapshot.set_aside == 1


def test_nothing_that_would_be_refused_later_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot(tmp_path / "snapshot.npz")
    snapshot.save({"good": 1}, now=1.0)
    with pytest.raises(TypeError):
        snapshot.save({"a": np.array([{}], dtype=object)}, now=2.0)
    with pytest.raises(TypeError):
        snapshot.save({"a": object()}, now=2.0)
    monkeypatch.setattr(state_module, "BYTES_MAX", 1_000)
    with pytest.raises(ValueError, match="bytes"):
        snapshot.save({"a": np.zeros(1_000)}, now=2.0)
    assert snapshot.load() == ({"good": 1}, 1.0)


def test_a_disk_that_refuses_leaves_the_snapshot_before(tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path / "snapshot.npz")
    snapshot.save({"good": 1}, now=1.0)
    (tmp_path / "snapshot.new").mkdir()  # what is to be written cannot be
    with pytest.raises(OSError, match="snapshot"):
        snapshot.save({"better": 1}, now=2.0)
    assert snapshot.load() == ({"good": 1}, 1.0)


def test_only_its_user_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.npz"
    Snapshot(path).save({"a": 1}, now=1.0)
    assert path.stat().st_mode & 0o077 == 0


WRITER = """
import sys
from pathlib import Path
import numpy as np
from agent.state import Snapshot
snapshot = Snapshot(Path(sys.argv[1]))
number = 0
while True:
    snapshot.save({"number": number, "array": np.full(50_000, number)}, now=float(number))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.real
@pytest.mark.parametrize("saves", [1, 2, 7])
def test_a_kill_while_saving_leaves_one_that_is_whole(tmp_path: Path, saves: int) -> None:
    path = tmp_path / "snapshot.npz"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(saves)]
    os.kill(writer.pid, signal.SIGKILL)
    told += [int(line) for line in writer.stdout.read().splitlines()]
    writer.wait()
    writer.stdout.close()
    loaded = Snapshot(path).load()
    assert loaded is not None
    state, at = loaded
    assert state["number"] in (told[-1], told[-1] + 1)
    assert at == state["number"]
    assert (state["array"] == state["number"]).all()
    assert json.dumps(state["number"])
