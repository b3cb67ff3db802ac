"""The measured tables of docs/detection.md, from what the benchmarks wrote with --json.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is between them is made here
and never by hand. A file that is not there leaves its table as it is.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

#: Name of the table: the benchmark whose file it is made of.
TABLES: Final[Mapping[str, str]] = {
    "speed": "detection",
    "month": "detection_month",
    "delay": "detection_delay",
    "correlation": "detection_correlation",
    "concept": "detection_concept",
    "estimation": "estimation",
    "real-rows": "detection_real_rows",
    "agent": "detection_agent",
}
_PLACE: Final = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end -->)", re.S)


def fill(page: str, bench: Path) -> tuple[str, list[str], bool]:
    """Give the page with the tables of the files in `bench`, a line about each, and whether every
    file that is there could be read.
    """
    notes: list[str] = []
    good = True

    def replaced(found: re.Match[str]) -> str:
        nonlocal good
        name = found[2]
        path = bench / f"{TABLES.get(name, name)}.json"
        if not path.exists():
            notes.append(f"{name}: {path.name} is not there; left as it is")
            return found[0]
        try:
            lines = MAKERS.get(name, general)(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            notes.append(f"{name}: {path.name} cannot be read as a table ({error!r})")
            good = False
            return found[0]
        notes.append(f"{name}: from {path.name}")
        return found[1] + "\n" + "\n".join(lines) + "\n\n" + found[3]

    return _PLACE.sub(replaced, page), notes, good


def rows_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Give a table in Markdown; the first column stands left, the others right."""
    rule = "| --- |" + " ---: |" * (len(head) - 1)
    return [_row(head), rule, *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def figure(value: Any) -> str:
    """Write a figure with about three digits; what is infinite or none was missed."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "missed"
    if isinstance(value, str):
        return value
    if 0 < abs(value) < 0.005:
        return "under .01"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def speed(tree: Mapping[str, Any]) -> list[str]:
    """CPU per feature-value by contender and number of features."""
    widths = sorted({one["features"] for one in tree["figures"]})
    head = ["CPU per feature-value"]
    for width in widths:
        head += [f"{width} features, ns", "times Remora", "at least"]
    by_name: dict[str, dict[int, Mapping[str, Any]]] = {}
    for one in tree["figures"]:
        by_name.setdefault(one["name"], {})[one["features"]] = one
    rows = []
    for name, found in by_name.items():
        cells = [f"{name} {tree['versions'].get(name, '')}".strip()]
        for width in widths:
            one = found.get(width)
            if one is None:
                cells += ["", "", ""]
                continue
            floor = "" if one["floor"] is None else figure(one["floor"])
            cells += [figure(one["ns"]), figure(one["ratio"]), floor]
        rows.append(cells)
    return [
        *rows_of(head, rows),
        "",
        f"State kept: {tree['state_bytes']:,.0f} bytes per feature (at most 2,500).",
    ]


def month(tree: Mapping[str, Any]) -> list[str]:
    """False alarms by contender and reference."""
    months = tree["months"]
    references = list(dict.fromkeys(one["reference"] for one in months))
    contenders = list(months[0]["alarms"])
    rows = []
    for name in contenders:
        cells = [name]
        for reference in references:
            counts = [one["alarms"][name] for one in months if one["reference"] == reference]
            mean = f"{sum(counts) / len(counts):,.1f} ({min(counts):,} to {max(counts):,})"
            cells.append(f"{counts[0]:,}" if min(counts) == max(counts) else mean)
        rows.append(cells)
    seeds = sum(one["reference"] == references[0] for one in months)
    counts = [one["alarms"]["remora"] for one in months]
    return [
        *rows_of(["false alarms in a month", *(f"reference {r}" for r in references)], rows),
        "",
        f"{tree['ticks']:,} ticks, {seeds} seeds for each reference, budget {tree['budget']:g}. "
        f"Remora: mean {sum(counts) / len(counts):.2f}, worst month {max(counts)}.",
    ]


def _middle(delays: Sequence[float | None], share: float = 0.5) -> float:
    known = sorted(math.inf if delay is None else float(delay) for delay in delays)
    return known[min(int(share * len(known)), len(known) - 1)]


def delay(tree: Mapping[str, Any]) -> list[str]:
    """Median delays by contender and change, false alarms beside them."""
    ours = {name: one for name, one in tree["remora"].items() if isinstance(one, Mapping)}
    head = ["median delay, rows (p90)", *ours, "false alarms in a month"]
    mine = [f"{figure(one['median'])} ({figure(one['p90'])})" for one in ours.values()]
    rows = [["**Remora**", *mine, "budget .5"]]
    for name, peer in tree["peers"].items():
        cells = [figure(_middle(peer["delays"].get(case, [None]))) for case in ours]
        a_month = f"{peer['false'] * peer['month']:,.0f}"
        rows.append([name, *cells, a_month if peer["false"] else f"none ({peer['month']:,.0f})"])
    return [
        *rows_of(head, rows),
        "",
        "In brackets after none: what one would have been, of the rows that were looked at.",
        f"Remora raised {tree['remora']['false']} false alarms before the changes.",
    ]


def correlation(tree: Mapping[str, Any]) -> list[str]:
    """Delays of a vanished correlation."""
    head = ["rows from the change", "fired too soon", "median", "p90", "missed"]
    rows = [
        [name, *(figure(one[key]) for key in ("fired_too_soon", "median", "p90", "missed"))]
        for name, one in tree["delay_rows"].items()
    ]
    quiet = "; ".join(
        f"reference {int(rows):,}: {one['alarms']} false alarms in {one['ticks']:,} ticks"
        for rows, one in tree["stationary"].items()
    )
    return [*rows_of(head, rows), "", f"Unchanged rows, projections: {quiet}."]


def estimation(tree: Mapping[str, Any]) -> list[str]:
    """Distance of estimates from the truth, and from each other."""
    head = ["mean distance from the truth", "realised", '"no change"', "NannyML", "Remora"]
    head += ["sampling floor", "apart, at most"]
    keys = ("error_no_change", "error_nannyml", "error_remora", "sampling_floor", "difference_max")
    rows, speeds = [], []
    for name, one in tree.items():
        for metric, found in one["figures"].items():
            low, high = found["realised"]
            cells = [f"{found[key]:.4f}" for key in keys]
            rows.append([f"{name}, {metric}", f"{low:.3f} to {high:.3f}", *cells])
        alone = one["ratio_of_estimates"]
        speeds.append(
            f"{name} {figure(one['ratio'])} times (estimates alone {figure(alone)} times)"
        )
    return [
        *rows_of(head, rows),
        "",
        f"CPU of fit and estimates, NannyML's over Remora's (at least 50): {'; '.join(speeds)}.",
    ]


def concept(tree: Mapping[str, Any]) -> list[str]:
    """False alarms and median delays by contender; what scores mean below."""
    changes = list(tree["concept"][0]["delays"])
    head = ["delay, rows", "false alarms in a million rows", *changes]
    rows = []
    for one in tree["concept"]:
        cells = [one["name"], figure(float(one["false_alarms"]) / one["rows"] * 1e6)]
        for change in changes:
            shown, missed = figure(one["delays"][change]), one["missed"][change]
            cells.append(f"{shown} ({missed})" if missed and shown != "missed" else shown)
        rows.append(cells)
    scores = dict(tree["calibration"])
    wrong = scores.pop("false alarms per 1e6 rows")
    late = [[name, figure(v if v < 1e9 else math.inf)] for name, v in scores.items()]
    return [
        *rows_of(head, rows),
        "",
        "Medians of the streams in which it was seen; in brackets, in how many it was not.",
        "",
        "What scores mean (`calibration`), with a budget of one false alarm in a million rows: "
        f"{figure(wrong)} were raised.",
        "",
        *rows_of(["what changes", "median delay, rows"], late),
    ]


def real_rows(tree: Mapping[str, Any]) -> list[str]:
    """Share of ticks with an alarm, and median delay, by stream and contender."""
    figures = tree["figures"]
    everybody = list(dict.fromkeys(one["who"] for one in figures))
    lines: list[str] = []
    for kind, total in tree["totals"].items():
        mine = [one for one in figures if one["kind"] == kind]
        rows = [
            [stream, *(_alarms(mine, who, stream) for who in everybody)]
            for stream in dict.fromkeys(one["stream"] for one in mine)
        ]
        streams = {one["stream"] for one in mine}
        seeds = sum(one["who"] == "Remora" for one in mine) / max(len(streams), 1)
        how = kind if kind == "singly" else f"in {kind}"
        lines += [f"Permuted {how}, seeds for each stream: {seeds:g}.", ""]
        lines += rows_of(["share of ticks with an alarm, delay", *everybody], rows)
        lines += [
            "",
            f"Remora: an alarm on {total['alarm']:.3%} of {total['ticks']:,} ticks (at most "
            f"{total['most']:.1%}).",
            "",
        ]
    return lines[:-1]


def _alarms(figures: Sequence[Mapping[str, Any]], who: str, stream: str) -> str:
    """Write one cell; a delay beside many false alarms stands in brackets, for it says nothing."""
    found = [one for one in figures if (one["who"], one["stream"]) == (who, stream)]
    if not found:
        return ""
    share = sum(one["alarms"] for one in found) / max(sum(one["ticks"] for one in found), 1)
    delays = sorted(math.inf if one["delay"] is None else float(one["delay"]) for one in found)
    shown = figure(delays[(len(delays) - 1) // 2])
    return f"{share:.1%} [{shown}]" if share > 0.1 else f"{share:.1%}, {shown}"


def agent(tree: Mapping[str, Any]) -> list[str]:
    """CPU by part of the analysis process, and its memory."""
    whole = tree["core_share"] / tree["detection_us"]  # of a core for a microsecond a row
    parts = {
        "detection": "detection (at most 10 %)",
        "ticks_of_rows": "of it: rows to ticks",
        "detectors": "of it: detectors",
        "process": "all of analysis, decoding and HTTP included",
    }
    rows = []
    for part, what in parts.items():
        spent = tree[f"{part}_us"]
        rows.append([what, f"{spent:.2f}", f"{spent * whole:.1%}"])
    return [
        *rows_of(["analysis, 10,000 rows a second", "µs of CPU per row", "of a core"], rows),
        "",
        f"Resident memory of analysis: {tree['rss_mib']:.1f} MiB (at most 110).",
    ]


def general(tree: Any) -> list[str]:
    """Anything else: tables where things are alike, lines where they are not."""
    if isinstance(tree, list) and tree and all(isinstance(one, Mapping) for one in tree):
        return _alike([("", one) for one in tree])
    if not isinstance(tree, Mapping):
        return [figure(tree) if not isinstance(tree, list) else ", ".join(map(figure, tree))]
    flat = {name: value for name, value in tree.items() if not isinstance(value, Mapping | list)}
    lines: list[str] = []
    if flat:
        lines += rows_of(["", "figure"], [[_said(n), figure(v)] for n, v in flat.items()])
    deep = {name: value for name, value in tree.items() if name not in flat}
    if deep and all(_is_flat(value) for value in deep.values()):
        lines += ["", *_alike(list(deep.items()))] if lines else _alike(list(deep.items()))
        return lines
    for name, value in deep.items():
        lines += ["", f"{_said(name)}:", "", *general(value)]
    return lines


def _is_flat(value: Any) -> bool:
    return isinstance(value, Mapping) and not any(
        isinstance(inner, Mapping | list) for inner in value.values()
    )


def _alike(named: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    keys = list(dict.fromkeys(key for _, one in named for key in one))
    first = [] if not any(name for name, _ in named) else [""]
    rows = []
    for name, one in named:
        cells = [figure(one[k]) if k in one and not _deep(one[k]) else "" for k in keys]
        rows.append([*([_said(name)] if first else []), *cells])
    return rows_of([*first, *map(_said, keys)], rows)


def _deep(value: Any) -> bool:
    return isinstance(value, Mapping | list)


def _said(name: str) -> str:
    return name.replace("_", " ")


MAKERS: Final[Mapping[str, Callable[[Any], list[str]]]] = {
    "speed": speed,
    "month": month,
    "delay": delay,
    "correlation": correlation,
    "estimation": estimation,
    "concept": concept,
    "real-rows": real_rows,
    "agent": agent,
}
