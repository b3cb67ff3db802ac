"""`remora replay`: recorded rows through the very detectors that `run` uses, in order.

Nothing here decides anything: rows are cut into ticks as the agent cuts them, and what detectors
say is written down. The same rows and flags give the same events, byte for byte.
"""

import argparse
import json
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import plain
from agent.cli.parser import Subparsers, add_command, add_json
from agent.cli.profile import read_reference
from agent.cli.recorded import BESIDE, ticks
from agent.cli.replay_output import facts, present
from agent.cli.replay_report import write_report
from agent.cli.rows import (
    add_column_flags,
    count,
    has_outcomes,
    outcomes,
    progress,
    special_columns,
    task_of,
)
from agent.errors import BadInputError

if TYPE_CHECKING:
    from agent.cli.recorded import Recorded
    from agent.tables import Columns
    from detectors import Reading, Reference


def add(subparsers: Subparsers) -> None:
    """Registers `replay`."""
    parser = add_command(
        subparsers,
        "replay",
        replay,
        purpose="recorded rows through the detectors that `run` uses, in order",
        example="remora replay june.csv --reference reference.json --events events.jsonl",
    )
    parser.add_argument("data", metavar="DATA", type=Path, help="Parquet, CSV, JSON Lines, pcap")
    parser.add_argument("--reference", metavar="FILE", type=Path, required=True, help="a profile")
    add_column_flags(parser)
    parser.add_argument(
        "--label-delay",
        metavar="ROWS",
        type=count,
        default=0,
        help="a row's label comes so many rows later (default 0)",
    )
    parser.add_argument(
        "--events", metavar="FILE", type=Path, help="one JSON line per change of state"
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="an HTML page of it all")
    parser.add_argument(
        "--port", metavar="N", type=count, help="of a pcap: where the model server listens"
    )
    parser.add_argument(
        "--fairness",
        metavar="COL",
        action="append",
        default=[],
        help="compare groups of this attribute; may be repeated",
    )
    parser.add_argument(
        "--positive",
        metavar="CLASS",
        default="1",
        help="the class that is wished for, for --fairness (default 1)",
    )
    parser.add_argument(
        "--model-version",
        metavar="V",
        help="of rows that the agent captured: those of this version (default: the first)",
    )
    parser.add_argument(
        "--fail-on-drift", action="store_true", help="exit 1 when anything is in drift: for CI"
    )
    add_json(parser)


def replay(args: argparse.Namespace) -> int:
    """Replays one file."""
    detection = Detection(read_reference(args.reference), args)
    readings: list[Reading] = []
    rows = 0
    started = time.perf_counter()
    with ExitStack() as stack:
        advance = stack.enter_context(progress("replaying"))
        events = stack.enter_context(_open_events(args.events)) if args.events else None
        for tick in ticks(args, detection.reference):
            found = detection.update(tick)
            readings += found
            if events is not None:
                events.writelines(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in found)
            rows += tick.rows
            advance(tick.rows)
    elapsed_s = max(time.perf_counter() - started, 1e-9)
    if not rows:
        raise BadInputError(f"{args.data}: holds no rows: nothing to replay")
    present(args, detection, readings, rows, elapsed_s)
    if args.report is not None:
        write_report(args.report, detection.monitor, facts(args, detection, readings, rows))
    drifted = any(reading.state.value == "drift" for reading in readings)
    return 1 if drifted and args.fail_on_drift else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Rows whose label comes, or is to come: arrays of one length."""

    said: Any
    truth: Any
    score: Any
    groups: dict[str, Any]
    columns: dict[str, Any]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.said)

    def part(self, rows: Any) -> "Labelled":
        """Some of the rows: a slice, or a mask."""
        return Labelled(
            said=self.said[rows],
            truth=self.truth[rows],
            score=self.score[rows],
            groups={name: column[rows] for name, column in self.groups.items()},
            columns={name: column[rows] for name, column in self.columns.items()},
        )

    def known(self) -> "Labelled":
        """The rows that have a label."""
        import numpy as np

        return self.part(np.array([truth is not None for truth in self.truth], dtype=bool))


class Detection:
    """The monitor of one replay, and the rows whose labels have not come yet."""

    def __init__(self, reference: "Reference", args: argparse.Namespace) -> None:
        from detectors import Monitor, ProfileError
        from detectors.settings import FairnessSettings, Settings

        self._args = args
        self.reference = reference
        self._task = args.task or reference.task
        fairness = [
            FairnessSettings(attribute=name, positive=args.positive) for name in args.fairness
        ]
        try:
            self.monitor = Monitor(reference, settings=Settings(fairness=tuple(fairness)))
        except ProfileError as error:
            raise BadInputError(f"{args.reference}: {error}") from None
        self._waiting: deque[tuple[int, Labelled]] = deque()  # rows whose labels are still to come
        self._rows = 0
        self._outputs = False
        self._timed = False

    def update(self, tick: "Recorded") -> list["Reading"]:
        """One tick's rows; the changes of state."""
        columns = self._features(tick)
        if not self._rows:
            self._require_features(columns)
        self._timed |= tick.times is not None
        readings = self.monitor.update(
            columns, ticks=tick.share, at=tick.at, times=_of(tick.times, tick.evidence)
        )
        if has_outcomes(self._args):
            self._task = self._task or task_of(tick.columns, self._args) or "classification"
            self._waiting.append((self._rows, self._labelled(tick, columns)))
        self._rows += tick.rows
        readings += self._come(tick)
        # `row` of every event counts the rows of the data, also where labels come late.
        return [replace(reading, row=self._rows) for reading in readings]

    def _require_features(self, columns: "Columns") -> None:
        """Raises BadInputError for rows that can only be another model's."""
        known = set(self.reference.columns or self.reference.feature_names)
        if not known & columns.keys():
            raise BadInputError(
                f"{self._args.data}: has none of the features of {self._args.reference}"
                f" ({', '.join(plain(name) for name in sorted(known)[:6])}): is it another model's?"
            )

    def _come(self, tick: "Recorded") -> list["Reading"]:
        """A label has come once as many rows as the delay were seen after its own."""
        readings: list[Reading] = []
        due = self._rows - self._args.label_delay
        while self._waiting and self._waiting[0][0] < due:
            start, labelled = self._waiting.popleft()
            now = min(due - start, labelled.rows)
            if now < labelled.rows:
                self._waiting.appendleft((start + now, labelled.part(slice(now, None))))
            known = labelled.part(slice(now)).known()
            readings += self.monitor.update_labels(
                known.said,
                known.truth,
                score=known.score,
                groups=known.groups,
                columns=known.columns,
                ticks=tick.share * now / max(tick.rows, 1),
                at=tick.at,
            )
        return readings

    @property
    def labelled_rows(self) -> int:
        """Rows whose label came."""
        return self.monitor.labelled_rows

    @property
    def not_watched(self) -> list[str]:
        """What this replay could not see, for want of a column or a reference."""
        missing = [] if self._outputs else ["prediction drift"]
        if not self.labelled_rows:
            missing.append("concept drift")
        seasonal = [profile.name for profile in self.reference.profiles() if profile.phases]
        if seasonal and not self._timed:
            missing.append(f"{', '.join(seasonal)} (seasonal: name the time by --timestamp)")
        return missing

    def _features(self, tick: "Recorded") -> "Columns":
        """Features, and what the model said by the names that the reference has for it."""
        from agent.version_watch import named_outputs

        columns, special = tick.columns, set(special_columns(self._args))
        if tick.captured:
            outputs = named_outputs(self.reference, columns.get("prediction"), columns.get("score"))
            special |= BESIDE
        else:
            named = (self.reference.prediction, self.reference.score)
            outputs = {p.name: columns[p.name] for p in named if p and p.name in columns}
            said = self._args.prediction or self._args.score
            if self.reference.prediction is not None and said in columns:
                outputs.setdefault(self.reference.prediction.name, columns[said])
        self._outputs |= bool(outputs)
        if self.reference.segments is not None:
            special.discard(self.reference.segments.column)  # no feature, perhaps, and yet needed
        features = {name: column for name, column in columns.items() if name not in special}
        both = {**features, **outputs}
        return {name: _of(column, tick.evidence) for name, column in both.items()}

    def _labelled(self, tick: "Recorded", features: "Columns") -> Labelled:
        """What was said and what turned out true, with whatever belongs to it."""
        import numpy as np

        from detectors.rows.columns import numbers

        assert self._task is not None
        columns = tick.columns
        pairs = outcomes(columns, self._args, self._task)
        said, truth = (np.array([*side, None], object)[:-1] for side in zip(*pairs, strict=True))
        score = np.full(len(pairs), np.nan)
        if self._args.score is not None:
            score = numbers(columns[self._args.score]).astype(float)
        return Labelled(
            said=said,
            truth=truth,
            score=score,
            groups={name: columns[name] for name in self._args.fairness},
            columns=features if tick.evidence is None else {},
        )


def _of(column: Any, evidence: Any) -> Any:
    return column if column is None or evidence is None else column[evidence]


def _open_events(path: Path) -> Any:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"--events {path}: cannot be written ({error.strerror})") from None
