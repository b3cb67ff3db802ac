"""Features as a running agent has them: two drift, one is warned of, one has an unkind name."""

import math

from agent.admin.view import Json

HOSTILE = "<script>alert(1)</script>"

# name, kind, state, psi, evidence, shape of the move
FEATURES: list[tuple[str, str, str, float, float, str]] = [
    ("hours_per_week", "numeric", "drift", 0.42, 24.7, "up"),
    ("workclass", "categorical", "drift", 0.19, 11.2, "new"),
    ("capital_gain", "numeric", "warning", 0.08, 5.1, "up"),
    ("age", "numeric", "ok", 0.021, 0.9, "flat"),
    ("education_num", "numeric", "ok", 0.014, 0.4, "flat"),
    ("occupation", "categorical", "ok", 0.011, 0.2, "flat"),
    ("marital_status", "categorical", "ok", 0.009, 0.1, "flat"),
    ("relationship", "categorical", "ok", 0.008, -0.2, "flat"),
    ("native_country", "categorical", "ok", 0.006, -0.4, "flat"),
    ("capital_loss", "numeric", "ok", 0.004, -0.5, "flat"),
    (f"weird {HOSTILE} name / 100 %", "numeric", "ok", 0.003, -0.6, "flat"),
    ("prediction", "prediction", "ok", 0.018, 0.7, "flat"),
]


def _distances(psi: float) -> Json:
    figures = {"psi": psi, "js": psi / 8, "ks": math.sqrt(psi) / 3, "wasserstein": psi * 9}
    figures["cramers_v"] = psi / 2
    return {
        **figures,
        **{f"{name}_corrected": 0.9 * value for name, value in figures.items()},
        "missing_ratio": 0.0,
        "rows": 10_000,
    }


def more_of(name: str, psi: float) -> Json:
    """What is told of one feature alone."""
    return {
        "type": "number",
        "sensitive": False,
        "reference_rows": 32_561.0,
        "phi": 1.4,
        "tolerance": 0.02,
        "seasonal": {"parts": 96, "of": "day"} if name == "age" else None,
        "effects": {
            "1000": _distances(1.1 * psi) | {"rows": 1_000},
            "10000": _distances(psi),
            "100000": _distances(0.3 * psi) | {"rows": 100_000},
            "since": _distances(1.2 * psi) | {"rows": 4_120},
        },
    }


def feature_entry(name: str, kind: str, state: str, psi: float, evidence: float, _: str) -> Json:
    return {
        **_distances(psi),
        "name": name,
        "kind": kind,
        "state": state,
        "evidence": evidence,
        "evidence_threshold": 5.7,
        "missing_ratio": 0.012 if kind == "categorical" else 0.0,
        "detectable_shift": 0.071,
        "projections": ["pc1"] if name in ("education_num", "age") else [],
    }


def bins_of(row: tuple[str, str, str, float, float, str]) -> list[Json]:
    shape = row[5]
    if row[1] == "categorical":
        labels = ["Private", "Self-emp", "Local-gov", "State-gov", "Federal", "other", "unseen"]
        reference = [0.69, 0.11, 0.07, 0.05, 0.05, 0.03, 0.0]
        current = [0.58, 0.1, 0.07, 0.04, 0.04, 0.03, 0.14] if shape == "new" else reference[:]
    else:
        labels = [f"{10 * i}..{10 * (i + 1)}" for i in range(12)] + ["missing", "outside"]
        reference = [*_bell(12, 5.0), 0.0, 0.0]
        current = [*_bell(12, 6.9 if shape == "up" else 5.08), 0.0, 0.0]
    return [
        {"label": label, "reference": p, "current": q}
        for label, p, q in zip(labels, reference, current, strict=True)
    ]


def _bell(count: int, centre: float) -> list[float]:
    heights = [math.exp(-((i - centre) ** 2) / 7.0) for i in range(count)]
    return [height / sum(heights) for height in heights]
