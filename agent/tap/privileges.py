"""Giving up what the tap needs no longer: once the packet socket is open, every capability.

Started by root in a container it would otherwise read hostile bytes with all of root's rights.
"""

import ctypes
import os
import struct
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION_3: Final = 0x2008_0522


def drop_capabilities() -> None:
    """Empties all capability sets of this process, for good. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.capset(header, bytes(24)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
