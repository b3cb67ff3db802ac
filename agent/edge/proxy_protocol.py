"""The PROXY protocol, versions 1 and 2: who is behind the load balancer in front of us. Pure bytes.

A connection begins with one header, and everything after it is the client's own. What must not
break: not a byte behind the header is taken, so readers ask `wanted` how much may be read next.
"""

import socket
import struct
from typing import Final

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_TEXT: Final = b"PROXY "
_TEXT_BYTES_MAX: Final = 107  # the specification's longest line of version 1, with its end
_FIXED_BYTES: Final = 16
_DETAILS_BYTES_MAX: Final = 2_048  # addresses, and what some add about TLS
_LOCAL, _PROXIED = 0, 1
_INET, _INET6, _UNIX = 1, 2, 3


class HeaderError(ValueError):
    """No header of the PROXY protocol: whoever speaks here is not the load balancer."""


def wanted(held: bytes) -> int:
    """How many more bytes may be read without taking what comes after; 0: the header is whole.

    Raises HeaderError as soon as it cannot become one.

    >>> wanted(b""), wanted(b"PROXY UNKNOWN\\r\\n"), wanted(b"PROXY TCP4 1")
    (12, 0, 3)
    """
    if len(held) < len(_SIGNATURE):
        if not (_SIGNATURE.startswith(held) or held.startswith(_TEXT[: len(held)])):
            raise HeaderError("neither version 1 nor version 2")
        return len(_SIGNATURE) - len(held)
    if held.startswith(_SIGNATURE):
        if len(held) < _FIXED_BYTES:
            return _FIXED_BYTES - len(held)
        (details,) = struct.unpack_from("!H", held, 14)
        if details > _DETAILS_BYTES_MAX:
            raise HeaderError(f"{details} bytes of details > {_DETAILS_BYTES_MAX}")
        return int(_FIXED_BYTES + details - len(held))
    if not held.startswith(_TEXT):
        raise HeaderError("neither version 1 nor version 2")
    if held.endswith(b"\r\n"):
        return 0
    if len(held) >= _TEXT_BYTES_MAX:
        raise HeaderError(f"a line longer than {_TEXT_BYTES_MAX} bytes")
    if b"\n" in held:
        raise HeaderError("a line ended by a line feed alone")
    # The shortest line, "PROXY UNKNOWN" and its end, has 15 bytes.
    return max(1, 15 - len(held))


def peer(header: bytes) -> bytes:
    """The client's address in a whole header; empty when the balancer speaks for itself.

    >>> peer(b"PROXY TCP4 192.0.2.1 192.0.2.9 40000 80\\r\\n"), peer(b"PROXY UNKNOWN\\r\\n")
    (b'192.0.2.1', b'')
    """
    if header.startswith(_SIGNATURE):
        return _binary_peer(header)
    words = header.removesuffix(b"\r\n").split(b" ")
    if len(words) >= 2 and words[1] == b"UNKNOWN":
        return b""
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise HeaderError("a line that is not PROXY TCP4|TCP6 and two addresses with ports")
    for port in words[4:]:
        if not (port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
            raise HeaderError("a port that is none")
    family = socket.AF_INET if words[1] == b"TCP4" else socket.AF_INET6
    try:
        source, _ = (socket.inet_pton(family, word.decode("ascii")) for word in words[2:4])
    except (OSError, ValueError):
        raise HeaderError("an address that is none of that family") from None
    return _written(family, source)


def _binary_peer(header: bytes) -> bytes:
    version, command = header[12] >> 4, header[12] & 15
    if version != 2 or command not in (_LOCAL, _PROXIED):
        raise HeaderError(f"version {version}, command {command}")
    if command == _LOCAL:
        return b""  # a health check of the balancer's own
    family = header[13] >> 4
    details = header[_FIXED_BYTES:]
    size = {_INET: 12, _INET6: 36, _UNIX: 216}.get(family, 0)
    if len(details) < size:
        raise HeaderError("addresses that are cut")
    if family == _INET:
        return _written(socket.AF_INET, details[:4])
    if family == _INET6:
        return _written(socket.AF_INET6, details[:16])
    return b""


def _written(family: int, address: bytes) -> bytes:
    return socket.inet_ntop(family, address).encode()
