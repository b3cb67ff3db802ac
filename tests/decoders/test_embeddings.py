"""Embeddings of several servers as vectors with a few numbers about each."""

import base64
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.embeddings import VECTOR_WIDTH_MAX, Embeddings
from agent.exchange import Exchange
from agent.inference import Inference
from tests.decoders.conftest import Post
from tests.decoders.test_chat import column, told

PATH = "/v1/embeddings"


def decode(exchange: Exchange) -> Inference:
    decoder = Embeddings(DecoderSettings(text_kept_characters=3))
    assert decoder.matches(exchange)
    return decoder.decode(exchange)


def refused(exchange: Exchange) -> DecodeReason:
    with pytest.raises(DecodeError) as error:
        decode(exchange)
    return error.value.reason


def openai(*vectors: Any, order: list[int] | None = None) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": place, "embedding": vector}
        for place, vector in enumerate(vectors)
    ]
    if order is not None:
        data = [data[place] for place in order]
    return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 9}}


def test_each_text_has_a_vector_and_its_descriptors(post: Post) -> None:
    exchange = post(
        PATH, {"input": ["abcd", "efghij"]}, openai([3, 4, 0], [0, -1, 0], order=[1, 0])
    )
    inference = decode(exchange)
    vectors = inference.vectors["embedding"]
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[3.0, 4.0, 0.0], [0.0, -1.0, 0.0]]
    assert column(inference, "embedding.norm") == [5.0, 1.0]
    assert column(inference, "embedding.mean") == pytest.approx([7 / 3, -1 / 3])
    assert column(inference, "embedding.max_share") == pytest.approx([4 / 7, 1.0])
    assert column(inference, "prompt.length") == [4.0, 6.0]
    assert inference.outputs["embedding.norm"] == [5.0, 1.0]
    assert inference.texts == {"prompt": ["abc", "efg"]}
    generation = told(inference)
    assert (generation.input_tokens, generation.output_tokens, generation.basis) == (
        9,
        None,
        "none",
    )
    assert generation.finish_reasons == ()


def test_base64_is_little_endian_floats(post: Post) -> None:
    wanted = np.array([0.25, -1.5, 1e-3], dtype="<f4")
    text = base64.b64encode(wanted.tobytes()).decode()
    asked = {"input": "a", "encoding_format": "base64"}
    vectors = decode(post(PATH, asked, openai(text))).vectors["embedding"]
    assert vectors.tolist() == [wanted.tolist()]


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        ("/api/embed", {"input": "a"}, {"embeddings": [[1, 2]], "prompt_eval_count": 4}),
        ("/api/embeddings", {"prompt": "a"}, {"embedding": [1, 2]}),
        ("/embedding", {"content": "a"}, [{"index": 0, "embedding": [[1, 2]]}]),
        ("/openai/v1/embeddings", {"input": [[5, 6, 7]]}, openai([1, 2])),
    ],
)
def test_other_servers_write_it_otherwise(post: Post, path: str, asked: Any, said: Any) -> None:
    assert decode(post(path, asked, said)).vectors["embedding"].tolist() == [[1.0, 2.0]]


def test_a_vector_of_nothing_has_no_largest_share(post: Post) -> None:
    inference = decode(post(PATH, {"input": ["a", "b"]}, openai([0, 0], [None, 1])))
    assert all(math.isnan(share) for share in column(inference, "embedding.max_share"))


@pytest.mark.parametrize(
    ("asked", "said", "reason"),
    [
        ({}, openai([1]), DecodeReason.NOT_AN_INFERENCE),
        ({"input": []}, openai([1]), DecodeReason.EMPTY_BATCH),
        ({"input": "a"}, {}, DecodeReason.NOT_AN_INFERENCE),
        ({"input": "a"}, {"error": {"message": "x"}}, DecodeReason.ANSWER_FAILED),
        ({"input": "a"}, openai(), DecodeReason.EMPTY_BATCH),
        ({"input": "a"}, openai([]), DecodeReason.EMPTY_BATCH),
        ({"input": "a"}, openai([1], [2]), DecodeReason.ROWS_MISMATCH),
        ({"input": ["a", "b"]}, openai([1], [2, 3]), DecodeReason.RAGGED_ROWS),
        ({"input": "a"}, openai(["x"]), DecodeReason.WRONG_TYPE),
        ({"input": "a"}, openai("AAAAAAA="), DecodeReason.WRONG_TYPE),
        ({"input": "a"}, openai("!"), DecodeReason.EMPTY_BATCH),
        ({"input": "a"}, openai("*~*~*~*~"), DecodeReason.EMPTY_BATCH),
        ({"input": "a"}, openai([1.0] * (VECTOR_WIDTH_MAX + 1)), DecodeReason.TOO_MANY_COLUMNS),
        ({"input": "a"}, openai("A" * 100_000), DecodeReason.TOO_MANY_COLUMNS),
        ({"input": "a"}, openai({"a": 1}), DecodeReason.WRONG_TYPE),
    ],
)
def test_what_is_no_embedding_has_its_reason(
    post: Post, asked: Any, said: Any, reason: DecodeReason
) -> None:
    assert refused(post(PATH, asked, said)) is reason


@given(
    vectors=st.lists(
        st.lists(st.floats(allow_nan=False, width=64), min_size=2, max_size=2),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_any_numbers_a_server_can_write_become_a_vector(
    post: Post, vectors: list[list[float]]
) -> None:
    finite = [[value if math.isfinite(value) else None for value in vector] for vector in vectors]
    inference = decode(post(PATH, {"input": ["a"] * len(vectors)}, openai(*finite)))
    assert inference.vectors["embedding"].shape == (len(vectors), 2)
