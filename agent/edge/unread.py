"""Whether a server can have read what was sent to it on a connection that it closed.

A server that closes an idle connection may cross with our next request: that request was never
seen, and sending it again on a fresh connection is what the client would want. A server that took
the request and died of it looks the same from here, but for one thing: its kernel has acknowledged
the bytes. What must not break: in doubt the answer is no, for a prediction may cost money, and a
request that kills a server must not kill the next one too.
"""

import asyncio
import socket
import struct
from typing import Final

# struct tcp_info of Linux, which only ever grows: tcpi_bytes_acked, tcpi_bytes_sent and
# tcpi_bytes_retrans (4.19).
_ACKED: Final = struct.Struct("=120xQ72xQQ")


def unread(transport: asyncio.BaseTransport, sent_bytes: int, error: Exception | None) -> bool:
    """Whether the other side's kernel has not one of the last `sent_bytes` that were written."""
    sock = transport.get_extra_info("socket")
    try:
        if sock.family == socket.AF_UNIX:
            return isinstance(error, BrokenPipeError)  # it was gone before we wrote
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
        acked, sent, again = _ACKED.unpack(info)
    except (AttributeError, OSError, RuntimeError, struct.error):
        return False
    # Connecting took one number of the sequence, which was acknowledged as a byte is.
    return bool(sent - again - (acked - 1) >= sent_bytes)
