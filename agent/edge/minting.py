"""Request ids for requests that bring none."""

import os
from binascii import hexlify
from typing import Final

_ID_BYTES: Final = 16
_IDS_AT_ONCE: Final = 256


class Minter:
    """128 random bits each; one system call for the randomness of 256 of them."""

    __slots__ = ("ids",)

    def __init__(self) -> None:
        self.ids: list[bytes] = []  # made, and not given to a request yet

    def mint(self) -> bytes:
        ids = self.ids
        if not ids:
            digits = hexlify(os.urandom(_ID_BYTES * _IDS_AT_ONCE))
            ids += [digits[at : at + 2 * _ID_BYTES] for at in range(0, len(digits), 2 * _ID_BYTES)]
        return ids.pop()
