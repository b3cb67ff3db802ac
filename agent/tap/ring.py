"""The kernel's ring of packets, in memory that it shares with us: AF_PACKET with TPACKET_V3.

One wake-up brings a whole block of packets, and no packet is copied by a system call. What must
not break: a block is read only while the kernel says that it is ours, and handed back afterwards;
nothing of it may be referred to then.
"""

import ctypes
import mmap
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.tap.filter import FlowSampling, flow_filter, packed
from agent.wire.packet import ETHERNET, RAW

_SO_ATTACH_FILTER: Final = 26
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_TPACKET_V3: Final = 2
_ETH_P_ALL: Final = 3
_STATUS_USER: Final = 1

BLOCK_BYTES: Final = 1 << 20
_FRAME_BYTES: Final = 2048  # only arithmetic: frames of version 3 have any length
_RETIRE_MS: Final = 20

# Status, packets, offset of the first one; behind version and offset of the private area.
_block: Final = struct.Struct("=8xIII").unpack_from
_give_back: Final = struct.Struct("=I").pack_into
# Offset of the next, seconds, nanoseconds, bytes captured, bytes on the wire, status, link and
# network header.
_HEADER: Final = struct.Struct("=IIIIIIHH")

# ARPHRD_ETHER, ARPHRD_LOOPBACK; ARPHRD_NONE of tunnels, whose frames begin with the IP header.
_LINKS: Final = {1: ETHERNET, 772: ETHERNET, 65_534: RAW}
_LOOPBACK: Final = 772


class TapRefusedError(OSError):
    """The tap cannot listen; the message says what would mend it."""


class Ring:
    """Packets of one interface to and from one port."""

    def __init__(self, *, interface: str, port: int, sampling: FlowSampling, blocks: int) -> None:
        """Raises TapRefusedError."""
        self._port = port
        kind = _interface_kind(interface)
        self._loopback = kind == _LOOPBACK
        if kind not in _LINKS:
            raise TapRefusedError(f"interface {interface} is of a kind that the tap cannot read")
        self.link = _LINKS[kind]
        self._sock = _open_socket()
        try:
            # The filter first: protocol 0 receives nothing until the socket is bound.
            self.attach(sampling)
            self._map = _map_ring(self._sock, blocks)
            self._sock.bind((interface, _ETH_P_ALL))
        except OSError as error:
            self._sock.close()
            raise TapRefusedError(f"no packet ring on {interface}: {error}") from error
        self._blocks = blocks
        self._at = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def attach(self, sampling: FlowSampling) -> None:
        """Replace the filter; packets that are in the ring already stay there."""
        code = packed(
            flow_filter(
                self._port,
                sampling,
                ethernet=self.link == ETHERNET,
                skip_outgoing=self._loopback,
            )
        )
        held = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HL", len(code) // 8, ctypes.addressof(held))
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def blocks(self) -> Iterator[tuple[mmap.mmap, int, int]]:
        """The blocks that are ours now: memory, offset of the first packet, packets.

        A block goes back to the kernel when the next one is asked for.
        """
        for _ in range(self._blocks):
            base = self._at * BLOCK_BYTES
            status, packets, first = _block(self._map, base)
            if not status & _STATUS_USER:
                return
            try:
                yield self._map, base + first, packets
            finally:
                _give_back(self._map, base + 8, 0)
                self._at = (self._at + 1) % self._blocks

    def drops(self) -> int:
        """Packets that found the ring full since this was last asked."""
        _, drops, _ = struct.unpack(
            "=III", self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        )
        return int(drops)

    def close(self) -> None:
        self._map.close()
        self._sock.close()


packet_header: Final = _HEADER.unpack_from


def _open_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError as error:
        raise TapRefusedError(
            "the tap needs CAP_NET_RAW: in Kubernetes `capabilities: add: [NET_RAW]` and user 0, "
            "under systemd the drop-in remora-tap.conf, else `setcap cap_net_raw+ep` on the "
            "interpreter"
        ) from error
    except OSError as error:
        raise TapRefusedError(
            f"packet sockets are not to be had here ({error}): under systemd add the drop-in "
            "remora-tap.conf, else ask whoever confines this process"
        ) from error


def _map_ring(sock: socket.socket, blocks: int) -> mmap.mmap:
    sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
    request = struct.pack(
        "=7I",
        BLOCK_BYTES,
        blocks,
        _FRAME_BYTES,
        BLOCK_BYTES // _FRAME_BYTES * blocks,
        _RETIRE_MS,
        0,
        0,
    )
    sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
    return mmap.mmap(
        sock.fileno(), BLOCK_BYTES * blocks, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE
    )


def _interface_kind(interface: str) -> int:
    # An interface's name is no path: nothing of this may lead anywhere else.
    if "/" in interface or interface.startswith(".") or not interface:
        raise TapRefusedError(f"{interface!r} is no name of an interface")
    try:
        return int(Path("/sys/class/net", interface, "type").read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise TapRefusedError(f"there is no interface {interface}") from error
