"""What a candidate must show before it may have traffic.

Pure: figures in, verdict out; the figures are measured in a job (`retrain/pipeline/validate.py`).
A measurement that lacks rows is inconclusive, and inconclusive never admits: only a report whose
every required measurement is SUCCESSFUL has `passed`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retrain.artifact import Signature
from retrain.preprocess import Preprocess

# One-sided 95%: "not worse than the margin" is a question with one side.
Z_ONE_SIDED = 1.6448536269514722


class Verdict(StrEnum):
    SUCCESSFUL = "successful"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


# Worst first: what a report adds up to is the first of these that occurs in it.
WORST_FIRST = (Verdict.FAILED, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.SUCCESSFUL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Thresholds of the gates. Margins are in points of the metric (.01 is one point of accuracy)
    and for a regression in parts of the stable model's error.

    holdout_margin: after drift the old world may legitimately get a little worse, so .02.
    recent_margin: the world as it is now must not get worse by more than .01.
    rows_min: fewer rows than this are inconclusive, whatever they say.
    latency_ratio_max: candidate CPU time over stable CPU time, at batch 1 and at batch 32.
    latency_us_max: CPU microseconds per call at batch 1, None for no limit.
    size_ratio_max: 4, so that float32 may follow int8 where int8 does not hold its margin.
    """

    holdout_margin: float = 0.02
    recent_margin: float = 0.01
    rows_min: int = 200
    latency_ratio_max: float = 1.5
    latency_us_max: float | None = None
    latency_rounds_min: int = 9
    size_ratio_max: float = 4.0
    size_bytes_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One comparison. `words` carries the arithmetic: both numbers and the bound between them."""

    gate: str
    verdict: Verdict
    words: str
    required: bool = True
    figures: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "gate": self.gate,
            "verdict": self.verdict.value,
            "words": self.words,
            "required": self.required,
            "figures": dict(self.figures),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError."""
        return cls(
            gate=str(value["gate"]),
            verdict=Verdict(value["verdict"]),
            words=str(value["words"]),
            required=bool(value["required"]),
            figures={str(name): float(number) for name, number in value["figures"].items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """Every measurement of one candidate, and what they add up to."""

    measurements: tuple[Measurement, ...]

    @property
    def verdict(self) -> Verdict:
        required = {entry.verdict for entry in self.measurements if entry.required}
        # Nothing measured is silence, and silence is not success.
        return next((v for v in WORST_FIRST if v in required), Verdict.INCONCLUSIVE)

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.SUCCESSFUL

    @property
    def words(self) -> str:
        """One line: what stood in the way, or that nothing did."""
        against = [
            f"{entry.gate}: {entry.words}"
            for entry in self.measurements
            if entry.required and entry.verdict is not Verdict.SUCCESSFUL
        ]
        if not against and self.measurements:
            return f"all {sum(entry.required for entry in self.measurements)} required gates passed"
        return "; ".join(against) or "nothing was measured"

    def measurement(self, gate: str) -> Measurement | None:
        return next((entry for entry in self.measurements if entry.gate == gate), None)

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "passed": self.passed,
            "words": self.words,
            "measurements": [entry.as_json() for entry in self.measurements],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The verdict is derived again, never believed. Raises KeyError, TypeError, ValueError."""
        return cls(
            measurements=tuple(Measurement.from_json(entry) for entry in value["measurements"])
        )


def quality(
    *,
    gate: str,
    metric: str,
    candidate: NDArray[np.float64],
    stable: NDArray[np.float64],
    margin: float,
    rows_min: int,
) -> Measurement:
    """Paired comparison on the same rows: is the candidate not worse by more than the margin?

    candidate, stable: [n] gain of each row, more is better and within [-1, 1] or so (1 for a right
    class and 0 for a wrong one; minus the error in parts of the stable model's mean error).
    The interval is that of the mean paired difference, with one pseudo-row of +1 and one of -1
    added (Bonett and Price 2012): without them two models that agree on every row of a short
    holdout would have an interval of no width.
    Raises ValueError if the lengths differ.
    """
    if candidate.shape != stable.shape or candidate.ndim != 1:
        raise ValueError(f"gains are not paired: {candidate.shape} and {stable.shape}")
    rows = len(candidate)
    if rows < rows_min:
        return Measurement(
            gate=gate,
            verdict=Verdict.INCONCLUSIVE,
            words=f"{rows} labelled rows < minimum {rows_min}",
            figures={"rows": rows},
        )
    mean_candidate, mean_stable = float(candidate.mean()), float(stable.mean())
    if not (math.isfinite(mean_candidate) and math.isfinite(mean_stable)):
        return Measurement(
            gate=gate, verdict=Verdict.ERROR, words="a prediction is not finite", figures={}
        )
    padded = np.concatenate([candidate - stable, [1.0, -1.0]])
    reach = Z_ONE_SIDED * float(padded.std()) / math.sqrt(len(padded))
    difference = mean_candidate - mean_stable
    if difference - reach >= -margin:
        verdict, sign = Verdict.SUCCESSFUL, ">="
    elif difference + reach < -margin:
        verdict, sign = Verdict.FAILED, "<"
    else:
        verdict, sign = Verdict.INCONCLUSIVE, "cannot be told from"
    words = (
        f"{metric} {_short(mean_candidate)} {sign} stable {_short(mean_stable)} - margin "
        f"{_short(margin)} (difference {_signed(difference)} +- {_short(reach)}, {rows} rows)"
    )
    figures = {
        "candidate": mean_candidate,
        "stable": mean_stable,
        "difference": difference,
        "lower": difference - reach,
        "upper": difference + reach,
        "margin": margin,
        "rows": rows,
    }
    return Measurement(gate=gate, verdict=verdict, words=words, figures=figures)


def latency(
    *,
    gate: str,
    candidate_us: Sequence[float],
    stable_us: Sequence[float],
    ratio_max: float,
    rounds_min: int,
) -> Measurement:
    """Ratio of CPU times, paired by round. A neighbour's noise hits both models of a round.

    candidate_us, stable_us: [rounds] CPU microseconds per call, measured in turns.
    The bounds are those of the median ratio by order statistics, one-sided 95%.
    """
    rounds = min(len(candidate_us), len(stable_us))
    if rounds < rounds_min:
        return Measurement(
            gate=gate,
            verdict=Verdict.INCONCLUSIVE,
            words=f"{rounds} rounds < minimum {rounds_min}",
            figures={"rounds": rounds},
        )
    ratios = sorted(candidate_us[index] / max(stable_us[index], 1e-3) for index in range(rounds))
    median = float(np.median(ratios))
    step = Z_ONE_SIDED * math.sqrt(rounds) / 2
    lower = ratios[max(0, math.floor(rounds / 2 - step))]
    upper = ratios[min(rounds - 1, math.ceil(rounds / 2 + step))]
    if upper <= ratio_max:
        verdict, sign = Verdict.SUCCESSFUL, "<="
    elif lower > ratio_max:
        verdict, sign = Verdict.FAILED, ">"
    else:
        verdict, sign = Verdict.INCONCLUSIVE, "cannot be told from"
    own, other = float(np.median(candidate_us)), float(np.median(stable_us))
    return Measurement(
        gate=gate,
        verdict=verdict,
        words=(
            f"{own:.1f} us / stable {other:.1f} us = {median:.2f} {sign} {ratio_max:g} "
            f"({lower:.2f} to {upper:.2f}, {rounds} rounds)"
        ),
        figures={
            "candidate_us": own,
            "stable_us": other,
            "ratio": median,
            "lower": lower,
            "upper": upper,
            "ratio_max": ratio_max,
            "rounds": rounds,
        },
    )


def latency_absolute(*, candidate_us: Sequence[float], us_max: float | None) -> Measurement:
    """CPU microseconds per call at batch 1: a gate where a limit is given, else a figure."""
    gate = "latency_b1_absolute"
    if not candidate_us:
        return Measurement(
            gate=gate,
            verdict=Verdict.INCONCLUSIVE,
            words="not measured",
            required=us_max is not None,
        )
    own = float(np.median(candidate_us))
    if us_max is None:
        return Measurement(
            gate=gate,
            verdict=Verdict.SUCCESSFUL,
            words=f"{own:.1f} us, no limit given",
            required=False,
            figures={"candidate_us": own},
        )
    good = own <= us_max
    return Measurement(
        gate=gate,
        verdict=Verdict.SUCCESSFUL if good else Verdict.FAILED,
        words=f"{own:.1f} us {'<=' if good else '>'} {us_max:g} us",
        figures={"candidate_us": own, "us_max": us_max},
    )


def size(
    *, candidate_bytes: int, stable_bytes: int | None, ratio_max: float, bytes_max: int | None
) -> Measurement:
    """Bytes of model.onnx against the stable model's and against a limit, whichever is less."""
    bounds = [float(bytes_max)] if bytes_max is not None else []
    if stable_bytes is not None:
        bounds.append(ratio_max * stable_bytes)
    figures = {"candidate_bytes": float(candidate_bytes)}
    if stable_bytes is not None:
        figures["stable_bytes"] = float(stable_bytes)
    if not bounds:
        return Measurement(
            gate="size",
            verdict=Verdict.SUCCESSFUL,
            words=f"{candidate_bytes} bytes, no limit given",
            required=False,
            figures=figures,
        )
    bound = min(bounds)
    good = candidate_bytes <= bound
    against = f" (stable {stable_bytes} x {ratio_max:g})" if bound != bytes_max else ""
    return Measurement(
        gate="size",
        verdict=Verdict.SUCCESSFUL if good else Verdict.FAILED,
        words=f"{candidate_bytes} bytes {'<=' if good else '>'} {bound:.0f}{against}",
        figures={**figures, "bytes_max": bound},
    )


def finite(*, rows: int, rows_not_finite: int) -> Measurement:
    """Outputs on real rows and on rows made of missing, huge and unseen values."""
    if rows == 0:
        return Measurement(gate="finite", verdict=Verdict.INCONCLUSIVE, words="no rows were run")
    good = rows_not_finite == 0
    return Measurement(
        gate="finite",
        verdict=Verdict.SUCCESSFUL if good else Verdict.FAILED,
        words=f"{rows_not_finite} of {rows} rows gave NaN or Infinity",
        figures={"rows": rows, "rows_not_finite": rows_not_finite},
    )


def signature(
    *,
    candidate: Signature,
    stable: Signature,
    candidate_rows: Preprocess,
    stable_rows: Preprocess,
) -> Measurement:
    """Whoever calls the stable model must be able to call the candidate in the same way.

    Categories may differ (a new one appears in life); names, order, kinds, classes may not.
    """
    differences = [
        f"{what} {_named(ours)} is not {_named(theirs)}"
        for what, ours, theirs in (
            ("inputs", candidate.inputs, stable.inputs),
            ("outputs", candidate.outputs, stable.outputs),
            (
                "features",
                [(entry.name, entry.kind.value) for entry in candidate_rows.features],
                [(entry.name, entry.kind.value) for entry in stable_rows.features],
            ),
            ("classes", candidate_rows.classes, stable_rows.classes),
            ("task", candidate_rows.task, stable_rows.task),
        )
        if ours != theirs
    ]
    return Measurement(
        gate="signature",
        verdict=Verdict.FAILED if differences else Verdict.SUCCESSFUL,
        words="; ".join(differences)
        or "inputs, outputs, features and classes as the stable model's",
    )


def loads(*, problems: Sequence[str]) -> Measurement:
    """Loads in onnxruntime, of standard operators only, with no data outside the file."""
    return Measurement(
        gate="loads",
        verdict=Verdict.FAILED if problems else Verdict.SUCCESSFUL,
        words="; ".join(problems) or "loads, standard operators, no external data",
    )


def not_measured(gate: str, why: str, *, verdict: Verdict = Verdict.INCONCLUSIVE) -> Measurement:
    """A required gate that could not be measured at all: it stands in the report all the same."""
    return Measurement(gate=gate, verdict=verdict, words=why)


def _named(value: object) -> str:
    text = str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _short(value: float) -> str:
    """.842, as people write shares: no leading zero, three places."""
    text = f"{value:.3f}" if abs(value) >= 5e-4 or value == 0 else f"{value:.1e}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + _short(value)
