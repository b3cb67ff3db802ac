"""Capture files, pcap and pcapng, in either byte order and any resolution of time. Sans-io.

What comes out are frames as they were on the wire, with the link type that says how to read them.
Fed however the file was cut. Whatever else the bytes are, `PcapError` is all that is raised, and
no block or packet may be longer than a limit, so a damaged length never becomes memory.
"""

import struct
from dataclasses import dataclass
from typing import Final

FRAME_BYTES_MAX: Final = 1 << 20
_BLOCK_BYTES_MAX: Final = 16 << 20
_INTERFACES_MAX: Final = 1_024

_PCAP_HEAD: Final = 24
_PCAP_PACKET: Final = 16
# Magic as the file's first four bytes: byte order, and units of time in a second.
_MAGIC: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000),
    b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000),
}
_SECTION: Final = 0x0A0D_0D0A  # a palindrome: the same in both byte orders
_SECTION_BYTES: Final = b"\x0a\x0d\x0d\x0a"
_ORDER: Final = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
_INTERFACE, _OLD_PACKET, _PACKET = 1, 2, 6
_OPTION_RESOLUTION: Final = 9
_OPTION_OFFSET: Final = 14
_OPTION_FIXED: Final = 4


class PcapError(ValueError):
    """Bytes that are no capture file, or a damaged one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One packet as it was captured."""

    at: float  # unix seconds
    link: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interface:
    link: int
    units: int  # of time, in a second
    offset_s: int


class PcapDecoder:
    """Turns the bytes of one file, however they were cut, into frames."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._started = False
        self._order = "<"
        self._ng = False
        self._units = 1_000_000  # of a file of the old format
        self._link = 0
        self._interfaces: list[_Interface] = []

    @property
    def rest(self) -> int:
        """Bytes of a packet or block that was not whole: at the end of the file it was cut off."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that `data` completes. Raises PcapError."""
        held = self._held
        held += data
        at = self._start() if not self._started else 0
        if at < 0:
            return []
        frames: list[Frame] = []
        step = self._block if self._ng else self._packet
        while (size := step(at, frames)) > 0:
            at += size
        del held[:at]
        return frames

    def _start(self) -> int:
        """Past the head of a pcap file; -1 while it is not whole."""
        held = self._held
        magic = bytes(held[:4])
        if len(magic) < 4:
            return -1
        if magic == _SECTION_BYTES:
            self._ng = self._started = True
            return 0
        if magic not in _MAGIC:
            raise PcapError("neither pcap nor pcapng")
        if len(held) < _PCAP_HEAD:
            return -1
        self._order, self._units = _MAGIC[magic]
        link = struct.unpack_from(self._order + "I", held, 20)[0]
        self._link = link & 0x0FFF_FFFF  # above it: length of a checksum that frames may end with
        self._started = True
        return _PCAP_HEAD

    def _packet(self, at: int, frames: list[Frame]) -> int:
        """One packet of a pcap file; its size, 0 while it is not whole."""
        held = self._held
        if len(held) - at < _PCAP_PACKET:
            return 0
        seconds, parts, captured, _ = struct.unpack_from(self._order + "4I", held, at)
        if captured > FRAME_BYTES_MAX:
            raise PcapError(f"packet of {captured} bytes > {FRAME_BYTES_MAX}")
        end = at + _PCAP_PACKET + captured
        if end > len(held):
            return 0
        data = bytes(held[at + _PCAP_PACKET : end])
        frames.append(Frame(at=seconds + parts / self._units, link=self._link, data=data))
        return _PCAP_PACKET + int(captured)

    def _block(self, at: int, frames: list[Frame]) -> int:
        """One block of a pcapng file; its size, 0 while it is not whole."""
        held = self._held
        if len(held) - at < 12:
            return 0
        if bytes(held[at : at + 4]) == _SECTION_BYTES:
            order = _ORDER.get(bytes(held[at + 8 : at + 12]))
            if order is None:
                raise PcapError("section without a byte order")
            self._order = order
        kind, size = struct.unpack_from(self._order + "II", held, at)
        if size < 12 or size % 4 or size > _BLOCK_BYTES_MAX:
            raise PcapError(f"block of {size} bytes")
        if at + size > len(held):
            return 0
        if struct.unpack_from(self._order + "I", held, at + size - 4)[0] != size:
            raise PcapError("block whose two lengths differ")
        self._read_block(kind, bytes(held[at + 8 : at + size - 4]), frames)
        return int(size)

    def _read_block(self, kind: int, body: bytes, frames: list[Frame]) -> None:
        if kind == _SECTION:
            self._interfaces = []
        elif kind == _INTERFACE:
            if len(self._interfaces) >= _INTERFACES_MAX:
                raise PcapError(f"more than {_INTERFACES_MAX} interfaces")
            self._interfaces.append(self._interface(body))
        elif kind in (_PACKET, _OLD_PACKET):
            frames.append(self._ng_frame(kind, body))

    def _interface(self, body: bytes) -> _Interface:
        if len(body) < 8:
            raise PcapError("interface block is too short")
        link = struct.unpack_from(self._order + "H", body)[0]
        units, offset_s = 1_000_000, 0
        at = 8
        while at + 4 <= len(body):
            option, size = struct.unpack_from(self._order + "HH", body, at)
            value = body[at + 4 : at + 4 + size]
            if len(value) < size:
                raise PcapError("option is longer than its block")
            if option == _OPTION_RESOLUTION and size == 1:
                units = _units(value[0])
            elif option == _OPTION_OFFSET and size == 8:
                offset_s = struct.unpack(self._order + "q", value)[0]
            at += 4 + (size + 3) // 4 * 4
        return _Interface(link=link, units=units, offset_s=offset_s)

    def _ng_frame(self, kind: int, body: bytes) -> Frame:
        if len(body) < 20:
            raise PcapError("packet block is too short")
        # The old block has 16 bits of interface and 16 of drops where the new one has 32.
        which = struct.unpack_from(self._order + ("I" if kind == _PACKET else "H"), body)[0]
        high, low, captured = struct.unpack_from(self._order + "III", body, 4)
        if which >= len(self._interfaces):
            raise PcapError("packet of an interface that was not described")
        if captured > min(FRAME_BYTES_MAX, len(body) - 20):
            raise PcapError(f"packet of {captured} bytes in a block of {len(body)}")
        interface = self._interfaces[which]
        # Whole seconds apart: 64 bits of nanoseconds are more than a float can hold.
        seconds, parts = divmod(high << 32 | low, interface.units)
        return Frame(
            at=float(seconds + interface.offset_s) + parts / interface.units,
            link=interface.link,
            data=body[20 : 20 + captured],
        )


def _units(value: int) -> int:
    """Units of time in a second: a power of ten, or of two where the highest bit says so.

    >>> _units(9), _units(0x80 | 10)
    (1000000000, 1024)
    """
    power = value & 0x7F
    if power > 62:
        raise PcapError("resolution of time is out of range")
    return 1 << power if value & 0x80 else int(10**power)
