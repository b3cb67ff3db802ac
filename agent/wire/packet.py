"""Where the TCP payload lies in a captured frame: link layer, IPv4 and IPv6, TCP. Pure arithmetic.

Nothing is copied but the flow's key, and checksums are not verified: on a host that leaves them to
the network card they are wrong in every outgoing packet. Whatever bytes come in, nothing raises:
what is no TCP segment comes back as the reason why not, from a closed set.
"""

from mmap import mmap
from struct import Struct
from typing import Final, Literal, TypeAlias

Octets: TypeAlias = bytes | mmap  # slicing either gives bytes
Rejection: TypeAlias = Literal["other", "fragment", "cut", "malformed"]
# Key (both addresses, both ports, as they stand in the packet), sequence and acknowledgement
# number, flags, and where the payload begins and ends.
Located: TypeAlias = tuple[bytes, int, int, int, int, int]

FIN: Final = 1
SYN: Final = 2
RST: Final = 4
ACK: Final = 16

# Link types as tcpdump.org numbers them: the ones that a capture of a host can have.
NULL, ETHERNET, RAW, LOOP, LINUX_COOKED, IPV4, IPV6, LINUX_COOKED_2 = (
    0,
    1,
    101,
    108,
    113,
    228,
    229,
    276,
)
_BARE: Final = frozenset({12, 14, RAW, IPV4, IPV6})  # 12 and 14 are RAW on BSDs
_IP_TYPES: Final = frozenset({0x0800, 0x86DD})
_VLAN_TYPES: Final = frozenset({0x8100, 0x88A8, 0x9100})
_VLAN_TAGS_MAX: Final = 4
# Hop-by-hop, routing, destination and mobility headers: length in units of eight, plus one.
_EXTENSIONS: Final = frozenset({0, 43, 60, 135})
_FRAGMENT_HEADER: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS_MAX: Final = 8

_TCP_BYTES: Final = 20
_tcp: Final = Struct("!HHIIBB").unpack_from
# Version and length, total length, fragment, protocol; addresses and ports side by side; of TCP:
# sequence, acknowledgement, length, flags.
_plain: Final = Struct("!BxH2xHxB2x12sIIBB").unpack_from


def network_at(data: Octets, at: int, end: int, link: int) -> int:
    """Where the IP header begins in the frame at `at`; -1 where there is none, or none we know.

    >>> network_at(bytes(12) + bytes.fromhex("8100 0007 0800 45"), 0, 19, ETHERNET)
    18
    """
    if link == ETHERNET:
        return _after_ethernet(data, at, end)
    if link in _BARE:
        return at
    if link in (NULL, LOOP):
        return at + 4 if at + 4 <= end else -1  # whatever the family says, the version nibble knows
    if link == LINUX_COOKED:
        return _after_type(data, at + 14, end)
    if link == LINUX_COOKED_2:
        known = at + 20 <= end and (data[at] << 8 | data[at + 1]) in _IP_TYPES
        return at + 20 if known else -1
    return -1


def _after_ethernet(data: Octets, at: int, end: int) -> int:
    return _after_type(data, at + 12, end)


def _after_type(data: Octets, at: int, end: int) -> int:
    """Behind the EtherType at `at`, and behind VLAN tags that follow it."""
    for _ in range(_VLAN_TAGS_MAX + 1):
        if at + 2 > end:
            return -1
        kind = data[at] << 8 | data[at + 1]
        if kind in _IP_TYPES:
            return at + 2
        if kind not in _VLAN_TYPES:
            return -1
        at += 4
    return -1


def locate(data: Octets, at: int, end: int) -> Located | Rejection:
    """The TCP segment in the IP packet at `at`; `end` is where the captured bytes end.

    A total length of 0 is what BIG TCP writes when a packet is longer than the field can say:
    then the capture's end is the packet's.
    """
    if at + 40 > end:  # IPv4 and TCP without options; IPv6 alone
        return _too_short(data, at, end)
    # Most packets are IPv4 without options: one look at both headers says it all.
    version, total, fragment, protocol, key, seq, ack, offset, flags = _plain(data, at)
    if version == 0x45:
        if protocol != 6:
            return "other"
        if fragment & 0x3FFF:
            return "fragment"
        stop = at + total if total else end
        payload_at = at + 20 + (offset >> 4) * 4
        if stop <= end and offset >= 0x50 and payload_at <= stop:
            return key, seq, ack, flags, payload_at, stop
        return "cut" if stop > end else "malformed"
    return _locate_rare(data, at, end, version)


def _locate_rare(data: Octets, at: int, end: int, version: int) -> Located | Rejection:
    if version >> 4 == 4:
        header = (version & 15) * 4
        tcp_at = at + header
        total = data[at + 2] << 8 | data[at + 3]
        if header < 20:
            return "malformed"
        if data[at + 9] != 6:
            return "other"
        if data[at + 6] & 0x3F or data[at + 7]:
            return "fragment"
        key = data[at + 12 : at + 20] + data[tcp_at : tcp_at + 4]
    elif version >> 4 == 6:
        found = _behind_ipv6(data, at, end)
        if isinstance(found, str):
            return found
        tcp_at = found
        total = data[at + 4] << 8 | data[at + 5]
        if total:
            total += 40
        key = data[at + 8 : at + 40] + data[tcp_at : tcp_at + 4]
    else:
        return "other"
    stop = at + total if total else end
    if stop > end:
        return "cut"
    if tcp_at + _TCP_BYTES > stop:
        return "malformed"
    _, _, seq, ack, offset, flags = _tcp(data, tcp_at)
    payload_at = tcp_at + (offset >> 4) * 4
    if offset < 0x50 or payload_at > stop:
        return "malformed"
    return key, seq, ack, flags, payload_at, stop


def _too_short(data: Octets, at: int, end: int) -> Rejection:
    if at >= end or data[at] >> 4 not in (4, 6):
        return "other"
    return "cut"


def _behind_ipv6(data: Octets, at: int, end: int) -> int | Rejection:
    """Where TCP begins behind the extension headers of IPv6."""
    kind = data[at + 6]
    at += 40
    for _ in range(_EXTENSIONS_MAX):
        if kind == 6:
            return at
        if at + 8 > end:
            return "cut"
        if kind in _EXTENSIONS:
            size = (data[at + 1] + 1) * 8
        elif kind == _AUTHENTICATION:
            size = (data[at + 1] + 2) * 4
        elif kind == _FRAGMENT_HEADER:
            if data[at + 2] or data[at + 3] & 0xF9:
                return "fragment"
            size = 8  # an atomic fragment: the header is there, and nothing was cut
        else:
            return "other"
        kind = data[at]
        at += size
    return "other"


def ports(key: bytes) -> tuple[int, int]:
    """Source and destination port of a key.

    >>> ports(bytes(8) + bytes([0, 80, 1, 0]))
    (80, 256)
    """
    return key[-4] << 8 | key[-3], key[-2] << 8 | key[-1]


def reversed_key(key: bytes) -> bytes:
    """The key of the other direction.

    >>> reversed_key(b"aaaabbbb" + b"1122")
    b'bbbbaaaa2211'
    """
    half = (len(key) - 4) // 2
    return key[half : 2 * half] + key[:half] + key[-2:] + key[-4:-2]
