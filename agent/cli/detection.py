"""What detectors tell, for people: what stands by kind, quality, groups, data, odd rows.

An agent of another version may leave anything out or send it in another shape: what is not as
expected is not shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agent.cli.output import fact, plain, print_table, when

#: Members of the status that are written here, and not as facts.
MEMBERS: Final = (
    *("standing", "multivariate", "concept", "concept_detectors", "label_state", "quality"),
    *("estimated", "estimates_hold", "fairness", "outliers", "data_quality", "segments"),
)
_NAMED_MAX: Final = 5
_ROWS_MAX: Final = 20
_INTERVALS: Final = {
    "betting": "betting: holds at every look at once",
    "asymptotic": "asymptotic: does so in the limit of many rows",
    "sampling": "sampling: of an estimate, as long as scores mean what they did",
    "single": "single: for one look",
}
_TROUBLES: Final = {
    "schema": "columns missing or unexpected",
    "types": "values of another type",
    "constant": "no longer varies",
    "duplicates": "rows that are copies",
    "silence": "no rows for a day",
}
# Names of detectors for what is no column.
_WHOLE: Final = {"(order)": "their order", "(others)": "others"}


def attention(answer: Mapping[str, Any]) -> Iterator[str]:
    """What stands, a sentence for each kind, in the order in which the agent tells it."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for one in rows_in(answer.get("standing")):
        states = kinds.setdefault(_words(one.get("kind")), {})
        subject = _subject(one)
        names = states.setdefault(plain(one.get("state")), [])
        if subject not in names:
            names.append(subject)
    for kind, states in kinds.items():
        said = "; ".join(f"{_few(names)} ({state})" for state, names in states.items())
        yield f"{kind}: {said}"


def facts_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Lines for the tree of facts; what there is nothing of is empty there, and left out."""
    outliers = mapping(answer.get("outliers"))
    return {
        "concept": mapping(answer.get("concept_detectors")) or answer.get("concept"),
        "label": answer.get("label_state"),
        "multivariate": _multivariate(mapping(answer.get("multivariate"))),
        "data quality": _data_quality(mapping(answer.get("data_quality"))),
        "odd rows": _odd(outliers) if number(outliers.get("outliers")) else None,
    }


def print_detection(answer: Mapping[str, Any]) -> None:
    """Tables: what stands, quality, groups, parts of the stream."""
    _print_standing(rows_in(answer.get("standing")))
    _print_quality(mapping(answer.get("quality")), mapping(answer.get("estimated")))
    if answer.get("estimates_hold") is False:
        print("Estimates do not hold: labels contradict them.")
    _print_fairness(mapping(answer.get("fairness")))
    _print_segments(mapping(answer.get("segments")))


def _print_standing(standing: Sequence[Mapping[str, Any]]) -> None:
    if not standing:
        return
    rows = (
        (
            one.get("state"),
            _words(one.get("kind")),
            _subject(one),
            when(one.get("at")),
            one.get("explain"),
        )
        for one in standing[:_ROWS_MAX]
    )
    print_table("What stands", ("state", "kind", "subject", "said at", "why"), rows)
    if len(standing) > _ROWS_MAX:
        print(f"and {len(standing) - _ROWS_MAX} more: --json has them")


def _print_quality(realised: Mapping[str, Any], estimated: Mapping[str, Any]) -> None:
    if not realised and not estimated:
        return
    rows = []
    kinds = set()
    for metric in dict.fromkeys([*realised, *estimated]):
        cells: list[str] = []
        for found in (mapping(realised.get(metric)), mapping(estimated.get(metric))):
            cells += [plain(found.get("value")), _interval(found), _count(found.get("rows"))]
            kinds.add(plain(found.get("kind")))
        rows.append((_words(metric), *cells, plain(mapping(realised.get(metric)).get("kind"))))
    columns = ("metric", "realised", "95 %", "rows", "estimated", "95 %", "rows", "interval")
    print_table("Quality", columns, rows)
    meant = [text for kind, text in _INTERVALS.items() if kind in kinds]
    if meant:
        print(f"Intervals: {'; '.join(meant)}.")


def _print_fairness(fairness: Mapping[str, Any]) -> None:
    rows, groups = [], []
    for attribute, told in fairness.items():
        found = mapping(told)
        bounds, beyond = mapping(found.get("bounds")), found.get("beyond")
        for metric, one in mapping(found.get("metrics")).items():
            figure = mapping(one)
            bad = isinstance(beyond, list) and metric in beyond
            rows.append(
                (
                    attribute,
                    _words(metric),
                    plain(figure.get("value")),
                    _interval(figure),
                    _count(figure.get("rows")),
                    plain(bounds.get(metric)),
                    "beyond it" if bad else "",
                )
            )
        for group, one in mapping(found.get("groups")).items():
            rates = mapping(one)
            shares = ("selection", "true_positive", "false_positive")
            groups.append(
                (
                    attribute,
                    group,
                    *(share(rates.get(name)) for name in shares),
                    _count(rates.get("rows")),
                )
            )
    if rows:
        print_table("Fairness", ("attribute", "metric", "value", "95 %", "rows", "bound", ""), rows)
    if groups:
        rates_of = ("selected", "true positive", "false positive")
        print_table("Groups", ("attribute", "group", *rates_of, "rows"), groups)


def _print_segments(segments: Mapping[str, Any]) -> None:
    rows = [
        (
            one.get("name"),
            _count(one.get("rows")),
            fact("", mapping(one.get("states"))),
            _few([plain(name) for name in _list(one.get("drifted"))]),
        )
        for one in rows_in(segments.get("segments"))
    ]
    if rows:
        print_table(
            f"Parts of the stream by {plain(segments.get('column'))}",
            ("part", "rows", "features", "drifted"),
            rows,
        )


def _multivariate(found: Mapping[str, Any]) -> str | None:
    """The strongest drift that no feature explains by itself."""
    drifted = rows_in(found.get("drifted"))
    news = next((one for one in drifted if not one.get("explained_by")), None)
    if news is None:
        names = [plain(name) for one in drifted for name in _list(one.get("explained_by"))]
        why = f", explained by {_few(list(dict.fromkeys(names)))}" if names else ""
        return f"{plain(found['state'])}{why}" if found.get("state") else None
    columns = rows_in(news.get("columns"))
    named = [f"{plain(c.get('name'))} {share(c.get('share'))}" for c in columns]
    return f"{plain(news.get('state'))}: {_few(named) or plain(news.get('name'))} go otherwise"


def _data_quality(found: Mapping[str, Any]) -> str | None:
    said = []
    for trouble, words in _TROUBLES.items():
        names = [plain(name) for name in _list(found.get(trouble))]
        named = [_WHOLE.get(name, name) for name in names if name != "(rows)"]
        if names:
            said.append(f"{words}: {_few(named)}" if named else words)
    for one in rows_in(found.get("new_category")):
        named = [
            f"{plain(c.get('name'))} {share(c.get('share'))}"
            for c in rows_in(one.get("categories"))
        ]
        called = f" ({_few(named)})" if named else ""
        said.append(f"new categories: {plain(one.get('feature'))}{called}")
    if said:
        return "; ".join(said)
    return plain(found["state"]) if found.get("state") else None


def _odd(outliers: Mapping[str, Any]) -> str:
    """How many, and what makes the oddest so."""
    words = f"{_count(outliers.get('outliers'))} of {_count(outliers.get('rows'))} "
    words += f"({share(outliers.get('ratio'))})"
    for oddest in rows_in(outliers.get("oddest"))[:1]:
        features = rows_in(oddest.get("features"))
        why = [f"{plain(f.get('name'))} {plain(f.get('what'))}" for f in features]
        words += f"; the oddest is row {_count(oddest.get('row'))}: {_few(why)}"
    return words


def _subject(one: Mapping[str, Any]) -> str:
    subject, segment = plain(one.get("subject")), one.get("segment")
    return f"{subject} in {plain(segment)}" if segment else subject


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED_MAX])
    return shown if len(names) <= _NAMED_MAX else f"{shown} and {len(names) - _NAMED_MAX} more"


def _interval(found: Mapping[str, Any]) -> str:
    lower, upper = number(found.get("lower")), number(found.get("upper"))
    return "–" if lower is None or upper is None else f"{plain(lower)} to {plain(upper)}"


def _words(name: Any) -> str:
    return plain(name).replace("_", " ")


def _count(value: Any) -> str:
    count = number(value)
    return "–" if count is None else f"{count:,.0f}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def rows_in(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list."""
    return [row for row in _list(value) if isinstance(row, Mapping)]


def number(value: Any) -> float | None:
    """The value where it is a number."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known else None


def share(value: Any) -> str:
    """A share as a percentage."""
    known = number(value)
    return "–" if known is None else f"{100 * known:.3g} %"
