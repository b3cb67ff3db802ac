"""The door for gRPC in the configuration: what it means, and what it cannot stand beside."""

from pathlib import Path

import pytest

from agent.config import Config, ConfigError, load_config

DOOR = """sources:
  - upstream: http://127.0.0.1:8080
    grpc: {listen: ":9001", upstream: "http://model:8081"}
"""


def load(text: str, tmp_path: Path) -> Config:
    path = tmp_path / "remora.yaml"
    path.write_text(text)
    return load_config(path, environ={})


def refusal(text: str, tmp_path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(text, tmp_path)
    return str(refused.value).replace(f"{tmp_path}/", "").splitlines()


def test_a_door_has_two_addresses(tmp_path: Path) -> None:
    proxy = load(DOOR, tmp_path).proxy
    assert proxy is not None
    assert proxy.grpc is not None
    assert (proxy.grpc.listen_address.port, str(proxy.grpc.upstream_address)) == (
        9001, "model:8081",
    )  # fmt: skip


def test_there_is_none_unless_it_is_asked_for(tmp_path: Path) -> None:
    proxy = load("sources: [{upstream: 'http://m:1'}]", tmp_path).proxy
    assert proxy is not None
    assert proxy.grpc is None


def test_calls_cannot_be_routed_one_by_one(tmp_path: Path) -> None:
    text = DOOR + "rollout: {candidate: {upstream: 'http://127.0.0.1:8090'}}\n"
    assert refusal(text, tmp_path) == [
        "remora.yaml:3: sources.0.grpc: cannot stand beside rollout.candidate: calls on one gRPC "
        "connection cannot be routed one by one, leave one of the two out"
    ]


def test_two_doors_need_two_ports(tmp_path: Path) -> None:
    (line,) = refusal(DOOR.replace(":9001", "0.0.0.0:9000"), tmp_path)
    assert "sources.0.grpc.listen" in line
    assert "is taken" in line
