"""Bytes that the server sent and received, where the kernel can tell them from others'.

The kernel counts bytes for each interface of a network namespace, not for each process: only a
server with a namespace of its own, a container's, has figures of its own.
"""

import os

from agent.resources.reading import Look, Roots

_LOOPBACK = "lo"
# Columns of /proc/PID/net/dev behind the interface's name, proc_pid_net(5).
_RECEIVED, _SENT = 0, 8


def read_network(pid: int, roots: Roots, *, own_pid: int | str = "self") -> Look:
    """received_bytes and sent_bytes of all interfaces but loopback."""
    look = Look()
    try:
        theirs = os.readlink(roots.proc / str(pid) / "ns" / "net")
        ours = os.readlink(roots.proc / str(own_pid) / "ns" / "net")
        if theirs == ours:
            look.absent["network"] = (
                "it shares its network namespace with Remora, and the kernel counts by namespace"
            )
            return look
        text = (roots.proc / str(pid) / "net" / "dev").read_text(encoding="ascii")
    except PermissionError:
        look.absent["network"] = "no permission to look into its network namespace"
        return look
    except (OSError, ValueError):
        look.absent["network"] = "its network namespace cannot be read"
        return look
    received = sent = 0.0
    for line in text.splitlines()[2:]:
        name, _, figures = line.partition(":")
        columns = figures.split()
        if name.strip() != _LOOPBACK and len(columns) > _SENT:
            received += float(columns[_RECEIVED])
            sent += float(columns[_SENT])
    look.values |= {"received_bytes": received, "sent_bytes": sent}
    return look
