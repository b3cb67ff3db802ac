"""Triton's generate, and the own APIs of Ollama and llama.cpp, in one piece and streamed."""

from typing import Any

import pytest

from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.generate import Generate
from agent.exchange import Exchange
from agent.generation import Generation
from tests.decoders.conftest import Post
from tests.decoders.language import EVENTS, LINES, events, lines
from tests.decoders.test_chat import TIMES, column, told

TRITON = "/v2/models/m/versions/2/generate_stream"


def decoder() -> Generate:
    return Generate(DecoderSettings())


def refused(exchange: Exchange) -> tuple[DecodeReason, Generation | None]:
    with pytest.raises(DecodeError) as error:
        decoder().decode(exchange)
    return error.value.reason, error.value.generation


def event(text: str) -> dict[str, Any]:
    return {"model_name": "m", "model_version": "2", "sequence_end": False, "text_output": text}


def test_a_stream_of_triton_needs_no_last_word(post: Post) -> None:
    body = events(event("Up"), event(" the"), event(" map."), done=False)
    exchange = post(TRITON, {"text_input": "North?"}, body, response_headers=EVENTS, **TIMES)
    assert decoder().matches(exchange)
    inference = decoder().decode(exchange)
    assert column(inference, "prompt.length") == [6.0]
    assert column(inference, "reply.length") == [11.0]
    generation = told(inference)
    assert (generation.output_tokens, generation.basis) == (3, "counted")
    assert generation.per_token_s == pytest.approx(0.45)
    assert generation.finish_reasons == ("none",)


def test_an_error_may_follow_a_good_beginning(post: Post) -> None:
    body = events(event("Up"), {"error": "out of memory"}, done=False)
    exchange = post(TRITON, {"text_input": "North?"}, body, response_headers=EVENTS, **TIMES)
    reason, generation = refused(exchange)
    assert reason is DecodeReason.ANSWER_FAILED
    assert generation is not None
    assert generation.finish_reasons == ("error",)


def test_triton_in_one_piece(post: Post) -> None:
    asked = {"id": "42", "text_input": ["North?"], "parameters": {"max_tokens": 9}}
    said = event("Up the map.") | {"id": "42", "text_output": ["Up the map."]}
    inference = decoder().decode(post("/v2/models/m/generate", asked, said))
    assert (inference.id, inference.aliases) == ("42", ("minted-1",))
    assert column(inference, "reply.length") == [11.0]
    assert told(inference).basis == "unknown"


def test_what_triton_is_asked_in_other_words_is_not_guessed(post: Post) -> None:
    said = event("x")
    for asked, reason in (
        ({"question": "North?"}, DecodeReason.NOT_AN_INFERENCE),
        ({"text_input": ["a", "b"]}, DecodeReason.ROWS_MISMATCH),
        ({"text_input": 5}, DecodeReason.WRONG_TYPE),
        ({"text_input": []}, DecodeReason.EMPTY_BATCH),
    ):
        assert refused(post("/v2/models/m/generate", asked, said))[0] is reason
    no_text = {"model_name": "m", "tokens": [1]}
    assert refused(post("/v2/models/m/generate", {"text_input": "a"}, no_text)) == (
        DecodeReason.NOT_AN_INFERENCE,
        None,
    )


OLLAMA_END = {
    "model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant"},
    "done": True, "done_reason": "length", "total_duration": 5, "prompt_eval_count": 11,
    "eval_count": 3,
}  # fmt: skip


def test_ollama_streams_lines_unless_told_otherwise(post: Post) -> None:
    pieces = [{"message": {"role": "assistant", "content": t}, "done": False} for t in ("U", "p")]
    call = {"function": {"name": "look", "arguments": {}}}
    thought = {"message": {"content": "", "thinking": "Hm", "tool_calls": [call]}, "done": False}
    body = lines(*pieces, thought, OLLAMA_END)
    asked = {"model": "m", "messages": [{"role": "user", "content": "North?", "images": ["aGk="]}]}
    inference = decoder().decode(post("/api/chat", asked, body, response_headers=LINES, **TIMES))
    assert column(inference, "reply.length") == [2.0]
    assert column(inference, "reply.tool_calls") == [1.0]
    assert column(inference, "reply.thought_length") == [2.0]
    assert column(inference, "prompt.images") == [1.0]
    generation = told(inference)
    assert (generation.input_tokens, generation.output_tokens) == (11, 3)
    assert generation.finish_reasons == ("length",)
    assert generation.streamed
    # The same without its content type: a stream by its looks.
    bare = decoder().decode(post("/api/chat", asked, body, response_headers={}, **TIMES))
    assert bare.generation == generation


def test_ollama_generate_has_a_system_beside_its_prompt(post: Post) -> None:
    asked = {"prompt": "North?", "system": "Be brief.", "images": []}
    body = lines({"response": "Up", "done": False}, {"response": "", "done": True})
    inference = decoder().decode(post("/api/generate", asked, body, response_headers=LINES))
    assert column(inference, "prompt.has_system") == [1.0]
    assert column(inference, "prompt.length") == [16.0]
    assert told(inference).output_tokens == 1
    whole = decoder().decode(
        post("/api/generate", asked | {"stream": False}, {"response": "Up", "done": True})
    )
    assert not told(whole).streamed


def test_ollama_that_stops_without_its_last_line_was_interrupted(post: Post) -> None:
    body = lines({"response": "Up", "done": False})
    exchange = post("/api/generate", {"prompt": "a"}, body, response_headers=LINES, **TIMES)
    reason, generation = refused(exchange)
    assert reason is DecodeReason.INCOMPLETE_EXCHANGE
    assert generation is not None
    assert generation.finish_reasons == ("interrupted",)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({"stop_type": "eos"}, "stop"),
        ({"stop_type": "word"}, "stop"),
        ({"stop_type": "limit"}, "length"),
        ({"stop_type": "none"}, "none"),
        ({"stopped_limit": True}, "length"),
        ({"stopped_eos": True}, "stop"),
    ],
)
def test_llama_cpp_says_how_it_ended_in_two_ways(
    post: Post, last: dict[str, Any], expected: str
) -> None:
    end = {"content": "", "stop": True, "tokens_predicted": 2, "tokens_evaluated": 8, **last}
    body = events(
        {"content": "Up", "stop": False}, {"content": ".", "stop": False}, end, done=False
    )
    exchange = post("/completion", {"prompt": "North?"}, body, response_headers=EVENTS, **TIMES)
    generation = told(decoder().decode(exchange))
    assert generation.finish_reasons == (expected,)
    assert (generation.input_tokens, generation.output_tokens) == (8, 2)
    assert generation.per_token_s == pytest.approx(0.9)


def test_other_endpoints_are_left_alone(post: Post) -> None:
    for path in ("/v2/models/m/infer", "/v1/completions", "/api/tags", "/completions"):
        assert not decoder().matches(post(path, {}, {}))
