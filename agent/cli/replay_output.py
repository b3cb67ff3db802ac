"""What a replay shows: a table or JSON at the terminal, and the facts of its page."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from agent.cli.output import plain, print_json, print_table

if TYPE_CHECKING:
    from agent.cli.replay import Detection
    from detectors import Reading
    from detectors.groups.slices import Slice

#: What each kind of interval promises.
INTERVALS = {
    "betting": "at every look",
    "asymptotic": "at every look, with many rows",
    "sampling": "if scores still mean what they did",
    "single": "at one look",
    "none": "",
}


def present(
    args: argparse.Namespace,
    detection: "Detection",
    readings: list["Reading"],
    rows: int,
    elapsed_s: float,
) -> None:
    unwatched = detection.not_watched
    if args.json:
        print_json(
            {
                "rows": rows,
                "rows_per_s": round(rows / elapsed_s),
                "reference": detection.reference.digest,
                "labelled_rows": detection.labelled_rows,
                "not_watched": unwatched,
                "quality": _quality(detection),
                "worst_slices": [slice_words(found) for found in detection.monitor.slices()],
                "readings": [reading.to_json() for reading in readings],
            }
        )
        return
    timed = any(reading.at is not None for reading in readings)
    print_table(
        "Readings",
        (
            *(("when",) if timed else ()),
            *("row", "state", "kind", "subject", "effect", "evidence (log10)", "what happened"),
        ),
        (
            (
                *((reading.to_json()["at"] or "",) if timed else ()),
                f"{reading.row:,}",
                reading.state.value,
                reading.kind.value,
                reading.subject,
                ""
                if reading.effect is None
                else f"{reading.effect.name} {reading.effect.value:.2f}",
                _beside_its_bound(reading),
                reading.explain,
            )
            for reading in readings
        ),
    )
    _present_quality(detection)
    if unwatched:
        print(f"not watched: {plain(', '.join(unwatched))} (no column or reference for it)")
    sys.stdout.flush()
    print(f"{rows:,} rows in {elapsed_s:.2f} s: {rows / elapsed_s:,.0f} rows/s")


def _beside_its_bound(reading: "Reading") -> str:
    """Evidence means little without the level that it had to cross."""
    if reading.evidence is None:
        return ""
    if reading.detector.startswith("ladder"):
        return f"{reading.evidence:.1f}"
    return f"{reading.evidence:.1f} of {reading.threshold:.1f}"


def facts(
    args: argparse.Namespace, detection: "Detection", readings: list["Reading"], rows: int
) -> dict[str, Any]:
    """What the page shows besides features."""
    return {
        "data": args.data.name,
        "rows": rows,
        "labelled_rows": detection.labelled_rows,
        "unwatched": detection.not_watched,
        "readings": readings,
        "timed": any(reading.at is not None for reading in readings),
        "quality": _quality(detection),
        "intervals": INTERVALS,
        "slices": [slice_words(found) for found in detection.monitor.slices()],
    }


def _quality(detection: "Detection") -> list[dict[str, Any]]:
    """Realised and estimated quality at the end, and gaps between groups."""
    monitor = detection.monitor
    found = [("realised", monitor.realised()), ("estimated", monitor.estimated())]
    found += [(f"between groups of {name}", gaps) for name, gaps in monitor.fairness().items()]
    return [
        {
            "basis": basis,
            "metric": metric,
            "value": estimate.value,
            "lower": estimate.lower if estimate.lower == estimate.lower else None,
            "upper": estimate.upper if estimate.upper == estimate.upper else None,
            "rows": estimate.rows,
            "interval": estimate.kind,
        }
        for basis, metrics in found
        for metric, estimate in metrics.items()
    ]


def _present_quality(detection: "Detection") -> None:
    rows = _quality(detection)
    if rows:
        print_table(
            "Quality over the last rows",
            ("basis", "metric", "value", "95 % interval", "rows", "interval holds"),
            (
                (
                    row["basis"],
                    row["metric"],
                    f"{row['value']:.4f}",
                    "" if row["lower"] is None else f"{row['lower']:.4f} to {row['upper']:.4f}",
                    f"{row['rows']:,}",
                    INTERVALS[row["interval"]],
                )
                for row in rows
            ),
        )
    for found in detection.monitor.slices():
        print(f"worse than elsewhere: {plain(slice_words(found))}")


def slice_words(found: "Slice") -> str:
    """One slice as a sentence: where, how bad, and how bad all else is."""
    where = " and ".join(f"{name} in {part}" for name, part in found.conditions)
    return f"{where}: mean loss {found.loss:.3f} in {found.rows:,} rows, {found.rest:.3f} elsewhere"
