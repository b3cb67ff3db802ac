"""The API's own description, served at `/api/openapi.json`.

A test compares it with the routes of `api`, in both directions: what is described answers, and
what answers is described.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from agent.admin.feature_schema import FEATURE, FEATURES
from agent.admin.status_schema import STATUS
from detectors.reading import Kind, State

Json = dict[str, Any]

_BEARER: Final[list[Json]] = [{"bearer": []}]
_OPEN_ON_LOOPBACK: Final[list[Json]] = [{}, {"bearer": []}]
_OPEN: Final[list[Json]] = [{}]


def _answer(
    description: str, *, media: str = "application/json", schema: Json | None = None
) -> Json:
    return {
        "description": description,
        "content": {media: {"schema": schema or {"type": "object"}}},
    }


_REFUSED: Final[Json] = {
    "description": "Refused; the body says why.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def _path(name: str, description: str) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }


def _query(name: str, description: str, *, default: int, most: int | None = None) -> Json:
    schema: Json = {"type": "integer", "minimum": 0, "default": default}
    if most is not None:
        schema["maximum"] = most
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _choice(name: str, description: str, known: list[str] | None = None) -> Json:
    schema: Json = {"type": "string"} if known is None else {"enum": known}
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _read(
    summary: str,
    answer: str,
    *parameters: Json,
    media: str = "application/json",
    codes: tuple[str, ...] = (),
) -> Json:
    schema = {"type": "object"} if media == "application/json" else {"type": "string"}
    responses = {"200": _answer(answer, media=media, schema=schema), "401": _REFUSED}
    made: Json = {
        "summary": summary,
        "security": _OPEN_ON_LOOPBACK,
        "responses": responses | dict.fromkeys(codes, _REFUSED),
    }
    if parameters:
        made["parameters"] = list(parameters)
    return {"get": made}


def _described(read: Json, name: str) -> Json:
    """The same, with the answer's members in a schema of that name."""
    answer = read["get"]["responses"]["200"]["content"]["application/json"]
    answer["schema"] = {"$ref": f"#/components/schemas/{name}"}
    return read


def _act(
    summary: str,
    answer: str,
    *parameters: Json,
    body: Json | None = None,
    codes: tuple[str, ...] = ("409",),
    role: str = "operate",
) -> Json:
    made: Json = {
        "summary": summary,
        "description": f"Needs a token with the role `{role}`.",
        "security": _BEARER,
        "responses": {"200": _answer(answer)} | dict.fromkeys(("400", "401", *codes), _REFUSED),
    }
    if parameters:
        made["parameters"] = list(parameters)
    if body is not None:
        made["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return {"post": made}


def _texts(*required: str, **described: str) -> Json:
    """A body: an object of these texts and nothing else."""
    made: Json = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {"type": "string", "description": text} for name, text in described.items()
        },
    }
    if required:
        made["required"] = list(required)
    return made


_LABEL: Final[Json] = {
    "type": "object",
    "required": ["request_id", "label"],
    "additionalProperties": False,
    "properties": {
        "request_id": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
        "row": {"type": "integer", "minimum": 0, "default": 0},
        "label": {"type": ["string", "number", "boolean"]},
        "at": {
            "type": ["string", "number"],
            "description": "When it was known: RFC 3339 with an offset, or Unix seconds.",
        },
    },
}


def _labels() -> Json:
    made = _act(
        "Ground truth for predictions that were made.",
        "Counts: joined, pending, not_sampled, unmatched, late, corrected, unchanged, and what "
        "was rejected with reasons.",
        codes=("413", "503"),
        role="labels",
    )
    label = {"$ref": "#/components/schemas/Label"}
    made["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": {"oneOf": [label, {"type": "array", "items": label}]}},
            "application/x-ndjson": {"schema": label},
        },
    }
    return made


def _callback() -> Json:
    return {
        "post": {
            "summary": "CI reports how a run goes.",
            "description": "Signed after Standard Webhooks and bound to its run; no token.",
            "security": _OPEN,
            "parameters": [
                _path("id", "The run."),
                *(
                    {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
                    for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
                ),
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Callback"}}
                },
            },
            "responses": {
                "200": _answer("Taken, or taken before and without effect."),
                **dict.fromkeys(("401", "404", "413", "422"), _REFUSED),
            },
        }
    }


_CALLBACK_BODY: Final[Json] = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"enum": ["running", "succeeded", "failed"]},
        "artifact": {
            "type": "object",
            "required": ["url", "sha256", "bytes"],
            "properties": {
                "url": {"type": "string", "format": "uri"},
                "sha256": {"type": "string"},
                "bytes": {"type": "integer", "minimum": 0},
            },
        },
        "metrics": {"type": "object"},
        "external_url": {"type": "string", "format": "uri"},
    },
}

_LIMIT: Final[Json] = _query("limit", "How many at most.", default=100, most=1_000)
_ROLLOUT: Final[Json] = _path("id", "The rollout.")

PATHS: Final[dict[str, Json]] = {
    "/": _read("The status page.", "A page for people.", media="text/html"),
    "/metrics": _read(
        "Metrics for Prometheus; OpenMetrics where the Accept header asks for it.",
        "The exposition.",
        media="text/plain",
    ),
    "/api/openapi.json": _read("This description.", "OpenAPI 3.1."),
    "/api/v1/status": _described(_read("Everything at a glance.", "The status."), "Status"),
    "/api/v1/features": _described(
        _read("Every feature with its state and figures.", "The features."), "Features"
    ),
    "/api/v1/features/{name}": _described(
        _read(
            "One feature: its distribution against the reference, and its history.",
            "The feature.",
            _path("name", "The feature's name; slashes are part of it."),
            codes=("404",),
        ),
        "Feature",
    ),
    "/api/v1/history": _read("Drift, quality and traffic over time.", "At most 500 points."),
    "/api/v1/findings": _read(
        "Changes of state, newest first.",
        "The findings.",
        _LIMIT,
        _choice("kind", "Of this kind alone.", [kind.value for kind in Kind]),
        _choice("state", "Those that brought a subject into this state.", [s.value for s in State]),
        _choice("subject", "About this feature, metric or detector."),
        codes=("400",),
    ),
    "/api/v1/rollouts": {
        **_read("Rollouts, newest first.", "The rollouts."),
        **_act(
            "Start a rollout of a candidate.",
            "The rollout.",
            body=_texts(
                "candidate",
                candidate="A digest or version of the registry.",
                strategy="Such as canary; the configured one when left out.",
            ),
            codes=("404", "409"),
        ),
    },
    "/api/v1/rollouts/{id}/{action}": _act(
        "Promote, abort, pause or resume a rollout.",
        "The rollout.",
        _ROLLOUT,
        {
            **_path("action", "What to do."),
            "schema": {"enum": ["promote", "abort", "pause", "resume"]},
        },
        body=_texts(reason="Goes into the ledger."),
        codes=("404", "409"),
    ),
    "/api/v1/rollback": _act(
        "Back to the version before, or to a named one.",
        "What was done.",
        body=_texts(to="A version.", reason="Goes into the ledger."),
        codes=("404", "409"),
    ),
    "/api/v1/runs": _read("Runs of retraining and compression, newest first.", "The runs."),
    "/api/v1/runs/{id}/data": {
        "get": {
            **_read(
                "Captured and labelled rows that a run may learn from. Always needs a token.",
                "One JSON object a line.",
                _path("id", "The run."),
                media="application/x-ndjson",
                codes=("404", "409"),
            )["get"],
            "security": _BEARER,
        }
    },
    "/api/v1/runs/{id}/callback": _callback(),
    "/api/v1/versions": _read("The registry's versions.", "The versions."),
    "/api/v1/quarantine": _read("Artifacts that failed in production.", "The artifacts."),
    "/api/v1/quarantine/{digest}/release": _act(
        "Let an artifact be tried again.",
        "What was done.",
        _path("digest", "The artifact."),
        codes=("404",),
    ),
    "/api/v1/ledger": _read(
        "What was decided, with its evidence, oldest first.",
        "Entries and the hash of the newest.",
        _query("after", "Only entries with a greater id.", default=0),
        _LIMIT,
        codes=("400",),
    ),
    "/api/v1/ledger/verify": _read("Whether the ledger's hash chain holds.", "The finding."),
    "/api/v1/labels": _labels(),
    "/api/v1/labels/wanted": _read(
        "Rows worth labelling: half uncertain, half drawn at random.",
        "The rows, each with why.",
        _LIMIT,
        codes=("400",),
    ),
    "/api/v1/trigger": _act(
        "Ask for a retraining now.",
        "The decision with its run, or why there is none.",
        body=_texts(reason="Goes into the ledger.", policy="A named trigger."),
    ),
    "/api/v1/reference/accept": _act(
        "Confirm a reference that was learnt from traffic.", "What was done."
    ),
}


def _release() -> str:
    try:
        return version("remora")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0"


OPENAPI: Final[Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Remora",
        "version": _release(),
        "summary": "What a running agent knows, and release control.",
    },
    "paths": PATHS,
    "components": {
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "Error": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            },
            "Status": STATUS,
            "Features": FEATURES,
            "Feature": FEATURE,
            "Label": _LABEL,
            "Callback": _CALLBACK_BODY,
        },
    },
}
