"""KServe's V1 protocol, which TensorFlow Serving's row form and many home-made servers share.

`POST /v1/models/<name>:predict` with `{"instances": [...]}` or `{"inputs": [...]}`, answered by
`{"predictions": [...]}`. An instance is a list of cells, an object of named cells, a lone
cell, or a nested array, which is laid out flat. Do not take `"inputs"` with datatypes: that is
Open Inference.

A route that settled here may be TensorFlow Serving's after all, because its row form shows no
marks to a compact writer in between: hence its column form is read as well.
"""

import re

from agent.decoders.body import concluded, request_json, require_answered, response_json
from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.tabular import table
from agent.decoders.tf_serving import columns, predicted
from agent.exchange import Exchange
from agent.inference import Inference

_PATH = re.compile(r"/v1/models/[^/]+(/(versions|labels)/[^/]+)?:predict/?$")
_LOOK_BYTES = 256


class KServeV1:
    """Rows are positional unless instances are objects; the output is called `predictions`."""

    name = "kserve_v1"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits

    def matches(self, exchange: Exchange) -> bool:
        if _PATH.search(exchange.path):
            return True
        asked, said = exchange.request_body[:_LOOK_BYTES], exchange.response_body[:_LOOK_BYTES]
        # MLflow's /invocations looks the same inside; its own decoder knows more about it.
        return (
            not exchange.path.endswith("/invocations")
            and asked.lstrip().startswith(b"{")
            and (b'"instances"' in asked or (b'"inputs"' in asked and b'"datatype"' not in asked))
            and b'"predictions"' in said
        )

    def decode(self, exchange: Exchange) -> Inference:
        require_answered(exchange)
        asked = request_json(exchange, self._limits)
        if not isinstance(asked, dict) or ("instances" in asked) == ("inputs" in asked):
            detail = "the request holds not exactly one of instances and inputs"
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, detail)
        if "instances" in asked:
            names, rows = table(asked["instances"], self._limits)
        else:
            names, rows = columns(asked["inputs"], self._limits)
        said = response_json(exchange, self._limits)
        if not isinstance(said, dict):
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "the answer is no object")
        outputs = predicted(said, len(rows), self._limits)
        return concluded(exchange, names=names, rows=rows, outputs=outputs)
