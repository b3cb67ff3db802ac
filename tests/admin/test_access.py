"""Who may do what: tokens and roles, names of the port, headers of every answer."""

import stat
from pathlib import Path

import pytest

from agent.admin.auth import EVERYTHING, GENERATED, Gatekeeper, Token, gatekeeper
from agent.config import Config
from tests.admin.house import OPERATOR, READER, House

READ_PATHS = ["/", "/api/v1/status", "/api/v1/features/age", "/api/v1/ledger", "/api/openapi.json"]
ACT_PATHS = [
    "/api/v1/labels",
    "/api/v1/trigger",
    "/api/v1/rollouts",
    "/api/v1/rollouts/ro-1/promote",
    "/api/v1/rollback",
    "/api/v1/reference/accept",
    "/api/v1/quarantine/d/release",
]


async def test_reading_on_loopback_needs_no_token(house: House) -> None:
    client = house.client()
    for path in [*READ_PATHS, "/metrics"]:
        assert (await client.get(path)).status_code == 200


async def test_beyond_loopback_reading_needs_a_token(fortress: House) -> None:
    nobody, reader = fortress.client(), fortress.client(READER)
    for path in [*READ_PATHS, "/metrics"]:
        assert (await nobody.get(path)).status_code == 401
        assert (await reader.get(path)).status_code == 200
    for path in ("/healthz", "/readyz"):
        assert (await nobody.get(path)).status_code == 200


async def test_a_browser_without_a_token_gets_a_page_without_figures(fortress: House) -> None:
    answer = await fortress.client().get("/", headers={"accept": "text/html,*/*"})
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "income" not in answer.text
    assert 'id="unlock"' in answer.text
    assert (await fortress.client().get("/static/page.js")).status_code == 200


@pytest.mark.parametrize("path", ACT_PATHS)
async def test_acting_always_needs_a_token_with_the_role(house: House, path: str) -> None:
    for token in (None, "wrong", READER):
        answer = await house.client(token).post(path, json={"candidate": "v8"})
        assert answer.status_code == 401
    assert house.view.calls == []


async def test_all_refusals_look_alike(house: House) -> None:
    seen = set()
    wrong = (None, "", "Bearer", "Bearer x", f"Basic {OPERATOR}", f"Bearer {READER}")
    for header in wrong:
        headers = {} if header is None else {"authorization": header}
        answer = await house.client().post("/api/v1/rollback", headers=headers)
        shown = {k: v for k, v in answer.headers.items() if k != "date"}
        seen.add((answer.status_code, answer.text, tuple(sorted(shown.items()))))
    assert len(seen) == 1
    [(status, _, headers_of_all)] = seen
    assert status == 401
    assert dict(headers_of_all)["www-authenticate"] == 'Bearer realm="remora"'


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9311", 200),
        ("remora.example:9311", 200),
        ("127.0.0.1:9311", 200),
        ("[::1]:9311", 200),
        ("10.2.3.4", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost@evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
async def test_only_names_of_ours_are_answered(house: House, host: str, status: int) -> None:
    for path in ("/api/v1/status", "/", "/metrics", "/static/page.js"):
        answer = await house.client().get(path, headers={"host": host})
        assert answer.status_code == status
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/status", "/static/page.css", "/nope"])
async def test_every_answer_is_dressed(house: House, path: str) -> None:
    headers = (await house.client().get(path)).headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


async def test_another_origin_is_given_nothing(house: House) -> None:
    client = house.client()
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    preflight = await client.options("/api/v1/rollback", headers=asked)
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_an_empty_secret_opens_nothing() -> None:
    keeper = Gatekeeper(
        tokens=(Token(name="x", secret="", roles=EVERYTHING),), hosts=frozenset(), open_reads=False
    )
    for given in ("Bearer ", "Bearer", "Bearer \t", ""):
        assert keeper.actor(given, "operate") is None


def test_secrets_are_never_printed() -> None:
    token = Token(name="ada", secret="s3cret", roles=("read",))
    assert "s3cret" not in repr(token)
    assert "s3cret" not in repr(Gatekeeper(tokens=(token,), hosts=frozenset(), open_reads=True))


def config(**admin: object) -> Config:
    return Config.model_validate({"admin": admin})


def test_a_token_is_generated_once_for_its_owner_alone(tmp_path: Path) -> None:
    first = gatekeeper(config(), tmp_path)
    again = gatekeeper(config(), tmp_path)
    path = tmp_path / GENERATED
    assert first.tokens == again.tokens
    assert len(first.tokens[0].secret) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() == first.tokens[0].secret


def test_a_token_file_that_a_crash_left_empty_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / GENERATED).touch()
    [token] = gatekeeper(config(), tmp_path).tokens
    assert len(token.secret) >= 40
    assert (tmp_path / GENERATED).read_text().strip() == token.secret


def test_listening_beyond_loopback_closes_reading(tmp_path: Path) -> None:
    assert gatekeeper(config(), tmp_path).open_reads
    assert gatekeeper(config(listen="unix:/run/remora.sock"), tmp_path).open_reads
    assert not gatekeeper(config(listen="0.0.0.0:9311"), tmp_path).open_reads
    assert not gatekeeper(config(listen=":9311"), tmp_path).open_reads


def test_names_come_from_the_configuration(tmp_path: Path) -> None:
    keeper = gatekeeper(
        config(public_url="https://Remora.Example/x", hosts=["box.example"]), tmp_path
    )
    assert keeper.addressed("remora.example")
    assert keeper.addressed("BOX.example:80")
    assert not keeper.addressed("example")
