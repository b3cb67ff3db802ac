"""One HTTP request and its response, still bytes: what every source hands to the decoders.

Do not add headers freely: only allow-listed ones ever get here (never Authorization,
Cookie or API keys), because exchanges are what captures, logs and crash dumps are made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

IdOrigin: TypeAlias = Literal["x-request-id", "ce-id", "traceparent", "minted"]
Slot: TypeAlias = Literal["stable", "candidate"]
ExchangeOutcome: TypeAlias = Literal["ok", "client_disconnect", "upstream_unreachable", "timeout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request and its answer as they crossed the wire, framing undone, content encoding not."""

    id: str  # the request id that the client was answered with
    minted: bool  # nobody named the request: an id inside the body then wins over this one
    id_from: IdOrigin
    source: str
    version: str  # the model version that answered
    slot: Slot
    method: str
    path: str  # without the query
    query: str
    request_headers: Mapping[str, str]  # lower-case names, allow-listed only
    request_body: bytes  # chunked framing removed, content-encoding kept
    request_truncated: bool
    status: int  # 0 when there was no response
    response_headers: Mapping[str, str]
    response_body: bytes
    response_truncated: bool
    started_at: float  # unix seconds
    first_byte_s: float | None
    duration_s: float
    outcome: ExchangeOutcome
    weight: float  # 1 / probability of having been kept
    first_body_s: float | None = None  # of the response's body; of a stream, its first token
    draw: float = 0.0  # in [0, 1): what the sampler compared with its rates; 0: not drawn
    uniform: bool = True  # kept by the uniform rate, not only by another strategy
    shadow: bool = False  # a candidate's answer to a copy: no client has seen it
