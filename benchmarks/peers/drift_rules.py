"""How the peers decide that a feature drifts, for benchmarks/detection_delay.py.

ADWIN and KSWIN are river's own, value by value; the p-values of Kolmogorov and Smirnov's test are
scipy's. The defaults of Evidently, NannyML and Alibi Detect are written out here as their
documentation states them, so that no environment of theirs is needed: what counts in this table is
the rule, its speed is measured elsewhere. On 160 windows of 1,000 rows they gave the very verdicts
of evidently 0.7.23, alibi-detect 0.13.0 and, on the same chunks, nannyml 0.13.1. The one thing not
to break: a rule sees exactly the rows that Remora sees.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Rows = NDArray[np.float64]
#: Which features alarm, from the sorted reference and one window, [features, rows] each.
Rule = Callable[[Rows, Rows], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPeer:
    """A rule that looks at windows of rows that do not overlap."""

    name: str
    rule: Rule
    note: str = ""


def p_values(reference: Rows, window: Rows) -> Rows:
    """Give the p-value of the two-sample test for each feature; missing values are left out."""
    values = np.empty(len(window))
    for j, (ref, rows) in enumerate(zip(reference, window, strict=True)):
        seen = np.sort(rows[~np.isnan(rows)])
        n, m = len(seen), len(ref)
        upto = np.searchsorted(ref, seen, side="right") / m
        gap = max((upto - np.arange(n) / n).max(), (np.arange(1, n + 1) / n - upto).max())
        values[j] = stats.kstwobign.sf(gap * np.sqrt(n * m / (n + m)))
    return values


def plain(reference: Rows, window: Rows) -> NDArray[np.bool_]:
    """Each feature at 5 %."""
    return p_values(reference, window) < 0.05


def bonferroni(reference: Rows, window: Rows) -> NDArray[np.bool_]:
    """5 % over all features: what Alibi Detect's KSDrift does by default."""
    return p_values(reference, window) < 0.05 / len(window)


def benjamini_hochberg(reference: Rows, window: Rows) -> NDArray[np.bool_]:
    """False discovery rate of 5 %."""
    adjusted: Rows = stats.false_discovery_control(p_values(reference, window))
    return adjusted < 0.05


def psi(reference: Rows, window: Rows) -> NDArray[np.bool_]:
    """Population stability index above .2 over ten equal shares of the reference."""
    return _each(reference, window, _psi_of) > 0.2


def evidently(reference: Rows, window: Rows) -> NDArray[np.bool_]:
    """Evidently, numbers, more than 1,000 reference rows: Wasserstein over the spread, .1."""
    return _each(reference, window, _wasserstein_of) >= 0.1


def nannyml(reference: Rows, window: Rows) -> NDArray[np.bool_]:
    """NannyML, continuous: Jensen-Shannon distance over the reference's own bins, above the mean
    and three standard deviations of the reference's own chunks.
    """
    key = (id(reference), window.shape[1])
    if key not in _FITTED:
        fits = [_js_fit(row, window.shape[1]) for row in reference]
        _FITTED[key] = (reference, fits)  # holds the reference, so that its id stays its own
    fits = _FITTED[key][1]
    rows = zip(fits, window, strict=True)
    return np.array([_js_of(f.edges, f.p, row[~np.isnan(row)]) > f.most for f, row in rows])


def always(reference: Rows, window: Rows) -> NDArray[np.bool_]:
    """Fire."""
    return np.ones(len(window), dtype=bool)


def never(reference: Rows, window: Rows) -> NDArray[np.bool_]:
    """Do not fire."""
    return np.zeros(len(window), dtype=bool)


WINDOW_PEERS = (
    WindowPeer(name="KS .05", rule=plain),
    WindowPeer(name="KS Bonferroni", rule=bonferroni, note="Alibi Detect's default"),
    WindowPeer(name="KS BH", rule=benjamini_hochberg),
    WindowPeer(name="PSI > .2", rule=psi),
    WindowPeer(name="Evidently", rule=evidently, note="its default, written out"),
    WindowPeer(name="NannyML", rule=nannyml, note="its default, written out"),
    WindowPeer(name="always fires", rule=always),
    WindowPeer(name="never fires", rule=never),
)


def stream_peer(name: str) -> Any:
    """Give one of river's detectors with its defaults."""
    from river import drift

    kinds: dict[str, Any] = {"ADWIN": drift.ADWIN, "KSWIN": partial(drift.KSWIN, seed=1)}
    return kinds[name]()


def first_alarm(name: str, values: Rows, start: int) -> tuple[int, int | None]:
    """Feed one feature's values; give the alarms before `start` and the row of the first after."""
    detector, early = stream_peer(name), 0
    for row, value in enumerate(values.tolist()):
        detector.update(0.0 if np.isnan(value) else value)
        if detector.drift_detected:
            if row >= start:
                return early, row + 1 - start
            early += 1
    return early, None


def _each(reference: Rows, window: Rows, figure: Callable[[Rows, Rows], float]) -> Rows:
    pairs = zip(reference, window, strict=True)
    return np.array([figure(ref, rows[~np.isnan(rows)]) for ref, rows in pairs])


def _psi_of(ref: Rows, rows: Rows) -> float:
    edges = ref[len(ref) * np.arange(1, 10) // 10]
    q = np.bincount(np.searchsorted(edges, rows), minlength=10) / max(len(rows), 1)
    q = np.maximum(q, 1e-4)
    return float(((q - 0.1) * np.log(q / 0.1)).sum())


def _wasserstein_of(ref: Rows, rows: Rows) -> float:
    levels = (np.arange(len(rows)) + 0.5) / max(len(rows), 1)
    expected = ref[(levels * len(ref)).astype(np.int64)]
    return float(np.abs(np.sort(rows) - expected).mean() / ref.std()) if len(rows) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """What NannyML learns of one feature's reference."""

    edges: Rows
    p: Rows
    most: float


_FITTED: dict[tuple[int, int], tuple[Rows, list[_Fit]]] = {}


def _js_fit(ref: Rows, chunk: int) -> _Fit:
    edges = np.histogram_bin_edges(ref, bins="doane")
    p = np.histogram(ref, edges)[0] / len(ref)
    mixed = np.random.default_rng(0).permutation(ref)  # the rows came sorted
    chunks = [mixed[i : i + chunk] for i in range(0, len(mixed) - chunk + 1, chunk)]
    own = np.array([_js_of(edges, p, rows) for rows in chunks])
    return _Fit(edges=edges, p=p, most=float(own.mean() + 3 * own.std()))


def _js_of(edges: Rows, p: Rows, rows: Rows) -> float:
    q = np.histogram(rows, edges)[0] / max(len(rows), 1)
    q, p = np.append(q, 1 - q.sum()), np.append(p, 0.0)  # beyond the reference
    middle = np.maximum((p + q) / 2, 1e-300)
    left = (p * np.log2(np.maximum(p, 1e-300) / middle)).sum()
    right = (q * np.log2(np.maximum(q, 1e-300) / middle)).sum()
    return float(np.sqrt(max((left + right) / 2, 0.0)))
