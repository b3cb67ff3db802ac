"""What can be seen with a reference, in words: for each feature, and for the model as a whole."""

from typing import TYPE_CHECKING, Any

from agent.cli.output import plain, print_facts, print_json, print_table

if TYPE_CHECKING:
    from detectors import FeatureProfile, Reference

# A shift of one standard deviation is what a person sees in two histograms side by side.
SHIFT_SEEN_MAX = 1.0
# With fewer independent rows than this, how alike neighbours are is itself badly known.
INDEPENDENT_ROWS_MIN = 200
PHI_MIN = 2.0
NAMES_SHOWN_MAX = 12
_SEASONS = dict.fromkeys((24, 96), "hour of the day")
_SEASONS |= dict.fromkeys((168, 672), "hour of the week")


def present(reference: "Reference", as_json: bool, *, heading: dict[str, object]) -> None:
    """Prints a reference, and what is visible with it and what is not."""
    shifts = _shifts(reference)
    rows = [_feature_facts(profile, shifts) for profile in reference.features]
    facts = heading | _facts(reference)
    seen, unseen = _sight(reference, shifts)
    outputs = {
        name: None if profile is None else _feature_facts(profile, shifts)
        for name, profile in (
            ("prediction", reference.prediction),
            ("score", reference.score),
            ("label", reference.label),
        )
    }
    if as_json:
        print_json(facts | {"features": rows, **outputs, "visible": seen, "not_visible": unseen})
        return
    print_facts(facts)
    rows += [row | {"kind": name} for name, row in outputs.items() if row is not None]
    print_table(
        "Visible: the smallest lasting shift that can be seen",
        ("feature", "kind", "missing", "range", "detectable shift (standard deviations)", "season"),
        (
            (
                r["name"],
                r["kind"],
                f"{r['missing_ratio']:.1%}",
                r["range"],
                "" if r["detectable_shift"] is None else r["detectable_shift"],
                r["season"] or "",
            )
            for r in rows
        ),
    )
    for line in seen:
        print(f"visible: {line}")
    for line in unseen:
        print(f"not visible: {line}")


def _facts(reference: "Reference") -> dict[str, object]:
    facts: dict[str, object] = {
        "digest": reference.digest,
        "signed": reference.signature is not None,
        "rows": reference.rows,
        "rows per tick": reference.tick_rows,
        "calibrated to order": reference.ordered,
        "accepted": reference.accepted,
    }
    if reference.task is not None:
        facts["task"] = reference.task
    if reference.baseline is not None and reference.task != "regression":
        facts["errors in labelled rows"] = (
            f"{reference.baseline.errors} of {reference.baseline.rows}"
        )
    if "duplicate_ratio" in reference.quality:
        facts["rows that repeat another"] = f"{reference.quality['duplicate_ratio']:.2%}"
    return facts


def _shifts(reference: "Reference") -> dict[str, float]:
    from detectors.drift.detector import DriftDetector

    profiles = reference.profiles()
    return DriftDetector(reference, profiles=profiles).detectable_shift() if profiles else {}


def _feature_facts(profile: "FeatureProfile", shifts: dict[str, float]) -> dict[str, Any]:
    from detectors.rows.bins import MISSING

    limits = profile.limits()
    if limits:
        span = f"{limits[0]:.6g} to {limits[-1]:.6g}"
    else:
        known = 0 if profile.keys is None else len(profile.keys.counts)
        span = f"{known} categories"
    return {
        "name": profile.name,
        "kind": profile.kind,
        "type": profile.type,
        "missing_ratio": profile.counts[MISSING] / max(profile.rows, 1.0),
        "range": span,
        "detectable_shift": None
        if profile.rows <= profile.counts[MISSING]
        else shifts.get(profile.name),
        "season": _SEASONS.get(len(profile.phases)),
        "rows_per_independent_row": profile.phi,
    }


def _sight(reference: "Reference", shifts: dict[str, float]) -> tuple[list[str], list[str]]:
    """What readings can come from, and what none will come from, in words."""
    seen, unseen = _features_sight(reference, shifts)
    for lines, words in (_projections_sight(reference), *_model_sight(reference)):
        (seen if lines else unseen).append(words)
    return seen, unseen


def _features_sight(
    reference: "Reference", shifts: dict[str, float]
) -> tuple[list[str], list[str]]:
    from detectors.rows.bins import MISSING

    seen, unseen = [], []
    seasonal = [profile.name for profile in reference.profiles() if profile.phases]
    if seasonal:
        seen.append(
            f"shifts against the same hour, and no alarm for the season: {_listed(seasonal)}"
        )
    derivation = reference.derivation
    described = set() if derivation is None else {*derivation.texts, *derivation.vectors}
    if described:
        seen.append(f"what {_listed(sorted(described))} holds, by figures derived from it")
    blind = [
        profile.name
        for profile in reference.features
        if not shifts.get(profile.name, 0.0) <= SHIFT_SEEN_MAX
    ]
    if blind:
        unseen.append(
            f"shifts of less than {SHIFT_SEEN_MAX:g} standard deviation in {_listed(blind)}: more"
            " rows, or rows over a longer time"
        )
    void = [
        profile.name for profile in reference.features if profile.rows <= profile.counts[MISSING]
    ]
    if void:
        unseen.append(f"anything in {_listed(void)}: it has no value at all in these rows")
    alike = [
        profile.name
        for profile in reference.features
        if profile.phi > PHI_MIN and profile.rows < INDEPENDENT_ROWS_MIN * profile.phi
    ]
    if alike:
        unseen.append(
            f"much of {_listed(alike)}, and false alarms are likelier there: rows resemble their"
            f" neighbours so much that they are worth fewer than {INDEPENDENT_ROWS_MIN} independent"
            " ones; give rows over a longer time"
        )
    bare = [c for c in reference.columns if c not in {*reference.feature_names, *described}]
    if reference.segments is not None:
        counted = reference.segments.counts.sum(axis=(0, 2))
        apart = [p.name for p, rows in zip(reference.features, counted, strict=True) if not rows]
        if apart:
            column = plain(reference.segments.column)
            unseen.append(f"drift of {_listed(apart)} within each {column}: seasons, or new bins")
    if bare:
        unseen.append(f"changes of {_listed(bare)}: text or vectors that nothing is derived from")
    return seen, unseen


def _projections_sight(reference: "Reference") -> tuple[bool, str]:
    words = "changes in how features go together while each by itself stays as it is"
    count = len(reference.projections)
    if count:
        return True, f"{words}: by {count} projections of the rows"
    return False, f"{words}: they need 200 rows and two numeric features that depend on each other"


def _model_sight(reference: "Reference") -> list[tuple[bool, str]]:
    baseline, label, prediction = reference.baseline, reference.label, reference.prediction
    estimation = None if baseline is None else baseline.estimation
    regression = reference.task == "regression"
    give_output = "name the model's output by --prediction or --score"
    lines = []
    if prediction is not None:
        lines.append((True, f"prediction drift: by {plain(prediction.name)}"))
    else:
        lines.append((False, f"prediction drift: {give_output}"))
    if regression:
        lines.append((True, "concept drift: by residuals, learnt from the first labelled rows"))
    elif baseline is not None and baseline.rows:
        rate = baseline.errors / baseline.rows
        lines.append((True, f"concept drift: against {rate:.1%} errors, when labels come"))
    else:
        lines.append(
            (False, "concept drift against this data: give --target beside --prediction or --score")
        )
    if not regression:
        calibrated = estimation is not None and label is not None
        words = "whether the score still means what it says (calibration)"
        mend = "needs --target and --score, and 500 labelled rows of both classes"
        lines.append((calibrated, words if calibrated else f"{words}: {mend}"))
    if label is not None:
        lines.append((True, f"label drift: by {plain(label.name)}"))
    else:
        lines.append((False, "label drift: name what turned out true by --target"))
    words = "quality before labels come (an estimate)"
    mend = "needs --target beside " + ("--prediction" if regression else "--score")
    mend += ", and 500 labelled rows"
    lines.append((estimation is not None, words if estimation is not None else f"{words}: {mend}"))
    if reference.segments is not None:
        names = _listed(reference.segments.names)
        lines.append((True, f"drift within each {plain(reference.segments.column)}: {names}"))
    else:
        lines.append((False, "drift within one group of rows: name its column by --segment"))
    return lines


def _listed(names: Any) -> str:
    shown = ", ".join(plain(name) for name in list(names)[:NAMES_SHOWN_MAX])
    more = len(names) - NAMES_SHOWN_MAX
    return f"{shown} and {more} others" if more > 0 else shown
