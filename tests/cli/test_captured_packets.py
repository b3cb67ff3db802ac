"""`replay` of what tcpdump saw."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agent.cli.captured_packets import read_capture
from agent.errors import BadInputError

Remora = Callable[..., subprocess.CompletedProcess[str]]
Refusal = Callable[..., str]
CAPTURE = Path(__file__).parent.parent / "captures" / "loopback.pcap"


def test_packets_become_rows(capsys: pytest.CaptureFixture[str]) -> None:
    (columns,) = read_capture(CAPTURE, port=18_000, names=("one", "two"), chunk_rows=100)
    assert list(columns) == ["one", "two", "prediction"]
    assert columns["one"].tolist() == [0.0, 1.0, 2.0] * 2
    assert columns["two"].tolist() == [2.5] * 6
    assert columns["prediction"].dtype == np.float64
    # The streams beside them are no inferences of any protocol.
    assert "not read: 2 " in capsys.readouterr().err


def test_chunks_are_as_long_as_asked() -> None:
    chunks = list(read_capture(CAPTURE, port=18_000, names=(), chunk_rows=4))
    assert [len(chunk["f0"]) for chunk in chunks] == [4, 2]


def test_a_port_is_needed_and_a_capture_too(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--port"):
        list(read_capture(CAPTURE, port=None, names=(), chunk_rows=4))
    other = tmp_path / "other.pcap"
    other.write_bytes(b"not a capture at all")
    with pytest.raises(BadInputError, match=r"other\.pcap"):
        list(read_capture(other, port=1, names=(), chunk_rows=4))


def test_replay_takes_a_capture(remora: Remora, refusal: Refusal, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("one,two\n" + "0,2.5\n1,2.5\n2,2.5\n" * 1_000, encoding="utf-8")
    reference = tmp_path / "reference.json"
    remora("reference", "build", rows, "--out", reference)
    flags = ("--reference", reference, "--tick-rows", "3", "--json")
    done = remora("replay", CAPTURE, "--port", "18000", *flags)
    assert json.loads(done.stdout)["rows"] == 6
    assert "--port" in refusal("replay", CAPTURE, *flags)
