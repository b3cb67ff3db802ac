"""The sources: one file for each kind, and the closed union of them.

Adding a kind is a file here, a line in `SourceConfig` and one in `agent.sources.source.SOURCES`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Discriminator, Tag

from agent.config.sources.proxy import ProxySource, RouteConfig
from agent.config.sources.push import PushSource
from agent.config.sources.tail import TailSource
from agent.config.sources.tap import TapSource


def _kind(value: Any) -> str:
    """A source that does not say what it is, is a proxy: the flag --upstream makes one."""
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return "proxy" if kind is None else str(kind)


SourceConfig: TypeAlias = Annotated[
    Annotated[ProxySource, Tag("proxy")]
    | Annotated[TapSource, Tag("tap")]
    | Annotated[PushSource, Tag("push")]
    | Annotated[TailSource, Tag("tail")],
    Discriminator(_kind),
]

__all__ = [
    "ProxySource",
    "PushSource",
    "RouteConfig",
    "SourceConfig",
    "TailSource",
    "TapSource",
]
