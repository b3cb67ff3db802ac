"""When labels may be believed: cohorts of predictions, and how long their labels take.

Labels that come early are no sample of those to come (a default is known sooner than its absence),
so rows are handed on only when their cohort is mature: made longer ago than 99 % of labels take.
Cohorts, delays and what was learnt of them stand in the file of the join; the one thing not to
break is that a joined row is handed on exactly once.
"""

import json
import math
import random
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Final

from agent.label_database import Database, Tally
from agent.label_delays import DelayWatch
from agent.label_rows import ROW, Joined, joined_row
from detectors.concept.error_rate import ErrorRateDetector
from detectors.reading import Change, Effect, Kind, Scope, State

# Labels that must have come before their delays are believed.
DELAYS_MIN: Final = 200
# Delays count half each time that so many have come: the cut-off follows when labels get slower.
DELAYS_MAX: Final = 20_000
SHARE: Final = 0.99
SETTLED_AFTER: Final = 3.0
# Labels that are here within a minute are no cohorts to wait for.
MATURITY_MIN_S: Final = 60.0
# Of the time that predictions wait: cohorts are never waited for until their rows are gone.
MATURITY_SHARE_MAX: Final = 0.9
COHORTS: Final = 1_000  # of the time that predictions are kept
COHORT_MIN_S: Final = 60.0
COHORTS_SHOWN: Final = 100
# Cohorts that teach how many of their rows get a label in time, and how much that varies.
COHORTS_LEARNT: Final = 20
STEPS_PER_OCTAVE: Final = 8
RIPE_AT_ONCE_MAX: Final = 5_000
# Delays between two looks; of more the newest are watched.
FRESH_MAX: Final = 10_000
BUDGET_TICK_S: Final = 60.0


def delay_step(delay_s: float) -> int:
    """The bucket of a delay: eight to a doubling, so that a quantile is right within 9 %."""
    return int(STEPS_PER_OCTAVE * math.log2(1.0 + max(delay_s, 0.0)))


class Cohorts:
    """The cohorts of one store.

    Parameters
    ----------
    database: the file that the join is in.
    maturity_s: the age at which a cohort is mature; None: 99 % of the delays seen.
    kept_s: how long predictions are kept.
    """

    def __init__(self, database: Database, *, maturity_s: float | None, kept_s: float) -> None:
        self._database = database
        self._given_s = maturity_s
        self._kept_s = kept_s
        self.width_s = max(COHORT_MIN_S, kept_s / COHORTS)
        rows = database.execute("SELECT step, rows FROM delays").fetchall()
        self._delays: dict[int, float] = {int(step): float(count) for step, count in rows}
        self.maturity_s = self._cut_off()
        self.join_ratio: float | None = None
        self._watch = JoinWatch(json.loads(self._kept("join_watch") or "null"))
        self._delay_watch = DelayWatch(json.loads(self._kept("delay_watch") or "null"))
        # Delays since the last look, in the order in which labels came.
        self._fresh: deque[float] = deque(maxlen=FRESH_MAX)
        self._looked_at: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For the status: `label_cohorts`."""
        return {
            "maturity_s": self.maturity_s,
            "waiting": self._database.counts.waiting,
            "join_ratio": self.join_ratio,
            "join_state": self.join_state.value,
            "delay_state": self.delay_state.value,
        }

    @property
    def join_state(self) -> State:
        """Whether rows still get their label in time as often as they did."""
        return self._watch.state

    @property
    def delay_state(self) -> State:
        """Whether labels take as long as they did."""
        return self._delay_watch.state

    def _cut_off(self) -> float:
        if self._given_s is not None:
            return min(self._given_s, MATURITY_SHARE_MAX * self._kept_s)
        total = sum(self._delays.values())
        if total < DELAYS_MIN:
            return 0.0
        below = 0.0
        for step in sorted(self._delays):
            below += self._delays[step]
            if below >= SHARE * total:
                break
        found = 2.0 ** ((step + 1) / STEPS_PER_OCTAVE) - 1.0
        return min(found, MATURITY_SHARE_MAX * self._kept_s) if found >= MATURITY_MIN_S else 0.0

    def is_mature(self, made_at: float, now: float) -> bool:
        """Whether a row of that time may be handed on. One from the future is: a clock jumped, and
        when it would be mature nobody can say.
        """
        return self.maturity_s <= 0.0 or made_at <= now - self.maturity_s or made_at > now

    def made(self, times: Iterable[float], tally: Tally) -> None:
        """Predictions were made at these times."""
        for start, rows in Counter(int(at // self.width_s) for at in times).items():
            tally.cohorts[start, "rows"] += rows

    def labelled(self, made_at: float, labelled_at: float, tally: Tally) -> None:
        """A prediction of that time got its first label at this one: its delay is what it took to
        come here, not to be known.
        """
        delay_s = max(labelled_at - made_at, 0.0)
        tally.delays[delay_step(delay_s)] += 1
        start = int(made_at // self.width_s)
        tally.cohorts[start, "labelled"] += 1
        if delay_s <= self.maturity_s or self.maturity_s <= 0.0:
            tally.cohorts[start, "in_time"] += 1

    def write(self, tally: Tally) -> None:
        """What a transaction did to cohorts, into the file."""
        for name in ("rows", "labelled", "in_time"):
            values = [(at, n, n) for (at, what), n in tally.cohorts.items() if what == name]
            if values:
                self._database.executemany(
                    f"INSERT INTO cohorts (start, {name}) VALUES (?,?)"  # noqa: S608 - names above
                    f" ON CONFLICT (start) DO UPDATE SET {name} = {name} + ?",
                    values,
                )
        if tally.delays:
            self._database.executemany(
                "INSERT INTO delays VALUES (?,?) ON CONFLICT (step) DO UPDATE SET rows = rows + ?",
                [(step, n, n) for step, n in tally.delays.items()],
            )

    def written(self, tally: Tally) -> None:
        """That is on disk: it counts from now on."""
        for step, count in tally.delays.items():
            self._delays[step] = self._delays.get(step, 0.0) + count
        if tally.delays:
            self.maturity_s = self._cut_off()
            # They were counted by size: mixed again, or a hundred in a row would be all alike.
            fresh = [step / STEPS_PER_OCTAVE for step in tally.delays.elements()]
            random.Random(len(fresh)).shuffle(fresh)  # noqa: S311 - the same every time
            self._fresh.extend(fresh)

    def take_ripe(self, now: float) -> list[Joined]:
        """Joined rows that are mature by now, in the order in which they were predicted, at most
        `RIPE_AT_ONCE_MAX`; within a transaction.
        """
        database = self._database
        found = database.execute(
            f"SELECT {ROW}, seq FROM predictions"  # noqa: S608 - a constant
            " WHERE told = 0 AND (at <= ? OR at > ?) ORDER BY at LIMIT ?",
            (now - self.maturity_s, now, RIPE_AT_ONCE_MAX),
        ).fetchall()
        seqs = [row[-1:] for row in found]
        database.executemany("UPDATE predictions SET told = 1 WHERE seq=?", seqs)
        database.counts.waiting -= len(found)
        return [joined_row(row[:-1], None) for row in found]

    def look(self, now: float, tally: Tally) -> list[Change]:
        """Close the cohorts that are mature by now, forget old ones; within a transaction.

        Gives what there is to say of rows that get no label in time. This stands outside the
        false-alarm budget: labels come in batches, and batches fail as one.
        """
        database, width_s = self._database, self.width_s
        if sum(self._delays.values()) > DELAYS_MAX:
            self._delays = {step: n / 2 for step, n in self._delays.items() if n >= 1.0}
            database.execute("DELETE FROM delays")
            database.executemany("INSERT INTO delays VALUES (?,?)", list(self._delays.items()))
        last = math.floor((now - self.maturity_s) / width_s) - 1
        ripe = database.execute(
            "SELECT start, rows, labelled, in_time, closed FROM cohorts WHERE start <= ?"
            " ORDER BY start DESC LIMIT ?",
            (last, COHORTS_SHOWN),
        ).fetchall()
        rows = sum(cohort[1] for cohort in ripe)
        self.join_ratio = sum(cohort[2] for cohort in ripe) / rows if rows else None
        changes: list[Change] = []
        settled = self._settled(now)
        fresh = [c for c in reversed(ripe) if settled and not c[4] and c[1]]
        for _, made, _, in_time, _ in fresh:
            changes += self._watch.take(made, min(in_time, made))
        if fresh:
            self._keep("join_watch", json.dumps(self._watch.saved()))
        changes += self._look_at_delays(now, settled)
        database.execute("UPDATE cohorts SET closed = 1 WHERE start <= ? AND closed = 0", (last,))
        oldest = math.floor((now - 1.25 * self._kept_s) / width_s)
        database.execute("DELETE FROM cohorts WHERE start < ?", (oldest,))
        # A clock that jumped ahead and came back left cohorts that time will not close.
        database.execute(
            "DELETE FROM cohorts WHERE start IN (SELECT start FROM cohorts ORDER BY start DESC"
            " LIMIT -1 OFFSET ?)",
            (2 * COHORTS,),
        )
        return changes

    def _settled(self, now: float) -> bool:
        """Whether predictions have been made for three times as long as labels take: the first
        delays that are seen are the short ones.
        """
        if self._given_s is None and sum(self._delays.values()) < DELAYS_MIN:
            return False
        known = self._kept("first_at")
        if known is None or float(known) > now:
            [start] = self._database.execute("SELECT MIN(start) FROM cohorts").fetchone()
            if start is None:
                return False
            known = str(min(start * self.width_s, now))
            self._keep("first_at", known)
        needed_s = min(SETTLED_AFTER * self.maturity_s, self._kept_s)
        return now - float(known) >= needed_s

    def _look_at_delays(self, now: float, settled: bool) -> list[Change]:
        elapsed_s = 0.0 if self._looked_at is None else max(now - self._looked_at, 0.0)
        self._looked_at = now
        delays = list(self._fresh)
        self._fresh.clear()
        if not delays or not settled:
            return []
        changes = self._delay_watch.take(delays, min(elapsed_s / BUDGET_TICK_S, 1.0))
        self._keep("delay_watch", json.dumps(self._delay_watch.saved()))
        return changes

    def _kept(self, name: str) -> str | None:
        found = self._database.execute("SELECT value FROM kept WHERE name=?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def _keep(self, name: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO kept VALUES (?,?)", (name, value))


class JoinWatch:
    """The share of rows that get no label in time, against that of the first cohorts.

    Rows of a cohort share a fate, so that they count for as few as the first cohorts' own variation
    says.
    """

    def __init__(self, saved: dict[str, Any] | None) -> None:
        self._first: list[tuple[int, int]] = []
        self._effect = 1.0  # rows that count as one
        self._detector: ErrorRateDetector | None = None
        if saved is not None:
            self._first = [(int(rows), int(missed)) for rows, missed in saved["first"]]
            if saved["detector"] is not None:
                self._detector = self._begun()
                self._detector.restore(saved["detector"])

    @property
    def state(self) -> State:
        """`insufficient_data` before the first cohorts were seen."""
        detector = self._detector
        return State.INSUFFICIENT_DATA if detector is None else State(detector.status)

    def take(self, rows: int, labelled: int) -> list[Change]:
        """One cohort: its rows, and how many had their label in time."""
        missed = rows - labelled
        if self._detector is None:
            self._first.append((rows, missed))
            if len(self._first) >= COHORTS_LEARNT:
                self._detector = self._begun()
            return []
        count = max(1, round(rows / self._effect))
        errors = min(round(missed / self._effect), count)
        changes = self._detector.update(rows=count, errors=errors)
        return [
            Change(
                kind=Kind.DATA_QUALITY,
                scope=Scope.MODEL,
                subject="label_join",
                detector="bernoulli",
                state=State(change.state),
                statistic=change.log10_evidence,
                threshold=0.0,
                evidence=change.log10_evidence,
                effect=Effect(
                    name="unlabelled_share_change", value=change.rate - change.baseline_rate
                ),
                rows=round(change.rows * self._effect),
                explain=change.explain,
            )
            for change in changes
        ]

    def _begun(self) -> ErrorRateDetector:
        rows = sum(made for made, _ in self._first)
        missed = sum(missing for _, missing in self._first)
        share = (missed + 0.5) / (rows + 1.0)
        spread = sum((m - n * share) ** 2 / (n * share * (1.0 - share)) for n, m in self._first)
        self._effect = max(1.0, spread / max(len(self._first) - 1, 1))
        count = max(1, round(rows / self._effect))
        return ErrorRateDetector(
            errors=min(round(missed / self._effect), count),
            rows=count,
            false_alarms_per_month=1.0,
            effect_min=0.05,
            rearm_rows=200,
            what="the share of rows without a label in time",
        )

    def saved(self) -> dict[str, Any]:
        """JSON values."""
        detector = self._detector
        return {
            "first": [list(pair) for pair in self._first],
            "detector": None if detector is None else detector.state(),
        }
