"""Any mix of sources: which is meant by a flag, what does not fit, what is said before starting."""

from pathlib import Path

import pytest

from agent.config import Config, ConfigError, check_role, load_config, notices

PUSH = "sources: [{kind: push}]"
TAP = "{kind: tap, port: 8000}"
PROXY = "{upstream: 'http://127.0.0.1:8000'}"


def loaded(text: str, directory: Path, **overrides: object) -> Config:
    path = directory / "remora.yaml"
    path.write_text(text)
    return load_config(
        path, environ={}, overrides={key.replace("__", "."): v for key, v in overrides.items()}
    )


def test_the_flag_finds_the_proxy_wherever_it_stands(tmp_path: Path) -> None:
    config = loaded(
        f"sources: [{TAP}, {PROXY}]", tmp_path, sources__proxy__upstream="http://127.0.0.1:9"
    )
    assert config.proxy is not None
    assert config.proxy.upstream == "http://127.0.0.1:9"
    assert [source.kind for source in config.sources] == ["tap", "proxy"]


def test_the_flag_adds_a_proxy_where_there_is_none(tmp_path: Path) -> None:
    config = loaded(PUSH, tmp_path, sources__proxy__upstream="http://127.0.0.1:9")
    assert [source.kind for source in config.sources] == ["push", "proxy"]
    alone = load_config(
        None, environ={}, overrides={"sources.proxy.upstream": "http://127.0.0.1:9"}
    )
    assert [source.kind for source in alone.sources] == ["proxy"]


def test_without_a_proxy_the_model_is_known_by_its_name_and_version(tmp_path: Path) -> None:
    config = loaded(f"model: {{name: m, version: '7'}}\n{PUSH}", tmp_path)
    assert (config.proxy, config.stable_upstream) == (None, "unrouted:m@7")
    assert config.push is not None
    assert list(check_role(config, "all")) == []


def test_a_candidate_needs_somebody_who_routes(tmp_path: Path) -> None:
    text = f"{PUSH}\nrollout: {{candidate: {{upstream: 'http://127.0.0.1:8001'}}}}\n"
    ((path, message),) = check_role(loaded(text, tmp_path), "all")
    assert path == ("rollout", "candidate")
    assert "add one, or leave the candidate out" in message
    with_proxy = loaded(text.replace("push}", f"push}}, {PROXY}"), tmp_path)
    assert list(check_role(with_proxy, "all")) == []


def test_no_source_at_all_is_said_once(tmp_path: Path) -> None:
    text = "rollout: {candidate: {upstream: 'http://127.0.0.1:8001'}}"
    ((path, _),) = check_role(loaded(text, tmp_path), "all")
    assert path == ("sources",)


def test_a_tap_beside_a_proxy_is_worth_a_word(tmp_path: Path) -> None:
    said = [message for path, message in notices(loaded(f"sources: [{PROXY}, {TAP}]", tmp_path))]
    assert any("seen twice" in message for message in said)
    other = f"sources: [{PROXY}, {{kind: tap, port: 8001}}]"
    assert not any("seen twice" in message for _, message in notices(loaded(other, tmp_path)))


@pytest.mark.parametrize("workers", [0, 65, 1.5, True])
def test_workers_are_one_to_sixty_four(tmp_path: Path, workers: object) -> None:
    with pytest.raises(ConfigError, match="workers"):
        loaded(
            f"sources: [{PROXY[:-1]}, workers: {str(workers).lower()}}}]",
            tmp_path,
        )
    most = loaded(f"sources: [{PROXY[:-1]}, workers: 64}}]", tmp_path)
    assert most.proxy is not None
    assert most.proxy.workers == 64


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (":9000", "0.0.0.0:9000", True),
        ("0.0.0.0:9000", "127.0.0.1:9000", True),
        ("[::]:9000", "[::1]:9000", True),
        ("127.0.0.2:9000", "127.0.0.1:9000", False),
        ("[::1]:9000", "127.0.0.1:9000", False),
        (":9000", "127.0.0.1:9001", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/run/a", "unix:/run/a", True),
        ("unix:/run/a", "127.0.0.1:9000", False),
    ],
)
def test_two_doors_at_one_place_are_refused_however_they_are_written(
    tmp_path: Path, first: str, second: str, clash: bool
) -> None:
    upstream = "upstream: 'http://127.0.0.1:8000'"
    text = f"sources: [{{listen: '{first}', {upstream}, grpc: {{listen: '{second}', {upstream}}}}}]"
    if not clash:
        assert loaded(text, tmp_path).proxy is not None
        return
    with pytest.raises(ConfigError, match="is taken by an earlier one"):
        loaded(text, tmp_path)


def test_what_is_not_there_yet_is_said_and_waited_for(tmp_path: Path) -> None:
    tail = f"{{kind: tail, path: '{tmp_path}/*.jsonl', format: json_lines}}"
    config = loaded(f"sources: [{tail}, {{kind: tap, port: 8000, interface: no-such0}}]", tmp_path)
    (_, waits), (_, unknown) = notices(config)
    assert "is no file yet" in waits
    assert "is no interface here" in unknown
    (tmp_path / "app.jsonl").touch()
    assert list(notices(loaded(f"sources: [{tail}, {TAP}]", tmp_path))) == []
