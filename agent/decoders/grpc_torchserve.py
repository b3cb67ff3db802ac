"""TorchServe over gRPC: `org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions`.

A map of bytes goes in and bytes come out, which are what its REST API takes and gives: so they are
read as that. Do not decode a second time here what `torchserve.py` decodes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import orjson

from agent.decoders.decoder import DecodeError, DecodeReason, DecoderSettings
from agent.decoders.grpc_open_inference import require_call
from agent.decoders.protobuf import Reader, many
from agent.decoders.torchserve import TorchServe
from agent.exchange import Exchange
from agent.inference import Inference

_SERVICE: Final = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/"
_METHOD: Final = _SERVICE + "Predictions"
_INPUT: Final = 3  # of PredictionsRequest
_PREDICTION: Final = 1  # of PredictionResponse


class GrpcTorchServe:
    """Of one input its bytes are the body, whatever it is called; of several, an object of them."""

    name = "torchserve_grpc"

    def __init__(self, settings: DecoderSettings) -> None:
        self._limits = settings.limits
        self._rest = TorchServe(settings)

    def matches(self, exchange: Exchange) -> bool:
        return exchange.path.startswith(_SERVICE)

    def decode(self, exchange: Exchange) -> Inference:
        require_call(exchange, _METHOD, self._limits)
        reader = Reader()
        inputs = reader.entries(reader.fields(exchange.request_body), _INPUT)
        said = many(Reader().fields(exchange.response_body), _PREDICTION)
        if not inputs or not said:
            raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "nothing asked, or nothing answered")
        return self._rest.decode(
            replace(
                exchange,
                request_headers={},
                request_body=_body(inputs),
                response_headers={},
                response_body=bytes(said[-1]),
            )
        )


def _body(inputs: Mapping[str, bytes | memoryview]) -> bytes:
    if len(inputs) == 1:
        return bytes(next(iter(inputs.values())))
    return orjson.dumps({name: _value(inputs[name]) for name in sorted(inputs)})


def _value(part: bytes | memoryview) -> object:
    """JSON where it is JSON, else text."""
    try:
        return orjson.loads(part)
    except orjson.JSONDecodeError:
        pass
    try:
        return bytes(part).decode()
    except UnicodeDecodeError:
        raise DecodeError(DecodeReason.UNSUPPORTED_ENCODING, "binaries among inputs") from None
