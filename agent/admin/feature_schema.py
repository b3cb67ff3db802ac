"""What `GET /api/v1/features` and `/features/{name}` answer, described for the API's document."""

from typing import Final

from agent.admin.json_schema import Json, by_name, flag, listed, members, number, text
from detectors.rows.windows import WINDOW_ROWS

_DISTANCES: Final[dict[str, Json]] = {
    "psi": number("Population stability index."),
    "psi_corrected": number("Less what chance alone gives."),
    "js": number("Jensen-Shannon distance."),
    "js_corrected": number("Less what chance alone gives."),
    "ks": number("Kolmogorov-Smirnov distance; 0 for what has no order."),
    "ks_corrected": number("Less what chance alone gives."),
    "wasserstein": number("In the feature's own unit; 0 for what has no order."),
    "wasserstein_corrected": number("Less what chance alone gives."),
    "cramers_v": number("Cramér's V."),
    "cramers_v_corrected": number("Less what chance alone gives."),
    "missing_ratio": number("Share of missing values."),
    "rows": number("Rows in the window."),
}
_ENTRY: Final[dict[str, Json]] = {
    "name": text("Its name."),
    "kind": text("numeric, categorical, boolean or prediction."),
    "state": text("ok, warning, drift or insufficient_data."),
    "evidence": number("log10 of its e-value."),
    "evidence_threshold": number("From here on it is believed."),
    "detectable_shift": number("Smallest shift that can be seen, in standard deviations."),
    **_DISTANCES,
    "projections": listed(
        "Drifted combinations of columns that it is a good part of.", {"type": "string"}
    ),
}

FEATURES: Final = members(
    "Features and outputs of the model; combinations of columns are in the status.",
    features=listed("Figures over about the last 10,000 rows.", members("One of them.", _ENTRY)),
)
FEATURE: Final = members(
    "One feature, or output of the model.",
    _ENTRY,
    type=text("integer, number, boolean, text or timestamp."),
    sensitive=flag("Whether its categories are never named."),
    reference_rows=number("Rows of the reference."),
    phi=number("Rows that are worth one independent row: autocorrelation of the reference."),
    tolerance=number("Wander that counts as nothing, in standard deviations."),
    seasonal=members(
        "Where every part of a day or week has bins of its own; null elsewhere.",
        null=True,
        parts=number("Parts."),
        of=text("day or week."),
    ),
    effects=by_name(
        f"Distances over the last {', '.join(map(str, WINDOW_ROWS))} rows, and over all `since` "
        "the evidence left its floor.",
        members("One window.", _DISTANCES),
    ),
    bins=listed(
        "Its distribution.",
        members(
            "One bin.",
            label=text("Its limits or category."),
            reference=number("Share of the reference."),
            current=number("Share of the last 10,000 rows."),
        ),
    ),
    history=listed(
        "At most 500 points, newest last.",
        members("One.", at=number("Unix time."), psi=number("PSI."), evidence=number("Evidence.")),
    ),
)
