"""Measures a candidate artifact for the gates, by onnxruntime, in the job.

Nothing that the candidate's manifest claims is believed: quality, latency, size and signature are
measured here, on rows that this process split itself, in turns with the stable model.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from retrain import artifact, gates
from retrain.artifact import ArtifactError
from retrain.gates import GateReport, Margins, Measurement, Verdict
from retrain.pipeline.data import Rows
from retrain.pipeline.export import (
    INPUT,
    OUTPUT,
    STANDARD_DOMAINS,
    odd_rows,
    open_session,
    signature_of,
)
from retrain.preprocess import EncodeError, Matrix, Preprocess, Task, decode_output, encode_rows

MODEL_BYTES_MAX = 2 << 30
# A small network takes some 20 us a call: this much work in a round, so that a timer tick is noise.
ROUND_S = 0.003
ROUNDS = 31
WARM_UP_CALLS = 20
# The artifact's own answers on another machine: int8 kernels differ in the last step, no more.
GOLDEN_DIFFERENCE_MAX = 0.02
RUN_ROWS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model directory that loads, ready to be asked."""

    directory: Path
    session: ort.InferenceSession
    preprocess: Preprocess

    @property
    def model_bytes(self) -> int:
        return (self.directory / artifact.MODEL).stat().st_size

    def encode(self, rows: Rows) -> Matrix:
        return encode_rows(rows.columns, self.preprocess)

    def answer(self, matrix: Matrix) -> NDArray[np.float32]:
        """[n, d] to [n, k], in pieces: memory does not grow with the rows."""
        width = max(1, len(self.preprocess.classes))
        parts = [
            self.session.run([OUTPUT], {INPUT: matrix[start : start + RUN_ROWS]})[0]
            for start in range(0, len(matrix), RUN_ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty((0, width), dtype=np.float32)


def load_problems(path: Path) -> list[str]:
    """Why a graph must not be served: custom operators, data outside the file, or it won't load."""
    if path.stat().st_size > MODEL_BYTES_MAX:
        return [f"{path.name} is larger than {MODEL_BYTES_MAX} bytes"]
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises what it likes for bytes that are no model
        return [f"{path.name} is no ONNX model: {_line(error)}"]
    problems = [
        *_graph_problems(model.graph),
        *(f"defines the function {entry.name}" for entry in model.functions),
    ]
    if problems:
        return sorted(set(problems))
    try:
        open_session(path)
    except Exception as error:  # onnxruntime raises classes of its own, one for each kind
        return [f"onnxruntime cannot load it: {_line(error)}"]
    return []


def open_model(directory: Path) -> Served:
    """Raises ArtifactError if it must not be served (see `load_problems`)."""
    problems = load_problems(directory / artifact.MODEL)
    if problems:
        raise ArtifactError(*problems)
    return Served(
        directory=directory,
        session=open_session(directory / artifact.MODEL),
        preprocess=artifact.read_preprocess(directory),
    )


def validate(
    candidate: Path, stable: Path | None, *, holdout: Rows, recent: Rows, margins: Margins
) -> GateReport:
    """All gates of one candidate. `stable` None: a first model, which must beat guessing.

    candidate, stable: directories with at least model.onnx and preprocess.json.
    recent: no rows where nothing was captured; then the recent window is no gate.
    Raises ArtifactError only for the stable model: a candidate's faults are the report.
    """
    problems = load_problems(candidate / artifact.MODEL)
    loaded = gates.loads(problems=problems)
    if problems:
        return GateReport(measurements=(loaded,))
    try:
        ours = open_model(candidate)
        theirs = None if stable is None else open_model(stable)
        measurements = [loaded, *_shape_gates(ours, theirs)]
        if all(entry.verdict is Verdict.SUCCESSFUL for entry in measurements):
            measurements += _quality_gates(ours, theirs, holdout, recent, margins)
            measurements += _cost_gates(ours, theirs, holdout, recent, margins)
    except EncodeError as error:
        measurements = [loaded, gates.not_measured("signature", str(error), verdict=Verdict.FAILED)]
    return GateReport(measurements=tuple(measurements))


def gains(model: Served, rows: Rows, unit: float = 1.0) -> NDArray[np.float64]:
    """[n] what each row is worth, more is better: 1 for a right class, minus error over `unit`."""
    said = decode_output(model.answer(model.encode(rows)), model.preprocess).prediction
    if model.preprocess.task is Task.CLASSIFICATION:
        return np.asarray(said == rows.target, dtype=np.float64)
    error: NDArray[np.float64] = np.abs(said - rows.target.astype(np.float64))
    return -error / unit


def compare_quality(
    candidate: Served, stable: Served, rows: Rows, *, gate: str, margin: float, rows_min: int
) -> Measurement:
    """Paired on the same rows; a regression in units of the stable model's mean error."""
    unit, metric = 1.0, "accuracy"
    if stable.preprocess.task is Task.REGRESSION and len(rows):
        # Not by less than a thousandth of the target's spread: a perfect model is no unit.
        spread = float(np.std(rows.target.astype(np.float64))) or 1.0
        unit = max(-float(gains(stable, rows).mean()), 1e-3 * spread)
        metric = "minus error over the stable model's error:"
    return gates.quality(
        gate=gate,
        metric=metric,
        candidate=gains(candidate, rows, unit),
        stable=gains(stable, rows, unit),
        margin=margin,
        rows_min=rows_min,
    )


def time_models(
    models: Sequence[Served], matrix: Matrix, rounds: int = ROUNDS
) -> list[list[float]]:
    """[models][rounds] CPU microseconds per call, in turns, in the order of the models or reversed.

    CPU time of this thread: sessions have one thread, which is the caller's.
    """
    feeds = [{INPUT: matrix} for _ in models]
    calls = []
    for model, feed in zip(models, feeds, strict=True):
        for _ in range(WARM_UP_CALLS):
            model.session.run([OUTPUT], feed)
        calls.append(max(3, int(ROUND_S / max(_timed(model, feed, 5), 1e-6))))
    times: list[list[float]] = [[] for _ in models]
    for turn in range(rounds):
        order = range(len(models)) if turn % 2 == 0 else range(len(models) - 1, -1, -1)
        for index in order:
            times[index].append(_timed(models[index], feeds[index], calls[index]) * 1e6)
    return times


def _timed(model: Served, feed: dict[str, Matrix], calls: int) -> float:
    began = time.thread_time_ns()
    for _ in range(calls):
        model.session.run([OUTPUT], feed)
    return (time.thread_time_ns() - began) / calls / 1e9


def _shape_gates(ours: Served, theirs: Served | None) -> list[Measurement]:
    """Signature, odd rows and golden rows: whether it is worth asking anything further."""
    width = len(ours.preprocess.features)
    signature = signature_of(ours.session)
    if theirs is None:
        taken = [(spec.name, spec.dtype, spec.shape) for spec in signature.inputs]
        good = taken == [(INPUT, "float32", ("b", width))]
        words = f"takes {taken}, {artifact.PREPROCESS} gives {INPUT} float32 [b, {width}]"
        verdict = Verdict.SUCCESSFUL if good else Verdict.FAILED
        shape = Measurement(gate="signature", verdict=verdict, words=words)
    else:
        shape = gates.signature(
            candidate=signature,
            stable=signature_of(theirs.session),
            candidate_rows=ours.preprocess,
            stable_rows=theirs.preprocess,
        )
    if shape.verdict is not Verdict.SUCCESSFUL:
        return [shape]
    return [shape, *_golden_gate(ours)]


def _golden_gate(ours: Served) -> list[Measurement]:
    path = ours.directory / artifact.GOLDEN
    if not path.exists():
        return []
    try:
        with np.load(path, allow_pickle=False) as golden:
            rows, expected = golden["x"].astype(np.float32), golden["y"]
        got = ours.answer(rows)
        spread = max(1.0, float(np.abs(expected).max(initial=0)))
        difference = float(np.abs(got - expected).max(initial=0)) / spread
    except Exception as error:  # the file is the candidate's: whatever is wrong in it is its fault
        return [gates.not_measured("golden", _line(error), verdict=Verdict.FAILED)]
    good = difference <= GOLDEN_DIFFERENCE_MAX
    return [
        Measurement(
            gate="golden",
            verdict=Verdict.SUCCESSFUL if good else Verdict.FAILED,
            words=(
                f"differs from its own golden rows by {difference:.2g} "
                f"{'<=' if good else '>'} {GOLDEN_DIFFERENCE_MAX:g} ({len(rows)} rows)"
            ),
            figures={"difference": difference, "rows": len(rows)},
        )
    ]


def _quality_gates(
    ours: Served, theirs: Served | None, holdout: Rows, recent: Rows, margins: Margins
) -> list[Measurement]:
    if theirs is None:
        return [_better_than_guessing(ours, holdout, margins)]
    windows = [("quality_holdout", holdout, margins.holdout_margin)]
    if len(recent):
        windows.append(("quality_recent", recent, margins.recent_margin))
    return [
        compare_quality(ours, theirs, rows, gate=gate, margin=margin, rows_min=margins.rows_min)
        for gate, rows, margin in windows
    ]


def _better_than_guessing(ours: Served, holdout: Rows, margins: Margins) -> Measurement:
    """Against the best constant answer, which here may even know the holdout."""
    metric, unit = "accuracy", 1.0
    if len(holdout) == 0:
        guess = np.empty(0)
    elif ours.preprocess.task is Task.CLASSIFICATION:
        names, counts = np.unique(holdout.target.astype(str), return_counts=True)
        guess = (holdout.target.astype(str) == names[counts.argmax()]).astype(np.float64)
    else:
        target = holdout.target.astype(np.float64)
        errors = np.abs(target - np.median(target))
        unit = float(errors.mean()) or 1.0
        guess, metric = -errors / unit, "minus error over that of the median:"
    return gates.quality(
        gate="quality_guessing",
        metric=metric,
        candidate=gains(ours, holdout, unit) if len(holdout) else guess,
        stable=guess,
        margin=0.0,
        rows_min=margins.rows_min,
    )


def _cost_gates(
    ours: Served, theirs: Served | None, holdout: Rows, recent: Rows, margins: Margins
) -> list[Measurement]:
    rows = np.concatenate([ours.encode(holdout), ours.encode(recent), odd_rows(ours.preprocess)])
    wrong = int((~np.isfinite(ours.answer(rows))).any(axis=1).sum())
    measured = [gates.finite(rows=len(rows), rows_not_finite=wrong)]
    models = [ours] if theirs is None else [ours, theirs]
    sample = np.resize(rows, (32, rows.shape[1]))
    times = {batch: time_models(models, sample[:batch]) for batch in (1, 32)}
    measured.append(gates.latency_absolute(candidate_us=times[1][0], us_max=margins.latency_us_max))
    if theirs is not None:
        measured += [
            gates.latency(
                gate=f"latency_b{batch}",
                candidate_us=taken[0],
                stable_us=taken[1],
                ratio_max=margins.latency_ratio_max,
                rounds_min=margins.latency_rounds_min,
            )
            for batch, taken in times.items()
        ]
    measured.append(
        gates.size(
            candidate_bytes=ours.model_bytes,
            stable_bytes=None if theirs is None else theirs.model_bytes,
            ratio_max=margins.size_ratio_max,
            bytes_max=margins.size_bytes_max,
        )
    )
    return measured


def _graph_problems(graph: onnx.GraphProto) -> list[str]:
    problems = []
    for tensor in (*graph.initializer, *(entry.values for entry in graph.sparse_initializer)):
        problems += _tensor_problems(tensor)
    for node in graph.node:
        if node.domain not in STANDARD_DOMAINS:
            problems.append(f"uses the operator {node.domain}.{node.op_type}")
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                problems += _tensor_problems(tensor)
            for inner in (attribute.g, *attribute.graphs):
                problems += _graph_problems(inner)
    return problems


def _tensor_problems(tensor: onnx.TensorProto) -> list[str]:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        return [f"keeps {tensor.name!r} outside the file"]
    return []


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
