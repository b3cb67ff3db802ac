"""What the detectors of a loan model tell on a bad day.

A stand-in shows none of it unless a test lays it in `StandIn.service`. Its shape is that of
`agent.detection_status`, which a test holds to the same description.
"""

from agent.admin.view import Json

NOON = 1_760_000_000.0


def _estimate(
    value: float, lower: float | None, upper: float | None, *, basis: str, kind: str
) -> Json:
    return {
        "value": value,
        "lower": lower,
        "upper": upper,
        "rows": 5_000 if basis == "realised" else 10_000,
        "basis": basis,
        "kind": kind,
    }


def _realised(value: float, half: float | None, kind: str = "betting") -> Json:
    ends = (None, None) if half is None else (value - half, value + half)
    return _estimate(value, *ends, basis="realised", kind=kind)


def _estimated(value: float, half: float) -> Json:
    return _estimate(value, value - half, value + half, basis="estimated", kind="sampling")


def _stands(kind: str, subject: str, state: str, explain: str | None, **more: str) -> Json:
    return {
        "kind": kind,
        "scope": "feature" if kind in ("data_drift", "data_quality") else "model",
        "subject": subject,
        "detector": "e_detector",
        "state": state,
        "at": None if explain is None else NOON,
        "explain": explain,
        **more,
    }


def _gap(value: float, half: float, rows: int) -> Json:
    ends = {"lower": max(value - half, 0.0), "upper": min(value + half, 1.0)}
    return {"value": value, **ends, "rows": rows, "kind": "single"}


def _group(selection: float, true: float, false: float, rows: float) -> Json:
    return {
        "selection": selection,
        "true_positive": true,
        "false_positive": false,
        "rows": rows,
        "labelled_rows": rows / 4,
    }


DETECTION: Json = {
    "states": {"ok": 9, "warning": 1, "drift": 4, "insufficient_data": 0},
    "standing": [
        _stands(
            "concept_drift",
            "calibration",
            "drift",
            "rows turn out positive less often than their scores meant, by -0.124, over 400 rows",
        ),
        _stands("data_drift", "hours_per_week", "drift", "hours_per_week rose: PSI 0.42"),
        _stands("data_drift", "workclass", "drift", None),
        _stands("data_drift", "age", "warning", "age fell in one region", segment="north"),
        _stands(
            "data_quality",
            "workclass",
            "warning",
            "workclass: 14.0% of 1,000 rows have a category that the reference never saw",
        ),
        _stands("quality", "sex:disparate_impact", "warning", "ratio .61, at least .8 is accepted"),
        _stands(
            "quality", "estimation", "warning", "estimates without labels can no longer be believed"
        ),
    ],
    "multivariate": {
        "state": "drift",
        "evidence": 14.2,
        "evidence_threshold": 6.3,
        "watched": 17,
        "drifted": [
            {
                "name": "pc1",
                "state": "drift",
                "evidence": 14.2,
                "columns": [
                    {"name": "education_num", "share": 0.52},
                    {"name": "age", "share": 0.41},
                ],
                "explained_by": [],
            },
            {
                "name": "age~hours_per_week",
                "state": "drift",
                "evidence": 9.0,
                "columns": [
                    {"name": "age", "share": 0.5},
                    {"name": "hours_per_week", "share": 0.5},
                ],
                "explained_by": ["hours_per_week"],
            },
        ],
    },
    "concept": "drift",
    "concept_detectors": {"bernoulli": "ok", "calibration": "drift", "adwin": "warning"},
    "label_state": "ok",
    "quality": {
        "accuracy": _realised(0.812, 0.011),
        "f1": _realised(0.641, 0.029, "asymptotic"),
        "log_loss": _realised(0.431, 0.02),
        "calibration_error": _realised(0.083, None, "none"),
    },
    "quality_by_class": {
        name: {"precision": _realised(value, 0.05)}
        for name, value in (("high", 0.81), ("low", 0.92), ("middle", 0.7))
    },
    "estimated": {
        "accuracy": _estimated(0.829, 0.008),
        "f1": _estimated(0.662, 0.012),
        "roc_auc": _estimated(0.871, 0.006),
    },
    "estimates_hold": False,
    "fairness": {
        "sex": {
            "metrics": {
                "demographic_parity": _gap(0.19, 0.02, 10_000),
                "disparate_impact": _gap(0.61, 0.04, 10_000),
                "equal_opportunity": _gap(0.12, 0.08, 2_400),
            },
            "groups": {
                "female": _group(0.3, 0.61, 0.08, 3_300.0),
                "male": _group(0.49, 0.73, 0.11, 6_700.0),
            },
            "bounds": {"disparate_impact": 0.8},
            "beyond": ["disparate_impact"],
        }
    },
    "outliers": {
        "rows": 1_284_551,
        "outliers": 5_138,
        "ratio": 0.004,
        "oddest": [
            {
                "row": 1_281_007,
                "at": NOON,
                "score": 12.4,
                "features": [
                    {"name": "capital_gain", "what": "high"},
                    {"name": "native_country", "what": "unseen"},
                ],
            },
            {
                "row": 1_279_551,
                "at": None,
                "score": 6.1,
                "features": [{"name": "age", "what": "low"}],
            },
        ],
    },
    "data_quality": {
        "state": "warning",
        "schema": ["campaign"],
        "types": ["education_num"],
        "constant": ["capital_loss"],
        "new_category": [
            {
                "feature": "workclass",
                "categories": [
                    {"name": "gig", "rows": 1_402, "share": 0.14},
                    {"name": "platform", "rows": 31, "share": 0.003},
                ],
            },
            {"feature": "native_country", "categories": []},
        ],
        "duplicates": ["(rows)"],
        "silence": [],
        "columns_absent_total": 0,
        "columns_unexpected_total": 37,
    },
    "segments": {
        "column": "region",
        "segments": [
            {
                "name": "north",
                "rows": 640_112,
                "states": {"ok": 8, "warning": 1, "drift": 2},
                "drifted": ["hours_per_week", "workclass", "age"],
            },
            {"name": "south", "rows": 644_439, "states": {"ok": 11}, "drifted": []},
        ],
        "left_out": 2,
    },
    "label_cohorts": {
        "maturity_s": 86_400.0,
        "waiting": 1_204,
        "join_ratio": 0.83,
        "join_state": "ok",
        "delay_state": "warning",
    },
}

#: The same agent on a good day: nothing stands, nothing is asked about groups or segments.
QUIET: Json = {
    **DETECTION,
    "states": {"ok": 14},
    "standing": [],
    "multivariate": {**DETECTION["multivariate"], "state": "ok", "evidence": 0.3, "drifted": []},
    "concept": "ok",
    "concept_detectors": {"bernoulli": "ok", "calibration": "ok"},
    "estimates_hold": True,
    "fairness": {},
    "outliers": {**DETECTION["outliers"], "outliers": 902, "ratio": 0.0007},
    "data_quality": {
        **DETECTION["data_quality"],
        "state": "ok",
        "columns_unexpected_total": 0,
        **dict.fromkeys(("schema", "types", "constant", "new_category", "duplicates"), ()),
    },
    "segments": None,
}
