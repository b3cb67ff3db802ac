"""The state directory itself: held by one agent at a time, with a salt that outlives restarts.

The lock is the kernel's and ends with its holder, however that ends: no file is left to clear away.
"""

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

SALT_BYTES: Final = 16


def locked(state_dir: Path) -> int:
    """Only one agent may use a state directory: two that decide would undo each other's work.

    Raises `OSError` while another one does; the one that a dead supervisor left behind lets go
    within seconds, and the next attempt succeeds.
    """
    descriptor = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise OSError(
            error.errno, f"{state_dir}: another agent uses this state directory (state.dir)"
        ) from None
    return descriptor


def kept_salt(path: Path) -> bytes:
    """The secret of sampling and sticky routing: kept, so that a restart keeps the same ids."""
    try:
        salt = path.read_bytes()
        if len(salt) == SALT_BYTES:
            return salt
    except FileNotFoundError:
        pass
    salt = secrets.token_bytes(SALT_BYTES)
    path.touch(mode=0o600)
    path.write_bytes(salt)
    return salt
