"""Chats and completions in the dialects of several servers, whole, broken and interrupted."""

import gzip
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decoders.chat import Chat
from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.exchange import Exchange
from agent.generation import Generation
from agent.inference import Inference
from agent.schema import SchemaSettings, choose_outputs
from tests.decoders.conftest import Post
from tests.decoders.language import (
    EVENTS,
    GATEWAY,
    LLAMA_CPP,
    OLLAMA,
    VLLM,
    asked,
    chunk,
    events,
    usage,
)

PATH = "/v1/chat/completions"
TIMES: dict[str, Any] = {"first_byte_s": 0.1, "first_body_s": 0.2, "duration_s": 1.1}


def decode(exchange: Exchange, **settings: Any) -> Inference:
    return Chat(DecoderSettings(**settings)).decode(exchange)


def refused(exchange: Exchange) -> tuple[DecodeReason, Generation | None]:
    with pytest.raises(DecodeError) as error:
        decode(exchange)
    return error.value.reason, error.value.generation


def told(inference: Inference) -> Generation:
    assert inference.generation is not None
    return inference.generation


def column(inference: Inference, name: str) -> list[float]:
    assert inference.names is not None
    place = inference.names.index(name)
    return [float(row[place]) for row in inference.rows]  # type: ignore[arg-type]


def streamed(post: Post, body: bytes, **other: Any) -> Exchange:
    fields = {"response_headers": EVENTS, **TIMES, **other}
    return post(PATH, fields.pop("asked", asked()), body, **fields)


@pytest.mark.parametrize(
    ("body", "tokens_in", "tokens_out", "basis"),
    [
        (VLLM, 17, 4, "usage"),
        (LLAMA_CPP, None, 5, "usage"),
        (OLLAMA, None, 3, "counted"),
        (GATEWAY, None, 2, "counted"),
    ],
)
def test_a_stream_says_the_same_in_every_dialect(
    post: Post, body: bytes, tokens_in: int | None, tokens_out: int, basis: str
) -> None:
    inference = decode(streamed(post, body))
    generation = told(inference)
    assert (generation.streamed, generation.whole) == (True, True)
    assert (generation.input_tokens, generation.output_tokens) == (tokens_in, tokens_out)
    assert generation.basis == basis
    assert generation.finish_reasons == ("stop",)
    assert generation.first_token_s == 0.2
    assert generation.per_token_s == pytest.approx(0.9 / (tokens_out - 1))
    assert inference.outputs["finish_reason"] == ["stop"]
    assert column(inference, "reply.length") == [len("Up the map.")]
    assert column(inference, "prompt.length") == [len("Be brief.\nWhich way is north?")]
    assert column(inference, "prompt.last_length") == [len("Which way is north?")]
    assert column(inference, "prompt.messages") == [2.0]
    assert column(inference, "prompt.has_system") == [1.0]
    assert (inference.id, inference.aliases) == ("chatcmpl-1", ("minted-1",))


def test_an_answer_in_one_piece_has_tokens_and_no_time_per_token(post: Post) -> None:
    said = {
        "id": "chatcmpl-2",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Up the map."},
                "logprobs": {"content": [{"token": "Up", "logprob": -0.1}]},
                "finish_reason": "length",
            }
        ],
        "usage": usage(17, 4) | {"completion_tokens_details": {"reasoning_tokens": 0}},
    }
    inference = decode(post("/openai/v1/chat/completions", asked(stream=False), said, **TIMES))
    generation = told(inference)
    assert (generation.streamed, generation.first_token_s) == (False, None)
    assert generation.per_token_s is None
    assert (generation.input_tokens, generation.output_tokens) == (17, 4)
    assert column(inference, "reply.tokens") == [4.0]
    assert inference.outputs["finish_reason"] == ["length"]
    said.pop("usage")
    unknown = told(decode(post(PATH, asked(stream=False), said, **TIMES)))
    assert (unknown.output_tokens, unknown.basis) == (None, "unknown")


def test_how_an_answer_ends_is_the_prediction_unless_the_schema_says_otherwise(
    post: Post,
) -> None:
    outputs = decode(streamed(post, VLLM)).outputs
    assert choose_outputs(outputs, SchemaSettings()) == ("finish_reason", None)
    wanted = SchemaSettings(prediction="reply.length")
    assert choose_outputs(outputs, wanted) == ("reply.length", None)


def test_time_to_first_token_falls_back_to_the_first_byte(post: Post) -> None:
    exchange = streamed(post, VLLM, first_body_s=None)
    assert told(decode(exchange)).first_token_s == 0.1
    nothing = streamed(post, VLLM, first_body_s=None, first_byte_s=None)
    assert told(decode(nothing)).first_token_s is None
    assert told(decode(nothing)).per_token_s is None


def test_completions_have_a_row_for_each_prompt(post: Post) -> None:
    said: dict[str, Any] = {
        "choices": [
            {"index": place, "text": text, "finish_reason": "stop"}
            for place, text in enumerate(["a", "aa", "b", "bbb"])
        ],
        "usage": usage(9, 8),
    }
    question = {"prompt": ["one", "three"], "n": 2}
    inference = decode(post("/v1/completions", question, said))
    assert column(inference, "prompt.length") == [3.0, 5.0]
    assert column(inference, "reply.length") == [1.0, 1.0]
    assert len(told(inference).finish_reasons) == 4
    assert all(math.isnan(tokens) for tokens in column(inference, "reply.tokens"))
    said["choices"] = said["choices"][:1]
    assert refused(post("/v1/completions", question, said))[0] is DecodeReason.ROWS_MISMATCH


def test_prompts_may_come_as_token_ids(post: Post) -> None:
    said = {"choices": [{"text": "x", "finish_reason": "stop"}]}
    for ids in ([1, 2, 3], [[1, 2, 3]]):
        inference = decode(post("/v1/completions", {"prompt": ids}, said))
        assert column(inference, "prompt.tokens") == [3.0]
        assert math.isnan(column(inference, "prompt.length")[0])
    for wrong in (5, [1, "a"], [None], {"a": 1}):
        exchange = post("/v1/completions", {"prompt": wrong}, said)
        assert refused(exchange)[0] is DecodeReason.WRONG_TYPE


def test_several_choices_are_told_apart_by_their_index(post: Post) -> None:
    body = events(
        chunk({"content": "a"}, index=0),
        chunk({"content": "bb"}, index=1),
        chunk({"content": "a"}, index=0, finish="stop"),
        chunk({"content": "b"}, index=1, finish="length"),
        chunk({"content": "never"}, index=10**9),
        chunk({"content": "nor this"}, index=-1),
    )
    inference = decode(streamed(post, body, asked=asked(n=2)))
    assert column(inference, "reply.length") == [2.0]
    assert told(inference).finish_reasons == ("stop", "length")
    assert told(inference).output_tokens == 4


def test_calls_of_tools_are_counted_and_only_plain_names_are_kept(post: Post) -> None:
    call = {"index": 0, "id": "c1", "type": "function"}
    body = events(
        chunk({"tool_calls": [call | {"function": {"name": "get_weather", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ' "Oslo"}'}}]}),
        chunk({"tool_calls": [{"index": 1, "function": {"name": "my secret is x"}}]}),
        chunk({}, finish="tool_calls"),
    )
    question = asked(tools=[{"type": "function", "function": {"name": "get_weather"}}])
    inference = decode(streamed(post, body, asked=question))
    assert column(inference, "reply.tool_calls") == [2.0]
    assert column(inference, "reply.length") == [0.0]
    assert column(inference, "prompt.tools") == [1.0]
    assert inference.outputs["tool"] == ["get_weather"]
    assert told(inference).output_tokens == 4
    old = {"message": {"content": None, "function_call": {"name": "two words"}}}
    inference = decode(post(PATH, asked(), {"choices": [old | {"finish_reason": "function_call"}]}))
    assert inference.outputs["tool"] == ["other"]
    assert inference.outputs["finish_reason"] == ["function_call"]


def test_a_refusal_and_silent_thoughts_are_seen(post: Post) -> None:
    body = events(
        chunk({"reasoning_content": "Hmm", "reasoning": "Hmm"}),
        chunk({"reasoning": "!"}),
        chunk({"refusal": "I can"}),
        chunk({"refusal": "not."}, finish="content_filter"),
    )
    inference = decode(streamed(post, body))
    assert column(inference, "reply.refused") == [1.0]
    assert column(inference, "reply.thought_length") == [4.0]
    assert column(inference, "reply.length") == [9.0]
    assert told(inference).output_tokens == 4


def test_parts_of_a_message_are_texts_and_images(post: Post) -> None:
    parts = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "this?"},
        {"type": "text"},
        None,
    ]
    question = asked(messages=[{"role": "user", "content": parts}, "odd", {"role": "user"}])
    inference = decode(streamed(post, VLLM, asked=question))
    assert column(inference, "prompt.images") == [1.0]
    assert column(inference, "prompt.messages") == [3.0]
    assert column(inference, "prompt.has_system") == [0.0]
    assert column(inference, "prompt.length") == [len("What is\nthis?\n\n")]


def test_a_client_that_leaves_in_mid_stream_leaves_its_latency(post: Post) -> None:
    body = VLLM[: VLLM.index(b" map.") - 5]
    reason, generation = refused(
        streamed(post, body, outcome="client_disconnect", response_truncated=True, weight=4.0)
    )
    assert reason is DecodeReason.INCOMPLETE_EXCHANGE
    assert generation is not None
    assert (generation.first_token_s, generation.whole) == (0.2, False)
    assert (generation.output_tokens, generation.basis) == (2, "counted")
    assert generation.per_token_s == pytest.approx(0.9)
    assert generation.finish_reasons == ("interrupted",)
    assert generation.weight == 4.0


def test_a_client_that_leaves_after_the_end_has_seen_it_all(post: Post) -> None:
    gone = streamed(post, VLLM, outcome="client_disconnect", response_truncated=True)
    assert told(decode(gone)).basis == "usage"


def test_a_client_that_leaves_before_the_first_token_has_no_time_to_it(post: Post) -> None:
    reason, generation = refused(
        streamed(post, b"", outcome="client_disconnect", response_truncated=True)
    )
    assert reason is DecodeReason.INCOMPLETE_EXCHANGE
    assert generation is not None
    assert (generation.first_token_s, generation.output_tokens) == (None, 0)


def test_a_copy_that_was_cut_gives_times_but_no_time_per_token(post: Post) -> None:
    body = VLLM[: VLLM.index(b" map.")]
    reason, generation = refused(streamed(post, body, response_truncated=True))
    assert reason is DecodeReason.BODY_TRUNCATED
    assert generation is not None
    assert (generation.first_token_s, generation.duration_s) == (0.2, 1.1)
    assert (generation.output_tokens, generation.basis) == (2, "cut")
    assert generation.per_token_s is None
    assert generation.finish_reasons == ()


def test_a_copy_that_was_cut_behind_its_usage_is_exact(post: Post) -> None:
    body = VLLM[: VLLM.index(b"data: [DONE]")]
    _, generation = refused(streamed(post, body, response_truncated=True))
    assert generation is not None
    assert (generation.output_tokens, generation.basis) == (4, "usage")
    assert generation.finish_reasons == ("stop",)


def test_usage_that_runs_along_is_no_final_word_in_a_copy_that_was_cut(post: Post) -> None:
    body = events(*(chunk({"content": "x"}, usage=usage(17, n + 1)) for n in range(30)), done=False)
    _, generation = refused(streamed(post, body, response_truncated=True))
    assert generation is not None
    assert (generation.output_tokens, generation.basis) == (30, "cut")
    assert generation.input_tokens == 17


def test_a_request_that_was_cut_leaves_the_answer_known(post: Post) -> None:
    reason, generation = refused(streamed(post, VLLM, request_truncated=True))
    assert reason is DecodeReason.BODY_TRUNCATED
    assert generation is not None
    assert (generation.whole, generation.basis) == (True, "usage")


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "out of memory", "type": "server_error", "code": 500}},
        {"error": "engine died"},
        {"object": "error", "message": "engine died", "code": 500},
        b'event: error\ndata: {"message": "engine died"}\n\n',
    ],
)
@pytest.mark.parametrize("done", [True, False])
def test_an_error_in_a_good_stream_is_a_failure(post: Post, error: Any, done: bool) -> None:
    body = events(chunk({"content": "Up"}), chunk({"content": " the"}), error, done=done)
    reason, generation = refused(streamed(post, body))
    assert reason is DecodeReason.ANSWER_FAILED
    assert generation is not None
    assert generation.finish_reasons == ("error",)
    assert (generation.output_tokens, generation.whole) == (2, False)


def test_an_error_in_one_piece_with_a_good_status_is_a_failure_too(post: Post) -> None:
    reason, generation = refused(post(PATH, asked(), {"error": {"message": "no"}}))
    assert reason is DecodeReason.ANSWER_FAILED
    assert generation is not None
    assert generation.first_token_s is None


def test_a_stream_that_just_stops_was_interrupted(post: Post) -> None:
    body = events(chunk({"content": "Up"}), chunk({"content": " the"}), done=False)
    reason, generation = refused(streamed(post, body))
    assert reason is DecodeReason.INCOMPLETE_EXCHANGE
    assert generation is not None
    assert generation.finish_reasons == ("interrupted",)


def test_a_stream_without_a_reason_but_with_its_end_is_whole(post: Post) -> None:
    inference = decode(streamed(post, events(chunk({"content": "Up"}))))
    assert told(inference).finish_reasons == ("none",)
    assert inference.outputs["finish_reason"] == ["none"]


@pytest.mark.parametrize("choices", [None, [], "x", {}, [None], [5]])
def test_an_answer_without_choices_is_no_inference(post: Post, choices: Any) -> None:
    said = {"choices": choices, "usage": usage(3, 0)}
    assert refused(post(PATH, asked(), said)) == (DecodeReason.NOT_AN_INFERENCE, None)
    reason, generation = refused(streamed(post, events(said)))
    assert (reason, generation) == (DecodeReason.NOT_AN_INFERENCE, None)


def test_a_request_that_asks_nothing_is_no_inference_but_its_tokens_were_spent(post: Post) -> None:
    questions: list[Any] = [{}, [], "x", {"model": "m"}]
    for question in questions:
        reason, generation = refused(streamed(post, VLLM, asked=question))
        assert reason is DecodeReason.NOT_AN_INFERENCE
        assert generation is not None
    reason, _ = refused(streamed(post, VLLM, asked={"messages": []}))
    assert reason is DecodeReason.EMPTY_BATCH


@pytest.mark.parametrize("bad", ["many", True, -1, 1.5, 10**12, None])
def test_counts_that_are_none_do_not_poison_the_counters(post: Post, bad: Any) -> None:
    last = {"choices": [], "usage": {"prompt_tokens": bad, "completion_tokens": bad}}
    body = events(chunk({"content": "Up"}), chunk({"content": "!"}, finish="stop"), last)
    generation = told(decode(streamed(post, body)))
    assert (generation.input_tokens, generation.output_tokens) == (None, 2)


def test_a_usage_of_zeros_beside_an_answer_is_no_count(post: Post) -> None:
    body = events(chunk({"content": "Up"}), chunk({"content": "!"}, finish="stop"),
                  chunk(usage=usage(0, 0)))  # fmt: skip
    spoken = told(decode(streamed(post, body)))
    assert (spoken.input_tokens, spoken.output_tokens, spoken.basis) == (None, 2, "counted")
    silent = told(decode(streamed(post, events(chunk(finish="stop", usage=usage(5, 0))))))
    assert (silent.input_tokens, silent.output_tokens, silent.basis) == (5, 0, "usage")


def test_a_packed_stream_is_unpacked_even_when_it_was_cut(post: Post) -> None:
    noise = "".join(chr(0x4E00 + n * 7_919 % 5_000) for n in range(3_000))
    body = events(
        *(chunk({"content": noise[n : n + 9]}) for n in range(0, 3_000, 9)),
        chunk({}, finish="stop"),
    )
    packed = gzip.compress(body)
    headers = EVENTS | {"content-encoding": "gzip"}
    whole = decode(streamed(post, packed, response_headers=headers))
    assert column(whole, "reply.length") == [3_000.0]
    cut = streamed(
        post, packed[: len(packed) // 2], response_headers=headers, response_truncated=True
    )
    _, generation = refused(cut)
    assert generation is not None
    assert generation.output_tokens is not None
    assert generation.output_tokens > 50


def test_a_stream_is_known_by_its_looks_where_its_type_is_wrong(post: Post) -> None:
    for headers in ({}, {"content-type": "application/json"}):
        assert told(decode(streamed(post, VLLM, response_headers=headers))).streamed


def test_texts_are_carried_only_when_asked_and_only_so_far(post: Post) -> None:
    assert decode(streamed(post, VLLM)).texts == {}
    kept = decode(streamed(post, VLLM), text_kept_characters=5).texts
    assert kept == {"prompt": ["Be br"], "reply": ["Up th"]}


SECRET = "correct horse battery staple"
PLACES = st.sampled_from(["content", "reasoning", "refusal", "name", "arguments", "error", "raw"])


def secret_chunk(place: str) -> Any:
    if place == "error":
        return {"error": {"message": SECRET}}
    if place == "raw":
        return f"data: {SECRET}\n\n".encode()
    if place in ("name", "arguments"):
        return chunk({"tool_calls": [{"index": 0, "function": {place: SECRET}}]})
    return chunk({place: SECRET})


@given(places=st.lists(PLACES, max_size=5), ending=st.integers(0, 400), data=st.data())
def test_no_word_of_a_prompt_or_a_reply_leaves_the_decoder(
    post: Post, places: list[str], ending: int, data: st.DataObject
) -> None:
    body = events(*map(secret_chunk, places), chunk({}, finish=data.draw(
        st.sampled_from(["stop", SECRET, None]))))  # fmt: skip
    question: Any = data.draw(
        st.sampled_from(
            [asked(messages=[{"role": SECRET, "content": SECRET}]), {SECRET: SECRET}, SECRET,
             {"prompt": {SECRET: 1}}, {"messages": [SECRET]}, {"messages": [{"content": [SECRET]}]}]
        )
    )  # fmt: skip
    cut = data.draw(st.booleans())
    exchange = streamed(
        post, body[:-ending] if cut and ending else body, asked=question, response_truncated=cut
    )
    try:
        shown = repr(decode(exchange))
    except DecodeError as error:
        shown = f"{error} {error.detail} {error.generation} {error.__cause__} {error.__context__}"
    assert "horse" not in shown


@given(
    cuts=st.integers(0, len(VLLM)), outcome=st.sampled_from(["ok", "client_disconnect", "timeout"])
)
def test_wherever_a_stream_was_cut_the_figures_never_exceed_the_truth(
    post: Post, cuts: int, outcome: str
) -> None:
    exchange = streamed(post, VLLM[:cuts], response_truncated=True, outcome=outcome)
    try:
        generation = decode(exchange).generation
    except DecodeError as error:
        generation = error.generation
    if generation is None:
        return
    assert (generation.output_tokens or 0) <= 4
    assert generation.first_token_s in (None, 0.2)
