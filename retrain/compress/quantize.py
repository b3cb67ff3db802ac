"""Static int8 quantisation by onnxruntime, with the scheme that the target's CPU computes right.

On AVX2 without VNNI the common U8S8 scheme adds pairs of products in 16 bits and saturates: up to
three points of accuracy are lost, which `reduce_range` (7-bit weights) cures. Only the products of
matrices are quantised: imputing, scaling and one-hot have to see the row as it is.
"""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

QUANTIZED_OPS = ("Gemm", "MatMul", "Conv")
CALIBRATION_BATCH = 64
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


class QuantizeError(ValueError):
    """A graph that cannot be quantised: nothing in it to quantise, or the quantizer refused it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """activation, weight: `uint8` or `int8`. `why` names the CPU flag that decided."""

    name: str
    activation: str
    weight: str
    reduce_range: bool
    why: str


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Flags of the first processor; none where the file is absent (not Linux)."""
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def choose_scheme(flags: frozenset[str]) -> Scheme:
    """VNNI: U8S8 in 32 bits. AVX2 or AVX-512 without it: U8S8 with 7-bit weights. Else U8U8."""
    vnni = sorted(flags & _VNNI)
    if vnni:
        return Scheme(
            name="u8s8", activation="uint8", weight="int8", reduce_range=False, why=vnni[0]
        )
    if "avx2" in flags:
        return Scheme(
            name="u8s8_reduce_range",
            activation="uint8",
            weight="int8",
            reduce_range=True,
            why="avx2 without vnni",
        )
    return Scheme(
        name="u8u8", activation="uint8", weight="uint8", reduce_range=False, why="no avx2"
    )


class _Rows(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration rows in small batches, one at a time."""

    def __init__(self, name: str, rows: NDArray[np.float32]) -> None:
        self._name = name
        self._batches: Iterator[NDArray[np.float32]] = iter(
            rows[start : start + CALIBRATION_BATCH]
            for start in range(0, len(rows), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def quantize(
    source: Path, target: Path, rows: NDArray[np.float32], *, scheme: Scheme, rows_max: int = 512
) -> Mapping[str, Any]:
    """Writes the int8 twin of `source` to `target`; returns the step for the manifest.

    rows: [n, d] encoded training rows, of which the first `rows_max` calibrate (min and max of each
    activation, kept as a running bound: memory does not grow with rows).
    Raises QuantizeError.
    """
    graph = onnx.load(source).graph
    products = [node for node in graph.node if node.op_type in QUANTIZED_OPS]
    if not products:
        raise QuantizeError(f"no {', '.join(QUANTIZED_OPS)} in the graph: nothing to quantise")
    calibration = rows[:rows_max]
    # The last product makes the scores. Eight bits there are 256 different probabilities, which
    # saves next to nothing and looks to a drift detector like a change of the scores' shape.
    kept = [products[-1].name] if len(products) > 1 else []
    kinds = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    noisy = logging.getLogger()
    level = noisy.level
    noisy.setLevel(logging.ERROR)  # it advises pre-processing by symbolic shapes on every call
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            clean = Path(scratch) / "clean.onnx"
            _fold_constants(source, clean)
            quantize_static(
                str(clean),
                str(target),
                _Rows(graph.input[0].name, calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED_OPS),
                nodes_to_exclude=kept,
                per_channel=True,
                reduce_range=scheme.reduce_range,
                activation_type=kinds[scheme.activation],
                weight_type=kinds[scheme.weight],
                calibrate_method=CalibrationMethod.MinMax,
            )
    except Exception as error:  # the quantizer raises bare Exceptions of many kinds
        line = " ".join(str(error).split())[:300]
        raise QuantizeError(f"onnxruntime cannot quantise this graph: {line}") from error
    finally:
        noisy.setLevel(level)
    return {
        "kind": "ptq_static",
        "format": "QDQ",
        "scheme": scheme.name,
        "activation": scheme.activation,
        "weight": scheme.weight,
        "per_channel": True,
        "reduce_range": scheme.reduce_range,
        "why": scheme.why,
        "calibration_rows": len(calibration),
        "products": len(products) - len(kept),
        "kept_float32": kept,
    }


def _fold_constants(source: Path, target: Path) -> None:
    """Folds constants and drops what is dead, with operators that every runtime knows."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def quantized_beside_products(path: Path) -> tuple[str, ...]:
    """Operators that read a quantised value and are no product of matrices; none is right."""
    graph = onnx.load(path).graph
    made_by = {name: node for node in graph.node for name in node.output}
    initializers = {entry.name for entry in graph.initializer}
    allowed = {*QUANTIZED_OPS, "Relu", "QuantizeLinear", "DequantizeLinear"}
    wrong = []
    for node in graph.node:
        for name in node.input:
            maker = made_by.get(name)
            if maker is None or maker.op_type != "DequantizeLinear" or node.op_type in allowed:
                continue
            if maker.input[0] not in initializers:
                wrong.append(f"{node.op_type} {node.name}".strip())
    return tuple(wrong)
