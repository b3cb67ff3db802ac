"""The answers that the edge gives by itself: short JSON, and the headers every answer has."""

from typing import Final

REQUEST_ID: Final = b"\r\nx-remora-request-id: "
CONNECTION_CLOSE: Final = b"\r\nConnection: close"

_LINES: Final = {
    400: b"HTTP/1.1 400 Bad Request",
    408: b"HTTP/1.1 408 Request Timeout",
    431: b"HTTP/1.1 431 Request Header Fields Too Large",
    502: b"HTTP/1.1 502 Bad Gateway",
    503: b"HTTP/1.1 503 Service Unavailable",
    504: b"HTTP/1.1 504 Gateway Timeout",
}


def error_answer(
    status: int, reason: str, *, id: bytes, answer_head: bytes, keep: bool, bodiless: bool = False
) -> bytes:
    """`reason` is one of the edge's own words and `id` was accepted: nothing needs escaping."""
    body = b'{"error":"%b","request_id":"%b"}\n' % (reason.encode(), id)
    return b"".join(
        (
            _LINES[status],
            b"\r\nContent-Type: application/json\r\nContent-Length: %d" % len(body),
            REQUEST_ID,
            id,
            answer_head,
            b"" if keep else CONNECTION_CLOSE,
            b"\r\n\r\n",
            b"" if bodiless else body,
        )
    )
