"""Bodies unpacked and parsed, within limits: what every decoder does before it looks inside.

Do not parse a body before `require_answered` let its exchange pass, and never unpack without a
bound: a kilobyte of gzip can hold a gigabyte.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason
from agent.exchange import Exchange
from agent.inference import Inference, Outputs, Rows, identify
from agent.sampling import kept

_GZIP_MAGIC = b"\x1f\x8b"
_ASKING = frozenset({"POST", "PUT"})  # PUT is what `curl -T image.jpg` sends to TorchServe
_INTEGER_DIGITS_MAX = 18  # fits 64 bits whatever the sign
# The binary tensor extension of Open Inference: JSON first, raw tensors after it.
BINARY_TENSORS_HEADER = "inference-header-content-length"


def require_answered(exchange: Exchange) -> None:
    """Passes exchanges that carry a question and a good answer, both whole.

    Raises:
        DecodeError: not_an_inference, incomplete_exchange, error_status, body_truncated.
    """
    if exchange.method not in _ASKING:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, f"{exchange.method} asks no model")
    if exchange.outcome != "ok" or exchange.status == 0:
        raise DecodeError(DecodeReason.INCOMPLETE_EXCHANGE, f"it ended as {exchange.outcome}")
    if not 200 <= exchange.status < 300:
        raise DecodeError(DecodeReason.ERROR_STATUS, f"the answer was {exchange.status}")
    if exchange.request_truncated or exchange.response_truncated:
        which = "request" if exchange.request_truncated else "response"
        raise DecodeError(DecodeReason.BODY_TRUNCATED, f"the {which} was not kept whole")


def unpacked(body: bytes, headers: Mapping[str, str], limits: DecodeLimits) -> bytes:
    """The body without its content encoding; at most `body_bytes_max` long.

    Gzip is also recognised without its header, which Knative strips while the body stays packed.

    Raises:
        DecodeError: body_too_large, unsupported_encoding.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("gzip", "x-gzip") or body.startswith(_GZIP_MAGIC):
        body = _inflated(body, 31, limits)
    elif encoding == "deflate":
        # By the standard zlib-wrapped, by some senders raw: the first byte tells.
        body = _inflated(body, 15 if body[:1] == b"\x78" else -15, limits)
    elif encoding not in ("identity", ""):
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, f"content-encoding {encoding[:40]}")
    if len(body) > limits.body_bytes_max:
        raise DecodeError(DecodeReason.BODY_TOO_LARGE, f"over {limits.body_bytes_max} bytes")
    return body


def _inflated(body: bytes, window_bits: int, limits: DecodeLimits) -> bytes:
    inflate = zlib.decompressobj(window_bits)
    try:
        plain = inflate.decompress(body, limits.body_bytes_max + 1)
    except zlib.error as error:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, f"broken packing: {error}") from None
    if not inflate.eof and len(plain) <= limits.body_bytes_max:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "broken packing: it ends early")
    return plain


def request_json(exchange: Exchange, limits: DecodeLimits) -> Any:
    """The request's body as JSON. Raises `DecodeError` as `unpacked` and `parsed` do."""
    return _json(exchange.request_body, exchange.request_headers, limits)


def response_json(exchange: Exchange, limits: DecodeLimits) -> Any:
    """The response's body as JSON. Raises `DecodeError` as `unpacked` and `parsed` do."""
    return _json(exchange.response_body, exchange.response_headers, limits)


def _json(body: bytes, headers: Mapping[str, str], limits: DecodeLimits) -> Any:
    if BINARY_TENSORS_HEADER in headers:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "tensors in binary form")
    return parsed(unpacked(body, headers, limits), limits)


def parsed(body: bytes, limits: DecodeLimits) -> Any:
    """JSON bytes as a value of dict, list, str, float, int, bool and None.

    The tokens NaN, Infinity and -Infinity are no JSON, but TensorFlow Serving and Python's own
    json write them: bodies that hold them take a slower parser, so that such cells count as
    missing and out of range instead of being lost with their rows.

    Raises:
        DecodeError: not_json, too_deep, body_too_large (NaN tokens in a body over
            `nan_body_bytes_max`).
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "depth" in str(error) or "recursion" in str(error):  # newer and older releases
            raise DecodeError(DecodeReason.TOO_DEEP, "JSON nested without end") from None
        if b"NaN" not in body and b"Infinity" not in body:
            raise DecodeError(DecodeReason.NOT_JSON, str(error)) from None
    if len(body) > limits.nan_body_bytes_max:
        raise DecodeError(DecodeReason.BODY_TOO_LARGE, "NaN tokens in a body this long")
    return _parsed_with_nan(body)


def _parsed_with_nan(body: bytes) -> Any:
    try:
        value = json.loads(body.decode(), parse_int=_bounded_int)
        orjson.dumps(value)  # refuses half surrogates, which no later step could write anywhere
    except RecursionError:
        raise DecodeError(DecodeReason.TOO_DEEP, "JSON nested without end") from None
    except (ValueError, TypeError) as error:
        if "ecursion" in str(error):  # orjson writes a few hundred levels, fewer than it reads
            raise DecodeError(DecodeReason.TOO_DEEP, "JSON nested without end") from None
        raise DecodeError(DecodeReason.NOT_JSON, str(error)) from None
    return value


def _bounded_int(digits: str) -> int | float:
    """As orjson does: what does not fit 64 bits is a float, infinite if need be."""
    return int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else float(digits)


def concluded(
    exchange: Exchange,
    *,
    names: tuple[str, ...] | None,
    rows: Rows,
    outputs: Outputs,
    body_ids: tuple[object, ...] = (),
) -> Inference:
    """The inference, once its parts are known."""
    identity, aliases = identify(exchange, *body_ids)
    keeping = kept(exchange)
    return Inference(
        id=identity,
        aliases=aliases,
        at=exchange.started_at,
        version=exchange.version,
        slot=exchange.slot,
        weight=keeping.weight,
        uniform=keeping.uniform,
        latency_s=exchange.duration_s,
        names=names,
        rows=rows,
        outputs=outputs,
    )
