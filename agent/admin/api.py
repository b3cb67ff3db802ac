"""The admin API: HTTP in, calls of `View` out. It keeps no state and decides nothing.

Every answer closes its connection: the supervisor's front desk relays one request at a time.
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from agent.admin.auth import Gatekeeper, Role
from agent.admin.guard import Guard
from agent.admin.openapi import OPENAPI
from agent.admin.page import render_page
from agent.admin.view import Refused, View
from detectors.reading import Kind, State
from exporters.prometheus import registry
from retrain.ledger import LedgerError

BODY_BYTES_MAX = 1024 * 1024
LABELS_BYTES_MAX = 16 * 1024 * 1024
LIMIT_MAX = 1_000
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="remora"'}
STATIC = Path(__file__).parent / "static"
Endpoint = Callable[[Request], Awaitable[Response]]


class Api:
    """The endpoints over one view."""

    def __init__(self, view: View, gatekeeper: Gatekeeper) -> None:
        self._view = view
        self._gatekeeper = gatekeeper
        self._registry = registry(view.families)

    def application(self) -> ASGIApp:
        """The ASGI application, guarded."""
        read, operate = self._read, self._operate
        routes = [
            Route("/", self._page),
            Route("/metrics", self._metrics),
            Route("/api/openapi.json", read(self._openapi)),
            Route("/api/v1/status", read(self._plain(self._view.status))),
            Route("/api/v1/features", read(self._listed("features", self._view.features))),
            Route("/api/v1/features/{name:path}", read(self._feature)),
            Route("/api/v1/history", read(self._plain(self._view.history))),
            Route("/api/v1/findings", read(self._findings)),
            Route("/api/v1/rollouts", read(self._listed("rollouts", self._view.rollouts))),
            Route("/api/v1/runs", read(self._listed("runs", self._view.runs))),
            Route("/api/v1/versions", read(self._listed("versions", self._view.versions))),
            Route("/api/v1/quarantine", read(self._listed("quarantine", self._view.quarantined))),
            Route("/api/v1/ledger", read(self._ledger)),
            Route("/api/v1/ledger/verify", read(self._plain(self._view.ledger_verify))),
            Route("/api/v1/labels/wanted", read(self._wanted)),
            Route("/api/v1/labels", operate(self._labels, "labels"), methods=["POST"]),
            Route("/api/v1/trigger", operate(self._trigger), methods=["POST"]),
            Route("/api/v1/rollouts", operate(self._rollout_start), methods=["POST"]),
            Route("/api/v1/rollouts/{id}/{action}", operate(self._rollout_act), methods=["POST"]),
            Route("/api/v1/rollback", operate(self._rollback), methods=["POST"]),
            Route("/api/v1/reference/accept", operate(self._accept), methods=["POST"]),
            Route("/api/v1/quarantine/{digest}/release", operate(self._release), methods=["POST"]),
            Route("/api/v1/runs/{id}/data", operate(self._run_data, "read")),
            # Its signature is its authorisation: CI has no token of ours.
            Route("/api/v1/runs/{id}/callback", self._callback, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        inside = Starlette(
            routes=_merged(routes),
            exception_handlers={
                Refused: _refused,
                LedgerError: _no_ledger,
                HTTPException: _failed,
                Exception: _crashed,
            },
        )
        inside.router.redirect_slashes = False
        return Guard(inside, self._gatekeeper)

    # Who may.

    def _read(self, endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            if not self._may_read(request):
                return _unauthorised()
            return await endpoint(request)

        return checked

    def _may_read(self, request: Request) -> bool:
        return self._gatekeeper.open_reads or self._actor(request, "read") is not None

    def _operate(
        self, endpoint: Callable[[Request, str], Awaitable[Response]], role: Role = "operate"
    ) -> Endpoint:
        async def checked(request: Request) -> Response:
            actor = self._actor(request, role)
            if actor is None:
                return _unauthorised()
            return await endpoint(request, actor)

        return checked

    def _actor(self, request: Request, role: Role) -> str | None:
        return self._gatekeeper.actor(request.headers.get("authorization"), role)

    # Reading.

    async def _page(self, request: Request) -> Response:
        if self._may_read(request):
            return HTMLResponse(render_page(self._view.status()))
        if "text/html" not in request.headers.get("accept", ""):
            return _unauthorised()
        # A browser cannot send a token with an address: the page without any figure asks for one.
        return HTMLResponse(render_page({}), status_code=401, headers=CHALLENGE)

    async def _metrics(self, request: Request) -> Response:
        if self._gatekeeper.metrics_need_token and self._actor(request, "read") is None:
            return _unauthorised()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"Content-Type": content_type})

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(OPENAPI)

    def _plain(self, call: Callable[[], dict[str, Any]]) -> Endpoint:
        async def answer(_: Request) -> Response:
            return _json(call())

        return answer

    def _listed(self, name: str, call: Callable[[], list[dict[str, Any]]]) -> Endpoint:
        async def answer(_: Request) -> Response:
            return _json({name: call()})

        return answer

    async def _feature(self, request: Request) -> Response:
        found = self._view.feature(request.path_params["name"])
        if found is None:
            return _error(404, "no such feature")
        return _json(found)

    async def _findings(self, request: Request) -> Response:
        return _json(
            {
                "findings": self._view.findings(
                    limit=_whole(request, "limit", 100),
                    kind=_one_of(request, "kind", Kind),
                    state=_one_of(request, "state", State),
                    subject=request.query_params.get("subject"),
                )
            }
        )

    async def _ledger(self, request: Request) -> Response:
        after = _whole(request, "after", 0, most=2**53)
        return _json(self._view.ledger(after=after, limit=_whole(request, "limit", 100)))

    async def _wanted(self, request: Request) -> Response:
        return _json({"rows": self._view.labels_wanted(limit=_whole(request, "limit", 100))})

    # Acting.

    async def _labels(self, request: Request, actor: str) -> Response:
        body = await _body(request, LABELS_BYTES_MAX)
        content_type = request.headers.get("content-type", "application/json")
        return _json(await self._view.take_labels(body, content_type))

    async def _trigger(self, request: Request, actor: str) -> Response:
        asked = await _object(request, ("reason", "policy"))
        reason = asked.get("reason") or "asked for by hand"
        return _json(
            await self._view.trigger(reason=reason, policy=asked.get("policy"), actor=actor)
        )

    async def _rollout_start(self, request: Request, actor: str) -> Response:
        asked = await _object(request, ("candidate", "strategy"))
        candidate = asked.get("candidate")
        if candidate is None:
            raise Refused(400, "candidate is missing: a digest or version of the registry")
        return _json(
            await self._view.rollout_start(
                candidate=candidate, strategy=asked.get("strategy"), actor=actor
            )
        )

    async def _rollout_act(self, request: Request, actor: str) -> Response:
        asked = await _object(request, ("reason",))
        action = request.path_params["action"]
        if action not in ("promote", "abort", "resume", "pause"):
            raise Refused(404, f"a rollout cannot {action}")
        return _json(
            await self._view.rollout_act(
                id=request.path_params["id"],
                action=action,
                reason=asked.get("reason") or f"{action} by hand",
                actor=actor,
            )
        )

    async def _rollback(self, request: Request, actor: str) -> Response:
        asked = await _object(request, ("to", "reason"))
        reason = asked.get("reason") or "rolled back by hand"
        return _json(await self._view.rollback(to=asked.get("to"), reason=reason, actor=actor))

    async def _accept(self, _: Request, actor: str) -> Response:
        return _json(await self._view.accept_reference(actor=actor))

    async def _release(self, request: Request, actor: str) -> Response:
        return _json(await self._view.release(digest=request.path_params["digest"], actor=actor))

    async def _run_data(self, request: Request, actor: str) -> Response:
        path = await self._view.run_data(run_id=request.path_params["id"])
        return FileResponse(path, media_type="application/x-ndjson")

    async def _callback(self, request: Request) -> Response:
        body = await _body(request, BODY_BYTES_MAX)
        answer = await self._view.callback(
            run_id=request.path_params["id"], headers=dict(request.headers), body=body
        )
        return JSONResponse(answer.body, status_code=answer.status)


def _merged(routes: list[Any]) -> list[Any]:
    """Routes of one path as one, so that a wrong method is 405 and not another route's 404."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    others = []
    for route in routes:
        if isinstance(route, Route):
            for method in route.methods or ():
                by_path.setdefault(route.path, {})[method] = route.endpoint
        else:
            others.append(route)
    return [_by_method(path, endpoints) for path, endpoints in by_path.items()] + others


def _by_method(path: str, endpoints: dict[str, Endpoint]) -> Route:
    async def choose(request: Request) -> Response:
        return await endpoints[request.method](request)

    return Route(path, choose, methods=sorted(endpoints))


def _json(value: Any, status: int = 200) -> Response:
    """JSON that any reader takes: figures without a word in JSON are null."""
    return Response(
        json.dumps(_finite(value), allow_nan=False, ensure_ascii=False),
        status_code=status,
        media_type="application/json",
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _error(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=status)


def _unauthorised() -> JSONResponse:
    return JSONResponse(
        {"error": "a bearer token with the right role is needed"},
        status_code=401,
        headers=CHALLENGE,
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error(error.status, error.reason)


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _no_ledger(_: Request, error: Exception) -> Response:
    """A full disk or a locked file: nothing was done, and the text says what to do about it."""
    return _error(503, str(error))


async def _crashed(_: Request, error: Exception) -> Response:
    return _error(500, "internal error; see the agent's log")


async def _body(request: Request, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise Refused(413, f"the body is longer than {bytes_max} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def _object(request: Request, keys: tuple[str, ...]) -> dict[str, str]:
    """The body as an object of known keys with text in them; empty means all defaults."""
    body = await _body(request, BODY_BYTES_MAX)
    if not body.strip():
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is not a JSON object")
    for key, item in value.items():
        if key not in keys:
            raise Refused(400, f"unknown key {key[:64]!r}; known are {', '.join(keys)}")
        if item is not None and not isinstance(item, str):
            raise Refused(400, f"{key} must be text")
    return {key: item[:1_000] for key, item in value.items() if item is not None}


def _one_of(request: Request, name: str, known: type[Kind] | type[State]) -> str | None:
    text = request.query_params.get(name)
    if text is not None and text not in list(known):
        raise Refused(400, f"{name} is one of {', '.join(known)}")
    return text


def _whole(request: Request, name: str, default: int, *, most: int = LIMIT_MAX) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Refused(400, f"{name} is a whole number from 0 to {most}")
    return min(int(text), most)
