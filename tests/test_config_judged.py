"""Whatever file and environment hold: a configuration, or lines. Never a traceback."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ConfigError, Problem, load_config
from agent.config.keys import every_key
from agent.config.yaml_file import scalar

KEYS = st.one_of(
    st.sampled_from(sorted({part for key in every_key() for part in key.split(".")})),
    st.text(max_size=5),
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=12),
        st.sampled_from(["drift", "schedule", "@daily", "1 2 3 4 5", ":1", "http://a:1", "x\x00y"]),
        st.binary(max_size=4),
        st.dates(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


def assert_judged(path: Path | None, environ: dict[str, str]) -> None:
    found: tuple[Problem, ...] = ()
    try:
        load_config(path, environ=environ)
    except ConfigError as error:
        found = error.problems or (Problem(where="", key="", message="\n"),)
    assert all(str(p).isprintable() and 0 < len(str(p)) <= 400 for p in found)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_random_trees_are_judged(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    assert_judged(path, {})


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_random_bytes_are_judged(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(content)
    assert_judged(path, {})


@given(st.sampled_from(every_key()), VALUES)
def test_any_value_under_any_key_is_judged(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    tree: Any = value
    for part in reversed(key.split(".")):
        tree = [tree] if part == "*" else {part: tree}
    path = tmp_path_factory.getbasetemp() / "key.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    assert_judged(path, {})


@given(st.sampled_from(every_key()), st.text(max_size=20))
def test_any_variable_is_judged(key: str, text: str) -> None:
    name = "REMORA_" + key.replace("*", "0").replace(".", "__").upper()
    assert_judged(None, {name: text})


@given(st.text(max_size=20))
def test_scalars_never_fail(text: str) -> None:
    scalar(text)
