"""A real gRPC server of grpcio: `python -m tests.e2e.grpc_server PORT`, says so once it listens.

It serves Open Inference's `ModelInfer` (a prediction for each row), and calls of every kind under
`/test.Calls/`. Run in a process of its own: grpc's threads and a test's loop are no friends.
"""

import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np

from tests.decoders.protos import infer_tensor, proto

BIG = 3_000_000


def infer(body: bytes, context: Any) -> bytes:
    asked = proto("inference.ModelInferRequest")
    asked.ParseFromString(body)
    shape = list(asked.inputs[0].shape)
    if asked.raw_input_contents:
        rows = np.frombuffer(asked.raw_input_contents[0], dtype="<f4").reshape(shape)
    else:
        rows = np.array(asked.inputs[0].contents.fp32_contents).reshape(shape)
    labels = (rows.sum(axis=1) > 0).astype(int).tolist()
    output = infer_tensor("label", "INT64", [len(labels)], int64_contents=labels)
    said = proto("inference.ModelInferResponse", model_name="m", id=asked.id, outputs=[output])
    return bytes(said.SerializeToString())


def echo(body: bytes, context: Any) -> bytes:
    return body


def refuse(body: bytes, context: Any) -> bytes:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such thing")
    raise AssertionError


def wait(body: bytes, context: Any) -> bytes:
    gone = threading.Event()
    if context.add_callback(gone.set):
        gone.wait(30.0)
    return b""


def several(body: bytes, context: Any) -> Iterator[bytes]:
    for number in range(5):
        yield body + bytes((number,))


def talk(bodies: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from bodies


SERVICES = {
    "inference.GRPCInferenceService": {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
    },
    "test.Calls": {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
        "Several": grpc.unary_stream_rpc_method_handler(several),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    },
}


def main() -> None:
    server = grpc.server(
        futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 2 * BIG)]
    )
    for service, methods in SERVICES.items():
        handler = grpc.method_handlers_generic_handler(service, methods)
        server.add_generic_rpc_handlers((handler,))
    if not server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}"):
        sys.exit("the port is taken")
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
