"""How decoder tests make an exchange: only what the test is about is written out."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from agent.exchange import Exchange

Post = Callable[..., Exchange]


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else orjson.dumps(body)


@pytest.fixture(scope="session")
def post() -> Post:
    """`post(path, asked, said, ...)`: bodies as bytes, or as JSON values to be written."""

    def make(path: str, asked: Any, said: Any, **other: Any) -> Exchange:
        fields: dict[str, Any] = {
            "id": "minted-1",
            "minted": True,
            "id_from": "minted",
            "source": "proxy",
            "version": "v1",
            "slot": "stable",
            "method": "POST",
            "path": path,
            "query": "",
            "request_headers": {"content-type": "application/json"},
            "request_body": encoded(asked),
            "request_truncated": False,
            "status": 200,
            "response_headers": {"content-type": "application/json"},
            "response_body": encoded(said),
            "response_truncated": False,
            "started_at": 1_700_000_000.0,
            "first_byte_s": 0.01,
            "duration_s": 0.02,
            "outcome": "ok",
            "weight": 1.0,
        }
        return Exchange(**(fields | other))

    return make
