"""What a detector says when it changes its mind: one `Reading` per change of state, never one per
tick.

The JSON form is the state-change event of `replay --events`, `GET /api/v1/findings` and webhooks. A
reader must not add or rename a key here alone: the keys are a contract with the people who parse
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final


class State(StrEnum):
    """How one detector sees one subject."""

    OK = "ok"
    WARNING = "warning"
    DRIFT = "drift"
    INSUFFICIENT_DATA = "insufficient_data"


class Kind(StrEnum):
    """What moved."""

    DATA_DRIFT = "data_drift"
    PREDICTION_DRIFT = "prediction_drift"
    LABEL_DRIFT = "label_drift"
    CONCEPT_DRIFT = "concept_drift"
    QUALITY = "quality"
    DATA_QUALITY = "data_quality"
    LATENCY = "latency"
    RESOURCE = "resource"


class Scope(StrEnum):
    """How much of the model a reading speaks about."""

    FEATURE = "feature"
    MULTIVARIATE = "multivariate"
    MODEL = "model"


#: The value of a state in the gauges `remora_drift_state` and `remora_concept_drift_state`.
STATE_NUMBER: Final[Mapping[State, int]] = {
    State.OK: 0,
    State.WARNING: 1,
    State.DRIFT: 2,
    State.INSUFFICIENT_DATA: -1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one detector changed its mind about, before anybody says when and against what.

    `rows` are those of its window, which ends at the moment it speaks. `Moment.reading` makes a
    `Reading` of it.
    """

    kind: Kind
    scope: Scope
    subject: str
    detector: str
    state: State
    statistic: float
    threshold: float
    evidence: float | None = None
    effect: Effect | None = None
    rows: int
    explain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When detectors speak: rows seen by then, the time in Unix seconds if there is one, and what
    is compared with what.
    """

    row: int
    at: float | None
    reference: str = ""
    version: str = ""

    def reading(self, change: Change) -> Reading:
        """Give the reading of a change of state made at this moment."""
        return Reading(
            at=self.at,
            row=self.row,
            kind=change.kind,
            scope=change.scope,
            subject=change.subject,
            detector=change.detector,
            state=change.state,
            statistic=change.statistic,
            threshold=change.threshold,
            evidence=change.evidence,
            effect=change.effect,
            window=Window(rows=change.rows, start=max(self.row - change.rows, 0), end=self.row),
            reference=self.reference,
            version=self.version,
            explain=change.explain,
        )


_KEYS: Final = (
    "at",
    "row",
    "kind",
    "scope",
    "subject",
    "detector",
    "state",
    "statistic",
    "threshold",
    "evidence",
    "effect",
    "window",
    "reference",
    "version",
    "explain",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """How big: a distance between reference and current window, as opposed to how sure."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The rows a reading rests on: `start` and `end` count rows since the detector started (`from`,
    `to` in JSON).
    """

    rows: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One change of state of one detector on one subject.

    `at` is in Unix seconds or None; `evidence` is log10 of the e-value or None; `reference` is the
    digest compared against; `explain` is one plain sentence.
    """

    at: float | None
    row: int
    kind: Kind
    scope: Scope
    subject: str
    detector: str
    state: State
    statistic: float
    threshold: float
    evidence: float | None
    effect: Effect | None
    window: Window
    reference: str
    version: str
    explain: str

    def to_json(self) -> dict[str, Any]:
        """Give the event with exactly the documented keys; figures JSON has no word for become
        null.
        """
        effect = (
            None
            if self.effect is None
            else {"name": self.effect.name, "value": _figure(self.effect.value)}
        )
        return {
            "at": _rfc3339(self.at),
            "row": self.row,
            "kind": self.kind.value,
            "scope": self.scope.value,
            "subject": self.subject,
            "detector": self.detector,
            "state": self.state.value,
            "statistic": _figure(self.statistic),
            "threshold": _figure(self.threshold),
            "evidence": _figure(self.evidence),
            "effect": effect,
            "window": {"rows": self.window.rows, "from": self.window.start, "to": self.window.end},
            "reference": self.reference,
            "version": self.version,
            "explain": self.explain,
        }

    @classmethod
    def from_json(cls, event: Mapping[str, Any]) -> Reading:
        """Read an event back. Raises ValueError naming keys that are missing, unknown or wrong."""
        missing = [key for key in _KEYS if key not in event]
        unknown = sorted(set(event) - set(_KEYS))
        if missing or unknown:
            raise ValueError(f"not a state-change event: missing {missing}, unknown {unknown}")
        try:
            effect, window = event["effect"], event["window"]
            return cls(
                at=None if event["at"] is None else datetime.fromisoformat(event["at"]).timestamp(),
                row=int(event["row"]),
                kind=Kind(event["kind"]),
                scope=Scope(event["scope"]),
                subject=str(event["subject"]),
                detector=str(event["detector"]),
                state=State(event["state"]),
                statistic=_number(event["statistic"]),
                threshold=_number(event["threshold"]),
                evidence=None if event["evidence"] is None else float(event["evidence"]),
                effect=None
                if effect is None
                else Effect(name=str(effect["name"]), value=_number(effect["value"])),
                window=Window(
                    rows=int(window["rows"]), start=int(window["from"]), end=int(window["to"])
                ),
                reference=str(event["reference"]),
                version=str(event["version"]),
                explain=str(event["explain"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a state-change event: {error!r}") from error


def _figure(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _rfc3339(at: float | None) -> str | None:
    if at is None or not math.isfinite(at):
        return None
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (
        OverflowError,
        OSError,
        ValueError,
    ):  # a clock that jumped beyond year 9999 must not stop a reading
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
