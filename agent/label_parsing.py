"""Labels as people send them: an object, an array or JSON Lines. Each bad entry gets its reason.

One bad entry never costs the others; only a body that cannot be read at all is refused whole.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from agent.admin.view import Refused
from agent.inference import acceptable_id
from agent.labels import Label

ENTRIES_MAX: Final = 100_000
ROW_MAX: Final = 1_000_000
TEXT_CHARACTERS_MAX: Final = 256
KEYS: Final = frozenset({"request_id", "row", "label", "at"})


class Reason(StrEnum):
    """Why an entry was rejected; the set is closed."""

    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_KEY = "unknown_key"
    BAD_REQUEST_ID = "bad_request_id"
    BAD_ROW = "bad_row"
    BAD_LABEL = "bad_label"
    BAD_AT = "bad_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One entry that is no label; `index` counts entries from 0."""

    index: int
    reason: Reason


def parse_labels(body: bytes, content_type: str) -> tuple[list[Label], list[Rejected]]:
    """The labels of a body, and what was rejected.

    Raises `Refused` (400 for a body that is no JSON at all or empty, 413 for too many entries).
    """
    labels: list[Label] = []
    rejected: list[Rejected] = []
    for index, entry in enumerate(_entries(body, content_type)):
        if index >= ENTRIES_MAX:
            raise Refused(413, f"more than {ENTRIES_MAX} labels in one body: send several")
        try:
            labels.append(_label(entry))
        except _Bad as bad:
            rejected.append(Rejected(index=index, reason=bad.reason))
    return labels, rejected


class _Bad(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


_UNREADABLE = object()


def _entries(body: bytes, content_type: str) -> Iterator[Any]:
    if not body.strip():
        raise Refused(400, "the body is empty: send a label, an array of them or JSON Lines")
    lines_meant = "ndjson" in content_type or "jsonl" in content_type or "jsonlines" in content_type
    if not lines_meant:
        try:
            whole = orjson.loads(body)
        except orjson.JSONDecodeError:
            pass
        else:
            yield from whole if isinstance(whole, list) else [whole]
            return
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) < 2 and not lines_meant:
        raise Refused(400, "the body is not JSON")
    for line in lines:
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            yield _UNREADABLE


def _label(entry: Any) -> Label:
    if entry is _UNREADABLE:
        raise _Bad(Reason.NOT_JSON)
    if not isinstance(entry, dict):
        raise _Bad(Reason.NOT_AN_OBJECT)
    if not entry.keys() <= KEYS:
        raise _Bad(Reason.UNKNOWN_KEY)
    id, row = entry.get("request_id"), entry.get("row", 0)
    if not isinstance(id, str) or not acceptable_id(id):
        raise _Bad(Reason.BAD_REQUEST_ID)
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row <= ROW_MAX:
        raise _Bad(Reason.BAD_ROW)
    return Label(request_id=id, row=row, label=_truth(entry.get("label")), at=_at(entry.get("at")))


def _truth(value: Any) -> str | int | float | bool:
    if isinstance(value, str) and 0 < len(value) <= TEXT_CHARACTERS_MAX:
        return value
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _Bad(Reason.BAD_LABEL)


def _at(value: Any) -> float | None:
    """RFC 3339 or unix seconds."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise _Bad(Reason.BAD_AT)
            return moment.timestamp()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e11:
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise _Bad(Reason.BAD_AT)
