"""The source `tap`: copies of packets, beside the traffic and never in its way."""

from typing import Annotated, Literal

from pydantic import Field

from agent.config.section import Bytes, Count, Port, PositiveShare, Section, Text, Whole
from agent.config.sources.proxy import RouteConfig

# The kernel wants whole blocks of a MiB, and at least two; more than a GiB is a mistake.
RingBytes = Annotated[Whole, Field(ge=2 << 20, le=1 << 30)]


class TapSource(Section):
    """A packet ring on an interface; needs CAP_NET_RAW and nothing else."""

    kind: Literal["tap"]
    """What brings exchanges in."""
    interface: Text = "lo"
    """The network interface."""
    port: Port
    """The port that the model server listens on."""
    routes: tuple[RouteConfig, ...] = ()
    """Named groups of paths; everything else is `other`."""
    capture_bytes_max: Bytes = 1_048_576
    """Bytes of a body, per direction, that a copy may hold; more is cut off, and marked."""
    ring_bytes: RingBytes = 33_554_432
    """Memory for packets that wait to be read; when it is full they are dropped, and counted."""
    flow_rate: PositiveShare = 1.0
    """Share of the connections that the kernel shows; below 1 nothing is evidence of drift."""
    flows_max: Count = 16_384
    """Connections followed at once; those quiet for longest make room."""
