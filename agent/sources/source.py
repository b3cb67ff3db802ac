"""What a source is: it turns bytes into exchanges. And the closed catalog of those we have.

What may be assumed of a source: `run` is awaited once and returns when the source has ended or is
cancelled; it closes what it opened. It calls `emit` from the event loop's thread only. `emit`
never blocks and never raises; False means that the exchange was not taken and is already counted.
No header leaves a source that is not allow-listed here.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, Protocol, TypeAlias

from agent.exchange import Exchange

SourceName: TypeAlias = Literal["proxy", "tap", "push", "tail"]
SOURCES: Final[tuple[SourceName, ...]] = ("proxy", "tap", "push", "tail")

# What decoders and labels need. Authorization, Cookie and API keys are not here, and never will be.
HEADERS_KEPT: Final = frozenset(
    {
        "accept",
        "content-encoding",
        "content-type",
        "inference-header-content-length",
        "traceparent",
        "x-request-id",
    }
)
_NEVER: Final = frozenset(
    {"authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key"}
)


class Emit(Protocol):
    def __call__(self, exchange: Exchange) -> bool: ...


class Source(Protocol):
    name: SourceName

    async def run(self, emit: Emit) -> None: ...


def kept_headers(headers: Mapping[str, str], *, also: Iterable[str] = ()) -> dict[str, str]:
    """The allow-listed ones of `headers` (lower-case names), and `also` by configuration.

    >>> kept_headers({"content-type": "a", "cookie": "b", "ce-id": "c"}, also=["cookie"])
    {'content-type': 'a', 'ce-id': 'c'}
    """
    wanted = HEADERS_KEPT.union(name.lower() for name in also) - _NEVER
    return {
        name: value for name, value in headers.items() if name in wanted or name.startswith("ce-")
    }
