"""Only judged addresses are connected to, under the name that was asked for."""

import ipaddress
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from retrain.webhooks.guard import Guard, GuardRefused, Refusal, Resolve, guarded_client

if TYPE_CHECKING:
    from tests.retrain.conftest import Answer, StandIn

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


def answers(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "240.0.0.1",
        "::",
        "::1",
        "::7f00:1",
        "fe80::1",
        "fe80::1%1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "2001:0:7f00:1::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    with pytest.raises(GuardRefused) as caught:
        Guard().judge_address(address)
    assert caught.value.reason is Refusal.ADDRESS


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "140.82.121.4",
        "2606:4700:4700::1111",
        "::ffff:1.1.1.1",
        "2002:101:101::1",
        "64:ff9b::101:101",
    ],
)
def test_public_addresses_are_called(address: str) -> None:
    assert Guard().judge_address(address) == ipaddress.ip_address(address)


def test_allowed_networks_open_private_addresses_and_nothing_else() -> None:
    guard = Guard(allow_cidrs=(ipaddress.ip_network("10.1.0.0/16"),))
    for address in ("10.1.2.3", "::ffff:10.1.2.3"):
        guard.judge_address(address)
    with pytest.raises(GuardRefused, match=r"allow_cidrs"):
        guard.judge_address("10.2.0.1")


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1"],
)
def test_metadata_services_stay_closed_whatever_is_allowed(address: str) -> None:
    everything = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    guard = Guard(allow_cidrs=everything)
    guard.judge_address("127.0.0.1")
    with pytest.raises(GuardRefused):
        guard.judge_address(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://ci.example.com/", Refusal.SCHEME),
        ("ftp://ci.example.com/", Refusal.SCHEME),
        ("ci.example.com", Refusal.SCHEME),
        ("https://ci.example.com:22/", Refusal.PORT),
        ("https://user:word@ci.example.com/", Refusal.URL),
        ("https:///path", Refusal.URL),
    ],
)
def test_urls_outside_the_configuration_are_refused(url: str, reason: Refusal) -> None:
    with pytest.raises(GuardRefused) as caught:
        Guard().judge_url(httpx.URL(url))
    assert caught.value.reason is reason


def test_urls_inside_the_configuration_pass() -> None:
    assert Guard().judge_url(httpx.URL("https://CI.example.com/x")) == ("ci.example.com", 443)
    assert Guard().judge_url(httpx.URL("https://bücher.example:8443"))[0] == "xn--bcher-kva.example"
    assert Guard(allow_http=True, ports=frozenset({80})).judge_url(httpx.URL("http://a/")) == (
        "a",
        80,
    )


async def test_one_bad_address_among_good_ones_refuses_them_all() -> None:
    with pytest.raises(GuardRefused, match=r"10\.0\.0\.1"):
        await Guard(resolve=answers("1.1.1.1", "10.0.0.1")).addresses("ci.example.com", 443)


async def test_a_name_without_addresses_is_refused() -> None:
    async def nothing(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    for resolve in (nothing, answers()):
        with pytest.raises(GuardRefused) as caught:
            await Guard(resolve=resolve).addresses("ci.example.com", 443)
        assert caught.value.reason is Refusal.RESOLVE


async def test_a_name_that_resolves_to_loopback_is_never_connected_to(stand_in: "StandIn") -> None:
    guard = Guard(allow_http=True, ports=frozenset({stand_in.port}), resolve=answers("127.0.0.1"))
    async with guarded_client(guard, timeout_s=5.0) as client:
        for host in ("ci.example.com", "localhost", "127.0.0.1"):
            with pytest.raises(GuardRefused):
                await client.get(f"http://{host}:{stand_in.port}/")
    assert stand_in.received == []


async def test_what_is_allowed_changes_while_the_client_lives(stand_in: "StandIn") -> None:
    async with guarded_client(Guard(), timeout_s=5.0) as client:
        with pytest.raises(GuardRefused):
            await client.get(stand_in.url)
        wider = Guard(allow_http=True, ports=frozenset({stand_in.port}), allow_cidrs=LOOPBACK)
        client.allow(wider, timeout_s=9.0)
        assert (await client.get(stand_in.url)).status_code == 204
        assert client.timeout.read == 9.0
        client.allow(Guard(), timeout_s=5.0)
        with pytest.raises(GuardRefused):
            await client.get(stand_in.url)


async def test_the_answer_that_was_judged_is_the_one_that_is_used(stand_in: "StandIn") -> None:
    resolved = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        resolved.append(host)
        return ["127.0.0.1"] if len(resolved) == 1 else ["127.0.0.2"]

    guard = Guard(
        allow_http=True,
        ports=frozenset({stand_in.port}),
        allow_cidrs=LOOPBACK,
        resolve=rebinding,
    )
    async with guarded_client(guard, timeout_s=5.0) as client:
        await client.post(f"http://ci.example.com:{stand_in.port}/hook?x=1", content=b"body")
    (received,) = stand_in.received
    assert resolved == ["ci.example.com"]
    assert received.headers["host"] == f"ci.example.com:{stand_in.port}"
    assert (received.path, received.body) == ("/hook?x=1", b"body")


async def test_the_next_address_is_tried_when_one_refuses(stand_in: "StandIn") -> None:
    guard = Guard(
        allow_http=True,
        ports=frozenset({stand_in.port}),
        allow_cidrs=LOOPBACK,
        resolve=answers("127.0.0.9", "127.0.0.1"),  # the stand-in listens on the second alone
    )
    async with guarded_client(guard, timeout_s=5.0) as client:
        response = await client.get(f"http://ci.example.com:{stand_in.port}/")
    assert response.status_code == 204


async def test_redirects_and_the_environment_are_ignored(
    stand_in: "StandIn", answer: "type[Answer]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    elsewhere = {"location": "http://169.254.169.254/latest/"}
    stand_in.answer = lambda received: answer(status=307, headers=elsewhere)
    guard = Guard(allow_http=True, ports=frozenset({stand_in.port}), allow_cidrs=LOOPBACK)
    async with guarded_client(guard, timeout_s=5.0) as client:
        response = await client.get(stand_in.url)
    assert response.status_code == 307
    assert len(stand_in.received) == 1


async def test_tls_asks_for_the_name_and_its_certificate(
    tmp_path: Path,
    stand_in_tls: "Callable[[Path, Path], Awaitable[StandIn]]",
    program: Callable[[str], Path],
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = "-subj /CN=ci.example.com -addext subjectAltName=DNS:ci.example.com"
    command = [str(program("openssl")), *subject.split(), *names.split()]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221 - nothing else runs
    stand_in = await stand_in_tls(certificate, key)
    guard = Guard(
        ports=frozenset({stand_in.port}), allow_cidrs=LOOPBACK, resolve=answers("127.0.0.1")
    )
    trust = ssl.create_default_context(cafile=certificate)
    async with guarded_client(guard, timeout_s=5.0, ssl_context=trust) as client:
        response = await client.get(f"https://ci.example.com:{stand_in.port}/")
        assert response.status_code == 204
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await client.get(f"https://other.example.com:{stand_in.port}/")
    (received,) = stand_in.received
    assert received.server_name == "ci.example.com"
    assert received.headers["host"] == f"ci.example.com:{stand_in.port}"
