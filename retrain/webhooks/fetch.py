"""Brings an artifact from a host that was allowed, and proves that it is the one announced.

What is under its final name is whole and has the digest of its name: it was hashed on the way,
synced, and renamed only then. Nothing is opened, unpacked or interpreted here.
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
import tempfile
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from retrain.webhooks.guard import DEFAULT_PORTS, GuardRefused, Refusal

PIECE_BYTES: Final = 1 << 20
# What another attempt may mend; everything else stays as it is.
PASSING_REFUSALS: Final = frozenset({Refusal.RESOLVE})


class FetchReason(StrEnum):
    """Why there is no artifact."""

    HOST = "host"
    REFUSED = "refused"
    SIZE = "size"
    DIGEST = "digest"
    STATUS = "status"
    ENCODED = "encoded"
    UNREACHABLE = "unreachable"
    DISK = "disk"


class FetchError(Exception):
    """The artifact was not brought. `lasting` says that trying again would be no use."""

    def __init__(self, reason: FetchReason, text: str, *, lasting: bool) -> None:
        super().__init__(text)
        self.reason: FetchReason = reason
        self.lasting: bool = lasting


def allowed_ports(hosts: Collection[str]) -> frozenset[int]:
    """The ports that `retrain.artifact_hosts` names, for the guard of the fetching client.

    >>> sorted(allowed_ports(["ci.example.com:8765", "store.example.com"]))
    [443, 8765]
    """
    named = (_split(host)[1] for host in hosts)
    return frozenset(DEFAULT_PORTS["https"] if port is None else port for port in named)


def judge_host(url: str, hosts: Collection[str]) -> httpx.URL:
    """The URL, if its host and port are in `retrain.artifact_hosts`. Raises FetchError.

    A host listed without a port is meant with that of https.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise FetchError(FetchReason.HOST, f"no URL: {error}", lasting=True) from error
    port = parsed.port or DEFAULT_PORTS.get(parsed.scheme, 0)
    for listed in hosts:
        host, listed_port = _split(listed)
        wanted = DEFAULT_PORTS["https"] if listed_port is None else listed_port
        if parsed.raw_host.decode("ascii").lower() == host and port == wanted:
            return parsed
    text = f"{parsed.host}:{port} is not among retrain.artifact_hosts"
    raise FetchError(FetchReason.HOST, text, lasting=True)


async def fetch(
    url: str,
    *,
    sha256: str,
    size_bytes: int,
    into: Path,
    client: httpx.AsyncClient,
    hosts: Collection[str],
    size_bytes_max: int,
    timeout_s: float = 900.0,
) -> Path:
    """The path of the artifact in `into`, named by its digest (64 lower-case hex digits).

    `client` must be a guarded one. What is there already is used when its digest is right. Raises
    FetchError.
    """
    parsed = judge_host(url, hosts)
    if size_bytes > size_bytes_max:
        text = f"{size_bytes} bytes > retrain.artifact_bytes_max {size_bytes_max}"
        raise FetchError(FetchReason.SIZE, text, lasting=True)
    final = into / sha256
    if final.exists() and await asyncio.to_thread(digest_of, final) == sha256:
        return final
    try:
        async with asyncio.timeout(timeout_s):
            await _bring(parsed, sha256=sha256, size_bytes=size_bytes, final=final, client=client)
    except GuardRefused as error:
        lasting = error.reason not in PASSING_REFUSALS
        raise FetchError(FetchReason.REFUSED, str(error), lasting=lasting) from error
    except (TimeoutError, httpx.HTTPError) as error:
        text = f"{type(error).__name__}: {error}"
        raise FetchError(FetchReason.UNREACHABLE, text, lasting=False) from error
    except OSError as error:
        text = f"{final.parent}: {error.strerror or error}"
        raise FetchError(FetchReason.DISK, text, lasting=False) from error
    return final


async def _bring(
    url: httpx.URL, *, sha256: str, size_bytes: int, final: Path, client: httpx.AsyncClient
) -> None:
    request = httpx.Request(
        "GET",
        url,
        # Encoded bytes would have another digest, and could swell beyond every limit.
        headers={"accept-encoding": "identity", "user-agent": "remora"},
        extensions={"timeout": client.timeout.as_dict()},
    )
    response = await client.send(request, stream=True)
    try:
        _judge_answer(response, size_bytes)
        await asyncio.to_thread(final.parent.mkdir, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".fetching-", dir=final.parent)
        try:
            with os.fdopen(handle, "wb") as part:
                await _write(response, part, sha256=sha256, size_bytes=size_bytes)
            await asyncio.to_thread(_settle, name, final)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # it has its final name already
                os.unlink(name)
            raise
    finally:
        await response.aclose()


async def _write(response: httpx.Response, part: BinaryIO, *, sha256: str, size_bytes: int) -> None:
    digest, seen = hashlib.sha256(), 0
    async for piece in response.aiter_raw(PIECE_BYTES):
        seen += len(piece)
        if seen > size_bytes:
            text = f"more than the {size_bytes} bytes announced"
            raise FetchError(FetchReason.SIZE, text, lasting=True)
        digest.update(piece)
        part.write(piece)
    if seen < size_bytes:
        text = f"{seen} bytes, {size_bytes} announced"
        raise FetchError(FetchReason.SIZE, text, lasting=False)
    if not hmac.compare_digest(digest.hexdigest(), sha256):
        text = f"sha256 {digest.hexdigest()} is not the announced {sha256}"
        raise FetchError(FetchReason.DIGEST, text, lasting=True)


def _settle(name: str, final: Path) -> None:
    """Gives whole bytes their name, in the order that survives a power cut."""
    with open(name, "rb") as part:
        os.fsync(part.fileno())
    os.replace(name, final)
    sync_directory(final.parent)


def _judge_answer(response: httpx.Response, size_bytes: int) -> None:
    status = response.status_code
    if status != 200:
        text = f"the artifact's host answered {status}"
        if response.is_redirect:
            text += ", and redirects are never followed"
        lasting = status < 500 and status not in (404, 408, 429)  # 404: not there yet
        raise FetchError(FetchReason.STATUS, text, lasting=lasting)
    if response.headers.get("content-encoding", "identity") != "identity":
        text = "the artifact came with a content encoding, though none was accepted"
        raise FetchError(FetchReason.ENCODED, text, lasting=True)
    length = response.headers.get("content-length")
    if length is not None and length != str(size_bytes):
        text = f"{length} bytes, {size_bytes} announced"
        raise FetchError(FetchReason.SIZE, text, lasting=True)


def digest_of(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """Makes a rename survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _split(host: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[v6]` or `[v6]:port`, in lower case."""
    name, colon, port = host.lower().rpartition(":")
    if colon and port.isdigit() and (name.startswith("[") or ":" not in name):
        return name.strip("[]"), int(port)
    return host.lower().strip("[]"), None
