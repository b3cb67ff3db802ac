"""What children are told is what they understand, and what is shared is divided among them."""

from typing import Any

import pytest

from agent.child_settings import config_file, divided, edge_settings, tap_settings
from agent.config import Config, load_config
from agent.edge.settings import EdgeSettings
from agent.tap.settings import TapSettings


def config(**sources: object) -> Config:
    overrides = {f"sources.{key.replace('__', '.')}": value for key, value in sources.items()}
    return load_config(None, environ={}, overrides=overrides)


def an_edge(**more: Any) -> EdgeSettings:
    upstream: dict[str, Any] = {"0__upstream": "http://127.0.0.1:8000", **more}
    return EdgeSettings.of(edge_settings(config(**upstream)))


def test_an_edge_alone_may_use_all_of_it() -> None:
    alone, default = an_edge(), EdgeSettings()
    assert alone.connections_max == 4_096
    assert alone.capture_total_bytes_max == default.capture_total_bytes_max
    assert alone.outbox_bytes_max == default.outbox_bytes_max
    assert alone.upstream_idle_max == default.upstream_idle_max


def test_what_is_shared_is_divided_and_what_is_of_one_request_is_not() -> None:
    alone, one = an_edge(), an_edge(**{"0__workers": 4})
    assert one.connections_max == 1_024
    assert one.capture_total_bytes_max == alone.capture_total_bytes_max // 4
    assert one.outbox_bytes_max == alone.outbox_bytes_max // 4
    assert one.upstream_idle_max == alone.upstream_idle_max // 4
    assert one.capture_bytes_max == alone.capture_bytes_max
    assert an_edge(**{"0__workers": 64, "0__connections_max": 1}).connections_max == 1


def test_parts_together_are_never_less_than_the_whole() -> None:
    assert all(divided(n, k) * k >= n for n in (1, 7, 4_096) for k in (1, 2, 64))


def test_a_tap_understands_what_it_is_told() -> None:
    told = tap_settings(config(**{"0__kind": "tap", "0__port": 8000}))
    assert TapSettings.of(told).port == 8000


def test_a_child_that_is_not_configured_has_no_settings() -> None:
    push = config(**{"0__kind": "push"})
    with pytest.raises(ValueError, match="no proxy"):
        edge_settings(push)
    with pytest.raises(ValueError, match="no tap"):
        tap_settings(push)


def test_the_configuration_travels_whole_and_in_memory() -> None:
    given = config(**{"0__upstream": "http://127.0.0.1:8000"})
    with config_file(given) as file:
        file.seek(0)
        assert b"127.0.0.1:8000" in file.read()
