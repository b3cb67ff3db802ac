"""SageMaker's `POST /invocations`: CSV, JSON, JSON Lines and NumPy arrays, in and out.

The algorithms of the service and the containers of frameworks answer in as many shapes as they
are asked in, often under a content type that says something else. MLflow serves the same path:
its decoder goes first and refuses what has none of its forms, or another number of answers.
Do not guess a CSV's header from its first line while the number of answers can tell.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from agent.decoders.answers import Entries, outputs_of
from agent.decoders.body import concluded, parsed, require_answered, unpacked
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.delimited import csv_cells, csv_lines, field_value, has_header
from agent.decoders.opaque import text_table
from agent.decoders.tabular import (
    Table,
    require_names,
    require_rows,
    table,
    table_of_columns,
    unique_names,
)
from agent.decoders.tensors import tensor_values
from agent.exchange import Exchange
from agent.inference import Inference

_FORMS = ("instances", "inputs", "features", "data")
_NPY = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '[<|](?P<kind>[fiub])(?P<size>[1248])', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9, ]{0,60})\), *\} *\n",
    re.DOTALL,
)
_NPY_TYPES: Mapping[tuple[bytes, bytes], str] = {
    (b"f", b"2"): "FP16", (b"f", b"4"): "FP32", (b"f", b"8"): "FP64",
    (b"i", b"1"): "INT8", (b"i", b"2"): "INT16", (b"i", b"4"): "INT32", (b"i", b"8"): "INT64",
    (b"u", b"1"): "UINT8", (b"u", b"2"): "UINT16", (b"u", b"4"): "UINT32",
    (b"u", b"8"): "UINT64", (b"b", b"1"): "BOOL",
}  # fmt: skip
_CSV = frozenset({"text/csv"})
_LINES = frozenset(
    {"application/jsonlines", "application/x-jsonlines", "application/json-lines",
     "application/jsonl", "application/x-ndjson"}
)  # fmt: skip
_NUMPY = "application/x-npy"
_JSON = frozenset({"", "application/json"})


class SageMaker:
    """Features are positional unless rows are objects or the CSV has a header. The output is
    called `predictions`, and `score`, `predicted_label`, ... where answers are objects.
    """

    name = "sagemaker"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits

    def matches(self, exchange: Exchange) -> bool:
        return exchange.path.rstrip("/").endswith("/invocations")

    def decode(self, exchange: Exchange) -> Inference:
        require_answered(exchange)
        limits = self._limits
        body = unpacked(exchange.request_body, exchange.request_headers, limits)
        kind = media_type(exchange.request_headers)
        if kind in _CSV:
            lines = csv_lines(body, limits)
            said = _said(exchange, limits)
            names, rows = _csv_table(lines, said, limits)
        else:
            names, rows = _asked(kind, body, limits)
            if names is not None:
                require_names(names, len(rows), limits)
            said = _said(exchange, limits)
        return concluded(
            exchange, names=names, rows=rows, outputs=_outputs(said, len(rows), limits)
        )


def media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _asked(kind: str, body: bytes, limits: DecodeLimits) -> Table:
    if kind == _NUMPY:
        return table(_array(body, limits), limits)
    if kind in _LINES:
        return _table([_features(line) for line in json_lines(body, limits)], limits)
    if kind not in _JSON:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, f"content type {kind[:60]}")
    asked = parsed(body, limits)
    if isinstance(asked, dict):
        forms = [form for form in _FORMS if form in asked]
        if len(forms) != 1:
            detail = f"not exactly one of {', '.join(_FORMS)}"
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, detail)
        asked = asked[forms[0]]
        if isinstance(asked, dict):
            return table_of_columns(asked, limits)
        if isinstance(asked, str):  # the containers for language models of Hugging Face
            asked = [asked]
        if forms[0] == "inputs" and isinstance(asked, list) and set(map(type, asked)) == {str}:
            return text_table("text", require_rows(asked, limits))
    if not isinstance(asked, list):
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "no rows in the request")
    if asked and not any(isinstance(entry, list | dict) for entry in asked):
        asked = [asked]  # one row, written without its brackets
    return _table([_features(entry) for entry in asked], limits)


def _features(entry: Any) -> Any:
    """A row of the service's own algorithms without its wrapping.

    >>> _features({"features": [1, 2]}), _features({"data": {"features": {"values": [1, 2]}}})
    ([1, 2], [1, 2])
    """
    for wrapping in ("data", "features", "values"):
        if isinstance(entry, dict) and wrapping in entry and "keys" not in entry:
            entry = entry[wrapping]
    return entry


def _table(rows: list[Any], limits: DecodeLimits) -> Table:
    if any(isinstance(row, dict) and {"keys", "values"} <= row.keys() for row in rows):
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "sparse features")
    return table(rows, limits)


def _csv_table(lines: list[list[str]], said: Any, limits: DecodeLimits) -> Table:
    if not _is_headed(lines, said):
        require_rows(lines, limits)
        return None, csv_cells(lines, len(lines[0]), limits)
    names = unique_names(lines[0])
    require_names(names, len(lines) - 1, limits)
    return names, csv_cells(lines[1:], len(names), limits)


def _is_headed(lines: list[list[str]], said: Any) -> bool:
    """Whether the first line is a header: there is an answer for each line but that.

    Two lines with two values in the answer may also be a header, a row, and two scores.
    """
    answers = len(said) if isinstance(said, list) else 1
    if answers == len(lines) and len(lines) != 2:
        return False
    return answers == len(lines) - 1 or has_header(lines)


def json_lines(body: bytes, limits: DecodeLimits) -> list[Any]:
    """One JSON value in each line that is not empty.

    Raises:
        DecodeError: empty_batch, too_many_rows, not_json, too_deep, body_too_large.
    """
    lines = [line for line in body.split(b"\n") if line.strip()]
    if not lines:
        raise DecodeError(DecodeReason.EMPTY_BATCH, "no lines")
    if len(lines) > limits.rows_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{len(lines)} > {limits.rows_max}")
    # One call for all lines; a line that holds no single value shows in the count.
    values = parsed(b"[" + b",".join(lines) + b"]", limits)
    if not isinstance(values, list) or len(values) != len(lines):
        raise DecodeError(DecodeReason.NOT_JSON, "a line holds more than one value")
    return values


def _array(body: bytes, limits: DecodeLimits) -> list[Any]:
    """An array as `numpy.save` writes it, as n rows; its header is read by no evaluator."""
    head = _NPY.match(body)
    datatype = _NPY_TYPES.get((head["kind"], head["size"])) if head else None
    if head is None or datatype is None:
        raise DecodeError(DecodeReason.UNSUPPORTED_DATATYPE, "a NumPy array of another kind")
    shape = [int(text) for text in head["shape"].split(b",") if text.strip().isdigit()]
    entries = shape[0] if shape else 1
    if entries > limits.rows_max or prod(shape) > limits.cells_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"shape {shape}")
    values = tensor_values(datatype, shape or [1], memoryview(body)[head.end() :])
    rows: list[Any] = values.tolist()
    return rows


def _said(exchange: Exchange, limits: DecodeLimits) -> Any:
    """The answer as an object, or as a list that may have an entry for each row."""
    body = unpacked(exchange.response_body, exchange.response_headers, limits)
    kind = media_type(exchange.response_headers)
    if kind == _NUMPY:
        return _array(body, limits)
    if kind in _LINES:
        return json_lines(body, limits)
    # Flask, which most containers are made with, calls everything text/html.
    if kind in _JSON or body.lstrip()[:1] in (b"{", b"["):
        said = parsed(body, limits)
        if said == {}:
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "an empty answer")
        return said["predictions"] if isinstance(said, dict) and "predictions" in said else said
    if not kind.startswith("text/"):
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, f"content type {kind[:60]}")
    lines = [[field_value(cell) for cell in line] for line in csv_lines(body, limits)]
    if len(lines) == 1:
        return lines[0]  # the older XGBoost containers write all answers in one line
    return [line[0] if len(line) == 1 else line for line in lines]


def _outputs(said: Any, rows: int, limits: DecodeLimits) -> dict[str, Entries]:
    if rows == 1 and isinstance(said, list) and len(said) > 1:
        said = [said]  # the scores of the only row
    return outputs_of("predictions", said, rows, limits)
