"""What the supervisor tells the edge at start, validated once. Plain values, no configuration file.

The numbers here are the only defaults of the edge; the ones with a precedent name it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    idle_s: float = 4.0  # of a pooled upstream connection: below the 5 s after which uvicorn closes
    upstream_idle_max: int = 256  # connections kept open without work, for each upstream
    connect_timeout_s: float = 5.0
    total_timeout_s: float = 300.0  # from the request's head to the last byte of its response
    stall_timeout_s: float = 0.0  # without a byte either way, tunnels too; 0: no such limit
    client_idle_s: float = 75.0  # nginx: keepalive_timeout
    head_timeout_s: float = 30.0  # a head that has begun must be whole by then
    linger_s: float = 2.0  # how long a refused upload is read and thrown away before closing
    head_bytes_max: int = 65_536
    retry_bytes_max: int = 65_536  # a longer request is not kept for a second try
    pipelined_bytes_max: int = 65_536  # read ahead of the request that is being answered
    connections_max: int = 4_096
    capture_bytes_max: int = 1_048_576  # of each side of a kept exchange; traffic is never cut
    capture_total_bytes_max: int = 33_554_432  # of all exchanges being captured at one moment
    outbox_bytes_max: int = 8_388_608  # waiting for the channel; beyond it exchanges are dropped
    flush_s: float = 0.02
    flush_records: int = 32
    counters_s: float = 1.0
    sweep_s: float = 0.25
    drain_s: float = 5.0  # for what is being answered when we are told to go
    drain_idle_s: float = 1.0  # for a last request on connections that are idle when we drain
    # TLS for clients, when there is a certificate; with a CA only for clients that it has signed.
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_client_ca_file: str = ""
    # TLS to upstreams whose address is an https one.
    upstream_ca_file: str = ""  # empty: what this machine trusts
    upstream_cert_file: str = ""
    upstream_key_file: str = ""
    upstream_server_name: str = ""  # empty: the name that the address was resolved from
    upstream_verify: bool = True
    tls_look_s: float = 5.0  # how often the files above are looked at
    proxy_protocol: bool = False  # every connection begins with a PROXY header, version 1 or 2
    forwarded: bool = False  # add X-Forwarded-For and X-Forwarded-Proto
    client_key: str | None = None  # header whose value keeps a client on its slot
    shadow_in_flight_max: int = 16  # copies to the candidate at one moment
    shadow_request_bytes_max: int = 1_048_576
    shadow_timeout_s: float = 30.0
    routes: tuple[tuple[str, str], ...] = ()  # name and pattern of paths, first match wins
    sampling_rate: float = 1.0
    sampling_salt: str = ""  # hexadecimal; empty: drawn at start

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "EdgeSettings":
        """Raises ValueError that names what is wrong; supervisor and edge are of one version."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown edge setting {unknown[0]}")
        settings = dict(values)
        settings["routes"] = tuple((name, pattern) for name, pattern in values.get("routes", ()))
        return cls(**settings)


_HTTPS: Final = "https://"


def tls_name(address: str) -> str:
    """Whom the certificate behind an address must name; empty where TLS is not spoken.

    >>> tls_name("https://10.0.0.1:8443/model.internal"), tls_name("https://[::1]:443")
    ('model.internal', '::1')
    >>> tls_name("10.0.0.1:8000")
    ''
    """
    if not address.startswith(_HTTPS):
        return ""
    return address.removeprefix(_HTTPS).partition("/")[2] or split_address(address)[0]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of a numeric address; a Unix socket gives its path and port 0.

    >>> split_address("[::1]:8000"), split_address("unix:/run/model.sock")
    (('::1', 8000), ('/run/model.sock', 0))
    >>> split_address("https://10.0.0.1:8443/model.internal")
    ('10.0.0.1', 8443)
    """
    if address.startswith(_HTTPS):
        address = address.removeprefix(_HTTPS).partition("/")[0]
    if address.startswith("unix:"):
        return address.removeprefix("unix:"), 0
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{address}: an upstream is HOST:PORT or unix:/path")
    return host.strip("[]"), int(port)
