"""Section slo: what the service has promised, as objectives over a window."""

from typing import Annotated

from pydantic import Field

from agent.config.section import Count, Name, PositiveShare, Seconds, Section

BelowOne = Annotated[PositiveShare, Field(lt=1.0)]
Days = Annotated[Count, Field(le=90)]


class ObjectiveConfig(Section):
    """A share of all requests that are to be good."""

    name: Name
    """Label `slo` of the metrics."""
    route: Name | None = None
    """A named route of the proxy; null: all requests."""
    latency_s: Seconds | None = None
    """Good is answered within this; null: good is answered without an error of the server."""
    objective: BelowOne = 0.99
    """Share of good requests."""
    window_days: Days = 30
    """Over which the budget of bad ones is spent."""
