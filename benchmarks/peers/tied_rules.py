"""Window rules as their users write them, right for ties too, which real rows are full of.

The one thing not to break: with ties, distributions are compared at values, never between two rows
of the same value.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Rows = NDArray[np.float64]


def p_value(ordered: Rows, rows: Rows) -> float:
    """Give the asymptotic p-value of Kolmogorov and Smirnov's test; `ordered` is the reference."""
    seen = np.sort(rows[~np.isnan(rows)])
    n, m = len(seen), len(ordered)
    if not n or not m:
        return 1.0
    gaps = [
        np.abs(np.searchsorted(ordered, seen, side) / m - np.searchsorted(seen, seen, side) / n)
        for side in ("left", "right")
    ]
    gap = float(np.max(gaps))
    return float(stats.kstwobign.sf(gap * np.sqrt(n * m / (n + m))))


def psi(ordered: Rows, rows: Rows) -> float:
    """Give the population stability index over the reference's tenths, or its values if fewer."""
    values = np.unique(ordered)
    tenths = ordered[len(ordered) * np.arange(1, 10) // 10] if len(ordered) else ordered
    edges = values[:-1] if len(values) <= 10 else np.unique(tenths)
    shares = [
        np.bincount(np.searchsorted(edges, one), minlength=len(edges) + 1) / max(len(one), 1)
        for one in (ordered, rows[~np.isnan(rows)])
    ]
    p, q = (np.maximum(share, 1e-4) for share in shares)
    return float(((q - p) * np.log(q / p)).sum())


def ks_plain(ordered: list[Rows], window: Rows) -> set[int]:
    """Each feature at 5 %."""
    return _where(ordered, window, 0.05)


def ks_bonferroni(ordered: list[Rows], window: Rows) -> set[int]:
    """5 % over all features."""
    return _where(ordered, window, 0.05 / len(window))


def psi_above(ordered: list[Rows], window: Rows) -> set[int]:
    """PSI > .2."""
    pairs = enumerate(zip(ordered, window, strict=True))
    return {j for j, (ref, rows) in pairs if psi(ref, rows) > 0.2}


def always(ordered: list[Rows], window: Rows) -> set[int]:
    """Fire."""
    return set(range(len(window)))


def never(ordered: list[Rows], window: Rows) -> set[int]:
    """Do not fire."""
    return set()


def _where(ordered: list[Rows], window: Rows, level: float) -> set[int]:
    pairs = enumerate(zip(ordered, window, strict=True))
    return {j for j, (ref, rows) in pairs if p_value(ref, rows) < level}
