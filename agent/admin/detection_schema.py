"""Members of the status that detectors know, described: what stands, quality, groups, data.

A test holds the answer of a running agent to this; see `status_schema`.
"""

from typing import Final

from agent.admin.json_schema import Json, by_name, flag, listed, members, number, text

_COUNT: Final[Json] = {"type": "number"}
_NAME: Final[Json] = {"type": "string"}
_STATE: Final = "ok, warning, drift or insufficient_data."

_STANDING: Final = members(
    "A subject that is in a warning or a drift now.",
    kind=text("As in findings: data_drift, concept_drift, data_quality ..."),
    scope=text("feature, multivariate or model."),
    subject=text("The feature, metric or detector."),
    detector=text("Who says so; null where that is forgotten.", null=True),
    state=text("warning or drift."),
    at=number("Unix time at which it was said; null where that is forgotten.", null=True),
    explain=text("What was said of it, one sentence; null where that is forgotten.", null=True),
    segment=text("The part of the stream, where it is one alone."),
)
_INTERVAL: Final = text(
    "What the interval is. betting: holds at every look at once. asymptotic: does so in the limit "
    "of many rows. sampling: of an estimate without labels, as long as scores mean what they did. "
    "single: for one look. none: there is none."
)
_FIGURE: Final[dict[str, Json]] = {
    "value": number("Estimate."),
    "lower": number("Lower end.", null=True),
    "upper": number("Upper end.", null=True),
    "rows": number("Rows that it rests on."),
    "kind": _INTERVAL,
}
_ESTIMATE: Final = members(
    "A metric with its 95 % interval.",
    _FIGURE,
    basis=text("realised: from labels; estimated: from scores, without labels."),
)
_PROJECTION: Final = members(
    "A combination of columns that drifted.",
    name=text("Its name in findings."),
    state=text("warning or drift."),
    evidence=number("log10 of its e-value."),
    columns=listed(
        "Columns that make up a good part of it.",
        members("One.", name=text("Its name."), share=number("Its share of the combination.")),
    ),
    explained_by=listed("Those of them that drift by themselves: no news then.", _NAME),
)
_MULTIVARIATE: Final = members(
    "How columns go together; null where the reference has no combinations of them.",
    null=True,
    state=text(_STATE),
    evidence=number("log10 of the strongest e-value."),
    evidence_threshold=number("From here on it is believed."),
    watched=number("Combinations of columns that are watched."),
    drifted=listed("The strongest, at most 10.", _PROJECTION),
)
_FAIRNESS: Final = members(
    "How groups of one attribute fare.",
    metrics=by_name(
        "Gaps between groups, and of disparate_impact the smallest ratio.",
        members("With a 95 % interval over all pairs of groups.", _FIGURE),
    ),
    groups=by_name(
        "Rates by group; of a sensitive attribute groups are numbered.",
        members(
            "One group.",
            selection=number("Share that was given the wished-for class.", null=True),
            true_positive=number("The same of those whose label is it.", null=True),
            false_positive=number("The same of those whose label is not.", null=True),
            rows=number("Rows, worth that many of equal weight."),
            labelled_rows=number("Those with a label."),
        ),
    ),
    bounds=by_name("What is accepted, by metric; of disparate_impact the least.", _COUNT),
    beyond=listed("Metrics that are surely beyond their bound.", _NAME),
)
_OUTLIERS: Final = members(
    "Rows that are odd by themselves; outside the false-alarm budget, and never a finding.",
    null=True,
    rows=number("Rows looked at."),
    outliers=number("As odd as at most one reference row in 1,000."),
    ratio=number("Their share."),
    oddest=listed(
        "The oddest of about the last 100,000 rows, at most 10.",
        members(
            "One row.",
            row=number("Its number."),
            at=number("Unix time of its tick.", null=True),
            score=number("-log10 of the share of reference rows as odd."),
            features=listed(
                "What makes it odd.",
                members(
                    "One.", name=text("Its name."), what=text("high, low, missing, rare, unseen.")
                ),
            ),
        ),
    ),
)
_CATEGORY: Final = members(
    "A category that the reference never saw; named after 20 rows.",
    name=text("Its name."),
    rows=number("Rows that have it, at least."),
    share=number("Their share of the rows searched."),
)
_DATA_QUALITY: Final = members(
    "What is wrong with the data now, each list at most 20 long.",
    null=True,
    state=text("ok or warning."),
    schema=listed("Columns that are missing or unexpected, and (order).", _NAME),
    types=listed("Features whose values are of another type.", _NAME),
    constant=listed("Columns that stopped varying.", _NAME),
    new_category=listed(
        "Features with categories that the reference never saw.",
        members(
            "One.", feature=text("Its name."), categories=listed("At most 10 of them.", _CATEGORY)
        ),
    ),
    duplicates=listed("(rows) while too many are copies of another.", _NAME),
    silence=listed("(rows) while none came for a day.", _NAME),
    columns_absent_total=number("Ticks times columns that were missing."),
    columns_unexpected_total=number("Ticks times columns that were not in the reference."),
)
_SEGMENTS: Final = members(
    "Parts of the stream; null where the reference has none. Outside the false-alarm budget.",
    null=True,
    column=text("Whose values tell them apart."),
    segments=listed(
        "Those met so far.",
        members(
            "One.",
            name=text("Its value."),
            rows=number("Rows."),
            states=by_name("Its features by state.", _COUNT),
            drifted=listed("Its features that stand, the strongest first, at most 5.", _NAME),
        ),
    ),
    left_out=number("Segments of the reference that are not watched: they were too many."),
)

DETECTION: Final[dict[str, Json]] = {
    "states": by_name("Subjects by state; combinations of columns count as one.", _COUNT),
    "standing": listed("What needs attention, drifts first, at most 100.", _STANDING),
    "multivariate": _MULTIVARIATE,
    "concept": text("Worst state of the built-in detectors of concept drift."),
    "concept_detectors": by_name("State by detector, the opt-in ones too.", _NAME),
    "label_state": text("State of the label's distribution; null without one.", null=True),
    "quality": by_name("By metric, of labelled rows.", _ESTIMATE),
    "quality_by_class": by_name(
        "Of more than two classes, by class: its metrics.", by_name("By metric.", _ESTIMATE)
    ),
    "estimated": by_name("By metric, of the last rows, without their labels.", _ESTIMATE),
    "estimates_hold": flag("False while labels contradict what was estimated without them."),
    "fairness": by_name("By attribute that the configuration names.", _FAIRNESS),
    "outliers": _OUTLIERS,
    "data_quality": _DATA_QUALITY,
    "segments": _SEGMENTS,
}
