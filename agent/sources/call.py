"""One request on an HTTP/2 connection while it passes: what was asked, what came back so far."""

import re
from typing import Final

from agent.exchange import IdOrigin
from agent.inference import acceptable_id
from agent.wire.grpc_message import STATUSES, UNKNOWN
from agent.wire.http2 import Headers

_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_NO_ID: Final = "0"
# What an answer means that is no gRPC at all, by the status of a proxy in between.
_OF_HTTP: Final = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}


class Call:
    """Mutable on purpose: it lives for as long as its stream."""

    __slots__ = (
        "answered",
        "first_body_at",
        "first_byte_s",
        "headers",
        "is_grpc",
        "kept",
        "path",
        "request",
        "response",
        "started_at",
        "status",
        "target",
        "trailers",
    )

    def __init__(
        self, headers: Headers, *, started_at: float, kept: tuple[int, float, bool] | None
    ) -> None:
        self.headers = headers
        self.target = headers.get(":path", "")
        self.path = self.target.partition("?")[0]
        self.is_grpc = headers.get("content-type", "").startswith("application/grpc")
        self.started_at = started_at
        self.kept = kept  # draw, weight, whether by the uniform rate
        self.request: list[bytes] = []
        self.response: list[bytes] = []
        self.answered: Headers = {}
        self.trailers: Headers = {}  # of an answer without a body these are its headers
        self.status = 0  # as in HTTP; 0 until the answer begins
        self.first_byte_s: float | None = None
        self.first_body_at: float | None = None

    def answer(self, headers: Headers, at: float) -> None:
        """Headers from the server: the first ones are the answer's, any after them its trailers."""
        if self.status:
            self.trailers = headers
            return
        text = headers.get(":status", "")
        status = int(text) if len(text) == 3 and text.isascii() and text.isdigit() else 0
        if status >= 200:
            self.status = status
            self.answered = self.trailers = headers
            self.first_byte_s = max(0.0, at - self.started_at)

    @property
    def held_bytes(self) -> int:
        return sum(map(len, self.request)) + sum(map(len, self.response))


def identity(headers: Headers) -> tuple[str, IdOrigin] | None:
    """The id that a request brings with it, by the same precedence as anywhere else.

    >>> identity({"ce-id": "b", "x-request-id": "a"}), identity({"x-request-id": "not this one"})
    (('a', 'x-request-id'), None)
    """
    if acceptable_id(headers.get("x-request-id")):
        return headers["x-request-id"], "x-request-id"
    if acceptable_id(headers.get("ce-id")):
        return headers["ce-id"], "ce-id"
    trace = _TRACE.fullmatch(headers.get("traceparent", ""))
    if trace is not None and trace[1].strip(_NO_ID) and trace[2].strip(_NO_ID):
        return f"{trace[1]}-{trace[2]}", "traceparent"
    return None


def status_name(status: int | None, http_status: int) -> str:
    """How a gRPC call ended, as a label: by its own status, else by that of HTTP.

    >>> status_name(0, 200), status_name(None, 503), status_name(None, 200)
    ('OK', 'UNAVAILABLE', 'UNKNOWN')
    """
    return STATUSES[status] if status is not None else _OF_HTTP.get(http_status, STATUSES[UNKNOWN])
