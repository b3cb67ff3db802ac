"""The configuration's side of TLS: what must fit, what the edge is told, what `check` tries."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from agent.addresses import accepts_connection, resolve
from agent.child_settings import edge_settings
from agent.config import ConfigError, check_files, load_config, parse_upstream
from agent.edge.settings import EdgeSettings, split_address, tls_name


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "remora.yaml"
    path.write_text(f"sources:\n  - {text}\n", encoding="utf-8")
    return path


def test_the_edge_is_told_names_of_files(tmp_path: Path) -> None:
    text = (
        "{upstream: 'https://model:8443', proxy_protocol: true, stall_timeout_s: 9,"
        " tls: {cert_file: a.crt, key_file: a.key},"
        " upstream_tls: {ca_file: ca.pem, server_name: model.internal}}"
    )
    config = load_config(written(tmp_path, text), environ={})
    settings = EdgeSettings.of(edge_settings(config))
    assert settings.tls_cert_file.endswith("a.crt")
    assert settings.tls_key_file.endswith("a.key")
    assert settings.upstream_ca_file.endswith("ca.pem")
    assert settings.upstream_server_name == "model.internal"
    assert settings.upstream_verify
    assert settings.proxy_protocol
    assert settings.stall_timeout_s == 9


def test_without_a_word_about_it_there_is_no_tls(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "{upstream: 'http://model:1'}"), environ={})
    settings = EdgeSettings.of(edge_settings(config))
    assert (settings.tls_cert_file, settings.upstream_ca_file) == ("", "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{upstream: 'http://m:1', upstream_tls: {}}", "read only by an https upstream"),
        ("{upstream: 'https://m:1', upstream_tls: {key_file: k}}", "set cert_file too"),
        ("{upstream: 'https://m:1', upstream_tls: {cert_file: c}}", "set key_file too"),
        ("{upstream: 'http://m:1', tls: {cert_file: c}}", "key_file: is missing"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load_config(written(tmp_path, text), environ={})


def test_a_candidate_is_not_spoken_to_over_tls(tmp_path: Path) -> None:
    path = written(tmp_path, "{upstream: 'http://m:1'}")
    path.write_text(path.read_text() + "rollout: {candidate: {upstream: 'https://m:2'}}\n")
    with pytest.raises(ConfigError, match="write http://host:port"):
        load_config(path, environ={})


def test_check_tries_the_files(tmp_path: Path) -> None:
    for name in ("a.crt", "a.key", "ca.pem"):
        (tmp_path / name).write_text("no PEM\n")
    text = (
        "{upstream: 'https://m:1', tls: {cert_file: a.crt, key_file: a.key},"
        " upstream_tls: {ca_file: ca.pem}}"
    )
    config = load_config(written(tmp_path, text), environ={})
    found = {path[-1]: message for path, message in check_files(config)}
    assert set(found) == {"tls", "upstream_tls"}
    assert "cannot be used" in found["tls"]


async def test_the_name_stays_beside_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_up(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.2", 8443))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    address = await resolve(parse_upstream("https://model.internal:8443"))
    assert address == "https://10.0.0.2:8443/model.internal"
    assert (split_address(address), tls_name(address)) == (("10.0.0.2", 8443), "model.internal")
    plain = await resolve(parse_upstream("https://[::1]:8443"))
    assert (plain, tls_name(plain)) == ("https://[::1]:8443", "::1")


async def test_a_tls_port_that_listens_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert await accepts_connection(f"https://127.0.0.1:{port}/model")
    assert not await accepts_connection(f"https://127.0.0.1:{port}/model")
