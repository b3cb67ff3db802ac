"""Labels as people send them: an object, an array or JSON Lines. Each bad entry gets its reason.

One bad entry never costs the others; only a body that cannot be read at all is refused whole.
"""

import math
from collections.abc import Sequence
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
AT_MAX: Final = 1e11
TOO_MANY: Final = f"more than {ENTRIES_MAX} labels in one body: send several"
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
    entries = _entries(body, content_type)
    if len(entries) > ENTRIES_MAX:
        raise Refused(413, TOO_MANY)
    for index, entry in enumerate(entries):
        try:
            labels.append(_label(entry))
        except _Bad as bad:
            rejected.append(Rejected(index=index, reason=bad.reason))
    return labels, rejected


class _Bad(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


_UNREADABLE: Final = object()
_LINES_TYPES: Final = ("ndjson", "jsonl", "jsonlines")


def _entries(body: bytes, content_type: str) -> Sequence[Any]:
    if not body.strip():
        raise Refused(400, "the body is empty: send a label, an array of them or JSON Lines")
    if not any(name in content_type.lower() for name in _LINES_TYPES):
        whole = _read(body)
        if whole is not _UNREADABLE:
            return whole if isinstance(whole, list) else [whole]
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > ENTRIES_MAX:
        raise Refused(413, TOO_MANY)
    entries = [_read(line) for line in lines]
    if all(entry is _UNREADABLE for entry in entries):
        raise Refused(400, "the body is not JSON: send a label, an array of them or JSON Lines")
    return entries


def _read(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _UNREADABLE


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
    if isinstance(value, str):
        value = _moment(value)
    # Milliseconds by mistake are the year 50,000: better said than taken.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < AT_MAX:
        return float(value)
    raise _Bad(Reason.BAD_AT)


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        # Without an offset nobody knows which moment is meant.
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, OverflowError):
        return None
