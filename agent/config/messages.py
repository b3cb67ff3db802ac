"""pydantic's findings in our words: which key, what is wrong, how to mend it.

Values of keys that hold secrets or addresses with secrets in them are never repeated.
"""

from collections.abc import Callable, Mapping
from typing import Any

from agent.config.key_path import KeyPath, dotted
from agent.config.keys import known_keys, nearest_key, takes_secret
from agent.errors import Problem, one_line

_SILENT_KEYS = ("url", "token", "secret", "token_file", "secret_file", "callback_secret_file")
_NAMED_IN_MESSAGE = ("cron",)
# Lists of sections of several kinds ▶ the key that says which kind one is.
_UNIONS: Mapping[str | int, str] = {"triggers": "on", "sources": "kind"}

# pydantic's type of error ▶ (what is wrong, the mend), with its own numbers filled in.
_WORDS: dict[str, str] = {
    "missing": "is missing: add it",
    "bool_type": "is neither true nor false: write one of them",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number",
    "string_too_long": "is longer than {max_length} characters: shorten it",
    "string_too_short": "is empty: give a value, or leave the key out",
    "string_type": "is no text: put it in quotes",
    "string_pattern_mismatch": "may hold only letters, digits and . _ : - (1 to 64 of them)",
    "literal_error": "is none of the known values: use {expected}",
    "too_short": "is an empty list: give at least {min_length}",
    "tuple_type": "is no list: write it as [a, b] or one `- item` per line",
    "model_type": "is no section: write its keys below it, as `key: value`",
    "model_attributes_type": "is no section: write its keys below it, as `key: value`",
    "union_tag_invalid": "is none of the known values: use {expected_tags}",
    "union_tag_not_found": "is missing: add it, one of 'drift', 'quality', 'schedule'",
}


def problem_of(error: Mapping[str, Any], data: object, where: Callable[[KeyPath], str]) -> Problem:
    """One finding of pydantic as a Problem."""
    path = _own_path(tuple(error["loc"]), error["type"])
    kind = error["type"]
    if kind == "extra_forbidden":
        message = _unknown(path)
    elif kind == "value_error":
        message = str(error["ctx"]["error"])
    elif kind in _WORDS:
        context = {key: _short(value) for key, value in error.get("ctx", {}).items()}
        message = _WORDS[kind].format(**context)
    else:
        message = f"{error['msg']}: mend it"
    return Problem(where=where(path), key=dotted(path), message=message + _given(path, data, kind))


def _own_path(path: KeyPath, kind: str) -> KeyPath:
    """pydantic puts the alternative's tag into the path of a union; the file has no such level."""
    told_apart_by = _UNIONS.get(path[0]) if path else None
    if told_apart_by is not None and len(path) > 2:
        path = (*path[:2], *path[3:])
    if told_apart_by is not None and kind.startswith("union_tag"):
        path = (*path, told_apart_by)
    return path


def _unknown(path: KeyPath) -> str:
    near = nearest_key(path)
    if near is not None:
        return f"is no known key: did you mean {dotted((*path[:-1], near))}?"
    return f"is no known key: known here are {', '.join(sorted(known_keys(path[:-1])))}"


def _given(path: KeyPath, data: object, kind: str) -> str:
    """The offending value, where it is short, plain and no secret."""
    if kind in ("missing", "extra_forbidden", "union_tag_not_found"):
        return ""
    if path and (path[-1] in (*_SILENT_KEYS, *_NAMED_IN_MESSAGE) or takes_secret(path)):
        return ""
    value: Any = data
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return ""
    if isinstance(value, str):
        return f" (given '{one_line(value, length_max=60)}')"
    return f" (given {value})" if isinstance(value, bool | int | float) else ""


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else one_line(str(value), length_max=300)
