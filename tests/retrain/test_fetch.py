"""An artifact is there whole and proven, or not at all."""

import hashlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from retrain.webhooks.fetch import FetchError, FetchReason, allowed_ports, fetch, judge_host
from retrain.webhooks.guard import Guard, guarded_client

if TYPE_CHECKING:
    from tests.retrain.conftest import Answer, StandIn

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several pieces
DIGEST = hashlib.sha256(CONTENT).hexdigest()

Bring = Callable[..., Awaitable[Path]]


@pytest.fixture
async def bring(stand_in: "StandIn", tmp_path: Path) -> AsyncIterator[Bring]:
    hosts = [f"127.0.0.1:{stand_in.port}"]
    guard = Guard(
        allow_http=True,
        ports=allowed_ports(hosts),
        allow_cidrs=(ipaddress.ip_network("127.0.0.0/8"),),
    )
    async with guarded_client(guard, timeout_s=5.0) as client:

        async def brought(**other: Any) -> Path:
            settings: dict[str, Any] = {
                "url": f"{stand_in.url}/a.tar",
                "sha256": DIGEST,
                "size_bytes": len(CONTENT),
                "into": tmp_path / "incoming",
                "client": client,
                "hosts": hosts,
                "size_bytes_max": 1 << 30,
            } | other
            return await fetch(settings.pop("url"), **settings)

        yield brought


async def failure(bring: Bring, **other: Any) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await bring(**other)
    return caught.value


def left(tmp_path: Path) -> list[str]:
    folder = tmp_path / "incoming"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


async def test_an_artifact_is_brought_under_its_digest(
    bring: Bring, stand_in: "StandIn", answer: "type[Answer]", tmp_path: Path
) -> None:
    stand_in.answer = lambda received: answer(status=200, body=CONTENT)
    path = await bring()
    assert path == tmp_path / "incoming" / DIGEST
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == [DIGEST]
    assert stand_in.received[0].headers["accept-encoding"] == "identity"
    assert await bring() == path
    assert len(stand_in.received) == 1  # it was there already


async def test_what_is_there_but_damaged_is_brought_again(
    bring: Bring, stand_in: "StandIn", answer: "type[Answer]"
) -> None:
    stand_in.answer = lambda received: answer(status=200, body=CONTENT)
    path = await bring()
    path.write_bytes(b"damaged")
    assert (await bring()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("said", "reason", "lasting"),
    [
        ({"body": CONTENT[:-1] + b"\0"}, FetchReason.DIGEST, True),
        ({"body": CONTENT[:-1]}, FetchReason.SIZE, True),
        ({"body": CONTENT + b"\0"}, FetchReason.SIZE, True),
        ({"headers": {"content-encoding": "gzip"}, "body": CONTENT}, FetchReason.ENCODED, True),
        ({"status": 302, "headers": {"location": "https://a/"}}, FetchReason.STATUS, True),
        ({"status": 403}, FetchReason.STATUS, True),
        ({"status": 404}, FetchReason.STATUS, False),
        ({"status": 503}, FetchReason.STATUS, False),
        ({"broken": True}, FetchReason.UNREACHABLE, False),
    ],
)
async def test_anything_else_leaves_nothing_behind(
    bring: Bring,
    stand_in: "StandIn",
    answer: "type[Answer]",
    tmp_path: Path,
    said: dict[str, Any],
    reason: FetchReason,
    lasting: bool,
) -> None:
    stand_in.answer = lambda received: answer(**({"status": 200} | said))
    error = await failure(bring)
    assert (error.reason, error.lasting) == (reason, lasting)
    assert left(tmp_path) == []


@pytest.mark.parametrize("chunks", [b"", b"x" * 2_000_000])
async def test_a_length_that_is_not_told_is_counted(
    bring: Bring,
    stand_in: "StandIn",
    answer: "type[Answer]",
    tmp_path: Path,
    chunks: bytes,
) -> None:
    body = f"{len(chunks):x}\r\n".encode() + chunks + b"\r\n"
    if chunks:
        body += b"0\r\n\r\n"
    headers = {"content-length": "", "transfer-encoding": "chunked"}
    stand_in.answer = lambda received: answer(status=200, headers=headers, body=body)
    assert (await failure(bring)).reason is FetchReason.SIZE
    assert left(tmp_path) == []


async def test_a_connection_cut_short_is_tried_again_later(
    bring: Bring, stand_in: "StandIn", answer: "type[Answer]", tmp_path: Path
) -> None:
    headers = {"content-length": str(len(CONTENT))}
    stand_in.answer = lambda received: answer(status=200, headers=headers, body=CONTENT[:1000])
    error = await failure(bring)
    assert (error.reason, error.lasting) == (FetchReason.UNREACHABLE, False)
    assert left(tmp_path) == []


async def test_what_is_announced_too_large_is_not_asked_for(
    bring: Bring, stand_in: "StandIn"
) -> None:
    error = await failure(bring, size_bytes_max=len(CONTENT) - 1)
    assert str(error) == "1048576 bytes > retrain.artifact_bytes_max 1048575"
    assert stand_in.received == []


async def test_only_listed_hosts_are_asked(bring: Bring, stand_in: "StandIn") -> None:
    for hosts in ([], ["127.0.0.1"], ["127.0.0.2:" + str(stand_in.port)]):
        assert (await failure(bring, hosts=hosts)).reason is FetchReason.HOST
    assert stand_in.received == []


async def test_a_listed_host_must_still_pass_the_guard(bring: Bring, stand_in: "StandIn") -> None:
    guard = Guard(allow_http=True, ports=frozenset({stand_in.port}))
    async with guarded_client(guard, timeout_s=5.0) as client:
        error = await failure(bring, client=client)
    assert (error.reason, error.lasting) == (FetchReason.REFUSED, True)
    assert stand_in.received == []


async def test_a_folder_that_cannot_be_written_is_named(
    bring: Bring, stand_in: "StandIn", answer: "type[Answer]", tmp_path: Path
) -> None:
    stand_in.answer = lambda received: answer(status=200, body=CONTENT)
    (tmp_path / "file").write_bytes(b"")
    error = await failure(bring, into=tmp_path / "file")
    assert error.reason is FetchReason.DISK
    assert str(tmp_path / "file") in str(error)


@pytest.mark.parametrize(
    ("url", "hosts", "allowed"),
    [
        ("https://ci.example.com/a", ["ci.example.com"], True),
        ("https://CI.example.com/a", ["ci.Example.com:443"], True),
        ("https://[2001:db8::1]:8443/a", ["[2001:db8::1]:8443"], True),
        ("https://[2001:db8::1]/a", ["2001:db8::1"], True),
        ("https://ci.example.com:8443/a", ["ci.example.com"], False),
        ("http://ci.example.com/a", ["ci.example.com"], False),
        ("https://evil.example/ci.example.com", ["ci.example.com"], False),
        ("https://ci.example.com.evil.example/", ["ci.example.com"], False),
        ("https://ci.example.com@evil.example/", ["ci.example.com"], False),
        ("https://xci.example.com/", ["ci.example.com"], False),
    ],
)
def test_hosts_are_compared_whole(url: str, hosts: list[str], allowed: bool) -> None:
    if allowed:
        assert judge_host(url, hosts) == httpx.URL(url)
    else:
        with pytest.raises(FetchError, match=r"not among retrain\.artifact_hosts"):
            judge_host(url, hosts)
