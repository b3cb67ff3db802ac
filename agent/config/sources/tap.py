"""The source `tap`: copies of packets, beside the traffic and never in its way."""

from typing import Literal

from agent.config.section import Bytes, Port, Section, Text


class TapSource(Section):
    """A packet ring on an interface; needs CAP_NET_RAW and nothing else."""

    kind: Literal["tap"]
    """What brings exchanges in."""
    interface: Text = "lo"
    """The network interface."""
    port: Port
    """The port that the model server listens on."""
    capture_bytes_max: Bytes = 1_048_576
    """Bytes of a body, per direction, that a copy may hold; more is cut off, and marked."""
