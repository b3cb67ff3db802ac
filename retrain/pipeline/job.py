"""One run of the pipeline: rows, training, export, compression, gates, package.

The order is the argument: int8 is a candidate that has to win against float32, and whichever is
taken has to pass the gates against the stable model. What did not pass is written as well, with the
report that says why; the exit code says that it must not be used.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from retrain import artifact, bundle
from retrain.artifact import Manifest
from retrain.compress.quantize import QuantizeError, choose_scheme, cpu_flags, quantize
from retrain.gates import GateReport, Margins, Measurement, Verdict
from retrain.pipeline import network as networks
from retrain.pipeline import validate as validation
from retrain.pipeline.data import Prepared, prepare
from retrain.pipeline.export import Exported, export, odd_rows, write_golden
from retrain.pipeline.profile import reference_profile
from retrain.pipeline.recipe import Recipe
from retrain.pipeline.tables import DataError
from retrain.pipeline.train import Progress, Trained, train
from retrain.preprocess import Matrix, encode_rows

REPORT_SCHEMA = "remora.report/1"
GOLDEN_ROWS = 64
PARITY_ROWS = 512
RELEVANT_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a run is given. `now`: UNIX seconds. `captures` None: the original rows alone."""

    recipe: Recipe
    captures: Path | None
    stable: Path | None
    out: Path
    now: float
    trigger: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    report: GateReport
    manifest: Manifest
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """The graph that was taken, its report, and the comparison that decided."""

    directory: Path
    report: GateReport
    steps: list[Mapping[str, Any]]
    comparison: Mapping[str, Any]


def run(job: Job, progress: Progress) -> Finished:
    """Leaves `artifact/`, `artifact.tar.gz` and `report.json` in `job.out`.

    Raises DataError, RecipeError or ArtifactError (of the stable model), each one line with a mend.
    """
    began = time.monotonic()
    target = job.out / "artifact"
    if target.exists():
        raise DataError(f"{target}: exists: give an --out without an artifact")
    stable = None if job.stable is None else artifact.load(job.stable)
    work = job.out / ".work"
    shutil.rmtree(work, ignore_errors=True)
    plain = work / "float32"
    plain.mkdir(parents=True)
    try:
        progress("prepare", 0, 1, {})
        prepared = prepare(job.recipe, job.captures, now=job.now)
        progress("prepare", 1, 1, {"rows": len(prepared.train)})
        trained = train(
            job.recipe,
            prepared,
            stable=job.stable,
            stable_preprocess=None if job.stable is None else artifact.read_preprocess(job.stable),
            progress=progress,
        )
        matrix = encode_rows(prepared.train.columns, trained.fitted.preprocess)
        exported = _export(plain, trained, matrix, progress)
        choice = _compress(job, work, prepared, matrix, progress)
        _package(job, choice, trained, prepared, progress)
        manifest = artifact.seal(
            choice.directory, _manifest(job, stable, choice, trained, prepared, exported)
        )
        choice.directory.rename(target)
        bundle.pack(target, job.out / "artifact.tar.gz")
        progress("package", 1, 1, {"bytes": (job.out / "artifact.tar.gz").stat().st_size})
    finally:
        shutil.rmtree(work, ignore_errors=True)
    summary = {
        "schema": REPORT_SCHEMA,
        "digest": manifest.digest,
        "version": manifest.version,
        "passed": choice.report.passed,
        "gates": choice.report.as_json(),
        "compression": choice.comparison,
        "training": dict(trained.account),
        "data": dict(prepared.account),
        "seconds": round(time.monotonic() - began, 2),
    }
    write_json(job.out / "report.json", summary)
    return Finished(report=choice.report, manifest=manifest, summary=summary)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def _export(directory: Path, trained: Trained, matrix: Matrix, progress: Progress) -> Exported:
    progress("export", 0, 1, {})
    preprocess = trained.fitted.preprocess
    rows = np.concatenate([matrix[:PARITY_ROWS], odd_rows(preprocess)])
    exported = export(trained.network, trained.fitted, rows, directory / artifact.MODEL)
    _write_preprocess(directory, trained)
    progress("export", 1, 1, {"bytes": (directory / artifact.MODEL).stat().st_size})
    return exported


def _compress(
    job: Job, work: Path, prepared: Prepared, matrix: Matrix, progress: Progress
) -> _Choice:
    plain = work / "float32"
    report = _gates(job, plain, prepared)
    size = (plain / artifact.MODEL).stat().st_size
    kept = _Choice(
        directory=plain, report=report, steps=[], comparison={"taken": "float32", "bytes": size}
    )
    progress("validate", 1, 2, {"passed": float(report.passed)})
    if job.recipe.compress.kind == "none":
        return kept
    small = work / "int8"
    small.mkdir()
    shutil.copy(plain / artifact.PREPROCESS, small)
    order = np.random.default_rng(job.recipe.training.seed).permutation(len(matrix))
    progress("compress", 0, 1, {})
    try:
        step = quantize(
            plain / artifact.MODEL,
            small / artifact.MODEL,
            matrix[order[: job.recipe.compress.calibration_rows]],
            scheme=choose_scheme(cpu_flags()),
            rows_max=job.recipe.compress.calibration_rows,
        )
    except QuantizeError as error:
        comparison = {**kept.comparison, "why": str(error)}
        return _Choice(directory=plain, report=report, steps=[], comparison=comparison)
    small_report = _gates(job, small, prepared)
    comparison, wins = _compare(job, plain, small, prepared, small_report)
    progress("compress", 1, 1, {"bytes": (small / artifact.MODEL).stat().st_size})
    progress("validate", 2, 2, {"passed": float(small_report.passed)})
    if wins:
        return _Choice(directory=small, report=small_report, steps=[step], comparison=comparison)
    return _Choice(directory=plain, report=report, steps=[], comparison=comparison)


def _compare(
    job: Job, plain: Path, small: Path, prepared: Prepared, small_report: GateReport
) -> tuple[dict[str, Any], bool]:
    """float32 against int8: quality on the holdout, bytes, latency; and whether int8 is taken."""
    before, after = validation.open_model(plain), validation.open_model(small)
    quality = validation.compare_quality(
        after,
        before,
        prepared.holdout,
        gate="quality_int8_against_float32",
        margin=job.recipe.compress.margin,
        rows_min=job.recipe.gates.rows_min,
    )
    rows = np.resize(before.encode(prepared.holdout), (32, len(before.preprocess.features)))
    latency: dict[str, Any] = {}
    for batch in (1, 32):
        times = validation.time_models([before, after], rows[:batch])
        medians = [round(float(np.median(taken)), 1) for taken in times]
        ratio = float(np.median(np.asarray(times[1]) / np.asarray(times[0])))
        latency[f"b{batch}"] = {
            "float32_us": medians[0],
            "int8_us": medians[1],
            "ratio": round(ratio, 3),
        }
    smaller = after.model_bytes < before.model_bytes
    why = _why(quality, smaller, small_report)
    return {
        "taken": "int8_static" if why is None else "float32",
        "why": why or "smaller, within the margin, and all gates passed",
        "float32_bytes": before.model_bytes,
        "int8_bytes": after.model_bytes,
        "smaller_by": round(1 - after.model_bytes / before.model_bytes, 4),
        "quality": quality.as_json(),
        "latency": latency,
    }, why is None


def _why(quality: Measurement, smaller: bool, report: GateReport) -> str | None:
    """Why int8 is not taken; None if it is."""
    if not smaller:
        return "int8 is not smaller"
    if quality.verdict is not Verdict.SUCCESSFUL:
        return f"int8 against float32: {quality.words}"
    return None if report.passed else f"int8 does not pass the gates: {report.words}"


def _gates(job: Job, directory: Path, prepared: Prepared) -> GateReport:
    margins: Margins = job.recipe.gates
    return validation.validate(
        directory, job.stable, holdout=prepared.holdout, recent=prepared.recent, margins=margins
    )


def _package(
    job: Job, choice: _Choice, trained: Trained, prepared: Prepared, progress: Progress
) -> None:
    progress("package", 0, 1, {})
    directory = choice.directory
    networks.save_weights(directory, trained.network, job.recipe, trained.fitted)
    preprocess = trained.fitted.preprocess
    golden = encode_rows(prepared.holdout.columns, preprocess)[:GOLDEN_ROWS]
    write_golden(directory / artifact.MODEL, np.concatenate([golden, odd_rows(preprocess)]))
    model = validation.open_model(directory)
    profile, account = reference_profile(job.recipe, prepared, model)
    (directory / artifact.REFERENCE).write_bytes(profile)
    (directory / artifact.CARD).write_text(_card(job, choice, prepared, account), encoding="utf-8")


def _write_preprocess(directory: Path, trained: Trained) -> None:
    (directory / artifact.PREPROCESS).write_bytes(
        artifact.canonical_json(trained.fitted.preprocess.as_json())
    )


def _manifest(
    job: Job,
    stable: Manifest | None,
    choice: _Choice,
    trained: Trained,
    prepared: Prepared,
    exported: Exported,
) -> Manifest:
    recipe = job.recipe
    moment = datetime.fromtimestamp(job.now, UTC)
    short = artifact.sha256_of(choice.directory / artifact.MODEL)[:4]
    return Manifest(
        line=recipe.line,
        version=f"{moment:%Y-%m-%dT%H%M%SZ}-{short}",
        parent=None if stable is None else stable.digest,
        created=f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        opset=exported.opset,
        ir=exported.ir,
        signature=exported.signature,
        files=(),
        training={
            **trained.account,
            "recipe_sha256": recipe.sha256,
            "seed": recipe.training.seed,
            "trigger": dict(job.trigger),
            "export": dict(exported.account),
        },
        data=dict(prepared.account),
        compression={
            "steps": [dict(step) for step in choice.steps],
            "comparison": dict(choice.comparison),
            "cpu_flags": sorted(cpu_flags() & set(RELEVANT_FLAGS)),
        },
        metrics=choice.report.as_json(),
    )


def _card(job: Job, choice: _Choice, prepared: Prepared, profile: Mapping[str, Any]) -> str:
    """card.md: what a person wants to know before trusting a model, in a page."""
    recipe, rows = job.recipe, prepared.account["rows"]
    lines = [
        f"# {recipe.line}",
        "",
        f"Predicts `{recipe.target}` ({recipe.task.value}) from {len(recipe.features)} features: "
        f"{', '.join(feature.name for feature in recipe.features)}.",
        "",
        f"Trained on {rows['train']} rows, stopped by {rows['validation']}; judged on a holdout of "
        f"{rows['holdout']} and on the {rows['recent']} newest labelled rows, none of them trained "
        "on.",
        f"Weights: {choice.comparison['taken']}. Reference profile: {profile['rows']} "
        f"{profile['source']} rows.",
        "",
        "| gate | verdict | figures |",
        "| --- | --- | --- |",
        *(
            f"| {entry.gate} | {entry.verdict.value} | {entry.words} |"
            for entry in choice.report.measurements
        ),
        "",
        "Of the causes behind the labels this model knows nothing. It answers for rows like those "
        "of its reference profile; for others, expect less than the figures above.",
        "",
    ]
    return "\n".join(lines)
