"""Descriptors of text: what they count, and that nothing in a column raises."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.relations.text import DESCRIPTORS, describe, is_text


def objects(*values: object) -> NDArray[np.object_]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def described(text: object) -> dict[str, float]:
    return dict(zip(DESCRIPTORS, describe(objects(text))[:, 0].tolist(), strict=True))


def test_descriptors_of_a_text() -> None:
    assert described("The cat, the Cat: 42 cats. é") == pytest.approx(
        {
            "length": 28,
            "words": 7,
            "word_length": 22 / 7,
            "digits": 2 / 28,
            "upper": 2 / 28,
            "punctuation": 3 / 28,
            "non_ascii": 1 / 28,
            "repeated": 0,
        }
    )
    assert described("no no no yes")["repeated"] == pytest.approx(0.5)


def test_what_is_missing_and_what_is_no_text_are_told_apart() -> None:
    for missing in (None, "", b"", np.nan):
        assert all(np.isnan(value) for value in described(missing).values())
    for other in (7, 1.5, {"a": 1}, ["x"]):
        assert all(value == np.inf for value in described(other).values())


def test_spaces_alone_are_a_text_without_words() -> None:
    assert described(" \t ") == dict.fromkeys(DESCRIPTORS, 0.0) | {"length": 3}


def test_the_length_is_whole_and_the_rest_of_the_first_2048_characters() -> None:
    found = described("a" * 2_048 + "1" * 10_000)
    assert found["length"] == 12_048
    assert found["digits"] == 0


@given(st.lists(st.one_of(st.none(), st.text(st.characters()), st.binary(), st.integers())))
def test_no_text_raises_and_each_is_described_by_itself(values: list[object]) -> None:
    together = describe(objects(*values))
    assert together.shape == (len(DESCRIPTORS), len(values))
    for place, value in enumerate(values):
        alone = describe(objects(value))[:, 0]
        assert np.array_equal(together[:, place], alone, equal_nan=True)


def test_prose_is_text_and_categories_are_not() -> None:
    rng = np.random.default_rng(0)
    words = np.array(["late", "order", "please", "send", "refund", "card", "thanks", "today"])
    prose = objects(*(" ".join(rng.choice(words, 9)) for _ in range(200)))
    assert is_text(prose)
    assert not is_text(objects(*rng.choice(["north west of the town", "south"], 200)))
    assert not is_text(objects(*(f"user-{i}" for i in range(200))))
    assert not is_text(np.arange(200.0))
    assert not is_text(objects(*prose[:10]))
    assert not is_text(objects(None, *([3] * 100)))


def test_ten_thousand_short_texts_take_tens_of_milliseconds() -> None:
    rng = np.random.default_rng(0)
    words = np.array(["late", "order", "please", "send", "refund", "card", "thanks", "today"])
    texts = objects(*(" ".join(rng.choice(words, 12)) for _ in range(10_000)))
    spent = []
    for _ in range(3):
        started = time.process_time()
        describe(texts)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.2  # 0.04 on a free core: the bound leaves room for a busy one
