"""Late labels joined to predictions on disk, by request id and row.

Predictions wait for their label, labels that came first wait for their prediction, both in one
SQLite file with limits on age and number. The same label twice changes nothing; a different one is
a correction, which quality follows and evidence does not: what a detector has seen it cannot unsee.

Every call is one transaction. `sqlite3.Error` (no room, a lock) leaves file and counts as they
were before the call; the caller counts the loss and goes on.
"""

import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from agent.batch import VERSIONS_MAX, Batch
from agent.label_cohorts import Cohorts
from agent.label_database import Database, Tally, is_damage, key_of, read_only, set_aside
from agent.label_rows import (
    ROW,
    Joined,
    Label,
    LabelValue,
    joined_row,
    label_text,
    labels_of,
    prediction_records,
)
from agent.label_wanted import rows_wanted
from detectors.reading import Change

__all__ = ["Joined", "Label", "LabelStore", "LabelValue"]

# An expired prediction's id is remembered for this share of its life: a label for it is `late`.
TOMBSTONE_SHARE: Final = 0.25
PENDING_MAX: Final = 1_000_000
# Rows that one call lets go of at most: the event loop waits for it.
EXPIRED_AT_ONCE_MAX: Final = 20_000
# Requests of a tick whose sampling is checked against what `was_kept` says of them.
CHECKED_PER_TICK: Final = 8


class LabelStore:
    """The join on disk.

    Parameters
    ----------
    path: the SQLite file; made when missing, set aside when it is damaged.
    ttl_s: how long a prediction waits for its label.
    pending_s: how long a label waits for its prediction.
    rows_max: predictions kept; the oldest are evicted and counted.
    maturity_s: the age of the cohorts that rows are handed on of; 0: at once; None: learnt from
        the delays of labels.
    was_kept: whether the sampling would have kept a request of that id; None: cannot be told.
    attributes: features that say which group a row belongs to; kept with its prediction.

    Raises `sqlite3.OperationalError` when the file cannot be opened though nothing is wrong with
    it: no room, no permission, or another agent has it.
    """

    def __init__(
        self,
        path: Path,
        *,
        ttl_s: float,
        pending_s: float,
        rows_max: int,
        maturity_s: float | None = 0.0,
        was_kept: Callable[[str], bool | None] = lambda _: None,
        attributes: Sequence[str] = (),
    ) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._pending_s = pending_s
        self._rows_max = rows_max
        self._maturity_s = maturity_s
        self._was_kept = was_kept
        self._attributes = tuple(attributes)
        self._contradicted_at = -math.inf
        # The request at the end of a version's last tick: more of its rows may be in the next.
        self._maybe_cut: dict[tuple[str, str], int] = {}
        # What became of labels and predictions since the agent started, by outcome.
        self.outcomes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._open()

    def _open(self) -> None:
        self._database = Database(self._path)
        if self._database.set_aside:
            self.dropped["store_unreadable"] += 1
        self.wanted = partial(rows_wanted, self._database)
        self.cohorts = Cohorts(self._database, maturity_s=self._maturity_s, kept_s=self._ttl_s)

    def start_anew(self, error: sqlite3.Error) -> bool:
        """Set a file aside that turned out to be damaged while in use; False when it is not.

        Raises `OSError` or `sqlite3.Error` when no new one can be made.
        """
        if not is_damage(error):
            return False
        self._database.close()
        set_aside(self._path, str(error))
        self.dropped["store_unreadable"] += 1
        self._open()
        return True

    def close(self) -> None:
        self._database.close()

    @property
    def rows(self) -> int:
        """Predictions that are kept, labelled or not."""
        return self._database.counts.rows

    def labelled_rows(self) -> int:
        """How many kept predictions have a label."""
        return self._database.counts.labelled

    def remember(self, batch: Batch, now: float) -> list[Joined]:
        """Keep a tick's predictions; gives those whose label was here before them."""
        if batch.prediction is None or not batch.rows:
            return []
        keys = {id: key_of(id) for id in dict.fromkeys(batch.ids)}
        aliases = {key_of(alias): keys[id] for alias, id in batch.aliases.items() if id in keys}
        self._check_sampling(keys, now)
        with self._database.transaction() as tally:
            self._insert(batch, keys, tally)
            if aliases:
                # An alias of two requests means neither of them.
                self._database.executemany(
                    "INSERT INTO aliases (key, target, at) VALUES (?,?,?) ON CONFLICT (key)"
                    " DO UPDATE SET target = NULL WHERE target IS NOT excluded.target",
                    [(alias, key, float(batch.at[0])) for alias, key in aliases.items()],
                )
            self._evict(tally)
            joined = self._join_pending([*keys.values(), *aliases], now, tally)
            self.cohorts.write(tally)
        self._add(tally)
        self._maybe_cut.pop((batch.version, batch.slot), None)
        self._maybe_cut[batch.version, batch.slot] = keys[batch.ids[-1]]
        if len(self._maybe_cut) > VERSIONS_MAX:
            del self._maybe_cut[next(iter(self._maybe_cut))]
        return joined

    def _insert(self, batch: Batch, keys: dict[str, int], tally: Tally) -> None:
        last = self._database.number("SELECT IFNULL(MAX(seq), 0) FROM predictions")
        records = list(prediction_records(batch, keys, self._attributes))
        first = records[0]
        # In the order of the index, whose pages are then each found and changed once.
        records.sort(key=itemgetter(0, 1))
        inserted = self._database.executemany(
            "INSERT OR IGNORE INTO predictions"
            " (key, row, id, at, version, slot, prediction, score, weight, uniform, groups)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            records,
        ).rowcount
        self._database.counts.rows += inserted
        self.cohorts.made((record[3] for record in records[:inserted]), tally)
        if batch.row_numbers[0] > 0:
            self._continue(first)
        if inserted < len(records):
            self._mark_duplicates(records, last, tally)

    def _continue(self, record: tuple[Any, ...]) -> None:
        """Rows of a request that the tick before began: as usable as its first ones."""
        key, row, _, at = record[:4]
        before = self._database.execute(
            "SELECT at, duplicate FROM predictions WHERE key=? AND row=?", (key, row - 1)
        ).fetchone()
        if before is not None and (before[1] or before[0] != at):
            self._database.execute("UPDATE predictions SET duplicate=1 WHERE key=?", (key,))

    def _mark_duplicates(self, records: Sequence[tuple[Any, ...]], last: int, tally: Tally) -> None:
        """A live id used again: which of the requests a label means nobody can say."""
        exchanges: dict[int, set[float]] = {}
        rows: Counter[int] = Counter()
        for record in records:
            exchanges.setdefault(record[0], set()).add(record[3])
            rows[record[0]] += 1
        for key, times in exchanges.items():
            total, fresh = self._database.execute(
                "SELECT COUNT(*), IFNULL(SUM(seq > ?), 0) FROM predictions WHERE key=?", (last, key)
            ).fetchone()
            if fresh == rows[key]:
                continue
            tally.dropped["duplicate_id"] += max(1, len(times) - int(total == fresh))
            self._database.execute("UPDATE predictions SET duplicate=1 WHERE key=?", (key,))

    def _check_sampling(self, keys: dict[str, int], now: float) -> None:
        """Whether the sampling hashes the ids that labels come with.

        It hashes the id that the edge knew; where a body names another, `was_kept` denies rows
        that are here. A lowered rate does so as well, for a while.
        """
        for id, _ in zip(keys, range(CHECKED_PER_TICK), strict=False):
            if self._was_kept(id) is False:
                self._contradicted_at = now
                return

    def _evict(self, tally: Tally) -> None:
        over = self._database.counts.rows - self._rows_max
        if over > 0:
            tally.dropped["prediction_evicted"] += self._let_go(over, math.inf)

    def _let_go(self, count: int, before: float) -> int:
        """Delete up to `count` of the oldest predictions that were made before that time."""
        gone, labelled, waiting = self._database.execute(
            "SELECT COUNT(*), COUNT(label), IFNULL(SUM(told = 0), 0) FROM predictions"
            " WHERE at < ? AND seq IN"
            " (SELECT seq FROM predictions ORDER BY seq LIMIT ?)",
            (before, count),
        ).fetchone()
        if gone:
            self._database.execute(
                "DELETE FROM predictions WHERE at < ? AND seq IN"
                " (SELECT seq FROM predictions ORDER BY seq LIMIT ?)",
                (before, count),
            )
            self._database.counts.rows -= gone
            self._database.counts.labelled -= labelled
            self._database.counts.waiting -= waiting
        # What is left begins with the oldest; aliases of what is gone go too.
        first = self._database.execute("SELECT at FROM predictions ORDER BY seq LIMIT 1").fetchone()
        self._database.execute(
            "DELETE FROM aliases WHERE seq IN (SELECT seq FROM aliases ORDER BY seq LIMIT ?)"
            " AND at < ?",
            (4 * count, before if first is None else first[0]),
        )
        return int(gone)

    def _join_pending(self, keys: Sequence[int], now: float, tally: Tally) -> list[Joined]:
        if not self._database.counts.pending:
            return []
        found: list[Joined] = []
        waiting = self._database.select_in(
            "SELECT seq, key, row, label, known_at FROM pending", keys
        )
        for seq, key, row, label, known_at in waiting:
            outcome, joined = self._label(self._target(key), row, label, known_at, now, tally)
            if outcome == "unknown":
                continue  # of a row that the next tick brings
            self._database.execute("DELETE FROM pending WHERE seq=?", (seq,))
            self._database.counts.pending -= 1
            tally.outcomes[outcome] += 1
            if joined is not None:
                found.append(joined)
        return found

    def take(self, labels: Iterable[Label], now: float) -> tuple[Counter[str], list[Joined]]:
        """Join labels; gives what became of each by outcome, and the rows that were joined."""
        joined: list[Joined] = []
        with self._database.transaction() as tally:
            for label in labels:
                outcome, row = self._take(label, now, tally)
                tally.outcomes[outcome] += 1
                if row is not None:
                    joined.append(row)
            self._bound_pending(tally)
            self.cohorts.write(tally)
        self._add(tally)
        return tally.outcomes, joined

    def _take(self, label: Label, now: float, tally: Tally) -> tuple[str, Joined | None]:
        text = label_text(label.label)
        known_at = now if label.at is None else label.at
        own = key_of(label.request_id)
        outcome, joined = self._label(own, label.row, text, known_at, now, tally, dated=True)
        key = own
        if outcome == "unknown" and (key := self._target(own)) != own:
            outcome, joined = self._label(key, label.row, text, known_at, now, tally, dated=True)
        if outcome != "unknown":
            return outcome, joined
        if key == 0 or (key not in self._maybe_cut.values() and self._is_known(key)):
            return "unmatched", None  # the request is known, the row is not one of its rows
        trusted = now - self._contradicted_at > self._pending_s
        if trusted and self._was_kept(label.request_id) is False:
            return "not_sampled", None
        self._database.counts.pending += self._database.execute(
            "INSERT OR IGNORE INTO pending (key, row, label, known_at, came_at) VALUES (?,?,?,?,?)",
            (own, label.row, text, known_at, now),
        ).rowcount
        self._database.execute(
            "UPDATE pending SET label=?, known_at=? WHERE key=? AND row=? AND label<>?",
            (text, known_at, own, label.row, text),
        )
        return "pending", None

    def _is_known(self, key: int) -> bool:
        return bool(
            self._database.number("SELECT EXISTS (SELECT 1 FROM predictions WHERE key=?)", (key,))
        )

    def _target(self, key: int) -> int:
        """The key of the request that an alias means: itself for no alias, 0 for one of many."""
        found = self._database.execute("SELECT target FROM aliases WHERE key=?", (key,)).fetchone()
        return key if found is None or self._is_known(key) else int(found[0] or 0)

    def _label(
        self,
        key: int,
        row: int,
        text: str,
        at: float,
        now: float,
        tally: Tally,
        *,
        dated: bool = False,
    ) -> tuple[str, Joined | None]:
        """Join one label; `dated`: a prediction may be too old for it."""
        found = self._database.execute(
            f"SELECT {ROW}, duplicate, told, seq FROM predictions"  # noqa: S608 - a constant
            " WHERE key=? AND row=?",
            (key, row),
        ).fetchone()
        if found is None:
            return "unknown", None
        *made, old, _, twice, told, seq = found
        made_at = made[8]
        if twice:
            return "unmatched", None
        if old == text:
            return "unchanged", None
        if dated and now - made_at > self._ttl_s:
            return "late", None
        if old is None:
            told = self.cohorts.is_mature(made_at, now)
            self.cohorts.labelled(made_at, now, tally)
            self._database.counts.labelled += 1
            self._database.counts.waiting += int(not told)
        self._database.execute(
            "UPDATE predictions SET label=?, labelled_at=?, told=? WHERE seq=?",
            (text, at, int(told), seq),
        )
        joined = joined_row((*made, text, at), None if old is None else old)
        return ("joined" if old is None else "corrected"), (joined if told else None)

    # Cohorts.

    def ripe(self, now: float) -> list[Joined]:
        """Joined rows whose cohort is mature by now, oldest first; each is given once."""
        if not self._database.counts.waiting:
            return []
        with self._database.transaction():
            return self.cohorts.take_ripe(now)

    def look(self, now: float) -> list[Change]:
        """Close mature cohorts; what there is to say of rows that get no label in time."""
        with self._database.transaction() as tally:
            return self.cohorts.look(now, tally)

    # Age and number.

    def expire(self, now: float) -> bool:
        """Let go of what has waited too long; True when there is more of it: call again soon."""
        with self._database.transaction() as tally:
            waited = self._drop_pending(EXPIRED_AT_ONCE_MAX, now - self._pending_s)
            tally.outcomes["unmatched"] += waited
            forgotten = now - self._ttl_s * (1.0 + TOMBSTONE_SHARE)
            gone = self._let_go(EXPIRED_AT_ONCE_MAX, forgotten)
        self._add(tally)
        return max(waited, gone) >= EXPIRED_AT_ONCE_MAX

    def _bound_pending(self, tally: Tally) -> None:
        over = self._database.counts.pending - PENDING_MAX
        if over > 0:
            gone = self._drop_pending(over, math.inf)
            tally.dropped["label_evicted"] += gone
            tally.outcomes["unmatched"] += gone

    def _drop_pending(self, count: int, before: float) -> int:
        """Delete up to `count` of the labels that came first and before that time."""
        gone = self._database.execute(
            "DELETE FROM pending WHERE came_at < ? AND seq IN"
            " (SELECT seq FROM pending ORDER BY seq LIMIT ?)",
            (before, count),
        ).rowcount
        self._database.counts.pending -= gone
        return gone

    def _add(self, tally: Tally) -> None:
        self.outcomes.update(tally.outcomes)
        self.dropped.update(tally.dropped)
        self.cohorts.written(tally)

    @contextmanager
    def reader(self) -> Iterator[Callable[[Sequence[str]], dict[tuple[str, int], LabelValue]]]:
        """A function from request ids to the labels of their rows, for use in any one thread."""
        with closing(read_only(self._path)) as connection:
            yield partial(labels_of, connection)
