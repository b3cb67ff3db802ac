"""Embeddings: texts in, vectors out. OpenAI's API, which vLLM and llama.cpp share, and Ollama's.

`POST .../v1/embeddings`, `/api/embed`, `/api/embeddings` and `/embedding`. The vectors are kept
whole for detectors that look at all dimensions at once; do not make columns of them: no dimension
of an embedding means anything by itself.
"""

import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from agent.decoders.body import concluded, request_json, require_answered, response_json
from agent.decoders.chat import prompts_of_input
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.replies import prompt_descriptors, token_count
from agent.exchange import Exchange
from agent.generation import Generation
from agent.inference import Inference

VECTOR_WIDTH_MAX: Final = 16_384
_PATH: Final = re.compile(r"(/v\d+/embeddings|/api/embed(dings)?|/embeddings?)/?$")
_INPUTS: Final = ("input", "prompt", "content")


class Embeddings:
    """One row for each text; the vectors are called `embedding`."""

    name = "embeddings"

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings

    def matches(self, exchange: Exchange) -> bool:
        return _PATH.search(exchange.path) is not None

    def decode(self, exchange: Exchange) -> Inference:
        require_answered(exchange)
        limits = self._settings.limits
        asked = request_json(exchange, limits)
        given = next((name for name in _INPUTS if isinstance(asked, dict) and name in asked), None)
        if given is None:
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "the request has no input")
        prompts = prompts_of_input(asked[given])
        if not prompts:
            raise DecodeError(DecodeReason.EMPTY_BATCH, "no inputs")
        if len(prompts) > limits.rows_max:
            raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{len(prompts)} > {limits.rows_max}")
        said = response_json(exchange, limits)
        if isinstance(said, dict) and said.get("error"):
            raise DecodeError(DecodeReason.ANSWER_FAILED, "the answer holds an error")
        vectors = _vectors(said, limits)
        if len(vectors) != len(prompts):
            detail = f"{len(vectors)} vectors for {len(prompts)} inputs"
            raise DecodeError(DecodeReason.ROWS_MISMATCH, detail)
        tokens = _input_tokens(said)
        described = vector_descriptors(vectors)
        columns = {f"embedding.{name}": values for name, values in described.items()}
        is_alone = len(prompts) == 1
        questions = [prompt_descriptors(p, tokens if is_alone else None) for p in prompts]
        names = (*columns, *questions[0])[: limits.columns_max]
        columns |= {name: np.array([q[name] for q in questions]) for name in questions[0]}
        inference = concluded(
            exchange,
            names=names,
            rows=np.column_stack([columns[name] for name in names]),
            outputs={f"embedding.{name}": values.tolist() for name, values in described.items()},
            body_ids=(None, said.get("id") if isinstance(said, dict) else None),
        )
        generation = _generation(exchange, tokens, inference.weight)
        kept = self._settings.text_read_characters
        texts = {"prompt": [prompt.text[:kept] for prompt in prompts]} if kept else {}
        return replace(
            inference, vectors={"embedding": vectors}, generation=generation, texts=texts
        )


def vector_descriptors(vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Each of n vectors as a few numbers: norm, mean, and the largest entry's share of all.

    A share near 1 is a vector that has collapsed onto one dimension.

    >>> vector_descriptors(np.array([[3, 4]], dtype=np.float32))["norm"].tolist()
    [5.0]
    """
    wide = vectors.astype(np.float64)
    absolute = np.abs(wide)
    with np.errstate(all="ignore"):  # what is not finite in a vector is not in its descriptors
        return {
            "norm": np.sqrt((wide * wide).sum(axis=1)),
            "mean": wide.mean(axis=1),
            "max_share": absolute.max(axis=1) / absolute.sum(axis=1),
        }


def _vectors(said: Any, limits: DecodeLimits) -> NDArray[np.float32]:
    """The vectors of an answer, in the order of the inputs."""
    found: Any = said
    if isinstance(said, dict):
        found = next((said[name] for name in ("data", "embeddings") if name in said), None)
        if found is None and "embedding" in said:
            found = [said["embedding"]]
    if not isinstance(found, list):
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "the answer holds no embeddings")
    if not found:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "no embeddings")
    if len(found) > limits.rows_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{len(found)} > {limits.rows_max}")
    vectors = [_vector(entry) for entry in _ordered(found)]
    widths = set(map(len, vectors))
    if len(widths) > 1:
        raise DecodeError(DecodeReason.RAGGED_ROWS, f"vectors of lengths {sorted(widths)[:5]}")
    if len(vectors) * widths.pop() > limits.cells_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"over {limits.cells_max} cells")
    return np.stack(vectors)


def _ordered(entries: Sequence[Any]) -> Sequence[Any]:
    """By `index`, where every entry has one of its own; as they came otherwise."""
    places = [entry.get("index") if isinstance(entry, Mapping) else None for entry in entries]
    if sorted(place for place in places if type(place) is int) != list(range(len(entries))):
        return entries
    by_place = dict(zip(places, entries, strict=True))
    return [by_place[place] for place in range(len(entries))]


def _vector(entry: Any) -> NDArray[np.float32]:
    """One vector: numbers, or their bytes in base64; llama.cpp nests it once more."""
    if isinstance(entry, Mapping):
        entry = entry.get("embedding")
    if isinstance(entry, list) and len(entry) == 1 and isinstance(entry[0], list):
        entry = entry[0]
    if isinstance(entry, str):
        return _unpacked(entry)
    if not isinstance(entry, list) or not set(map(type, entry)) <= {int, float, type(None)}:
        raise DecodeError(DecodeReason.WRONG_TYPE, "an embedding is an array of numbers")
    _require_width(len(entry))
    with np.errstate(over="ignore"):
        return np.array(entry, dtype=np.float64).astype(np.float32)


def _unpacked(text: str) -> NDArray[np.float32]:
    """Little-endian float32, four bytes each."""
    _require_width(len(text) * 3 // 16)
    try:
        data = binascii.a2b_base64(text)
    except (binascii.Error, ValueError):
        raise DecodeError(DecodeReason.WRONG_TYPE, "an embedding that is no base64") from None
    if len(data) % 4:
        raise DecodeError(DecodeReason.WRONG_TYPE, "an embedding of broken floats")
    _require_width(len(data) // 4)
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _require_width(width: int) -> None:
    if width == 0:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "an embedding without entries")
    if width > VECTOR_WIDTH_MAX:
        raise DecodeError(DecodeReason.TOO_MANY_COLUMNS, f"{width} > {VECTOR_WIDTH_MAX}")


def _input_tokens(said: Any) -> int | None:
    if not isinstance(said, dict):
        return None
    usage = said.get("usage")
    counted = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    return token_count(said.get("prompt_eval_count") if counted is None else counted)


def _generation(exchange: Exchange, tokens: int | None, weight: float) -> Generation:
    """Embedding spends tokens too, though it makes none."""
    return Generation(
        version=exchange.version,
        weight=weight,
        streamed=False,
        whole=True,
        duration_s=exchange.duration_s,
        first_token_s=None,
        input_tokens=tokens,
        output_tokens=None,
        basis="none",
        finish_reasons=(),
    )
