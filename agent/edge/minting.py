"""Request ids for requests that bring none."""

import os
from binascii import hexlify
from typing import Final

_ID_BYTES: Final = 16
_IDS_AT_ONCE: Final = 256


class Minter:
    """128 random bits each; one system call for the randomness of 256 of them."""

    __slots__ = ("_at", "_random")

    def __init__(self) -> None:
        self._random = b""
        self._at = 0

    def mint(self) -> bytes:
        at = self._at
        if at >= len(self._random):
            self._random = os.urandom(_ID_BYTES * _IDS_AT_ONCE)
            at = 0
        self._at = at + _ID_BYTES
        return hexlify(self._random[at : at + _ID_BYTES])
