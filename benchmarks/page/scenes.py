"""What the pictures of docs/detection.md show: simulated here, by the very detectors that ship.

Every scene has a fixed seed and gives one SVG. Nothing is drawn that was not computed; whoever
changes a detector draws the pictures again (benchmarks/pictures.py).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.page.canvas import Axis, Floats, Ink, Panel, picture
from detectors import DriftDetector, State, build_reference
from detectors.performance.estimation import EstimationBuilder, Estimator
from detectors.references.calibration import TOLERANCE
from detectors.references.calibration import wander as wander_of
from detectors.rows.columns import as_table

MONTH, TICKS_A_DAY = 43_200, 1_440
FEATURES, ROWS = 100, 1_000
#: Of three lines: what goes wrong, what is better, what we do.
THREE: Final[tuple[Ink, ...]] = ("bad", "other", "ours")
ONE: Final = (76.0, 24.0, 608.0, 252.0)
LEFT: Final = (64.0, 24.0, 276.0, 252.0)
RIGHT: Final = (420.0, 24.0, 276.0, 252.0)


def false_alarms(ticks: int = MONTH) -> str:
    """A month of rows that never change, looked at once a minute by three rules."""
    rng = np.random.default_rng(1)
    names = [f"f{j}" for j in range(FEATURES)]
    reference = build_reference({n: rng.random(50_000) for n in names}, derive=False)
    ours = DriftDetector(reference, false_alarms_per_month=0.5)
    # Kolmogorov's limits for 1,000 rows at .05, and at .05 / 100 (Stephens 1970): the two tests
    # know the true distribution, Remora has to estimate it.
    scale = math.sqrt(ROWS) + 0.12 + 0.11 / math.sqrt(ROWS)
    limits = 1.3581 / scale, math.sqrt(math.log(2 * FEATURES / 0.05) / 2) / scale
    found = np.zeros((3, ticks))
    upper = np.arange(1, ROWS + 1, dtype=np.float32) / ROWS
    for tick in range(ticks):
        gaps = rng.standard_exponential((FEATURES, ROWS + 1), dtype=np.float32)
        sums = gaps.cumsum(axis=1)
        rows = sums[:, :-1] / sums[:, -1:]  # 1,000 uniform values of each feature, in order
        apart = np.maximum((upper - rows).max(axis=1), (rows - upper).max(axis=1) + 1 / ROWS)
        found[:2, tick] = [(apart > limit).sum() for limit in limits]
        readings = ours.update(dict(zip(names, rows, strict=True)))
        found[2, tick] = sum(reading.state is not State.OK for reading in readings)
    totals = found.cumsum(axis=1)
    for name, total in zip(("KS .05", "Bonferroni", "Remora"), totals[:, -1], strict=True):
        print(f"  {name}: {total:,.0f} alarms in {ticks:,} ticks of {FEATURES} features")
    days = np.arange(1, ticks + 1) / TICKS_A_DAY
    foot = 0.3  # where a logarithmic axis has its 0
    marks = [(foot, "0"), *((10.0**k, f"{10**k:,}") for k in range(6))]
    panel = Panel(
        Axis(low=0, high=30, title="days, nothing ever changes", ticks=_each(0, 30, 5)),
        Axis(low=foot, high=1e6, title="false alarms so far", ticks=marks, log=True),
        ONE,
    )
    for total, ink in zip(totals, THREE, strict=True):
        panel.line(days, np.maximum(total, foot), ink)
    panel.level(1.0, "grey")
    panel.word(15, 3.5e5, f"KS test at .05: {totals[0, -1]:,.0f}", ink="bad", anchor="middle")
    panel.word(15, 180, f"with Bonferroni: {totals[1, -1]:,.0f}", ink="other", anchor="middle")
    panel.word(15, 0.38, f"Remora: {totals[2, -1]:,.0f}", ink="ours", anchor="middle")
    panel.word(29.7, 1.25, "what was promised: 1", ink="grey", anchor="end")
    return picture(
        [panel],
        title="False alarms over 30 days without a change: tests at .05 pile them up, Remora none",
    )


def evidence(rows_at_once: int = 100) -> str:
    """Money won against "nothing has changed": one feature shifts and comes back, others do not."""
    rng = np.random.default_rng(4)
    names = [f"f{j}" for j in range(20)]
    reference = build_reference({n: rng.normal(size=50_000) for n in names}, derive=False)
    detector = DriftDetector(reference, false_alarms_per_month=0.5)
    path, said = [], []
    for start in range(0, 16_000, rows_at_once):
        shift = 0.3 if 5_000 <= start < 11_000 else 0.0
        columns = {n: rng.normal(size=rows_at_once) for n in names}
        columns["f0"] += shift
        readings = detector.update(columns)
        said += [(r.row, r.state.value) for r in readings if r.subject == "f0"]
        path.append([detector.evidence()[n] for n in names])
    values, xs = np.array(path), np.arange(1, len(path) + 1) * rows_at_once / 1_000
    print(f"  said of the feature that moved: {said}")
    panel = Panel(
        Axis(low=0, high=16, title="rows, thousands", ticks=_each(0, 16, 2)),
        Axis(
            low=-2,
            high=10,
            title="evidence: log10 of money won",
            ticks=_each(-2, 10, 2),
        ),
        ONE,
    )
    for j in range(1, 6):
        panel.line(xs, values[:, j], "grey")
    panel.line(xs, values[:, 0], "ours")
    level = detector.evidence_threshold
    panel.level(level, "bad")
    panel.word(0.2, level + 0.2, "here it alarms", ink="bad")
    panel.mark(5, "mean moves by .3 sigma", share=0.98, anchor="end")
    panel.mark(11, "moves back", share=0.98, anchor="end")
    heights = {"warning": 0.98, "drift": 0.98, "ok": 0.98}
    for row, state in said:
        anchor = "end" if state == "warning" else "start"
        panel.mark(row / 1_000, f"said: {state}", share=heights[state], anchor=anchor)
    panel.word(8.5, 7.0, "held while in drift", ink="ours", anchor="middle")
    panel.word(15.9, -1.2, "five features that did not move", ink="grey", anchor="end")
    return picture([panel], title="Evidence of one feature over time, before and after a change")


def smallest_shift() -> str:
    """How much a bigger reference shows: the smallest shift that can be seen, by its rows."""
    profile = build_reference({"x": np.arange(64.0)}).features[0]
    inside = np.append(np.full(16, 1 / 16), [0.0, 0.0])
    shape = build_reference({"x": np.arange(64.0)})
    sizes = np.geomspace(1_000, 1_000_000, 31)

    def seen(rows: float, phi: float, wander: float = 0.0) -> float:
        counts = tuple((inside * rows).tolist())
        one = replace(profile, counts=counts, phi=phi, tolerance=TOLERANCE + wander)
        many = tuple(replace(one, name=f"f{j}") for j in range(FEATURES))
        reference = replace(shape, features=many, rows=int(rows))
        return DriftDetector(reference).detectable_shift()["f0"]

    panel = Panel(
        Axis(
            low=1_000,
            high=1_000_000,
            title="rows of the reference",
            ticks=[(10.0**k, f"{10**k:,}") for k in range(3, 7)],
            log=True,
        ),
        Axis(
            low=0,
            high=0.7,
            title="smallest visible shift, sigma",
            ticks=[(v, f"{v:.1f}") for v in (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)],
        ),
        ONE,
    )
    plain = np.array([seen(rows, phi=1.0) for rows in sizes])
    correlated = np.array([seen(rows, phi=10.0) for rows in sizes])
    wandering = np.array([seen(rows, phi=10.0, wander=0.2) for rows in sizes])
    texts = (
        "and wanders by .2 sigma by itself",
        "ten rows say as much as one",
        "independent rows",
    )
    for shown, ink, text in zip((wandering, correlated, plain), THREE, texts, strict=True):
        panel.line(sizes, shown, ink)
        x = 1_300.0 if ink == "ours" else 12_000.0
        panel.word(x, float(np.interp(x, sizes, shown)) + 0.018, text, ink=ink)
    panel.level(TOLERANCE, "grey")
    panel.word(1_050, TOLERANCE + 0.012, f"{TOLERANCE} sigma: declared irrelevant", ink="grey")
    print("  5,000 and 50,000 rows: " + ", ".join(f"{seen(m, phi=1.0):.3f}" for m in (5e3, 5e4)))
    return picture([panel], title="The smallest shift that can be seen falls with the reference")


def wander() -> str:
    """Block means of a feature whose rows are independent, and of one that wanders by itself."""
    rng = np.random.default_rng(3)
    rows = 120_000
    slow = np.zeros(rows)
    noise = rng.normal(size=rows // 500) * 0.05
    level = 0.0
    for i, step in enumerate(noise):  # a level that changes every 500 rows and forgets slowly
        level = 0.9 * level + step
        slow[i * 500 : (i + 1) * 500] = level
    columns = {"still": rng.normal(size=rows), "wandering": rng.normal(size=rows) + slow}
    columns["wandering"] /= columns["wandering"].std()
    reference = build_reference(columns, derive=False)
    panels = []
    independent = 1.96 / math.sqrt(ROWS)
    shifts = DriftDetector(reference).detectable_shift()
    for profile, box in zip(reference.features, (LEFT, RIGHT), strict=True):
        means = columns[profile.name].reshape(-1, ROWS).mean(axis=1)
        means -= means.mean()
        xs = np.arange(len(means), dtype=float)
        granted = wander_of(profile.tolerance) + 1.96 * math.sqrt(profile.phi / ROWS)
        panel = Panel(
            Axis(low=0, high=120, title="blocks of 1,000 reference rows", ticks=_each(0, 120, 40)),
            Axis(
                low=-0.5,
                high=0.5,
                title="mean of a block, sigma",
                ticks=[(v, f"{v:g}") for v in (-0.5, -0.25, 0, 0.25, 0.5)],
            ),
            box,
        )
        ends = np.array([0.0, 120.0])
        panel.band(ends, np.full(2, -granted), np.full(2, granted), "ours")
        panel.band(ends, np.full(2, -independent), np.full(2, independent), "grey")
        panel.dots(xs, means, "other")
        panel.word(3, 0.44, profile.name)
        panel.word(3, 0.37, f"phi {profile.phi:.1f}, smallest visible shift")
        panel.word(3, 0.31, f"{shifts[profile.name]:.2f} sigma")
        panels.append(panel)
        outside = float((np.abs(means) > independent).mean())
        print(
            f"  {profile.name}: phi {profile.phi:.2f}, tolerance {profile.tolerance:.3f}, visible "
            f"{shifts[profile.name]:.3f}; {outside:.0%} of blocks beyond what independent rows do"
        )
    return picture(panels, title="Block means of a feature that stays and one that wanders")


def correlation() -> str:
    """Two features that stop being correlated, with the same marginals as before."""
    rng = np.random.default_rng(2)
    names = [f"f{j}" for j in range(10)]

    def rows(count: int, rho: float) -> dict[str, Any]:
        values = rng.normal(size=(len(names), count))
        values[1] = rho * values[0] + math.sqrt(1 - rho**2) * values[1]
        return dict(zip(names, values, strict=True))

    reference = build_reference(rows(50_000, 0.8))
    single = DriftDetector(reference, false_alarms_per_month=0.5)
    together = DriftDetector(
        reference,
        false_alarms_per_month=0.1,
        profiles=reference.projections,
        scope="multivariate",
    )
    scatter = {True: rows(160, 0.8), False: rows(160, 0.0)}
    paths: list[list[float]] = []
    for start in range(0, 4_000, 50):
        table = as_table(rows(50, 0.8 if start < 2_000 else 0.0))
        single.update(table)
        said = together.update(reference.derive(table))
        for reading in said:
            print(f"  {reading.row - 2_000} rows after the change: {reading.explain}")
        best = max(single.evidence().values()), max(together.evidence().values())
        paths.append([*best])
    values: Floats = np.array(paths)
    xs: Floats = np.arange(1.0, len(paths) + 1) * 0.05
    print(f"  {len(reference.projections)} projections; features one by one: {single.states()}")
    left = Panel(
        Axis(low=-4, high=4, title="one feature, sigma", ticks=_each(-4, 4, 2)),
        Axis(low=-4, high=4, title="the other, sigma", ticks=_each(-4, 4, 2)),
        LEFT,
    )
    left.dots(scatter[True]["f0"], scatter[True]["f1"], "ours")
    left.dots(scatter[False]["f0"], scatter[False]["f1"], "other")
    left.word(-3.8, 3.4, "before", ink="ours")
    left.word(-3.8, 2.7, "after", ink="other")
    right = Panel(
        Axis(low=0, high=4, title="rows, thousands", ticks=_each(0, 4, 1)),
        Axis(
            low=-2,
            high=12,
            title="evidence, log10",
            ticks=[(float(v), f"{v}") for v in (-2, 0, 2, 4, 6, 8, 10, 12)],
        ),
        RIGHT,
    )
    right.mark(2, "relation gone", share=0.98, anchor="end")
    right.line(xs, values[:, 0], "grey")
    right.line(xs, values[:, 1], "ours")
    right.level(together.evidence_threshold, "bad")
    right.word(0.05, together.evidence_threshold + 0.25, "here it alarms", ink="bad")
    right.word(3.95, -1.7, "best single feature", ink="grey", anchor="end")
    right.word(1.9, 9.6, "best projection", ink="ours", anchor="end")
    return picture([left, right], title="A correlation that vanishes while both marginals stay")


def estimated() -> str:
    """Accuracy estimated from scores alone, and the accuracy that labels show later."""
    rng = np.random.default_rng(5)

    def rows(count: int, spread: float, concept: float) -> tuple[Floats, NDArray[np.bool_]]:
        logits = rng.normal(0.0, spread, count)
        score = 1 / (1 + np.exp(-logits))
        return score, rng.random(count) < 1 / (1 + np.exp(-concept * logits))

    builder = EstimationBuilder("classification")
    score, truth = rows(20_000, 2.0, 1.0)
    builder.update(score, score > 0.5, truth)
    table = builder.finish()
    assert table is not None
    estimator = Estimator(table, window_rows=2_000)
    xs, real, shown = [], [], []
    for block in range(60):
        spread, concept = (2.0 if block < 20 else 1.0), (1.0 if block < 40 else 0.3)
        score, truth = rows(1_000, spread, concept)
        estimator.update(score, score > 0.5)
        figure = estimator.metrics()["accuracy"]
        shown.append([figure.value, figure.lower, figure.upper])
        real.append(float(((score > 0.5) == truth).mean()))
        xs.append(block + 1.0)
    values, places = np.array(shown), np.array(xs)
    panel = Panel(
        Axis(low=0, high=60, title="rows, thousands", ticks=_each(0, 60, 10)),
        Axis(
            low=0.5,
            high=0.9,
            title="accuracy",
            ticks=[(v, f"{v:.1f}") for v in (0.5, 0.6, 0.7, 0.8, 0.9)],
        ),
        ONE,
    )
    panel.band(places, values[:, 1], values[:, 2], "ours")
    panel.line(places, values[:, 0], "ours")
    panel.dots(places, np.array(real), "other")
    panel.mark(20, "harder rows come", share=0.98)
    panel.mark(40, "the concept changes", share=0.98)
    panel.word(1, 0.73, "estimated, no labels", ink="ours")
    panel.word(1, 0.70, "labels, when they come", ink="other")
    panel.word(59.5, 0.715, "still this, and wrong", ink="ours", anchor="end")
    error = np.abs(values[:, 0] - real)
    print(
        f"  mean error: {error[:40].mean():.3f}, after the concept changed {error[45:].mean():.3f}"
    )
    return picture([panel], title="Estimated accuracy follows harder rows and misses a new concept")


def season() -> str:
    """A feature that is high by day: bins of all hours together, and of each hour."""
    rng = np.random.default_rng(6)

    def rows(first: int, days: int) -> tuple[Floats, Floats]:
        times = np.arange(first * 86_400, (first + days) * 86_400, 120.0)
        return times, 2 * np.sin(times / 86_400 * 2 * np.pi) + rng.normal(0, 0.5, len(times))

    times, values = rows(0, 28)
    reference = build_reference({"load": values}, timestamps=times, seasonality="day")
    plain = build_reference({"load": values}, timestamps=times, seasonality="none")
    phases = reference.features[0].phases
    pooled = plain.features[0].limits()[1:-1]
    each = 24 / len(phases)  # hours of a part
    assert len(phases) in (24, 96)
    shifts = [DriftDetector(r).detectable_shift()["load"] for r in (plain, reference)]
    print(f"  smallest visible shift: without seasons {shifts[0]:.2f}, with {shifts[1]:.2f}")
    live, seen = rows(28, 2)
    hours = (live - live[0]) / 3_600
    panel = Panel(
        Axis(low=0, high=48, title="hours", ticks=_each(0, 48, 12)),
        Axis(low=-4, high=4, title="value", ticks=_each(-4, 4, 2)),
        ONE,
    )
    panel.dots(hours[::8], seen[::8], "other")
    starts = np.arange(2 * len(phases)) * each
    steps = np.stack([starts, starts + each], axis=1).ravel()
    for edge in (0, 7, 14):
        of_parts = np.array([phase.edges[edge] for phase in (*phases, *phases)])
        panel.line(steps, np.repeat(of_parts, 2), "ours")
        panel.level(pooled[edge], "grey")
    panel.word(47.5, -3.6, "grey: edges of all hours; blue: edges of the hour", anchor="end")
    return picture([panel], title="Bins of a daily feature: three of fifteen edges, by hour")


def _each(low: int, high: int, step: int) -> list[tuple[float, str]]:
    return [(float(v), f"{v}") for v in range(low, high + 1, step)]


SCENES: Final[Mapping[str, Callable[[], str]]] = {
    "false-alarms": false_alarms,
    "evidence": evidence,
    "smallest-shift": smallest_shift,
    "wander": wander,
    "season": season,
    "correlation": correlation,
    "estimated": estimated,
}
