"""TorchServe: `POST` or `PUT /predictions/<model>[/<version>]`, a row in the form of its handler.

TorchServe puts requests together into batches itself, so a request is one row unless its JSON
plainly holds several. Images and other binaries, and texts, are described, not kept. Do not read
its answers as columns: `{"tabby": 0.4, "tiger cat": 0.3}` names classes, and other ones each time.
"""

import re
from typing import Any

import orjson

from agent.decoders.answers import Entries, outputs_of
from agent.decoders.body import concluded, parsed, require_answered, unpacked
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.images import image_kind
from agent.decoders.opaque import binary_table, text_table
from agent.decoders.tabular import Table, require_names, table, table_of_columns
from agent.exchange import Exchange
from agent.inference import Inference

_PATH = re.compile(r"/predictions/[^/]+(/[^/]+)?/?$")
_BOUNDARY = re.compile(r"boundary=\"?(?P<boundary>[A-Za-z0-9'()+_,./:=?-]{1,70})")
_FORMS = ("instances", "inputs", "data", "body")
_ROUNDING = 1e-3  # probabilities of the best few classes add up to at most one, nearly


class TorchServe:
    """A table's features are called as the JSON calls them; an image's `image.width` and so on,
    a text's `text.length`. A ranking of classes gives `label` and `score`, else `predictions`.
    """

    name = "torchserve"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits

    def matches(self, exchange: Exchange) -> bool:
        return _PATH.search(exchange.path) is not None

    def decode(self, exchange: Exchange) -> Inference:
        require_answered(exchange)
        names, rows = _asked(exchange, self._limits)
        if names is not None:
            require_names(names, len(rows), self._limits)
        said = _said(exchange, self._limits)
        return concluded(
            exchange, names=names, rows=rows, outputs=_outputs(said, len(rows), self._limits)
        )


def _asked(exchange: Exchange, limits: DecodeLimits) -> Table:
    body = unpacked(exchange.request_body, exchange.request_headers, limits)
    content_type = exchange.request_headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        kind, body = "", _only_part(content_type, body)
    if not body:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "an empty request")
    if kind == "application/json" or body.lstrip()[:1] in (b"{", b"["):
        return _json_table(parsed(body, limits), limits)
    # What clients call it says little: curl calls everything a form, or nothing at all.
    if image_kind(body) is not None:
        return binary_table("image", [body])
    text = _text(body)
    return binary_table("data", [body]) if text is None else text_table("text", [text])


def _only_part(content_type: str, body: bytes) -> bytes:
    """The content of a form that holds one file or field, as `curl -F data=@file` sends it."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "a form without a boundary")
    mark = b"--" + found["boundary"].encode()
    parts = body.split(mark, 3)
    if len(parts) != 3 or not parts[2].startswith(b"--"):
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "a form of several parts")
    return parts[1].partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _json_table(asked: Any, limits: DecodeLimits) -> Table:
    """Several rows where lists are nested or hold objects; else the one row that was sent."""
    if isinstance(asked, dict):
        forms = [form for form in _FORMS if isinstance(asked.get(form), list | dict)]
        if len(forms) != 1:
            return _one_row(asked, limits)
        asked = asked[forms[0]]
        if isinstance(asked, dict):
            is_columns = bool(asked) and all(isinstance(cells, list) for cells in asked.values())
            return table_of_columns(asked, limits) if is_columns else _one_row(asked, limits)
    if not isinstance(asked, list):
        return _one_row(asked, limits)
    is_rows = any(isinstance(entry, list | dict) for entry in asked)
    return table(asked if is_rows else [asked], limits)


def _one_row(asked: Any, limits: DecodeLimits) -> Table:
    if isinstance(asked, str):
        return text_table("text", [asked])
    if not asked and asked != 0:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "nothing was asked")
    return table([asked], limits)


def _said(exchange: Exchange, limits: DecodeLimits) -> Any:
    """The answer as JSON where it looks like it, because most come without any type; else text."""
    body = unpacked(exchange.response_body, exchange.response_headers, limits)
    kind = exchange.response_headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or body.lstrip()[:1] in (b"{", b"["):
        said = parsed(body, limits)
    else:
        said = _scalar(body)
    if said in ({}, [], ""):
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "an empty answer")
    return said


def _scalar(body: bytes) -> Any:
    """Handlers that return a number or a name have it written as plain text."""
    text = _text(body.strip())
    if text is None:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "an answer that is no text")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return text if isinstance(value, dict | list) else value


def _outputs(said: Any, rows: int, limits: DecodeLimits) -> dict[str, Entries]:
    if isinstance(said, dict) and "predictions" in said:
        said = said["predictions"]
    if rows == 1 and isinstance(said, list) and len(said) != 1:
        said = [said]
    answers = said if isinstance(said, list) else [said]
    if len(answers) == rows and all(_is_ranking(answer) for answer in answers):
        best = [next(iter(answer.items())) for answer in answers]
        return {"label": [label for label, _ in best], "score": [score for _, score in best]}
    return outputs_of("predictions", said, rows, limits)


def _is_ranking(answer: object) -> bool:
    """Classes with their probabilities, the best first, as its image and text handlers write."""
    if not isinstance(answer, dict) or len(answer) < 2:
        return False
    scores = list(answer.values())
    return (
        set(map(type, scores)) <= {float, int}
        and scores == sorted(scores, reverse=True)
        and scores[-1] >= 0
        and sum(scores) <= 1 + _ROUNDING
    )
