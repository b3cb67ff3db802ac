"""The channels between the children: made by the supervisor, one end for each side.

No path in a file system leads to a channel, so no stranger can connect to one. An end that
analysis cannot take yet is held until it lives; there is at most one for each peer.
"""

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.children import Child, Message

if TYPE_CHECKING:
    from agent.sources.source import SourceName

CHANNEL_BUFFER_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whose channel it is: a source's process, by its number where there are several."""

    source: "SourceName" = "proxy"
    worker: int = 0


class ChannelEnds:
    """Makes channels and hands their ends on."""

    def __init__(self, analysis: Child) -> None:
        self._analysis = analysis
        self._held: dict[Peer, socket.socket] = {}  # analysis' ends, until it lives

    def to_new_child(
        self, child: Child, peer: Peer, start: Message, listeners: list[socket.socket]
    ) -> None:
        """Start a child with its listeners and, as the last descriptor, its end of a channel."""
        ours, theirs = _pair()
        with ours:
            self._to_analysis(peer, theirs)
            child.send(start, [*(sock.fileno() for sock in listeners), ours.fileno()])

    def to_new_analysis(self, peer: Peer, child: Child) -> None:
        """To an analysis that has just been started: the end that is held, or a new channel."""
        held = self._held.pop(peer, None)
        if held is None:
            self.join(peer, child)
        else:
            self._to_analysis(peer, held)

    def join(self, peer: Peer, child: Child) -> None:
        """A new channel for two children that are both there. A child that is not brings one."""
        ours, theirs = _pair()
        with ours:
            if child.send({"type": "channel"}, [ours.fileno()]):
                self._to_analysis(peer, theirs)
            else:
                theirs.close()

    def _to_analysis(self, peer: Peer, end: socket.socket) -> None:
        message = {"type": "channel", "source": peer.source, "worker": peer.worker}
        if self._analysis.send(message, [end.fileno()]):
            end.close()
            return
        before = self._held.pop(peer, None)
        if before is not None:
            before.close()
        self._held[peer] = end


def _pair() -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BUFFER_BYTES)
    return ends
