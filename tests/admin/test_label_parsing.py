"""Bodies of labels as people send them: good entries count, bad ones get their reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.admin.view import Refused
from agent.label_parsing import ENTRIES_MAX, Reason, Rejected, parse_labels
from agent.labels import Label

JSON = "application/json"
LINES = "application/x-ndjson"
GOOD = {"request_id": "r-1", "label": 1}


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def reasons(value: Any) -> list[str]:
    return [rejected.reason.value for rejected in parse_labels(body(value), JSON)[1]]


def test_an_object_an_array_and_lines_say_the_same() -> None:
    entries = [GOOD, {"request_id": "r-2", "row": 3, "label": "yes", "at": 5}]
    lines = b"\n".join(body(entry) for entry in entries)
    from_array, _ = parse_labels(body(entries), JSON)
    assert from_array == parse_labels(lines, LINES)[0] == parse_labels(lines, JSON)[0]
    assert from_array[1].row == 3
    assert from_array[1].at == 5.0
    assert parse_labels(body(GOOD), JSON)[0] == from_array[:1]
    assert parse_labels(body(GOOD), "Application/X-NDJSON")[0] == from_array[:1]


def test_lines_may_end_as_windows_ends_them_and_stand_apart() -> None:
    labels, rejected = parse_labels(
        b"\r\n" + body(GOOD) + b"\r\n\r\n" + body(GOOD) + b"\r\n", LINES
    )
    assert len(labels) == 2
    assert not rejected


def test_one_bad_entry_never_costs_the_others() -> None:
    labels, rejected = parse_labels(body(GOOD) + b"\n{oh\n" + body(GOOD), JSON)
    assert len(labels) == 2
    assert [(r.index, r.reason) for r in rejected] == [(1, Reason.NOT_JSON)]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (5, "not_an_object"),
        (None, "not_an_object"),
        ({}, "bad_request_id"),
        ({"request_id": "r", "label": 1, "weight": 2}, "unknown_key"),
        ({"request_id": "", "label": 1}, "bad_request_id"),
        ({"request_id": "a b", "label": 1}, "bad_request_id"),
        ({"request_id": "x" * 129, "label": 1}, "bad_request_id"),
        ({"request_id": 7, "label": 1}, "bad_request_id"),
        ({**GOOD, "row": -1}, "bad_row"),
        ({**GOOD, "row": True}, "bad_row"),
        ({**GOOD, "row": 1.0}, "bad_row"),
        ({**GOOD, "row": "0"}, "bad_row"),
        ({**GOOD, "row": 10**7}, "bad_row"),
        ({"request_id": "r"}, "bad_label"),
        ({"request_id": "r", "label": None}, "bad_label"),
        ({"request_id": "r", "label": ""}, "bad_label"),
        ({"request_id": "r", "label": "x" * 257}, "bad_label"),
        ({"request_id": "r", "label": [1]}, "bad_label"),
        ({**GOOD, "at": "yesterday"}, "bad_at"),
        ({**GOOD, "at": "2025-01-01T00:00:00"}, "bad_at"),
        ({**GOOD, "at": "0001-01-01T00:00:00+00:00"}, "bad_at"),
        ({**GOOD, "at": -1}, "bad_at"),
        ({**GOOD, "at": 1_760_000_000_000}, "bad_at"),
        ({**GOOD, "at": True}, "bad_at"),
        ({**GOOD, "at": []}, "bad_at"),
    ],
)
def test_bad_entries_say_what_is_bad(entry: Any, reason: str) -> None:
    assert reasons([GOOD, entry]) == [reason]


@pytest.mark.parametrize(
    ("at", "seconds"),
    [("2025-10-09T08:53:20Z", 1_760_000_000.0), ("2025-10-09T10:53:20+02:00", 1_760_000_000.0)],
)
def test_moments_have_an_offset(at: str, seconds: float) -> None:
    [label] = parse_labels(body({**GOOD, "at": at}), JSON)[0]
    assert label.at == seconds


@pytest.mark.parametrize(
    ("sent", "content_type", "status"),
    [
        (b"", JSON, 400),
        (b" \n\t", LINES, 400),
        (b"{oh", JSON, 400),
        (b"<html>\n<body>no\n", JSON, 400),
        (b"\xff\xfe\x00", LINES, 400),
        (b'{"request_id": "\xff", "label": 1}', JSON, 400),
        (b"[" * 5_000 + b"]" * 5_000, JSON, 400),
        (b"[" + b"1," * ENTRIES_MAX + b"1]", JSON, 413),
        (b"1\n" * (ENTRIES_MAX + 1), LINES, 413),
    ],
)
def test_what_cannot_be_read_at_all_is_refused_whole(
    sent: bytes, content_type: str, status: int
) -> None:
    with pytest.raises(Refused) as refused:
        parse_labels(sent, content_type)
    assert refused.value.status == status


def test_an_empty_array_holds_no_labels() -> None:
    assert parse_labels(b"[]", JSON) == ([], [])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
ENTRIES = ANYTHING | st.fixed_dictionaries(
    {"request_id": ANYTHING | st.just("r-1"), "label": ANYTHING},
    optional={"row": ANYTHING, "at": ANYTHING},
)


def outcome(sent: bytes, content_type: str) -> tuple[int, list[Label], list[Rejected]]:
    """The HTTP status that the body earns, and what was found in it."""
    try:
        return 200, *parse_labels(sent, content_type)
    except Refused as refused:
        return refused.status, [], []


@given(st.binary(max_size=300), st.sampled_from([JSON, LINES, "", "text/plain"]))
def test_no_bytes_do_harm(sent: bytes, content_type: str) -> None:
    assert outcome(sent, content_type)[0] in (200, 400, 413)


@given(st.lists(ENTRIES, max_size=6), st.booleans())
def test_every_entry_is_a_label_or_has_a_reason(entries: list[Any], as_lines: bool) -> None:
    # Python writes NaN, which is no JSON: such a line has its reason, such an array is refused.
    texts = [json.dumps(entry).encode() for entry in entries]
    sent = b"\n".join(texts) if as_lines else b"[" + b",".join(texts) + b"]"
    status, labels, rejected = outcome(sent, LINES if as_lines else JSON)
    if status == 200:
        assert len(labels) + len(rejected) == len(entries)
    else:
        assert status == 400
    places = [one.index for one in rejected]
    assert places == sorted(set(places))
