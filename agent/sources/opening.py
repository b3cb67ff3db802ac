"""The sources that live in analysis itself, made from the configuration: push and tail.

The proxy and the tap are processes of their own and reach analysis by channels. A listener comes
from the supervisor already bound: connections wait in the kernel while analysis is started again,
and a source never closes it.
"""

import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from agent.config import Config
from agent.sources.source import Source

# The body and its content type, as they came; the counts to answer with. Raises
# `agent.admin.view.Refused` while labels cannot be stored.
TakeLabels: TypeAlias = Callable[[bytes, str], Awaitable[dict[str, Any]]]


def open_sources(
    config: Config,
    *,
    listeners: Mapping[str, socket.socket],
    state_dir: Path,
    take_labels: TakeLabels,
) -> list[Source]:
    """Every source that is to be run here, not running yet.

    Parameters
    ----------
    listeners: bound and listening, by the kind of source that serves on them.
    state_dir: where a source may keep what it must know after a restart.
    take_labels: what the admin API does with posted labels.
    """
    del config, listeners, state_dir, take_labels
    return []
