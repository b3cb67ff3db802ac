"""Rows for training and for the gates: read, cleaned, split, and every row accounted for.

What must not break: no row of the holdout or of the recent window is ever trained on. Holdout
and training are told apart by the hash of a row's features, so a repeated row cannot stand on
both sides, and `prepare` checks the hashes again at the end.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain.pipeline.recipe import Recipe
from retrain.pipeline.tables import DataError, Table, read_tables
from retrain.preprocess import Kind, category_text, is_missing

HASH_SPACE = float(1 << 64)
# Salts keep the two splits independent of each other.
HOLDOUT_SALT = b"holdout"
VALIDATION_SALT = b"validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows with their labels.

    columns: feature name to [n] values as read. target: [n] class names (object), or float64.
    weight: [n], how often training should see a row relative to the others, mean about 1.
    hashes: [n] uint64 of the features alone. captured: [n] bool. at: [n] UNIX seconds or NaN.
    """

    columns: Mapping[str, NDArray[Any]]
    target: NDArray[Any]
    weight: NDArray[np.float64]
    hashes: NDArray[np.uint64]
    captured: NDArray[np.bool_]
    at: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: NDArray[Any]) -> "Rows":
        """The rows at `index` ([m] positions or [n] bool)."""
        return Rows(
            columns={name: values[index] for name, values in self.columns.items()},
            target=self.target[index],
            weight=self.weight[index],
            hashes=self.hashes[index],
            captured=self.captured[index],
            at=self.at[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """`recent` has no rows when nothing was captured. `account` goes into the manifest."""

    train: Rows
    validation: Rows
    holdout: Rows
    recent: Rows
    account: Mapping[str, Any]


def prepare(recipe: Recipe, captures: Path | None, *, now: float) -> Prepared:
    """Reads what the recipe names and what was captured, and splits it.

    captures: a Parquet or JSON Lines file or a directory of such, None for the original set alone.
    now: UNIX seconds, from which the label lag counts.
    Raises DataError, in one line with the mend.
    """
    counts: Counter[str] = Counter()
    original = _original(recipe, counts)
    holdout, original = _hold_out(recipe, original, counts)
    captured = _captured(recipe, captures, now, counts)
    recent, seen = _split_recent(recipe, captured)
    held = np.concatenate([holdout.hashes, recent.hashes])
    pool = concatenate([original, seen])
    leaked = np.isin(pool.hashes, held)
    counts["dropped_also_held_back"] += int(leaked.sum())
    pool = _limit_repeats(pool.take(~leaked), recipe.data.repeats_max, counts)
    pool = _weigh(_limit_rows(pool, recipe.data.rows_max, counts), recipe)
    if len(pool) < 20:
        raise DataError(f"{len(pool)} rows are left to train on: give data.paths or more captures")
    share = _share(pool.hashes, VALIDATION_SALT)
    for_validation = share < recipe.training.validation_share
    train, validation = pool.take(~for_validation), pool.take(for_validation)
    if len(validation) == 0 or len(train) == 0:
        raise DataError("no rows for a validation split: give more rows")
    _prove_apart(train, validation, holdout, recent)
    parts = {"train": train, "validation": validation, "holdout": holdout, "recent": recent}
    return Prepared(**parts, account=_account(recipe, parts, counts))


def _original(recipe: Recipe, counts: Counter[str]) -> Rows:
    wanted = _wanted(recipe, recipe.target)
    tables = read_tables([recipe.path(name) for name in recipe.data.paths], wanted)
    rows = [_rows(recipe, table, recipe.target, captured=False, counts=counts) for table in tables]
    return concatenate(rows) if rows else _empty(recipe)


def _hold_out(recipe: Recipe, original: Rows, counts: Counter[str]) -> tuple[Rows, Rows]:
    """The frozen holdout, and what is left of the original set."""
    if recipe.data.holdout is not None:
        wanted = _wanted(recipe, recipe.target)
        tables = read_tables([recipe.path(recipe.data.holdout)], wanted)
        frozen = [_rows(recipe, t, recipe.target, captured=False, counts=counts) for t in tables]
        return concatenate(frozen), original
    # By hash: the same rows every time, whatever the order of the file and whatever is added.
    held = _share(original.hashes, HOLDOUT_SALT) < recipe.data.holdout_share
    return original.take(held), original.take(~held)


def _captured(recipe: Recipe, captures: Path | None, now: float, counts: Counter[str]) -> Rows:
    if captures is None:
        return _empty(recipe)
    wanted = _wanted(recipe, "label")
    kinds = ("*.parquet", "*.jsonl")
    found = [path for kind in kinds for path in captures.rglob(kind)]
    paths = sorted(found) if captures.is_dir() else [captures]
    if not captures.exists() or not paths:
        raise DataError(
            f"{captures}: no captured rows (*.jsonl, *.parquet): set capture.enabled: true and let "
            "traffic come, or leave --data out to train on the recipe's own data"
        )
    tables = read_tables(paths, wanted, optional=("at", "request_id", "row"), skipped=counts)
    parts = []
    for table in tables:
        kept = _fresh_and_single(table, recipe, now, counts)
        parts.append(_rows(recipe, kept, "label", captured=True, counts=counts))
    rows = concatenate(parts) if parts else _empty(recipe)
    if len(rows) == 0:
        raise DataError(
            f"{captures}: {counts['captured_read']} captured rows and none with a label that can "
            "be used: send labels (POST /api/v1/labels), or leave --data out"
        )
    return rows.take(np.argsort(rows.at, kind="stable"))


def _fresh_and_single(table: Table, recipe: Recipe, now: float, counts: Counter[str]) -> Table:
    """Without rows younger than the label lag, and without a prediction captured twice."""
    counts["captured_read"] += table.rows
    keep = np.ones(table.rows, dtype=bool)
    at = _seconds(table.columns.get("at"), table.rows)
    young = at > now - recipe.data.label_lag_s
    counts["dropped_label_lag"] += int(young.sum())
    keep &= ~young
    ids, numbers = table.columns.get("request_id"), table.columns.get("row")
    if ids is not None:
        seen: set[tuple[Any, Any]] = set()
        for index, name in enumerate(ids.tolist()):
            key = (name, None if numbers is None else numbers[index])
            if name is not None and key in seen:
                counts["dropped_duplicate"] += int(keep[index])
                keep[index] = False
            seen.add(key)
    kept = {name: values[keep] for name, values in table.columns.items()}
    return Table(name=table.name, columns={**kept, "at": at[keep]}, rows=int(keep.sum()))


def _rows(
    recipe: Recipe, table: Table, label: str, *, captured: bool, counts: Counter[str]
) -> Rows:
    """Rows that have a label of the right kind; the others are counted."""
    target, labelled = _labels(recipe, table.columns[label])
    counts["dropped_unlabelled" if captured else "dropped_no_target"] += int((~labelled).sum())
    columns = {feature.name: table.columns[feature.name] for feature in recipe.features}
    empty = np.ones(table.rows, dtype=bool)
    for values in columns.values():
        empty &= np.fromiter((is_missing(value) for value in values), bool, table.rows)
    counts["dropped_empty"] += int((empty & labelled).sum())
    keep = labelled & ~empty
    rows = Rows(
        columns={name: values[keep] for name, values in columns.items()},
        target=target[keep],
        weight=np.ones(int(keep.sum())),
        hashes=row_hashes(recipe, columns)[keep],
        captured=np.full(int(keep.sum()), captured),
        at=_seconds(table.columns.get("at"), table.rows)[keep],
    )
    counts["captured_kept" if captured else "original_kept"] += len(rows)
    return rows


def _labels(recipe: Recipe, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if recipe.task.value == "classification":
        names = np.asarray([_class_name(value) for value in values] + [None], dtype=object)[:-1]
        return names, np.asarray([name is not None for name in names], dtype=bool)
    numbers = np.asarray([_finite(value) for value in values], dtype=np.float64)
    return numbers, np.isfinite(numbers)


def _class_name(value: object) -> str | None:
    return None if is_missing(value) else category_text(value)


def _finite(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def row_hashes(recipe: Recipe, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.uint64]:
    """[n] hash of each row's features, equal however the file spelt them (39, 39.0, "39")."""
    count = len(next(iter(columns.values())))
    digests = [hashlib.blake2b(digest_size=8) for _ in range(count)]
    for feature in recipe.features:
        spelt: dict[Any, bytes] = {}
        for digest, value in zip(digests, columns[feature.name].tolist(), strict=True):
            # True and 1 are one key to a dictionary, and two categories.
            plain = isinstance(value, str | bytes | int | float | None)
            key = value if plain and not isinstance(value, bool) else (str(value),)
            text = spelt.get(key)
            if text is None:
                text = spelt[key] = _spelling(value, feature.kind)
            digest.update(text)
    return np.asarray([int.from_bytes(d.digest(), "big") for d in digests], dtype=np.uint64)


def _spelling(value: object, kind: Kind) -> bytes:
    if is_missing(value):
        return b"\x00\x1f"
    if kind is Kind.NUMERIC:
        with np.errstate(over="ignore"):
            number = np.float32(_finite(value))
        return str(number + np.float32(0)).encode() + b"\x1f"  # + 0: minus zero is zero
    return category_text(value).encode() + b"\x1f"


def _split_recent(recipe: Recipe, captured: Rows) -> tuple[Rows, Rows]:
    """The newest captured rows for the gates, the older ones to train on."""
    held = min(math.ceil(len(captured) * recipe.data.recent_share), recipe.data.recent_rows_max)
    border = len(captured) - held
    order = np.arange(len(captured))
    return captured.take(order[border:]), captured.take(order[:border])


def _limit_repeats(rows: Rows, repeats_max: int, counts: Counter[str]) -> Rows:
    """One client that sends one row a million times must not own the model."""
    seen: Counter[tuple[int, Any]] = Counter()
    keep = np.ones(len(rows), dtype=bool)
    for index, key in enumerate(zip(rows.hashes.tolist(), rows.target.tolist(), strict=True)):
        seen[key] += 1
        keep[index] = seen[key] <= repeats_max
    counts["dropped_repeated"] += int((~keep).sum())
    return rows.take(keep)


def _limit_rows(rows: Rows, rows_max: int, counts: Counter[str]) -> Rows:
    """Captured rows stay, newest first; original rows are thinned by hash."""
    excess = len(rows) - rows_max
    if excess <= 0:
        return rows
    counts["dropped_rows_max"] += excess
    rank = np.where(rows.captured, 2.0 + np.arange(len(rows)), _share(rows.hashes, b"thin"))
    return rows.take(np.sort(np.argsort(rank)[excess:]))


def _weigh(rows: Rows, recipe: Recipe) -> Rows:
    captured, original = int(rows.captured.sum()), int((~rows.captured).sum())
    if captured == 0 or original == 0:
        return rows
    share = recipe.data.recent_weight
    ratio = min(share / (1 - share) * original / captured, recipe.data.repeat_weight_max)
    weight = np.where(rows.captured, ratio, 1.0)
    return Rows(
        columns=rows.columns,
        target=rows.target,
        weight=weight / weight.mean(),
        hashes=rows.hashes,
        captured=rows.captured,
        at=rows.at,
    )


def _prove_apart(train: Rows, validation: Rows, holdout: Rows, recent: Rows) -> None:
    trained = np.concatenate([train.hashes, validation.hashes])
    for name, held in (("holdout", holdout), ("recent window", recent)):
        if np.isin(held.hashes, trained).any():
            raise AssertionError(f"rows of the {name} are among the training rows")


def _share(hashes: NDArray[np.uint64], salt: bytes) -> NDArray[np.float64]:
    """[n] in [0, 1): a fixed pseudo-random number for each row."""
    key = np.uint64(int.from_bytes(hashlib.blake2b(salt, digest_size=8).digest(), "big"))
    mixed = (hashes ^ key) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    return mixed.astype(np.float64) / HASH_SPACE


def _seconds(values: NDArray[Any] | None, count: int) -> NDArray[np.float64]:
    if values is None:
        return np.full(count, math.nan)
    return np.asarray([_moment(value) for value in values] + [0.0], dtype=np.float64)[:-1]


def _moment(value: Any) -> float:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, str):
        try:
            return _moment(datetime.fromisoformat(value))
        except ValueError:
            return math.nan
    return math.nan if value is None else _finite(value)


def _wanted(recipe: Recipe, label: str) -> tuple[str, ...]:
    return (*(feature.name for feature in recipe.features), label)


def _empty(recipe: Recipe) -> Rows:
    return Rows(
        columns={feature.name: np.empty(0, dtype=object) for feature in recipe.features},
        target=np.empty(0, dtype=object if recipe.task.value == "classification" else np.float64),
        weight=np.empty(0),
        hashes=np.empty(0, dtype=np.uint64),
        captured=np.empty(0, dtype=bool),
        at=np.empty(0),
    )


def concatenate(parts: Sequence[Rows]) -> Rows:
    return Rows(
        columns={
            name: np.concatenate([part.columns[name].astype(object) for part in parts])
            for name in parts[0].columns
        },
        target=np.concatenate([part.target for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
        hashes=np.concatenate([part.hashes for part in parts]),
        captured=np.concatenate([part.captured for part in parts]),
        at=np.concatenate([part.at for part in parts]),
    )


def fingerprint(rows: Rows) -> str:
    """sha256 over the sorted row hashes and labels: which rows, not in which order."""
    lines = sorted(zip(rows.hashes.tolist(), map(str, rows.target.tolist()), strict=True))
    return "sha256:" + hashlib.sha256("".join(f"{h} {t}\n" for h, t in lines).encode()).hexdigest()


def _account(recipe: Recipe, parts: Mapping[str, Rows], counts: Counter[str]) -> dict[str, Any]:
    times = np.concatenate([parts["train"].at, parts["validation"].at, parts["recent"].at])
    times = times[np.isfinite(times)]
    window = [_rfc3339(times.min()), _rfc3339(times.max())] if len(times) else None
    account: dict[str, Any] = {
        "rows": {name: len(rows) for name, rows in parts.items()},
        "rows_captured": {name: int(rows.captured.sum()) for name, rows in parts.items()},
        "counts": {name: count for name, count in sorted(counts.items()) if count},
        "window": window,
        "label_lag_s": recipe.data.label_lag_s,
        "fingerprint": fingerprint(parts["train"]),
        "holdout_fingerprint": fingerprint(parts["holdout"]),
        "recent_fingerprint": fingerprint(parts["recent"]),
    }
    if recipe.task.value == "classification":
        account["class_share"] = {name: _class_share(rows) for name, rows in parts.items()}
    return account


def _class_share(rows: Rows) -> dict[str, float]:
    names, counts = np.unique(rows.target.astype(str), return_counts=True)
    return {str(n): round(float(c) / len(rows), 4) for n, c in zip(names, counts, strict=True)}


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat().replace("+00:00", "Z")
