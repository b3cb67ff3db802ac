"""What holds for every answer of the admin port, whoever gives it: headers, host names, crashes.

It wraps the whole application. Inside of it a framework's own answers to crashes would go out
without these headers, and a connection that stays open would let a second request past the front
desk.
"""

import json
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.admin.auth import Gatekeeper

log = structlog.get_logger("remora.admin")

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class Guard:
    """The application, with every answer dressed and every request's Host looked at."""

    def __init__(self, application: ASGIApp, gatekeeper: Gatekeeper) -> None:
        self._application = application
        self._gatekeeper = gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        assert scope["type"] == "http"  # the server speaks neither WebSocket nor lifespan
        if not self._gatekeeper.addressed(Headers(scope=scope).get("host")):
            await _say(dressed, 421, "this Host name is not in admin.hosts")
            return
        try:
            await self._application(scope, receive, dressed)
        except Exception as error:
            # The framework has answered 500 and raises again so that somebody logs it, once.
            log.error("admin request failed", path=scope["path"], exc_info=error)


async def _say(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
