"""Frames in memory as the kernel lays them into a block of its ring."""

import mmap
import struct
from collections.abc import Sequence

from tests.wire.wires import Segment, ethernet, ipv4, tcp


def block(frames: Sequence[tuple[float, bytes]]) -> mmap.mmap:
    """Headers of tpacket version 3 in front of each frame, 16 bytes aligned."""
    laid = b""
    for at, frame in frames:
        mac = 82
        size = -(-(mac + len(frame)) // 16) * 16
        seconds, parts = divmod(round(at * 1e9), 10**9)
        header = struct.pack(
            "=IIIIIIHH", size, seconds, parts, len(frame), len(frame), 1, mac, mac + 14
        )
        laid += (header.ljust(mac, b"\0") + frame).ljust(size, b"\0")
    memory = mmap.mmap(-1, max(len(laid), 1))
    memory.write(laid)
    return memory


def framed(segments: Sequence[Segment]) -> list[tuple[float, bytes]]:
    found = []
    for one in segments:
        source, destination = struct.unpack("!HH", one.key[-4:])
        data = tcp(source, destination, one.seq, one.ack, one.flags, one.data)
        packet = ipv4(data)
        packet = packet[:12] + one.key[:8] + packet[20:]
        found.append((one.at, ethernet(packet)))
    return found
