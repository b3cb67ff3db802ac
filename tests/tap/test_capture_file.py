"""A real capture of loopback, both sights of each frame in it, IPv4 and IPv6."""

from pathlib import Path

import pytest

from agent.sources.proxy import to_exchange
from agent.tap.capture_file import CaptureFile
from agent.tap.settings import TapSettings
from agent.wire.pcap import PcapError

CAPTURE = Path(__file__).parent.parent / "captures" / "loopback.pcap"


def test_a_capture_of_loopback_gives_each_exchange_once() -> None:
    file = CaptureFile(CAPTURE, TapSettings(port=18_000))
    exchanges = [to_exchange(record, source="tap") for record in file.records()]
    named = [exchange.id for exchange in exchanges if not exchange.minted]
    assert named == [f"{host}-{n}" for host in ("127.0.0.1", "::1") for n in range(3)]
    assert [exchange.request_body for exchange in exchanges[:2]] == [
        b'{"instances": [[0, 2.5]]}',
        b'{"instances": [[1, 2.5]]}',
    ]
    streamed = [exchange for exchange in exchanges if exchange.minted]
    assert [exchange.response_body for exchange in streamed] == [b"[0,2][1,2][2,2]"] * 2
    assert all(exchange.duration_s > (exchange.first_byte_s or 0.0) for exchange in streamed)
    assert all(exchange.status == 200 for exchange in exchanges)
    assert file.losses.whole == len(exchanges) == 8
    assert not +file.losses.counts
    assert file.flows.seen["retransmitted"] > 0
    assert len(file.flows) == 0


def test_another_port_has_nothing() -> None:
    file = CaptureFile(CAPTURE, TapSettings(port=81))
    assert list(file.records()) == []
    assert file.flows.seen["other_port"] > 0


def test_a_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    short = tmp_path / "short.pcap"
    short.write_bytes(CAPTURE.read_bytes()[:5_001])
    file = CaptureFile(short, TapSettings(port=18_000))
    assert 0 < len(list(file.records())) < 8
    assert file.losses.counts["cut"] == 1


def test_what_is_no_capture_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.pcap"
    other.write_bytes(b"id,amount\n1,2\n")
    with pytest.raises(PcapError):
        list(CaptureFile(other, TapSettings(port=18_000)).records())
