"""Data files into a reference: one pass that looks for seasons, one that counts, constant memory.

The rows are never held. Where times turn out to go backwards, counting starts again without the
self-calibration that rests on their order.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.profile import read_reference
from agent.cli.rows import (
    bad_lines,
    missing_words,
    require_columns,
    special_columns,
    task_of,
    times_of,
)
from agent.errors import BadInputError

if TYPE_CHECKING:
    from detectors import Reference, ReferenceBuilder
    from detectors.references.seasonality import Season

CHUNK_ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A reference, and what a person should know of how it came about: columns left out, say."""

    reference: "Reference"
    notes: Sequence[str]


def build_from_files(args: argparse.Namespace, advance: Any) -> Built:
    """Reads the files of `reference build`. Raises BadInputError naming file and mend."""
    from detectors import ProfileError

    like = None if args.like is None else read_reference(args.like)
    _require_time(args, like)
    try:
        seasons, note = ({}, "") if like is not None else _seasons(args, advance)
        builder = None if args.unordered else _fed(args, advance, seasons, like, ordered=True)
        ordered = builder is not None
        builder = builder or _fed(args, advance, seasons, like, ordered=False)
        assert builder is not None
        reference = builder.finish()
    except ProfileError as error:
        raise BadInputError(f"{args.data[0]}: {error}") from None
    if not reference.rows and like is None:
        raise BadInputError(f"{args.data[0]}: holds no rows: nothing to build from")
    if not reference.features:
        raise BadInputError(f"{args.data[0]}: no column is left as a feature: name fewer of them")
    notes = [f"{name}: {why}" for name, why in builder.malformed.items()]
    if args.timestamp is not None and not ordered and not args.unordered:
        notes.append(
            f"rows are not in the order of {args.timestamp}: built without self-calibration;"
            " sort them for fewer false alarms on autocorrelated data"
        )
    return Built(reference=reference, notes=[*notes, note] if note else notes)


def _require_time(args: argparse.Namespace, like: "Reference | None") -> None:
    if args.timestamp is not None:
        return
    if args.seasonality in ("day", "week"):
        raise BadInputError(f"--seasonality {args.seasonality}: needs --timestamp COL")
    if like is not None and any(profile.phases for profile in like.profiles()):
        raise BadInputError(f"--like {args.like}: has seasons: needs --timestamp COL")


def _seasons(args: argparse.Namespace, advance: Any) -> tuple[dict[str, tuple["Season", ...]], str]:
    """The seasons that columns may have; why there are none to be found, where that is so."""
    from detectors.references.seasonality import SeasonFitter

    if args.timestamp is None or args.seasonality == "none":
        return {}, ""
    ignored = {args.timestamp, *args.ignore} - {None}
    fitter = SeasonFitter(ignored=ignored, wanted=args.seasonality)
    for path, columns in _chunks(args):
        require_columns(columns, [args.timestamp], path)
        fitter.update(columns, times_of(columns[args.timestamp]))
        advance(_rows(columns))
    return fitter.finish(), fitter.note


def _fed(
    args: argparse.Namespace,
    advance: Any,
    seasons: Mapping[str, tuple["Season", ...]],
    like: "Reference | None",
    *,
    ordered: bool,
) -> "ReferenceBuilder | None":
    """A builder that was given every row; None when `ordered` and timestamps go backwards."""
    last = -math.inf
    builder = None
    for path, columns in _chunks(args):
        require_columns(columns, _named(args), path)
        times = None
        if args.timestamp is not None:
            times = times_of(columns[args.timestamp])
            last, rising = _rises(times, last)
            if not rising and ordered:
                return None
        if builder is None:
            builder = _builder(args, columns, seasons, like, ordered=ordered)
        builder.update(columns, times=times)
        advance(_rows(columns))
    return _builder(args, {}, seasons, like, ordered=ordered) if builder is None else builder


def _builder(
    args: argparse.Namespace,
    columns: dict[str, Any],
    seasons: Mapping[str, tuple["Season", ...]],
    like: "Reference | None",
    *,
    ordered: bool,
) -> "ReferenceBuilder":
    from detectors import ReferenceBuilder

    segment = args.segment
    if segment is None and like is not None and like.segments is not None:
        segment = like.segments.column
    return ReferenceBuilder(
        tick_rows=args.tick_rows or (1_000 if like is None else like.tick_rows),
        ordered=ordered,
        prediction=args.prediction,
        score=args.score,
        label=args.target,
        segment=segment,
        ignored={args.timestamp, *args.ignore} - {None},
        task=task_of(columns, args) if columns else args.task,
        seasons=seasons,
        like=like,
    )


def _named(args: argparse.Namespace) -> list[str]:
    segment = [] if args.segment is None else [args.segment]
    return [*special_columns(args), *segment]


def _chunks(args: argparse.Namespace) -> Iterator[tuple[Path, dict[str, Any]]]:
    from agent.tables import read_columns

    bad, missing = bad_lines(args), missing_words(args)
    for path in args.data:
        for columns in read_columns(path, chunk_rows=CHUNK_ROWS, missing=missing, bad_lines=bad):
            yield path, columns


def _rows(columns: Mapping[str, Any]) -> int:
    return len(next(iter(columns.values()), ()))


def _rises(times: Any, last: float) -> tuple[float, bool]:
    import numpy as np

    times = times[np.isfinite(times)]
    if not len(times):
        return last, True
    rising = bool(times[0] >= last) and bool(np.all(np.diff(times) >= 0))
    return float(times[-1]), rising
