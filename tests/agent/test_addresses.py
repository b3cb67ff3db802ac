"""Names are followed, and no moment of a DNS takes a working upstream away."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.addresses import accepts_connection, bind_listener, is_name, resolve
from agent.config import parse_listen, parse_upstream

MODEL = parse_upstream("http://model:8000")


def answers(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    async def look_up(*_: Any, **__: Any) -> list[Any]:
        if not hosts:
            raise socket.gaierror("no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 8000)) for host in hosts]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)


async def test_an_address_is_kept_while_the_name_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "10.0.0.2", "10.0.0.1")
    assert await resolve(MODEL) == "10.0.0.2:8000"
    assert await resolve(MODEL, current="10.0.0.1:8000") == "10.0.0.1:8000"
    assert await resolve(MODEL, current="10.0.0.9:8000") == "10.0.0.2:8000"


async def test_a_look_up_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    assert await resolve(MODEL, current="10.0.0.1:8000") == "10.0.0.1:8000"
    never = await resolve(MODEL)
    assert not await accepts_connection(never)


async def test_a_name_that_no_dns_could_know_is_no_crash() -> None:
    assert await resolve(parse_upstream(f"http://{'a' * 64}.b:80")) == "127.0.0.1:9"


@pytest.mark.parametrize(
    ("text", "numeric"),
    [
        ("http://127.0.0.1:80", "127.0.0.1:80"),
        ("http://[::1]:80", "[::1]:80"),
        ("unix:/run/m", "unix:/run/m"),
    ],
)
async def test_numbers_are_not_asked_about(text: str, numeric: str) -> None:
    assert not is_name(parse_upstream(text))
    assert await resolve(parse_upstream(text)) == numeric


async def test_a_taken_port_is_named() -> None:
    first = await bind_listener(parse_listen("127.0.0.1:0"), wait_s=0.0)
    with first:
        taken = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(OSError, match=taken):
            await bind_listener(parse_listen(taken), wait_s=0.0)


async def test_a_stale_unix_socket_goes_and_a_living_one_stays(tmp_path: Path) -> None:
    listen = parse_listen(f"unix:{tmp_path}/s")
    first = await bind_listener(listen, wait_s=0.0)
    with pytest.raises(OSError, match="cannot listen"):
        await bind_listener(listen, wait_s=0.0)
    first.close()
    second = await bind_listener(listen, wait_s=0.0)
    second.close()
