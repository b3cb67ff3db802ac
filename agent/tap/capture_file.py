"""Exchanges out of a capture file, by the same code that listens to live packets.

What tcpdump wrote on loopback holds every frame twice; to the reassembly the second is a
retransmission, which is why nothing here has to know about it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.edge import channel
from agent.tap.listening import Listening
from agent.tap.settings import TapSettings
from agent.wire.pcap import PcapDecoder

_READ_BYTES: Final = 1 << 16


class CaptureFile:
    """Reads one file once. `losses` is complete when `records` has ended."""

    def __init__(self, path: Path, settings: TapSettings) -> None:
        self._path = path
        self._kept: list[bytes] = []
        self._listening = Listening(settings, put=self._put, flow_weight=1.0)
        self.losses = self._listening.losses
        self.flows = self._listening.flows

    def _put(self, parts: list[bytes], size: int) -> None:
        self._kept.append(b"".join(parts))

    def records(self) -> Iterator[channel.ExchangeRecord]:
        """Every exchange to the port, in the order in which they ended.

        Raises PcapError and OSError. A file that ends within a packet is read up to there.
        """
        decoder = PcapDecoder()
        with self._path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                for frame in decoder.feed(data):
                    self._listening.packet(frame.data, frame.link, frame.at)
                yield from self._taken()
        if decoder.rest:
            self.losses.counts["cut"] += 1
        self._listening.flows.close()
        yield from self._taken()

    def _taken(self) -> Iterator[channel.ExchangeRecord]:
        kept, self._kept = self._kept, []
        for whole in kept:
            yield channel.decode_exchange(whole[channel.FRAME_HEAD_BYTES :])
