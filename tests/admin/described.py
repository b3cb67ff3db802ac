"""Whether an answer is as its description says: what is there, and of which type."""

from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list, tuple), "string": (str,), "number": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def strangers(value: Any, schema: dict[str, Any], path: str = "$") -> list[str]:
    """Paths of members that are not described, or that have another type."""
    if not schema:
        return []
    if not _is_one(value, schema["type"]):
        return [f"{path} is {value!r}, no {schema['type']}"]
    found: list[str] = []
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        for name, item in value.items():
            below = properties.get(name, others)
            here = f"{path}.{name}"
            found += [here] if below is None else strangers(item, below, here)
    elif isinstance(value, list | tuple):
        for item in value:
            found += strangers(item, schema["items"], f"{path}[]")
    return found


def _is_one(value: Any, wanted: str | list[str]) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, TYPES[name]) for name in names)
