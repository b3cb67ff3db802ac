"""A trained network to ONNX, and proof that both say the same.

The legacy exporter (`dynamo=False`) comes first, on evidence: for the Adult network .1 s of CPU
against 2.3 s (8 s on a colder machine), 43 KiB against 71, the same greatest difference from torch
(2e-7). It is on its way out of torch, and it cannot trace everything a user's module may do, so
`dynamo=True` follows where it fails; the manifest says which one was used.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from retrain import artifact
from retrain.artifact import Signature, TensorSpec
from retrain.pipeline.fit import Fitted
from retrain.pipeline.network import Network, Served
from retrain.pipeline.tables import DataError
from retrain.preprocess import Kind, Matrix, Preprocess

OPSET = 17
INPUT = "x"
OUTPUT = "y"
# Between torch and onnxruntime, both float32: far above rounding, far below what matters.
PARITY_MAX = 1e-4
STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(string)": "string",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """`account` goes into the manifest: exporter, opset, ir, greatest difference from torch."""

    opset: int
    ir: int
    signature: Signature
    account: Mapping[str, Any]


def export(network: Network, fitted: Fitted, rows: Matrix, path: Path) -> Exported:
    """Writes model.onnx with a free batch dimension, and compares it with torch on `rows` [n, d].

    Raises DataError if neither exporter takes the module, or if the graph does not agree with it.
    """
    served = Served(network, fitted).eval()
    example = torch.from_numpy(rows[:2].copy())
    exporter = _write(served, example, path)
    model = onnx.load(path, load_external_data=False)
    session = open_session(path)
    with torch.no_grad():
        expected = served(torch.from_numpy(rows)).numpy()
    got = session.run([OUTPUT], {INPUT: rows})[0]
    difference = float(np.abs(expected - got).max())
    # Relative to the target's unit: a house price differs by cents where a probability may not.
    if not difference <= PARITY_MAX * max(1.0, fitted.target_std):
        raise DataError(f"export: graph and network differ by {difference:g}: report this")
    opset = max(entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS)
    return Exported(
        opset=opset,
        ir=model.ir_version,
        signature=signature_of(session),
        account={
            "exporter": exporter,
            "parity_rows": len(rows),
            "parity_difference_max": difference,
        },
    )


def _write(served: Served, example: torch.Tensor, path: Path) -> str:
    axes = {INPUT: {0: "b"}, OUTPUT: {0: "b"}}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        # Both exporters talk at length about their own future, on standard output as well.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                served,
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes=axes,
            )
            return "torch legacy"
        except Exception as legacy:  # whatever a user's module raises while it is traced
            try:
                torch.onnx.export(
                    served,
                    (example,),
                    str(path),
                    dynamo=True,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    dynamic_shapes={"x": {0: torch.export.Dim("b")}},
                    external_data=False,
                )
                return "torch dynamo"
            except Exception as error:
                raise DataError(
                    f"export: the module cannot be exported: {_line(legacy)}; {_line(error)}"
                ) from error


def open_session(path: Path, threads: int = 1) -> ort.InferenceSession:
    """A session on the CPU that works in the calling thread, so that its CPU time can be read.

    Raises whatever onnxruntime raises for a file that it cannot load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def signature_of(session: ort.InferenceSession) -> Signature:
    """Inputs and outputs; whatever is no number among the dimensions is the batch, `b`."""

    def spec(node: Any) -> TensorSpec:
        shape = tuple(size if isinstance(size, int) else "b" for size in node.shape)
        return TensorSpec(name=node.name, dtype=_DTYPES.get(node.type, node.type), shape=shape)

    return Signature(
        inputs=tuple(spec(node) for node in session.get_inputs()),
        outputs=tuple(spec(node) for node in session.get_outputs()),
    )


def write_golden(path: Path, rows: Matrix) -> None:
    """golden.npz beside `path`: rows and what the model of this artifact says to them."""
    session = open_session(path)
    np.savez(path.with_name(artifact.GOLDEN), x=rows, y=session.run([OUTPUT], {INPUT: rows})[0])


def odd_rows(preprocess: Preprocess) -> Matrix:
    """[m, d] rows as life sends them at its worst: all missing, huge, tiny, unseen categories."""
    numeric = np.asarray([feature.kind is Kind.NUMERIC for feature in preprocess.features])
    unknown = np.asarray([f.unknown_code for f in preprocess.features], dtype=np.float32)
    rows = [np.full(len(numeric), np.nan, dtype=np.float32)]
    for value in (0.0, -1.0, 1e9, -1e9, 3.4e38, -3.4e38, 1e-38):
        rows.append(np.where(numeric, np.float32(value), unknown).astype(np.float32))
    return np.stack(rows)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
