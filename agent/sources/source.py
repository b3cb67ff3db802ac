"""What a source is: it turns bytes into exchanges. And the closed catalog of those we have.

What may be assumed of a source: `run` returns when the source has ended, raises `OSError` or
`ValueError` when it cannot go on, and ends when it is cancelled; it closes what it opened, but for
a listener, which it is lent. Whoever runs it awaits `run` again, after a pause, when it returned
or failed. It calls `emit` from the event loop's thread only. `emit` never blocks and never raises;
False means that nothing came of it, and that is already counted. A source that decodes by itself
(rows that are pushed, lines of a log) emits inferences. An empty `version` means the stable one.
No header leaves a source that is not allow-listed here.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, Protocol, TypeAlias

from agent.exchange import Exchange
from agent.inference import Inference

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
    def __call__(self, taken: Exchange | Inference, /) -> bool: ...


class Source(Protocol):
    """One of the configured sources, of which there may be several by the same name."""

    @property
    def name(self) -> SourceName: ...

    @property
    def dropped(self) -> Mapping[str, int]:
        """What this source lost or could not read since it was made, by reason: a closed set."""
        ...

    @property
    def completeness(self) -> float | None:
        """Which share of what went by it has whole, 0 to 1; None while it cannot know."""
        ...

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
