"""What the supervisor tells the tap at start, checked once. Plain values, no configuration file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TapSettings:
    port: int  # that the model server listens on
    version: str = ""  # of the model that answers there
    interface: str = "lo"
    ring_bytes: int = 33_554_432  # packets waiting for us: a third of a second of 100 MB/s
    flow_rate: float = 1.0  # share of the connections that the kernel shows us
    flow_turn_s: float = 10.0  # how long one choice of connections lasts
    flows_max: int = 16_384
    flow_idle_s: float = 300.0
    capture_bytes_max: int = 1_048_576  # of each side of a kept exchange
    capture_total_bytes_max: int = 33_554_432  # of all exchanges under way
    outbox_bytes_max: int = 8_388_608  # waiting for the channel; beyond it exchanges are dropped
    counters_s: float = 1.0
    routes: tuple[tuple[str, str], ...] = ()  # name and pattern of paths, first match wins
    sampling_rate: float = 1.0
    sampling_salt: str = ""  # hexadecimal; empty: drawn at start

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "TapSettings":
        """Raises ValueError that names what is wrong; supervisor and tap are of one version."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown tap setting {unknown[0]}")
        settings = dict(values)
        settings["routes"] = tuple((name, pattern) for name, pattern in values.get("routes", ()))
        return cls(**settings)
