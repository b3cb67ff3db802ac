"""The source `push`: others send what they saw, as CloudEvents or as rows."""

from typing import Literal

from agent.config.address import Address, parse_listen
from agent.config.section import Bytes, Listen, Section


class PushSource(Section):
    """A listener for CloudEvents and rows."""

    kind: Literal["push"]
    """What brings exchanges in."""
    listen: Listen = "127.0.0.1:9312"
    """HOST:PORT, [v6]:PORT, :PORT or unix:/path."""
    body_bytes_max: Bytes = 16_777_216
    """Longest body, unpacked; a longer one is answered 413."""

    @property
    def listen_address(self) -> Address:
        """`listen`, parsed."""
        return parse_listen(self.listen)
