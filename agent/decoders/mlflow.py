"""MLflow's scoring server: `POST /invocations` with one of four JSON forms, or CSV.

JSON holds exactly one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`;
`params` go to the model and are no features. The answer is `{"predictions": ...}`. Do not
take bodies for language models (`messages`, `prompt`): they are no rows. SageMaker's containers
share the path; what has none of these forms, or another number of answers, is left to them.
"""

from collections.abc import Mapping
from typing import Any

from agent.decoders.answers import outputs_of
from agent.decoders.body import concluded, request_json, require_answered, response_json, unpacked
from agent.decoders.decoder import DecodeError, DecodeLimits, DecodeReason, DecoderSettings
from agent.decoders.delimited import csv_table
from agent.decoders.tabular import (
    Table,
    cells_of,
    require_names,
    require_rows,
    require_width,
    table,
    table_of_columns,
    unique_names,
)
from agent.exchange import Exchange
from agent.inference import Inference

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_LOOK_BYTES = 256


class MlflowInvocations:
    """Named features but for `instances`, `inputs` and splits without columns."""

    name = "mlflow"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits

    def matches(self, exchange: Exchange) -> bool:
        asked = exchange.request_body[:_LOOK_BYTES]
        if b'"dataframe_split"' in asked or b'"dataframe_records"' in asked:
            return True
        if not exchange.path.rstrip("/").endswith("/invocations"):
            return False
        # Rows wrapped in `features` are those of SageMaker's own algorithms.
        return not (b'"instances"' in asked and b'"features"' in asked)

    def decode(self, exchange: Exchange) -> Inference:
        require_answered(exchange)
        names, rows = self._asked(exchange)
        said = response_json(exchange, self._limits)
        if not isinstance(said, dict) or "predictions" not in said:
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "the answer holds no predictions")
        outputs = outputs_of("predictions", said["predictions"], len(rows), self._limits)
        return concluded(exchange, names=names, rows=rows, outputs=outputs)

    def _asked(self, exchange: Exchange) -> Table:
        content_type = exchange.request_headers.get("content-type", "").partition(";")[0]
        if content_type.strip().lower() == "text/csv":
            body = unpacked(exchange.request_body, exchange.request_headers, self._limits)
            return csv_table(body, self._limits)
        asked = request_json(exchange, self._limits)
        forms = [form for form in _FORMS if form in asked] if isinstance(asked, dict) else []
        if len(forms) != 1:
            detail = f"not exactly one of {', '.join(_FORMS)}"
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, detail)
        content = asked[forms[0]]
        if forms[0] == "dataframe_split":
            return _split(content, self._limits)
        if isinstance(content, dict):
            return table_of_columns(content, self._limits)
        return table(content, self._limits)


def _split(content: Any, limits: DecodeLimits) -> Table:
    """pandas' "split" orientation: `columns`, `data`, and an `index` that says nothing."""
    if not isinstance(content, Mapping):
        raise DecodeError(DecodeReason.WRONG_TYPE, "dataframe_split must be an object")
    data = require_rows(content.get("data"), limits)
    if set(map(type, data)) != {list}:
        raise DecodeError(DecodeReason.WRONG_TYPE, "data must be an array of arrays")
    rows = cells_of(data, limits)
    columns = content.get("columns")
    if columns is None:
        return None, rows
    if not isinstance(columns, list):
        raise DecodeError(DecodeReason.WRONG_TYPE, "columns must be an array")
    require_width(len(columns), limits)
    if len(columns) != len(rows[0]):
        detail = f"{len(columns)} columns for rows of {len(rows[0])} cells"
        raise DecodeError(DecodeReason.RAGGED_ROWS, detail)
    names = unique_names(columns)
    require_names(names, len(rows), limits)
    return names, rows
