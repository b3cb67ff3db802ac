"""Texts as numbers: what each descriptor means, in several scripts, and that nothing breaks it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.text import TEXT_DESCRIPTORS, TRIGRAM_CHARACTERS_MAX, describe_text

TEXTS = st.text(st.characters(codec=None), max_size=200)  # half surrogates too


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc def\n1.5", {"length": 11, "words": 3, "lines": 2, "digit_share": 2 / 11}),
        ("ABC!", {"upper_share": 0.75, "punctuation_share": 0.25, "letter_share": 0.75}),
        ("Привет, мир", {"non_ascii_share": 9 / 11, "letter_share": 9 / 11, "words": 2}),
        ("你好世界。", {"length": 5, "letter_share": 0.8, "words": 1, "upper_share": 0.0}),
        ("नमस्ते", {"letter_share": 1.0, "mean_word_length": 6.0}),
        ("👍👍 ok", {"punctuation_share": 0.4, "entropy_bits": 1.9219280948873623}),
        ("aaaa", {"entropy_bits": 0.0, "repeated_trigram_share": 0.5}),
        ("ab", {"entropy_bits": 1.0, "repeated_trigram_share": 0.0}),
        (" \u3000\t", {"whitespace_share": 1.0, "words": 0, "mean_word_length": 0.0}),
    ],
)
def test_a_descriptor_means_the_same_in_every_script(text: str, expected: dict[str, float]) -> None:
    described = describe_text(text)
    assert {name: described[name] for name in expected} == pytest.approx(expected)


def test_an_empty_text_has_a_length_and_no_shares() -> None:
    described = describe_text("")
    assert described["length"] == described["words"] == 0.0
    assert math.isnan(described["letter_share"])
    assert math.isnan(described["entropy_bits"])


def test_a_model_that_repeats_itself_stands_out() -> None:
    prose = "The harbour was quiet; two boats left at dawn, and nobody asked where they went."
    assert describe_text(prose)["repeated_trigram_share"] < 0.1
    assert describe_text("I am sorry. " * 50)["repeated_trigram_share"] > 0.9


def test_a_long_text_is_measured_by_its_beginning_but_for_its_length() -> None:
    long = "a" * 100 + "1" * 900
    described = describe_text(long, characters_max=100)
    assert described["length"] == 1_000
    assert described["digit_share"] == 0.0
    noise = "".join(chr(0x4E00 + n) for n in range(TRIGRAM_CHARACTERS_MAX)) + "a" * 10_000
    assert describe_text(noise)["repeated_trigram_share"] == 0.0


@given(TEXTS)
def test_every_descriptor_is_there_and_in_its_range_whatever_the_text(text: str) -> None:
    described = describe_text(text)
    assert tuple(described) == TEXT_DESCRIPTORS
    shares = [value for name, value in described.items() if name.endswith("_share")]
    if not text:
        return
    assert all(0.0 <= share <= 1.0 for share in shares)
    kinds = ("letter_share", "digit_share", "punctuation_share", "whitespace_share")
    assert sum(described[kind] for kind in kinds) <= 1.0 + 1e-9
    assert 0.0 <= described["entropy_bits"] <= math.log2(len(text)) + 1e-9


@given(TEXTS, TEXTS)
def test_the_order_of_characters_matters_to_words_and_trigrams_alone(one: str, two: str) -> None:
    ahead, behind = describe_text(one + two), describe_text(two + one)
    for name in ("length", "letter_share", "upper_share", "non_ascii_share", "entropy_bits"):
        assert ahead[name] == pytest.approx(behind[name], nan_ok=True)
