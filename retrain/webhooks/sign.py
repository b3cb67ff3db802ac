"""Standard Webhooks signatures: HMAC-SHA256 over `id.timestamp.body`, the body exactly as sent.

Never sign or verify parsed JSON: a body that was read and written again is another body.
Source: standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

PREFIX: Final = "whsec_"
KEY_BYTES_MIN: Final = 24  # both from the specification
KEY_BYTES_MAX: Final = 64
TOLERANCE_S: Final = 300.0  # of the reference implementations

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

# No dot: it separates the signed parts, and with it two messages could sign alike.
ID: Final = re.compile(r"[A-Za-z0-9_:+=/-]{1,128}", re.ASCII)
TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
SIGNATURES_MAX: Final = 8  # a list is for rotating keys, not for guessing


class SecretError(ValueError):
    """The text is no secret. The text itself is never part of the message."""


class SignatureError(ValueError):
    """Not signed by one who knows a secret, or not now. Every cause reads the same outside."""


def read_secret(text: str) -> bytes:
    """The key in `whsec_<base64>`, 24 to 64 bytes. Raises SecretError."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise SecretError(f"a secret starts with {PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise SecretError(f"what follows {PREFIX} is no base64") from None
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise SecretError(
            f"a secret has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, this one {len(key)}"
        )
    return key


def read_secrets(text: str) -> tuple[bytes, ...]:
    """One secret per line, the newest first; several while keys are rotated."""
    keys = tuple(read_secret(line) for line in text.splitlines() if line.strip())
    if not keys:
        raise SecretError("there is no secret")
    return keys


def write_secret(key: bytes) -> str:
    """The inverse of `read_secret`."""
    return PREFIX + base64.b64encode(key).decode()


def generate_secret() -> str:
    """A new random secret of 32 bytes."""
    return write_secret(secrets.token_bytes(32))


def derive_secret(root: bytes, run_id: str) -> str:
    """The secret of one run's callbacks, which says nothing about the root or other runs.

    HMAC-SHA256 of `remora-callback:<run id>` under the root key, so that a CI that keeps the root
    as its own secret derives it with one `openssl` line (docs/webhooks.md).
    """
    return write_secret(hmac.digest(root, f"remora-callback:{run_id}".encode(), hashlib.sha256))


def sign(keys: Sequence[bytes], *, webhook_id: str, at: float, body: bytes) -> dict[str, str]:
    """The three headers. `at` is unix seconds of this attempt; every key adds a signature.

    Raises ValueError when the id could not be told from the rest of what is signed.
    """
    if not ID.fullmatch(webhook_id):
        raise ValueError(f"{webhook_id!r} cannot be a webhook id")
    timestamp = str(int(at))
    return {
        ID_HEADER: webhook_id,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: " ".join(_signature(key, webhook_id, timestamp, body) for key in keys),
    }


def verify(
    keys: Sequence[bytes],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance_s: float = TOLERANCE_S,
) -> str:
    """The id of a message that is authentic and recent. Header names in lower case.

    Raises SignatureError, and works on all keys and signatures before it does, so that time tells
    nothing.
    """
    webhook_id = headers.get(ID_HEADER, "")
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    given = headers.get(SIGNATURE_HEADER, "").split(" ")[:SIGNATURES_MAX]
    if not ID.fullmatch(webhook_id) or not TIMESTAMP.fullmatch(timestamp):
        raise SignatureError("not authentic")
    expected = [_signature(key, webhook_id, timestamp, body).encode() for key in keys]
    matches = [
        hmac.compare_digest(mine, theirs.encode("utf-8", "replace"))
        for mine in expected
        for theirs in given
    ]
    if not any(matches) or abs(now - int(timestamp)) > tolerance_s:
        raise SignatureError("not authentic")
    return webhook_id


def _signature(key: bytes, webhook_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
