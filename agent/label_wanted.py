"""Rows worth labelling: of the newest predictions without a label, those the model was least sure
of, and as many drawn at random.

The random half is what an estimate of quality may rest on: rows that a person labels because they
are hard say nothing about the others, and a reader must not leave that half out.
"""

import random
from typing import Any, Final

from agent.label_database import Database
from agent.label_rows import label_value

LOOKED_AT_MAX: Final = 20_000
SURE: Final = 1.0


def rows_wanted(database: Database, limit: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """At most `limit` rows, each with why; the same file gives the same rows."""
    found = database.execute(
        "SELECT id, row, prediction, score, version, at, duplicate FROM predictions"
        " WHERE label IS NULL ORDER BY seq DESC LIMIT ?",
        (LOOKED_AT_MAX,),
    ).fetchall()
    rows = [row for row in found if not row[6] and row[2] is not None]
    unsure = sorted(rows, key=lambda row: _margin(row[3]))[: limit // 2]
    taken = {(row[0], row[1]) for row in unsure if _margin(row[3]) < SURE}
    unsure = [row for row in unsure if (row[0], row[1]) in taken]
    rest = [row for row in rows if (row[0], row[1]) not in taken]
    drawn = random.Random(seed).sample(rest, min(limit - len(unsure), len(rest)))  # noqa: S311
    return [_entry(row, "uncertain") for row in unsure] + [_entry(row, "random") for row in drawn]


def _margin(score: float | None) -> float:
    """How far a probability is from one half, 0 to 1; what is none is sure."""
    return SURE if score is None or not 0.0 <= score <= 1.0 else abs(2.0 * score - 1.0)


def _entry(row: tuple[Any, ...], why: str) -> dict[str, Any]:
    id, number, said, score, version, at, _ = row
    return {
        "request_id": id,
        "row": number,
        "prediction": label_value(said),
        "score": score,
        "version": version,
        "at": at,
        "why": why,
    }
