"""The one number that decides about keeping an exchange: a salted hash of its request id.

Edge and analysis both import this file and so draw the same. Whoever does not know the salt can
neither choose an id that is kept nor one that is not. The salt goes in as BLAKE2's salt, not as its
key: a key is one more block to compress, for every request.
"""

import struct
from hashlib import blake2b
from typing import Final

DRAWS: Final = 1 << 64
number: Final = struct.Struct("<Q").unpack


def hasher(salt: bytes) -> blake2b:
    """To be copied, and fed an id; its digest is the draw."""
    if len(salt) > blake2b.SALT_SIZE:
        salt = blake2b(salt, digest_size=blake2b.SALT_SIZE).digest()
    # `person` keeps this hash apart from the one that routes: who is kept says nothing of the slot.
    return blake2b(digest_size=8, salt=salt, person=b"keep")


def draw(id: bytes, salt: bytes) -> int:
    """What the edge draws for this id: 0 to 2**64 - 1.

    >>> draw(b"request-1", b"salt") / DRAWS
    0.6061882409063408
    """
    hash = hasher(salt)
    hash.update(id)
    found: int = number(hash.digest())[0]
    return found


def below(rate: float) -> int:
    """Draws below this are kept at that rate.

    >>> below(0.0), below(1.0) == DRAWS
    (0, True)
    """
    return int(rate * DRAWS)
