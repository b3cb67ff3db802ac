"""Rows as people send and log them, features beside their prediction, as inferences.

Pure: time, ids and the sampling are arguments. A bad row is refused by itself, with its reason
and its place, and never costs the others. Rows that come together share an inference where nothing
tells them apart: a small one for each row would cost ten times as much.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from agent.config.sources.rows import RowNames
from agent.decoders.decoder import DecodeError, DecodeLimits
from agent.decoders.tabular import flat_object, named_table
from agent.inference import Inference, Value, acceptable_id
from agent.sources.sampler import Sampler

TOGETHER_MAX: Final = 1_000  # rows of one inference
AT_MAX: Final = 1e11  # milliseconds by mistake are the year 50,000: better said than taken
TEXT_CHARACTERS_MAX: Final = 4_096
VECTOR_MAX: Final = 4_096
_SCALARS: Final = (str, bool, int, float, type(None))


class RowReason(StrEnum):
    """Why a row was refused; the set is closed."""

    NOT_JSON = "row_not_json"
    NOT_AN_OBJECT = "row_not_an_object"
    BAD_ID = "row_bad_id"
    BAD_AT = "row_bad_at"
    BAD_VERSION = "row_bad_version"
    BAD_ANSWER = "row_bad_answer"
    BAD_FEATURES = "row_bad_features"


class RowError(ValueError):
    """One entry that is no row. The caller counts it by reason and moves on."""

    def __init__(self, reason: RowReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row, read; `None` where it did not say."""

    id: str | None
    at: float | None
    version: str
    features: Mapping[str, Value]
    prediction: Any
    score: Any
    label: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    names: RowNames
    limits: DecodeLimits
    mint: Callable[[], str]
    # Logs often write the time of the machine they are on, without an offset.
    local_time: bool = False
    ignored: frozenset[str] = frozenset()  # members that are neither feature nor answer


@dataclass(slots=True, kw_only=True)
class Taken:
    """What became of some rows."""

    inferences: list[Inference] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)  # as `/api/v1/labels` takes them
    sampled_out: int = 0
    refused: list[tuple[int, RowReason]] = field(default_factory=list)


def take_rows(
    entries: Iterable[tuple[int, Any]], settings: RowSettings, sampler: Sampler, *, now: float
) -> Taken:
    """Inferences and labels of entries, each with its place in what was sent."""
    taken = Taken()
    rows: list[tuple[int, Row]] = []
    for place, entry in entries:
        try:
            rows.append((place, row_of(entry, settings)))
        except RowError as error:
            taken.refused.append((place, error.reason))
    for group in _together(rows):
        _take_group(group, settings, sampler, now=now, taken=taken)
    return taken


def row_of(entry: Any, settings: RowSettings) -> Row:
    """One entry as a row. Raises `RowError`."""
    if not isinstance(entry, dict):
        raise RowError(RowReason.NOT_AN_OBJECT, "a row is an object")
    names = settings.names
    prediction, score = entry.get(names.prediction), entry.get(names.score)
    if not (_is_answer(prediction) and _is_answer(score)):
        raise RowError(RowReason.BAD_ANSWER, "prediction and score are scalars or lists of them")
    return Row(
        id=_id(entry.get(names.id)),
        at=_at(entry.get(names.at), local_time=settings.local_time),
        version=_version(entry.get(names.version)),
        features=_features(entry, settings),
        prediction=prediction,
        score=score,
        label=entry.get(names.label),
    )


def _features(entry: Mapping[str, Any], settings: RowSettings) -> Mapping[str, Value]:
    names = settings.names
    inside = entry.get(names.features)
    if not isinstance(inside, dict):
        not_features = {names.id, names.at, names.version, names.prediction, names.score}
        not_features |= {names.label, *settings.ignored}
        inside = {name: value for name, value in entry.items() if name not in not_features}
    if not inside:
        raise RowError(RowReason.BAD_FEATURES, "a row without features")
    if any(len(v) > TEXT_CHARACTERS_MAX for v in inside.values() if isinstance(v, str)):
        raise RowError(RowReason.BAD_FEATURES, "a feature's text is too long")
    try:
        flat = flat_object(inside, settings.limits)
    except DecodeError as error:
        raise RowError(RowReason.BAD_FEATURES, str(error)) from None
    if not flat or len(flat) > settings.limits.columns_max:
        raise RowError(RowReason.BAD_FEATURES, f"{len(flat)} features")
    if any(len(name) > settings.limits.name_characters_max for name in flat):
        raise RowError(RowReason.BAD_FEATURES, "a name is too long to be one")
    return flat


def _id(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not acceptable_id(value):
        raise RowError(RowReason.BAD_ID, "an id is 1 to 128 of A-Z a-z 0-9 . _ : -")
    return str(value)


def _at(value: Any, *, local_time: bool) -> float | None:
    """RFC 3339, unix seconds, or what a reader of Arrow makes of its timestamps."""
    if value is None:
        return None
    if isinstance(value, str):
        value = _moment(value, local_time=local_time)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < AT_MAX:
        return float(value)
    raise RowError(RowReason.BAD_AT, "a time is RFC 3339 or unix seconds")


def _moment(text: str, *, local_time: bool) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and not local_time:
            return None  # without an offset nobody knows which moment is meant
        return moment.timestamp()
    except (ValueError, OverflowError):
        return None


def _version(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not (isinstance(value, str) and len(value) <= 64 and acceptable_id(value)):
        raise RowError(RowReason.BAD_VERSION, "a version is 1 to 64 of A-Z a-z 0-9 . _ : -")
    return value


def _is_answer(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= VECTOR_MAX and all(isinstance(item, _SCALARS) for item in value)
    if isinstance(value, str):
        return len(value) <= TEXT_CHARACTERS_MAX
    return isinstance(value, _SCALARS)


def _together(rows: Sequence[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    """Neighbours that nothing tells apart, a bounded number at a time."""

    def told_by(numbered: tuple[int, Row]) -> tuple[object, ...]:
        row = numbered[1]
        return row.id, row.at, row.version

    for _, alike in groupby(rows, key=told_by):
        group = list(alike)
        if group[0][1].id is not None:
            # The rows of one request: their numbers go on, so they stay together.
            yield group
            continue
        for start in range(0, len(group), TOGETHER_MAX):
            yield group[start : start + TOGETHER_MAX]


def _take_group(
    group: list[tuple[int, Row]],
    settings: RowSettings,
    sampler: Sampler,
    *,
    now: float,
    taken: Taken,
) -> None:
    first = group[0][1]
    if first.id is None:
        id = settings.mint()
        # Without names of their own each row is drawn by itself, or a body would be one draw.
        kept = [n for n in group if len(group) == 1 or sampler.keeps(f"{id}-{n[0]}")]
        kept = kept if len(group) > 1 or sampler.keeps(id) else []
    else:
        id = first.id
        kept = group if sampler.keeps(id) else []
    taken.sampled_out += len(group) - len(kept)
    if not kept:
        return
    try:
        inference = _inference(id, [row for _, row in kept], settings, sampler.weight(), now)
    except DecodeError:
        # Each row is right, and all of them together are more than is looked at.
        taken.refused += [(place, RowReason.BAD_FEATURES) for place, _ in kept]
        return
    taken.inferences.append(inference)
    for number, (_, row) in enumerate(kept):
        if row.label is not None:
            taken.labels.append({"request_id": id, "row": number, "label": row.label})


def _inference(
    id: str, rows: Sequence[Row], settings: RowSettings, weight: float, now: float
) -> Inference:
    """Raises `DecodeError` when there are too many cells."""
    first = rows[0]
    names, cells = named_table([dict(row.features) for row in rows], settings.limits)
    outputs: dict[str, list[Any]] = {}
    if any(row.prediction is not None for row in rows):
        outputs["prediction"] = [row.prediction for row in rows]
    if any(row.score is not None for row in rows):
        outputs["score"] = [row.score for row in rows]
    known = math.isfinite(weight) and weight >= 1.0
    return Inference(
        id=id,
        aliases=(),
        at=now if first.at is None else first.at,
        version=first.version,
        slot="stable",
        weight=weight if known else 1.0,
        uniform=known,
        latency_s=0.0,
        names=names,
        rows=cells,
        outputs=outputs,
    )
