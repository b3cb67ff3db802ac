"""A real `VersionWatch` of a loan model, with something of everything that a status can tell."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.version_watch import VersionWatch
from detectors import Reading, Reference, ReferenceBuilder
from detectors.settings import FairnessSettings, Settings

CITIES = np.array(["Ulm", "Bonn", "Kiel"], dtype=object)
NOON = 1_760_000_000.0


class Loans:
    """Rows of applicants, what the model says of them, and what came true."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def rows(
        self, n: int, *, together: float = 0.9, richer: float = 0.0, unfair: float = 0.0
    ) -> dict[str, Any]:
        """`together` is the correlation of `debt` and `spending`; `unfair` the share of women who
        are refused whatever their score.
        """
        rng = self.rng
        debt = rng.normal(size=n)
        spending = together * debt + np.sqrt(1 - together**2) * rng.normal(size=n)
        income = rng.normal(50.0 + richer, 9.0, n)
        sex = rng.choice(np.array(["f", "m"], dtype=object), n)
        score = 1 / (1 + np.exp(-(debt + (income - 50.0) / 9.0)))
        approved = score > 0.5
        approved[(sex == "f") & (rng.random(n) < unfair)] = False
        return {
            "debt": debt,
            "spending": spending,
            "income": income,
            "city": rng.choice(CITIES, n),
            "sex": sex,
            "region": rng.choice(np.array(["north", "south"], dtype=object), n),
            "approved": approved,
            "score": score,
            "truth": rng.random(n) < score,
        }

    def reference(self, *, sensitive: tuple[str, ...] = (), labelled: bool = True) -> Reference:
        """Of 20,000 rows; one that is learnt from traffic has no labels."""
        builder = ReferenceBuilder(
            prediction="approved",
            score="score",
            label="truth" if labelled else None,
            ignored=() if labelled else ("truth",),
            segment="region",
            sensitive=sensitive,
            task="classification",
        )
        for _ in range(20):
            builder.update(self.rows(1_000))
        return builder.finish()


def loan_watch(reference: Reference, *, provisional: bool = False) -> VersionWatch:
    """Fresh, asked about two attributes."""
    asked = (
        FairnessSettings(attribute="sex", positive="1", gap_max=0.1, ratio_min=0.8),
        FairnessSettings(attribute="region", positive="1"),
    )
    settings = Settings(fairness=asked)
    return VersionWatch("v7", reference, settings, provisional=provisional)


def feed(
    watch: VersionWatch, columns: dict[str, Any], *, labelled: bool = True, minute: int = 0
) -> list[Reading]:
    """One tick, and the labels of all its rows."""
    at = NOON + 60.0 * minute
    rows = dict(columns)
    truth: NDArray[Any] = rows.pop("truth")
    readings = watch.monitor.update(rows, at=at, times=np.full(len(truth), at))
    if labelled:
        readings += watch.monitor.update_labels(
            columns["approved"],
            truth,
            score=columns["score"],
            groups={"sex": columns["sex"], "region": columns["region"]},
            at=at,
        )
    return readings


def troubled(watch: VersionWatch, loans: Loans) -> list[Reading]:
    """Twelve ticks in which much goes wrong: everything that was said."""
    said: list[Reading] = []
    for minute in range(12):
        columns = loans.rows(1_000, together=0.0, richer=6.0, unfair=0.4)
        columns["city"][:140] = "Atlantis"
        columns["strange"] = np.ones(1_000)
        columns["income"][0] = 1e9
        columns["truth"] = loans.rng.random(1_000) < 0.2
        said += feed(watch, columns, minute=minute)
    return said
