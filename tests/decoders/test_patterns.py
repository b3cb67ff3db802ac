"""Patterns that may run away are refused, the others find what they name wherever it stands."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.patterns import (
    MARKER,
    OVERLAP_CHARACTERS,
    PATTERN_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    WINDOW_CHARACTERS,
    Eraser,
    refusal,
)

GOOD = [
    r"\d{3}-\d{2}-\d{4}",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r"[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}",
    r"\b(?:\d[ -]?){13,19}\b",
    r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}",
    r"(?i)password\s*[:=]\s*\S+",
    r"(?<=token )\S{20,}",
    r"(?:ab)+c",
    r"\\+[)]",
    r"[]()|*+]{2,}",
    r"alice|bob",
    r"\Asecret",
]
BAD = [
    r"(a+)+b",
    r"((a+))+b",
    r"(?:(?:a*)b?)+c",
    r"(a|aa)+b",
    r"(?:x(?:a|b)y)*z",
    r"(?:a?){30}a{30}",
    r"(?:ab?c?){3}d",
    r"(?:ab?){60}c",
    r"(?:a{1,64}){1,64}b",
    r"(.*a){20}",
    r".*.*.*x",
    r"\w+\w+\w+\w+!",
    r"(\w)\1",
    r"(?P<x>a)(?P=x)",
    r"(?(1)a|b)",
    r"a(?#comment)b",
    r"(?x)a # )",
    r"a*b*c*d*e*f*g*h",
    r"(?=a)|b*",
    r"x*",
    r"",
    r"\b",
    r"(",
    r"[",
    "a" * (PATTERN_CHARACTERS_MAX + 1),
]


@pytest.mark.parametrize("pattern", GOOD)
def test_what_people_look_for_may_be_looked_for(pattern: str) -> None:
    assert refusal(pattern) is None


@pytest.mark.parametrize("pattern", BAD)
def test_what_may_run_away_is_refused_with_its_mend(pattern: str) -> None:
    why = refusal(pattern)
    assert why is not None
    assert len(why) > 20


@pytest.mark.parametrize("at", [0, 1, WINDOW_CHARACTERS - 5, WINDOW_CHARACTERS, 9_000])
@pytest.mark.parametrize("length", [1, 11, OVERLAP_CHARACTERS - 1])
def test_a_match_is_found_wherever_it_lies(at: int, length: int) -> None:
    text = "." * at + "<" + "7" * length + ">" + "." * 3_000
    assert Eraser("<[0-9]{1,1100}>").erased(text) == "." * at + MARKER + "." * 3_000
    assert Eraser("<?7+>?").erased(text) == "." * at + MARKER + "." * 3_000


def test_a_match_longer_than_any_window_goes_piece_by_piece() -> None:
    erased = Eraser("7+").erased("a" + "7" * 20_000 + "b")
    assert "7" not in erased
    assert erased.startswith("a" + MARKER)
    assert erased.endswith(MARKER + "b")


@given(
    st.text(alphabet="a1@.x ", max_size=300), st.sampled_from([r"a\d", r"\d+@", "x{2,3}", r"a\b"])
)
def test_short_texts_are_what_re_makes_of_them(text: str, pattern: str) -> None:
    assert Eraser(pattern).erased(text) == re.sub(pattern, MARKER, text)


@given(st.lists(st.sampled_from(["a1", "b", "1" * 50, "." * 700, "a"]), max_size=40).map("".join))
def test_long_texts_too_as_far_as_matches_are_short(text: str) -> None:
    assert Eraser("a[0-9]{1,60}").erased(text) == re.sub("a[0-9]{1,60}", MARKER, text)


def test_what_is_too_long_is_taken_out_whole_and_counted() -> None:
    eraser = Eraser("secret")
    assert eraser.erased("x" * (TEXT_CHARACTERS_MAX + 1)) == MARKER
    assert eraser.dropped == {"redaction_too_long": 1}
    assert eraser.erased("still runs") == "still runs"


def test_a_pattern_that_turns_out_slow_is_run_no_more_and_hides_whole_values() -> None:
    times = iter([0.0, 0.1, 1.0, 2.0])
    eraser = Eraser("secret", clock=lambda: next(times))
    assert eraser.erased("quick") == "quick"
    assert eraser.erased("a harmless text") == MARKER
    assert eraser.erased("another") == MARKER  # without asking the clock again
    assert eraser.dropped == {"redaction_too_slow": 2}
    assert not eraser.found("secret")
