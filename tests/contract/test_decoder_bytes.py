"""What every decoder owes over bodies that are no JSON, broken bytes and bombs; the rest of the
contract is in `test_decoders.py`, whose exchanges these are."""

import gzip
import io
import tracemalloc
import zlib
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.exchange import Exchange
from tests.contract.test_decoders import HEADERS, NAMES, exchange, made, outcome, tensor


def npy(*rows: list[float]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(rows))
    return file.getvalue()


def binary(message: dict[str, Any], *tensors: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of the binary tensor extension."""
    head = orjson.dumps(message)
    return {"inference-header-content-length": str(len(head))}, b"".join([head, *tensors])


def raw(name: str, shape: list[int], datatype: str, size: int) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters}


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x02\x00\x00\x00\x02\x08\x02\x00\x00\x00"
WORDS = b"\x02\x00\x00\x00hi\x01\x00\x00\x00\xff"
# Bodies that are no JSON, of the decoders that take such: header and body, asked and said.
PLAIN: list[tuple[str, tuple[dict[str, str], bytes], tuple[dict[str, str], bytes]]] = [
    (
        "open_inference",
        binary(
            {"inputs": [raw("a", [2, 2], "FP16", 8), raw("w", [2], "BYTES", 11)]},
            b"12345678",
            WORDS,
        ),
        binary({"outputs": [raw("y", [2], "BF16", 4), tensor("z", [2], "INT8", [1, 2])]}, b"1234"),
    ),
    ("open_inference", ({"inference-header-content-length": "0"}, PNG),
     ({}, orjson.dumps({"outputs": [tensor("y", [1], "INT64", [1])]}))),
    ("sagemaker", ({"content-type": "text/csv"}, b"1,2.5\n3,nan\n"),
     ({"content-type": "text/csv"}, b"0.25\n0.5\n")),
    ("sagemaker", ({"content-type": "application/jsonlines"}, b'{"features": [1]}\n[2]\n'),
     ({"content-type": "application/jsonlines"}, b'{"score": 1}\n{"score": 2}\n')),
    ("sagemaker", ({"content-type": "application/x-npy"}, npy([1, 2], [3, 4])),
     ({"content-type": "application/x-npy"}, npy([1], [0]))),
    ("mlflow", ({"content-type": "text/csv"}, b'a,"b"\n1,x\n2,"y"\n'),
     ({}, b'{"predictions": [1, 2]}')),
    ("torchserve", ({"content-type": "image/png"}, PNG), ({}, b'{"tabby": 0.5, "lynx": 0.25}')),
    ("torchserve", ({"content-type": "text/plain"}, "Grüße".encode()),
     ({"content-type": "text/plain"}, b"0.5")),
]  # fmt: skip


def plain(which: int, **other: Any) -> Exchange:
    name, (asked_headers, asked), (said_headers, said) = PLAIN[which]
    fields = {
        "request_headers": asked_headers, "request_body": asked,
        "response_headers": said_headers, "response_body": said,
    }  # fmt: skip
    return exchange(name, **(fields | other))


@pytest.mark.parametrize("which", range(len(PLAIN)))
def test_bodies_that_are_no_json_are_decoded(which: int) -> None:
    decoder = made(PLAIN[which][0])
    assert decoder.matches(plain(which))
    assert decoder.decode(plain(which)).outputs
    assert outcome(decoder.decode, plain(which)) is None


@pytest.mark.parametrize("which", range(len(PLAIN)))
@given(data=st.data())
def test_nothing_but_a_reason_escapes_over_broken_bytes(which: int, data: st.DataObject) -> None:
    """Some bytes overwritten, some doubled, the end cut off, and headers of others."""
    name, asked, said = PLAIN[which]
    bodies = {"request_body": asked[1], "response_body": said[1]}
    for side, body in bodies.items():
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, len(body)))
            width = data.draw(st.integers(0, 4))
            body = body[:place] + data.draw(st.binary(max_size=6)) + body[place + width :]
        bodies[side] = (
            body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body
        )
    headers = data.draw(st.fixed_dictionaries({}, optional={"request_headers": HEADERS}))
    strange = plain(which, **bodies, **headers)
    made(name).matches(strange)
    assert outcome(made(name).decode, strange) is outcome(made(name).decode, strange)


BOMBS = {
    "gzip": ({"content-encoding": "gzip"}, gzip.compress(b"[" + b"0," * 10_000_000 + b"0]")),
    "gzip that does not say so": ({}, gzip.compress(b" " * 20_000_000)),
    "deflate": ({"content-encoding": "deflate"}, zlib.compress(b"1\n" * 10_000_000)),
    "arrays in arrays": ({}, b"[" * 3_900),
    "objects in objects": ({}, b'{"instances":' * 290),
    "a shape of billions": (
        {}, orjson.dumps({"inputs": [tensor("a", [2**31, 2**31], "FP64", [])]})
    ),
    "an array of billions": (
        {"content-type": "application/x-npy"}, npy([1.0]).replace(b"(1, 1)", b"(9999999999, 9)")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_no_memory(name: str, bomb: str) -> None:
    headers, body = BOMBS[bomb]
    for side in ("request", "response"):
        strange = exchange(name, **{f"{side}_headers": headers, f"{side}_body": body})
        tracemalloc.start()
        outcome(made(name).decode, strange)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 5_000_000
