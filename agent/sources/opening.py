"""The sources that live in analysis itself, made from the configuration: push and tail.

The proxy and the tap are processes of their own and reach analysis by channels. A listener comes
from the supervisor already bound: connections wait in the kernel while analysis is started again,
and a source never closes it.
"""

import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from agent.config import Config, PushSource, TailSource
from agent.intake import decoder_settings
from agent.sources.push import Push
from agent.sources.sampler import Sampler
from agent.sources.source import Source
from agent.sources.tail import OnRequest, Tail

# The body and its content type, as they came; the counts to answer with. Raises
# `agent.admin.view.Refused` while labels cannot be stored.
TakeLabels: TypeAlias = Callable[[bytes, str], Awaitable[dict[str, Any]]]


def open_sources(
    config: Config,
    *,
    listeners: Mapping[str, socket.socket],
    state_dir: Path,
    take_labels: TakeLabels,
    sampler: Sampler | None = None,
    on_request: OnRequest | None = None,
) -> list[Source]:
    """Every source that is to be run here, not running yet.

    Parameters
    ----------
    listeners: bound and listening, by the kind of source that serves on them.
    state_dir: where a source may keep what it must know after a restart.
    take_labels: what the admin API does with posted labels.
    sampler: which ids are kept; None keeps all.
    on_request: is told of each request that an access log tells of.

    Raises `ConfigError` where a source's token cannot be read.
    """
    limits = decoder_settings(config).limits
    opened: list[Source] = []
    for source in config.sources:
        if isinstance(source, PushSource) and "push" in listeners:
            listener = listeners["push"]
            opened.append(
                Push(
                    source,
                    listener=listener,
                    take_labels=take_labels,
                    limits=limits,
                    sampler=sampler,
                )
            )
        elif isinstance(source, TailSource):
            opened.append(
                Tail(
                    source,
                    state_dir=state_dir,
                    take_labels=take_labels,
                    limits=limits,
                    sampler=sampler,
                    on_request=on_request,
                )
            )
    return opened
