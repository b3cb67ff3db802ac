"""The configuration: what loads, what is refused and in which words."""

import json
from pathlib import Path

import pytest

from agent.config import (
    Config,
    ConfigError,
    Secret,
    check_files,
    check_role,
    config_schema,
    default_state_dir,
    load_config,
    loose_secrets,
    notices,
    parse_listen,
    parse_upstream,
)
from agent.config.keys import nearest_key
from agent.config.yaml_file import parse_yaml

ROOT = Path(__file__).resolve().parent.parent
UPSTREAM = {"REMORA_SOURCES__0__UPSTREAM": "http://127.0.0.1:8000"}


def load(text: str, tmp_path: Path, **environ: str) -> Config:
    path = tmp_path / "remora.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, environ=environ)


def problems(text: str, tmp_path: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, **environ)
    lines = [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]
    assert all("\n" not in line for line in lines)
    return lines


def from_environment(**environ: str) -> Config:
    return load_config(None, environ=environ)


def test_defaults_need_no_file() -> None:
    config = load_config(None, environ={}, overrides={"sources.0.upstream": "http://m:8000"})
    assert config.proxy is not None
    assert config.proxy.listen == "0.0.0.0:9000"
    assert config.admin.listen == "127.0.0.1:9311"
    assert config.sampling.rate == 1.0


def test_later_layers_win(tmp_path: Path) -> None:
    path = tmp_path / "remora.yaml"
    path.write_text("sampling: {rate: 0.1}\nmodel: {name: file, version: '3'}\n")
    environ = {"REMORA_SAMPLING__RATE": "0.2", "remora_model__name": "environment"}
    config = load_config(
        path, environ=environ, overrides={"sampling.rate": 0.3, "model.name": None}
    )
    assert (config.sampling.rate, config.model.name, config.model.version) == (
        0.3,
        "environment",
        "3",
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "sampling:\n  rat: 1\n",
            "remora.yaml:2: sampling.rat: is no known key: did you mean sampling.rate?",
        ),
        (
            "smapling: {}\n",
            "remora.yaml:1: smapling: is no known key: did you mean sampling?",
        ),
        ("sampling:\n  rate: 3\n", "remora.yaml:2: sampling.rate: must be at most 1 (given 3)"),
        (
            "sampling:\n  rate: 1\n  rate: 0.5\n",
            "remora.yaml:3: sampling.rate: stands twice, first on line 2: keep one",
        ),
        (
            "model:\n  version: 1.10\n",
            "remora.yaml:2: model.version: is no text: put it in quotes (given 1.1)",
        ),
        (
            "sources:\n  - listen: ':9000'\n",
            "remora.yaml:2: sources.0.upstream: is missing: add it",
        ),
        (
            "sources:\n  - {upstream: 'ftp://m:1'}\n",
            "remora.yaml:2: sources.0.upstream: is no upstream: write http://host:port,"
            " https://host:port or unix:/path (given 'ftp://m:1')",
        ),
        (
            "detect: {tick_rows: true}\n",
            "remora.yaml:1: detect.tick_rows: is no whole number: write it with digits only"
            " (given True)",
        ),
        (
            "rollout:\n  steps: [0.5, 0.1]\n",
            "remora.yaml:2: rollout.steps: do not rise: each step must be larger than the one"
            " before",
        ),
        (
            "triggers:\n  - {name: a, on: drft}\n",
            "remora.yaml:2: triggers.0.on: is none of the known values: use 'drift', 'quality',"
            " 'schedule' (given 'drft')",
        ),
        (
            "triggers:\n  - {name: a, on: quality, metric: rmse, below: 3}\n",
            "remora.yaml:2: triggers.0: needs the bound `above`, and it alone, for rmse",
        ),
        (
            "admin:\n  token: hunter2\n",
            "remora.yaml:2: admin.token: secrets do not stand in the file: use token_file, or"
            " REMORA_ADMIN__TOKEN",
        ),
        ("- a\n", "remora.yaml: is no mapping of sections: start with a line like `model:`"),
        (
            "capture: {enabled: yes}\n",
            "remora.yaml:1: capture.enabled: is neither true nor false: write one of them"
            " (given 'yes')",
        ),
        (
            "retrain:\n  via: local\n  recipe: r.yaml\n",
            "remora.yaml: capture.enabled: must be true to retrain here: without it there are no"
            " rows",
        ),
        (
            "retrain: {via: webhook, target: ci}\n",
            "remora.yaml:1: retrain.target: 'ci' is none of webhooks.targets (there are none):"
            " add it",
        ),
        (
            "admin: {listen: ':9311'}\n",
            "remora.yaml:1: admin.listen: is reachable from other machines and there is no token:"
            " set admin.token_file or REMORA_ADMIN__TOKEN, or listen on 127.0.0.1",
        ),
        (
            "protocol: {name: json_path}\n",
            "remora.yaml:1: protocol.json_path: is needed by protocol.name json_path: say where"
            " features stand",
        ),
    ],
)
def test_a_mistake_is_one_line_with_place_key_and_mend(
    text: str, line: str, tmp_path: Path
) -> None:
    assert line in problems(text, tmp_path)


def test_every_mistake_has_its_line_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "export: {max_series: 0}\nsampling:\n  rat: 1\n  rate: x\nmodel: {name: 'a b'}\n"
    keys = [line.split(": ")[1] for line in problems(text, tmp_path)]
    assert keys == ["export.max_series", "sampling.rat", "sampling.rate", "model.name"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n- [1", "remora.yaml:2: is no YAML"),
        ("a: \x01", "is no YAML"),
        ("? [a]\n: 1\n", "has a key that is no text"),
        ("model: !!python/object:os.system {}\n", "leave the tag out"),
        ("model: {name: !x y}\n", "has the tag !x: leave the tag out"),
        ("a: &a [*a]\n", "too many values or too deep"),
        ("a: 1\n---\nb: 1\n", "is no YAML"),
    ],
)
def test_yaml_that_is_no_configuration(text: str, said: str, tmp_path: Path) -> None:
    assert any(said in line for line in problems(text, tmp_path))


def test_multiplying_aliases_are_refused(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "use fewer aliases" in problems("\n".join(levels), tmp_path)[0]


def test_yaml_means_what_it_looks_like() -> None:
    text = "on: no\na: 1e-3\nb: 12:30\nc: 2024-01-01\nd: '1'\ne: ~\nf: 0x10\n"
    assert parse_yaml(text, "t").data == {
        "on": "no",
        "a": 0.001,
        "b": "12:30",
        "c": "2024-01-01",
        "d": "1",
        "e": None,
        "f": "0x10",
    }


def test_a_section_without_keys_is_its_defaults(tmp_path: Path) -> None:
    assert load("webhooks:\nsampling:\n  rate:\n", tmp_path) == load("", tmp_path)


def test_environment_values_are_read_by_what_the_key_takes() -> None:
    config = from_environment(
        REMORA_MODEL__VERSION="1.10",
        REMORA_ROLLOUT__STEPS="[0.1, 1.0]",
        REMORA_CAPTURE__ENABLED="true",
        REMORA_REFERENCE__PATH="null",
        REMORA_ADMIN__TOKEN="a #b: [c",
        REMORA_SOURCES__0__UPSTREAM="unix:/run/model.sock",
        REMORA_SOURCES__0__ROUTES__0__NAME="p",
        REMORA_SOURCES__0__ROUTES__0__PATTERN="^/p",
    )
    assert config.model.version == "1.10"
    assert config.rollout.steps == (0.1, 1.0)
    assert config.capture.enabled
    assert config.reference.path is None
    assert config.admin.token == Secret("a #b: [c")
    assert config.proxy is not None
    assert config.proxy.upstream_address.path == "/run/model.sock"
    assert config.proxy.routes[0].name == "p"


def test_mistakes_in_the_environment_name_the_variable() -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment(
            REMORA_SAMPLING__RAT="1",
            REMORA_SOURCES__3__LISTEN=":1",
            REMORA_MODEL__NAME="a",
            REMORA_MODEL__NAME__X="1",
        )
    lines = sorted(str(problem) for problem in caught.value.problems)
    assert lines[0] == (
        "environment REMORA_MODEL__NAME__X: model.name.x: model.name is no section: nothing is"
        " below it"
    )
    assert lines[1] == (
        "environment REMORA_SAMPLING__RAT: sampling.rat: is no known key: did you mean"
        " sampling.rate?"
    )
    assert lines[2] == (
        "environment REMORA_SOURCES__3__LISTEN: sources.3: sources has 0 items: the next one is 0"
    )


def test_variables_that_kubernetes_sets_for_a_service_are_no_keys() -> None:
    from_environment(REMORA_PORT="tcp://10.0.0.1:9000", REMORA_SERVICE_HOST="10.0.0.1")


def test_secrets_never_show() -> None:
    config = from_environment(**UPSTREAM, REMORA_ADMIN__TOKEN="hunter2")
    shown = repr(config) + str(config) + json.dumps(config.public()) + config.model_dump_json()
    shown += json.dumps(config_schema()) + f"{config.admin.token}{config.admin.token!r}"
    assert "hunter2" not in shown
    assert config.admin.token is not None
    assert config.admin.token.reveal() == "hunter2"
    assert '"token"' not in json.dumps(config_schema())
    with pytest.raises(TypeError):
        config.admin.token.__reduce__()


def test_secrets_travel_to_children_on_purpose() -> None:
    config = from_environment(**UPSTREAM, REMORA_ADMIN__TOKEN="hunter2")
    revealed = json.loads(json.dumps(config.reveal()))
    assert Config.from_revealed(revealed) == config


def test_a_secret_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    config = load("admin: {token_file: token}\n", tmp_path)
    assert config.admin.operator_token() == Secret("hunter2")
    assert [path for path, _ in loose_secrets(config)] == [("admin", "token_file")]
    (tmp_path / "token").chmod(0o600)
    assert not list(loose_secrets(config))
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        config.admin.operator_token()


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = "reference: {path: r.json}\nretrain: {recipe: recipes/r.yaml}\n"
    text += "rollout: {stable_artifact: /first}\n"
    config = load(text, tmp_path)
    assert config.reference.path == tmp_path / "r.json"
    assert config.retrain.recipe == "recipes/r.yaml"
    assert config.recipe_path == tmp_path / "recipes" / "r.yaml"
    assert {".".join(map(str, path)) for path, _ in check_files(config)} == {
        "reference.path",
        "rollout.stable_artifact",
    }


def test_state_goes_where_systemd_says(tmp_path: Path) -> None:
    assert default_state_dir({"STATE_DIRECTORY": "/a:/b"}) == Path("/a")
    config = from_environment(STATE_DIRECTORY=str(tmp_path))
    assert config.state_dir == tmp_path
    assert config.capture_dir == tmp_path / "captures"


def test_the_digest_is_of_what_is_effective_and_not_of_how_it_was_said(tmp_path: Path) -> None:
    state = {"STATE_DIRECTORY": "/s"}
    said = load("sampling: {rate: 0.5}\n", tmp_path, **state)
    assert said.digest == from_environment(**state, REMORA_SAMPLING__RATE="0.5").digest
    assert said.digest != from_environment(**state).digest
    token = from_environment(**state, REMORA_ADMIN__TOKEN="a")
    assert token.digest == from_environment(**state, REMORA_ADMIN__TOKEN="b").digest


def test_roles_of_a_fleet() -> None:
    config = from_environment(**UPSTREAM, REMORA_DETECT__REPLICAS="2")
    assert [path for path, _ in check_role(config, "all")] == [("detect", "replicas")]
    assert not list(check_role(config, "sidecar"))
    assert [path for path, _ in check_role(from_environment(), "all")] == [("sources",)]


def test_github_targets_need_a_repository_and_a_token(tmp_path: Path) -> None:
    text = (
        "webhooks:\n  targets:\n"
        "    - {name: a, kind: github_workflow_dispatch}\n"
        "    - {name: a, url: 'http://ci:8080'}\n"
    )
    keys = [line.split(": ")[1] for line in problems(text, tmp_path)]
    assert keys == [
        "webhooks.targets.0.repository",
        "webhooks.targets.0.token_file",
        "webhooks.targets.0.workflow",
        "webhooks.targets.1.name",
        "webhooks.targets.1.secret_file",
        "webhooks.targets.1.url",
        "webhooks.targets.1.url",
    ]


def test_what_may_surprise_is_a_notice(tmp_path: Path) -> None:
    text = "webhooks: {targets: [{name: ci, url: 'https://ci', secret_file: s}]}\n"
    text += "retrain: {via: webhook, target: ci}\n"
    found = [".".join(map(str, path)) for path, _ in notices(load(text, tmp_path))]
    assert found == ["rollout.candidate"]


def test_reload_takes_what_is_live_and_names_the_rest() -> None:
    old = from_environment(**UPSTREAM)
    new = from_environment(
        **UPSTREAM, REMORA_SAMPLING__RATE="0.5", REMORA_ADMIN__LISTEN="127.0.0.1:1"
    )
    changes = old.changes(new)
    assert (changes.live, changes.fixed) == (("sampling.rate",), ("admin.listen",))
    taken = old.with_live_changes(new)
    assert (taken.sampling.rate, taken.admin.listen) == (0.5, "127.0.0.1:9311")
    assert not old.changes(old).live


def test_a_live_half_that_does_not_fit_waits_for_the_restart() -> None:
    new = from_environment(
        **UPSTREAM,
        REMORA_CAPTURE__ENABLED="true",
        REMORA_RETRAIN__VIA="local",
        REMORA_RETRAIN__RECIPE="r.yaml",
    )
    changes = from_environment(**UPSTREAM).changes(new)
    assert not changes.live
    assert set(changes.fixed) == {"capture.enabled", "retrain.via", "retrain.recipe"}


@pytest.mark.parametrize(
    "text", ["9000", "a:b:1", "[::1:80", "h:99999", "h:-1", "unix:rel", "h/x:1"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|colon|bracket|path|address"):
        parse_listen(text)


def test_who_can_reach_an_address() -> None:
    loopback = ("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/s")
    assert all(parse_listen(text).loopback for text in loopback)
    assert not any(parse_listen(text).loopback for text in (":1", "0.0.0.0:1", "host:1", "[::]:1"))
    with pytest.raises(ValueError, match="path"):
        parse_upstream("http://a:1/v1")


@pytest.mark.parametrize(
    ("key", "meant"),
    [("sampling.rate_mn", "rate_min"), ("detct", "detect"), ("triggers.0.crn", "cron")],
)
def test_the_nearest_key_is_named(key: str, meant: str) -> None:
    path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    assert nearest_key(path) == meant
