"""TensorFlow Serving's REST API: predict in row and column form, classify and regress.

    POST /v1/models/<name>[/versions/<v>|/labels/<l>]:predict
        {"instances": [...]} answered by {"predictions": [...]}, a row each
        {"inputs": {...}} answered by {"outputs": ...}, a column each
    POST ...:classify|:regress  {"examples": [...], "context"?} answered by {"results": [...]}
        (its documentation writes "result", its code "results": both are read)

KServe V1 shares the first path and form. Do not claim an exchange that shows none of the marks
below: KServe's decoder reads that form just as well, and may not lose its routes to this one.
"""

import re
from collections.abc import Mapping
from typing import Any

from agent.decoders.answers import Entries, entries_of, outputs_of
from agent.decoders.body import concluded, request_json, require_answered, response_json
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.tabular import Table, named_table, require_rows, table, table_of_columns
from agent.exchange import Exchange
from agent.inference import Inference

_PATH = re.compile(
    r"/v1/models/[^/:]+(?P<chosen>/(versions|labels)/[^/:]+)?:(?P<verb>predict|classify|regress)/?$"
)
_LOOK_BYTES = 256
# It writes its answers indented by four, which no other server on this path does.
_ANSWER = re.compile(rb'\{\n    "(predictions|outputs|results?)": ')
_SCALARS = (float, int, bool, str, type(None))


class TfServing:
    """Rows are positional unless inputs are named. A lone output is called `predictions` in
    either form; `:regress` gives `predictions` too, `:classify` `label`, `score` and `scores`.
    """

    name = "tf_serving"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits

    def matches(self, exchange: Exchange) -> bool:
        path = _PATH.search(exchange.path)
        if path is None:
            return False
        if path["chosen"] or path["verb"] != "predict":
            return True
        asked, said = exchange.request_body[:_LOOK_BYTES], exchange.response_body[:_LOOK_BYTES]
        return (
            b'"signature_name"' in asked
            or (b'"inputs"' in asked and b'"outputs"' in said)
            or _ANSWER.match(said) is not None
        )

    def decode(self, exchange: Exchange) -> Inference:
        require_answered(exchange)
        asked = request_json(exchange, self._limits)
        if not isinstance(asked, dict):
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "the request is no object")
        names, rows = _asked(asked, self._limits)
        said = response_json(exchange, self._limits)
        if not isinstance(said, dict):
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "the answer is no object")
        if "examples" in asked:
            found = said["result"] if "result" in said else _member(said, "results")
            outputs = _results(found, len(rows), self._limits)
        else:
            outputs = predicted(said, len(rows), self._limits)
        return concluded(exchange, names=names, rows=rows, outputs=outputs)


def predicted(said: Mapping[str, Any], rows: int, limits: DecodeLimits) -> dict[str, Entries]:
    """What `predictions` or `outputs` hold, for so many rows.

    Raises:
        DecodeError: not_an_inference when neither is there; else as `outputs_of`.
    """
    found = said["outputs"] if "outputs" in said else _member(said, "predictions")
    return outputs_of("predictions", found, rows, limits)


def _member(said: Mapping[str, Any], name: str) -> Any:
    if name not in said:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, f"the answer holds no {name}")
    return said[name]


def _asked(asked: Mapping[str, Any], limits: DecodeLimits) -> Table:
    forms = [form for form in ("instances", "inputs", "examples") if form in asked]
    if len(forms) != 1:
        detail = "the request holds not exactly one of instances, inputs and examples"
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, detail)
    if forms[0] == "instances":
        return table(asked["instances"], limits)
    if forms[0] == "examples":
        return _examples(asked["examples"], asked.get("context"), limits)
    return columns(asked["inputs"], limits)


def columns(content: Any, limits: DecodeLimits) -> Table:
    """The column form: an object of columns, or the values of the only input as they are.

    A scalar among columns holds for every row (a keep probability, say).
    """
    if not isinstance(content, dict):
        if isinstance(content, _SCALARS):
            content = [content]  # the only input is a scalar: a batch of one
        if isinstance(content, list) and content and _is_open_inference(content[0]):
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "tensors of Open Inference")
        return table(content, limits)
    lists = [entries for entries in content.values() if isinstance(entries, list)]
    rows = len(lists[0]) if lists else 1
    if rows > limits.rows_max:
        raise DecodeError(DecodeReason.TOO_MANY_ROWS, f"{rows} > {limits.rows_max}")
    spread = {
        name: entries if isinstance(entries, list) else [entries] * rows
        for name, entries in content.items()
    }
    return table_of_columns(spread, limits)


def _is_open_inference(entry: object) -> bool:
    return isinstance(entry, dict) and {"name", "shape", "datatype"} <= entry.keys()


def _examples(content: Any, context: Any, limits: DecodeLimits) -> Table:
    """Examples of named features, and the context that all of them share."""
    rows = require_rows(content, limits)
    if set(map(type, rows)) != {dict}:
        raise DecodeError(DecodeReason.WRONG_TYPE, "an example is no object")
    if context is not None and not isinstance(context, dict):
        raise DecodeError(DecodeReason.WRONG_TYPE, "the context is no object")
    return named_table([{**context, **row} for row in rows] if context else rows, limits)


def _results(said: Any, rows: int, limits: DecodeLimits) -> dict[str, Entries]:
    """`:regress` answers a number for each example, `:classify` a list of class and score."""
    if not isinstance(said, list) or len(said) != rows:
        raise DecodeError(DecodeReason.ROWS_MISMATCH, f"no {rows} results")
    if not all(_is_ranking(entry) for entry in said):
        return outputs_of("predictions", said, rows, limits)
    best = [_best(entry) for entry in said]
    outputs: dict[str, Entries] = {
        "label": [label for label, _ in best],
        "score": [score for _, score in best],
    }
    scores = entries_of([[score for _, score in entry] for entry in said], limits)
    return outputs | ({"scores": scores} if scores is not None else {})


def _best(ranking: list[Any]) -> tuple[str | int, float]:
    """The class with the highest score; its position where the model exports no names."""
    position, score = 0, ranking[0][1]
    for place, (_, other) in enumerate(ranking):
        if other > score:
            position, score = place, other
    return ranking[position][0] or position, score


def _is_ranking(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and bool(entry)
        and all(
            isinstance(pair, list)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], int | float)
            for pair in entry
        )
    )
