"""What the supervisor hands its children at start: settings in plain values, the configuration.

A child of the hot path reads no configuration file. The configuration itself, secrets in clear,
goes to analysis alone, in memory and never on disk.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from agent.config import Config, ProxySource
from agent.edge.settings import EdgeSettings


@contextmanager
def config_file(config: Config) -> Iterator[BinaryIO]:
    """The configuration in memory, to be handed on as a descriptor: a schema of thousands of
    columns is longer than a packet of the control socket may be."""
    with os.fdopen(os.memfd_create("remora-config"), "w+b") as file:
        file.write(json.dumps(config.reveal()).encode())
        file.flush()
        yield file


def edge_settings(config: Config) -> dict[str, object]:
    """What one edge needs to know. What all of them may use together is divided among them."""
    proxy = config.proxy
    if proxy is None:
        raise ValueError("there is no proxy among the sources, and so there is no edge")
    workers, of_all = proxy.workers, EdgeSettings()
    return {
        "idle_s": proxy.idle_s,
        "upstream_idle_max": divided(of_all.upstream_idle_max, workers),
        "connect_timeout_s": proxy.connect_timeout_s,
        "total_timeout_s": proxy.total_timeout_s,
        "stall_timeout_s": proxy.stall_timeout_s,
        "head_timeout_s": proxy.head_timeout_s,
        "client_idle_s": proxy.client_idle_s,
        "drain_s": proxy.drain_s,
        "head_bytes_max": proxy.head_bytes_max,
        "capture_bytes_max": proxy.capture_bytes_max,
        "capture_total_bytes_max": divided(of_all.capture_total_bytes_max, workers),
        "outbox_bytes_max": divided(of_all.outbox_bytes_max, workers),
        "connections_max": divided(proxy.connections_max, workers),
        "forwarded": proxy.forwarded,
        "proxy_protocol": proxy.proxy_protocol,
        **_tls_settings(proxy),
        "routes": [[route.name, route.pattern] for route in proxy.routes],
        "client_key": config.rollout.client_key,
        "shadow_in_flight_max": config.rollout.shadow.in_flight_max,
        "shadow_request_bytes_max": config.rollout.shadow.request_bytes_max,
        "shadow_timeout_s": config.rollout.shadow.timeout_s,
        "sampling_rate": config.sampling.rate,
    }


def _tls_settings(proxy: ProxySource) -> dict[str, object]:
    """Names of files only: what is in them stays with whoever reads them."""
    found: dict[str, object] = {}
    if proxy.tls is not None:
        found["tls_cert_file"] = str(proxy.tls.cert_file)
        found["tls_key_file"] = str(proxy.tls.key_file)
        found["tls_client_ca_file"] = str(proxy.tls.client_ca_file or "")
    towards = proxy.upstream_tls
    if towards is not None:
        found["upstream_ca_file"] = str(towards.ca_file or "")
        found["upstream_cert_file"] = str(towards.cert_file or "")
        found["upstream_key_file"] = str(towards.key_file or "")
        found["upstream_server_name"] = towards.server_name or ""
        found["upstream_verify"] = towards.verify
    return found


def divided(whole: int, workers: int) -> int:
    """Each worker's part, rounded up: together they may have a little more, never less.

    >>> divided(10, 4), divided(2, 64)
    (3, 1)
    """
    return -(-whole // workers)


def tap_settings(config: Config) -> dict[str, object]:
    """What the tap needs to know."""
    tap = config.tap
    if tap is None:
        raise ValueError("there is no tap among the sources")
    return {
        "interface": tap.interface,
        "port": tap.port,
        "version": config.model.version,
        "routes": [[route.name, route.pattern] for route in tap.routes],
        "capture_bytes_max": tap.capture_bytes_max,
        "ring_bytes": tap.ring_bytes,
        "flow_rate": tap.flow_rate,
        "flows_max": tap.flows_max,
        "sampling_rate": config.sampling.rate,
    }
