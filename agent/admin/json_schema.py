"""Words of JSON Schema, as few as describe what the API answers."""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def number(description: str, *, null: bool = False) -> Json:
    return {"type": ["number", "null"] if null else "number", "description": description}


def text(description: str, *, null: bool = False) -> Json:
    return {"type": ["string", "null"] if null else "string", "description": description}


def flag(description: str) -> Json:
    return {"type": "boolean", "description": description}


def members(
    description: str, known: Mapping[str, Json] | None = None, *, null: bool = False, **more: Json
) -> Json:
    return {
        "type": ["object", "null"] if null else "object",
        "description": description,
        "properties": {**(known or {}), **more},
    }


def by_name(description: str, each: Json) -> Json:
    return {"type": "object", "description": description, "additionalProperties": each}


def listed(description: str, item: Json) -> Json:
    return {"type": "array", "description": description, "items": item}
