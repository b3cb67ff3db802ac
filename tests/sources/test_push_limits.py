"""The push listener under load, under attack and beyond loopback: nothing grows, all is counted."""

import asyncio
import ipaddress
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from agent.config import load_config
from agent.errors import ConfigError
from agent.sources import push_door
from agent.sources.push_door import Gate, allowed
from tests.sources import kserve_wire as kserve
from tests.sources.house import Client, pushing

ROWS = "/api/v1/rows"
ROW = json.dumps({"request_id": "r", "x": 1, "prediction": 0}).encode()
TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return str(path)


async def gone(client: Client, data: bytes) -> bytes:
    """What is answered until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 30.0)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_body_that_is_too_long_is_refused_and_leaves_no_room_taken() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 600
        yield b"x" * 600

    async with pushing(body_bytes_max=1_000) as client:
        assert (await client.post(ROWS, b"x" * 1_001)).status_code == 413
        assert (await client.http.post(ROWS, content=parts())).status_code == 413
        assert client.dropped["body_too_large"] == 2
        assert client.push._room.bytes == 0


async def test_a_flood_into_a_slow_analysis_is_shed_and_takes_no_more_room_than_there_is() -> None:
    row = json.dumps({"x": "y" * 4_000, "prediction": 0}).encode()
    async with pushing(queue_max=20, queue_bytes_max=200_000, body_bytes_max=50_000) as client:
        client.taking.work_s = 0.02
        answers: list[httpx.Response] = []
        for _ in range(20):
            answers += await asyncio.gather(*(client.post(ROWS, row) for _ in range(60)))
            if any(answer.status_code == 429 for answer in answers):
                break
        shed = [answer for answer in answers if answer.status_code == 429]
        assert {answer.headers["retry-after"] for answer in shed} == {"1"}
        assert {answer.status_code for answer in answers} == {200, 429}
        assert client.dropped["shed"] == len(shed)
        assert 0 < client.taking.room_max <= 200_000 + 50_000
        await client.taking.until(len(answers) - len(shed))  # what was answered 200 is not lost


async def test_a_batch_that_finds_no_room_halfway_is_sent_again_and_nothing_is_doubled() -> None:
    def event(id: int, type: str, data: bytes) -> dict[str, object]:
        about = {"specversion": "1.0", "id": f"b-{id}", "type": type, "source": "x"}
        return {**about, "data": json.loads(data)}

    sides = ((kserve.REQUEST, kserve.ASKED), (kserve.RESPONSE, kserve.SAID))
    batch = json.dumps([event(n, *side) for n in range(10) for side in sides]).encode()
    kind = {"content_type": "application/cloudevents-batch+json"}
    async with pushing(queue_max=3) as client:
        statuses = [(await client.post("/", batch, **kind)).status_code]
        while statuses[-1] == 429 and len(statuses) < 1_000:
            statuses.append((await client.post("/", batch, **kind)).status_code)
        assert (statuses[0], statuses[-1]) == (429, 200)
        await client.taking.until(10)
        assert [exchange.id for exchange in client.taking.exchanges] == [
            f"b-{n}" for n in range(10)
        ]


async def test_a_client_that_leaves_or_dawdles_gives_its_room_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = b"POST /api/v1/rows HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    async with pushing(body_timeout_s=0.1) as client:
        assert (await gone(client, head + b"x")).startswith(b"HTTP/1.1 408 ")
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(head + b"x")
        writer.close()
        async with asyncio.timeout(30.0):
            while client.dropped["sender_left"] + client.dropped["slow_sender"] < 2:
                await client.post("/api/v1/labels", b"{}")
        assert client.push._room.bytes == 0
    monkeypatch.setattr(push_door, "HEAD_S_MAX", 0.05)
    async with pushing() as client:
        assert await gone(client, b"POST / HTTP/1.1\r\nhost: x\r\nx-slow: ") == b""
        assert await gone(client, b"") == b""
        assert client.dropped["slow_sender"] == 2


async def test_halves_that_never_meet_take_bounded_room_and_are_counted() -> None:
    async with pushing(pair_max=5, pair_s=3_600) as client:
        for n in range(8):
            assert (await gone_status(client, kserve.asked(id=f"r-{n}"))) == 200
        assert client.push._bodies.pairing.waiting == 5
        assert client.dropped["pairing_full"] == 3
        assert (await gone_status(client, kserve.said(id="r-7"))) == 200
        await client.taking.until(1)
        assert client.push.completeness == 0.25


async def gone_status(client: Client, data: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(data)
        return int((await asyncio.wait_for(reader.readline(), 30.0)).split(b" ")[1])
    finally:
        writer.close()


async def test_other_paths_and_methods_are_told_apart() -> None:
    async with pushing() as client:
        assert (await client.post("/nowhere", b"")).status_code == 404
        answer = await client.http.get(ROWS)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_bearer_token_is_needed_and_enough(token_file: str) -> None:
    async with pushing(auth="bearer", token_file=token_file) as client:
        answer = await client.post(ROWS, ROW)
        assert (answer.status_code, "www-authenticate" in answer.headers) == (401, True)
        for given in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", "Bearer \xff"):
            wrong = await client.http.post(ROWS, headers={b"authorization": given.encode()})
            assert wrong.status_code == 401
        right = await client.post(ROWS, ROW, authorization=f"Bearer {TOKEN}")
        assert right.status_code == 200
        assert client.dropped["unauthorised"] == 5


async def test_a_token_in_the_path_is_what_kserves_logger_can_be_given(token_file: str) -> None:
    async with pushing(auth="path_token", token_file=token_file) as client:
        for path in ("/", f"/{TOKEN}x", "/api/v1/rows", f"//{TOKEN}"):
            assert (await client.post(path, ROW)).status_code == 404
        assert await gone_status(client, kserve.asked(path=f"/{TOKEN}")) == 200
        assert (await client.post(f"/{TOKEN}{ROWS}", ROW)).status_code == 200


def test_an_empty_token_admits_nobody() -> None:
    assert Gate(auth="bearer", token="").admits("/", "Bearer ") is None
    assert Gate(auth="path_token", token="").admits("//", "") is None


async def test_a_connection_from_elsewhere_is_closed_before_it_says_a_word() -> None:
    async with pushing(allow_cidrs=["10.0.0.0/8"]) as client:
        assert await gone(client, kserve.asked()) == b""
        assert client.dropped["forbidden_address"] == 1
    async with pushing(allow_cidrs=["10.0.0.0/8", "127.0.0.0/8"]) as client:
        assert (await client.post(ROWS, ROW)).status_code == 200


def test_an_address_that_is_none_is_in_no_network() -> None:
    assert not allowed("nonsense", [ipaddress.ip_network("0.0.0.0/0")])
    assert allowed(None, [ipaddress.ip_network("10.0.0.0/8")])  # a Unix socket


async def test_mutual_tls_admits_who_our_authority_signed(
    tmp_path: Path, program: Callable[[str], Path]
) -> None:
    keys = certificates(tmp_path, program("openssl"))
    tls = {
        "cert_file": keys["server"][0],
        "key_file": keys["server"][1],
        "client_ca_file": keys["authority"][0],
    }
    async with pushing(auth="mtls", tls=tls) as client:
        url = f"https://127.0.0.1:{client.port}{ROWS}"
        context = ssl.create_default_context(cafile=keys["authority"][0])
        async with httpx.AsyncClient(verify=context, trust_env=False) as http:
            with pytest.raises(httpx.HTTPError):
                await http.post(url, content=ROW)
        context = ssl.create_default_context(cafile=keys["authority"][0])
        context.load_cert_chain(*keys["client"])
        async with httpx.AsyncClient(verify=context, trust_env=False) as http:
            assert (await http.post(url, content=ROW)).status_code == 200


def certificates(directory: Path, openssl: Path) -> dict[str, tuple[str, str]]:
    """An authority, and certificates of a server on 127.0.0.1 and of a client that it signed."""
    found: dict[str, tuple[str, str]] = {}
    for name in ("authority", "server", "client"):
        certificate, key = str(directory / f"{name}.pem"), str(directory / f"{name}.key")
        argv = [
            str(openssl),
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]
        argv += [
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            key,
            "-out",
            certificate,
        ]
        if name != "authority":
            argv += ["-CA", found["authority"][0], "-CAkey", found["authority"][1]]
            argv += ["-addext", "basicConstraints=critical,CA:FALSE"]
            argv += ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)
        found[name] = (certificate, key)
    return found


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"listen": "0.0.0.0:9312"}, "auth"),
        ({"listen": ":9312", "auth": "none"}, "allow_cidrs"),
        ({"auth": "bearer"}, "token_file"),
        ({"auth": "path_token"}, "token_file"),
        ({"auth": "mtls"}, "tls"),
        ({"body_bytes_max": 2, "queue_bytes_max": 1}, "queue_bytes_max"),
    ],
)
def test_what_would_be_open_or_broken_is_refused_by_check(
    keys: dict[str, object], wrong: str, tmp_path: Path
) -> None:
    path = tmp_path / "remora.yaml"
    path.write_text(json.dumps({"sources": [{"kind": "push", **keys}]}))
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    assert [problem.key for problem in caught.value.problems] == [f"sources.0.{wrong}"]


def test_none_beyond_loopback_is_allowed_where_it_is_written_out(tmp_path: Path) -> None:
    path = tmp_path / "remora.yaml"
    source = {
        "kind": "push",
        "listen": ":9312",
        "auth": "none",
        "allow_cidrs": ["10.0.0.0/8"],
    }
    path.write_text(json.dumps({"sources": [source]}))
    assert load_config(path, environ={}).sources[0].kind == "push"
