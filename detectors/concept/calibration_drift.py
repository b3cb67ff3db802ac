"""Do scores still mean what they did? A concept can change while the error rate falls.

A score is a probability: of the positive class, or, for many classes, that the class which was said
is right. Labelled rows show how often rows of a score turned out positive; this detector bets that
it is no longer as often as on the labelled reference (see `score_bets`). What the model is asked
about may change as it likes: rows are only ever compared with reference rows of the same score.

Rows are bet on a few at a time, in the order in which they are given; a restart with `restore`
changes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.concept.score_bets import PATTERNS, Bets, far_from
from detectors.concept.score_levels import Cells, Floats, ScoreLevel, score_level
from detectors.reading import Change, Effect, Kind, Scope, State

#: Labelled rows that are bet on at once: more would dilute a change that begins among them.
ROWS_AT_ONCE: Final = 10
#: Rows that are priced at once: bounds memory.
PORTION_ROWS: Final = 2_000
#: Scores are told apart so finely where no reference says where its bins are.
BINS: Final = 64
#: Standard errors taken off a change before its size counts: an alarm picks the worst rows.
EFFECT_ERRORS: Final = 2.0
#: A state is taken back when so many rows in a row are near the first level: the sum over thirds of
#: squared standard errors is below its upper third (3 degrees of freedom). After an alarm, which
#: says that something moved, its upper twentieth is asked for.
CALM_ROWS: Final = 3_000
CALM: Final = 3.5
RETURNED: Final = 8.0
#: Rows that teach a level: the first one where there is no reference, the next one after a change.
LEARN_ROWS: Final = 2_000
REARM_ROWS: Final = 1_000


class CalibrationDetector:
    """Watches what scores mean against a labelled reference, in both directions.

    Without a reference (`rows` None) the first `learn_rows` labelled rows become it. After a drift
    was said the next `rearm_rows` teach the new level, so that the next change is seen; a return to
    the first level is said as `ok`.

    Parameters
    ----------
    edges, rows, positives
        The labelled reference by score bin: inner edges [bins - 1], rows [bins], rows that turned
        out positive (or right) [bins].
    score_sums, calibrated
        Sums of the scores [bins], or a smooth rate of each bin [bins]: what tells rows of a bin, or
        bins of a cell, apart.
    false_alarms_per_month
        This detector's share of the budget, all bets together.
    ticks_per_month
        How many ticks (`update(..., ticks=1)`) make up the month of the budget.
    effect_min
        Difference of rates, less two standard errors, that makes a `warning` a `drift`.
    outcome
        What a 1 is called in sentences: "positive", "right".

    Raises ValueError for counts that cannot be and a senseless budget.

    >>> rng = np.random.default_rng(1)
    >>> detector = CalibrationDetector(edges=[0.5], rows=[3000, 3000], positives=[750, 2250])
    >>> scores = rng.random(1_000)
    >>> [c.state.value for c in detector.update(scores, rng.random(1_000) < scores / 2)]
    ['drift']
    """

    def __init__(
        self,
        *,
        edges: Sequence[float] | Floats | None = None,
        rows: Sequence[float] | Floats | None = None,
        positives: Sequence[float] | Floats | None = None,
        score_sums: Sequence[float] | Floats | None = None,
        calibrated: Sequence[float] | Floats | None = None,
        false_alarms_per_month: float = 0.06,
        ticks_per_month: float = 43_200,
        effect_min: float = 0.02,
        outcome: str = "positive",
        learn_rows: int = LEARN_ROWS,
        rearm_rows: int = REARM_ROWS,
    ) -> None:
        if not (0 < false_alarms_per_month < math.inf and 0 < ticks_per_month < math.inf):
            raise ValueError(
                "false_alarms_per_month and ticks_per_month must be above 0 and finite"
            )
        self._budget = false_alarms_per_month / ticks_per_month
        self._effect_min, self._outcome = effect_min, outcome
        self._learn_rows, self._rearm_rows = learn_rows, rearm_rows
        self._edges = np.asarray(
            np.arange(1, BINS) / BINS if edges is None else edges, dtype=np.float64
        )
        self._given: ScoreLevel | None = None
        if rows is not None and positives is not None:
            given = score_level(
                self._edges, rows, positives, score_sums=score_sums, calibrated=calibrated
            )
            self._given = given if given.total > 0 else None
        self.rows = 0
        self.skipped = 0  # rows without a probability, or with another outcome than 0 and 1
        self.reset()

    def reset(self) -> None:
        """Begin anew against the reference, nothing latched."""
        self.status = State.INSUFFICIENT_DATA
        self._origin: ScoreLevel | None = None
        self._origin_cells: Cells | None = None
        self._level: ScoreLevel | None = None
        self._bets: Bets | None = None
        self._learning = np.zeros((3, len(self._edges) + 1))
        self._learn_target = self._learn_rows
        self._waiting: int | None = None  # a pattern whose evidence came, its effect has not yet
        self._alarm_log_e = 0.0
        self._calm = np.zeros((5, 3))
        if self._given is not None:
            self._begin(self._given)

    def _begin(self, level: ScoreLevel) -> None:
        self._origin, self._origin_cells = level, Cells(level)
        self.status = State.OK
        self._arm(level)

    def _arm(self, level: ScoreLevel) -> Bets:
        self._level = level
        cells = self._origin_cells if level is self._origin else Cells(level)
        assert cells is not None
        self._bets = Bets(cells, self._budget)
        self._waiting = None
        self._calm[:] = 0.0
        return self._bets

    @property
    def log10_evidence(self) -> float:
        """The evidence of all bets, as log10 of the e-value in alarms of the budget."""
        return 0.0 if self._bets is None else max(self._bets.log_e / math.log(10.0), -300.0)

    def update(
        self, scores: NDArray[Any], outcomes: NDArray[Any], *, ticks: float = 1.0
    ) -> list[Change]:
        """Take labelled rows, oldest first: scores [rows] in [0, 1], outcomes [rows] 0 or 1.

        `ticks` is the budget that they bring, in ticks, at most 1. Rows with another score or
        outcome are left out and counted. Raises ValueError for lengths that differ.
        """
        scores = np.asarray(scores, np.float64)
        outcomes = np.asarray(outcomes, np.float64)
        if scores.shape != outcomes.shape or scores.ndim != 1:
            raise ValueError(f"scores {scores.shape} and outcomes {outcomes.shape} differ")
        usable = (scores >= 0.0) & (scores <= 1.0) & ((outcomes == 0.0) | (outcomes == 1.0))
        self.skipped += int((~usable).sum())
        scores, outcomes = scores[usable], outcomes[usable]
        ticks = min(max(ticks, 0.0), 1.0) if math.isfinite(ticks) else 0.0
        changes: list[Change] = []
        place = 0
        while place < len(scores):
            part = slice(place, place + PORTION_ROWS)
            if self._bets is None:
                place += self._learn(scores[part], outcomes[part])
            else:
                share = ticks * len(scores[part]) / len(scores)
                place += self._bet(scores[part], outcomes[part], share, changes)
        return changes

    def _learn(self, scores: Floats, outcomes: Floats) -> int:
        """Learn a level; give how many rows were taken."""
        taken = min(len(scores), int(self._learn_target - self._learning[0].sum()))
        scores, outcomes = scores[:taken], outcomes[:taken]
        bins = np.searchsorted(self._edges, scores, side="left")
        for row, weights in enumerate((None, outcomes, scores)):
            self._learning[row] += np.bincount(bins, weights, len(self._edges) + 1)
        self.rows += taken
        if self._learning[0].sum() < self._learn_target:
            return taken
        counts, self._learning = self._learning, np.zeros_like(self._learning)
        learnt = ScoreLevel(
            edges=self._edges, rows=counts[0], positives=counts[1], guess_sums=counts[2]
        )
        if self._origin is None:
            self._begin(learnt)
        else:
            self._arm(learnt)
        return taken

    def _bet(self, scores: Floats, outcomes: Floats, ticks: float, changes: list[Change]) -> int:
        """Bet on rows up to the first alarm; give how many were taken."""
        bets, origin = self._bets, self._origin_cells
        assert bets is not None
        assert origin is not None
        group = bets.group(scores, outcomes, origin, ROWS_AT_ONCE)
        last = bets.take(group, ticks)
        end = len(group.sizes) if last is None else last + 1
        taken = int(group.sizes[:end].sum())
        self.rows += taken
        if self.status is not State.OK:
            self._calm += group.sums[:end].sum(axis=0)
        if last is not None:
            changes += self._alarm(bets.leading())
        elif self._waiting is not None:
            # The evidence came first, the rows that tell how big the change is come now.
            changes += self._settle(self._waiting)
        if self.status is not State.OK and self._calm[0].sum() >= CALM_ROWS:
            sums = self._calm.copy()
            self._calm[:] = 0.0
            if self._is_origin(sums, CALM):
                changes.append(self._recovered(sums))
        return taken

    def _alarm(self, pattern: int) -> list[Change]:
        assert self._bets is not None
        self._alarm_log_e = self.log10_evidence
        self._bets.latch()
        self._waiting = pattern
        return self._settle(pattern)

    def _settle(self, pattern: int) -> list[Change]:
        """Say what an alarm comes to, as soon as its rows are enough to tell."""
        assert self._bets is not None
        sums = self._bets.since(pattern)
        if self.status is not State.OK and self._is_origin(sums, RETURNED):
            # Few rows look like the first level too easily: a return takes its time.
            enough = sums[0].sum() >= CALM_ROWS
            return [self._recovered(sums)] if enough else []
        if self._effect(pattern)[1] >= self._effect_min:
            change = self._change(State.DRIFT, pattern)
            # Forget the old level; the next rows teach the new one.
            self._bets, self._waiting = None, None
            self._learn_target = self._rearm_rows
            return [change]
        if self.status is State.OK:
            return [self._change(State.WARNING, pattern)]
        # Already said: a warning again, or a small step on top of a drift, is no news.
        return []

    def _effect(self, pattern: int) -> tuple[float, float]:
        """Give the change of rates in the pattern's direction, and what is left of it for sure."""
        assert self._bets is not None
        sums, signs = self._bets.since(pattern), PATTERNS[pattern]
        rows = float(np.abs(signs) @ sums[0])
        if rows <= 0:
            return 0.0, 0.0
        mean = float(signs @ sums[1]) / rows
        return mean, mean - EFFECT_ERRORS * math.sqrt(float(np.abs(signs) @ sums[2])) / rows

    def _change(self, state: State, pattern: int) -> Change:
        assert self._bets is not None
        self.status = state
        self._calm[:] = 0.0
        sums, signs = self._bets.since(pattern), PATTERNS[pattern]
        where = np.abs(signs)
        rows = float(where @ sums[0])
        size = self._effect(pattern)[0]
        if signs.min() < 0 < signs.max():
            verb = "less" if signs[0] > 0 else "more"
            what = (
                f"scores tell rows apart {verb} than they did: low ones turn out {self._outcome} "
                f"by {sums[1, 0] / max(sums[0, 0], 1):+.3f}, high ones by "
                f"{sums[1, 2] / max(sums[0, 2], 1):+.3f}"
            )
        else:
            place = "" if where.all() else f" of {_THIRDS[int(where.argmax())]} score"
            verb = "more" if signs.max() > 0 else "less"
            size *= 1.0 if signs.max() > 0 else -1.0
            what = (
                f"rows{place} turn out {self._outcome} {verb} often than their scores meant, "
                f"by {size:+.3f}"
            )
        text = f"{what}, over {rows:,.0f} labelled rows"
        return self._said(state, self._alarm_log_e, size, rows, text)

    def _recovered(self, sums: Floats) -> Change:
        """Back at the first level, and armed against that again."""
        assert self._origin is not None
        log_e = self.log10_evidence
        self.status = State.OK
        self._arm(self._origin)
        rows = float(sums[0].sum())
        size = float(sums[3].sum()) / max(rows, 1.0)
        text = f"scores mean what they did on the reference again, over {rows:,.0f} labelled rows"
        return self._said(State.OK, log_e, size, rows, text)

    def _said(self, state: State, log_e: float, size: float, rows: float, text: str) -> Change:
        return Change(
            kind=Kind.CONCEPT_DRIFT,
            scope=Scope.MODEL,
            subject="calibration",
            detector="betting",
            state=state,
            statistic=log_e,
            threshold=0.0,
            evidence=log_e,
            effect=Effect(name="calibration_change", value=size),
            rows=int(rows),
            explain=text,
        )

    def _is_origin(self, sums: Floats, bound: float) -> bool:
        cells, bets = self._origin_cells, self._bets
        assert cells is not None
        shares = cells.shares
        if bets is not None and bets.cells is cells:
            shares = bets.recent_shares()
        return far_from(sums, cells.error(shares)) <= bound

    def state(self) -> dict[str, Any]:
        """Everything that matters, as JSON-able values."""
        level = None if self._level is self._origin or self._level is None else self._level
        return {
            "status": self.status.value,
            "origin": None if self._origin is None else self._origin.state(),
            "level": None if level is None else level.state(),
            "bets": None if self._bets is None else self._bets.state(),
            "learning": self._learning.tolist(),
            "learn_target": self._learn_target,
            "waiting": self._waiting,
            "alarm_log_e": self._alarm_log_e,
            "calm": self._calm.tolist(),
            "rows": self.rows,
            "skipped": self.skipped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off. Raises ValueError for what does not fit."""
        try:
            origin, level = state["origin"], state["level"]
            learning = np.asarray(state["learning"], np.float64)
            calm = np.asarray(state["calm"], np.float64)
            if learning.shape != self._learning.shape or calm.shape != (5, 3):
                raise ValueError("calibration state: of other score bins")
            self._origin = None if origin is None else ScoreLevel.from_state(origin)
            self._origin_cells = None if self._origin is None else Cells(self._origin)
            self._level = self._origin if level is None else ScoreLevel.from_state(level)
            self._bets = None
            if state["bets"] is not None:
                if self._level is None:
                    raise ValueError("calibration state: bets without a level")
                self._bets = self._arm(self._level)
                self._bets.restore(state["bets"])
            self._learning, self._calm = learning, calm
            self._learn_target = int(state["learn_target"])
            waiting = state["waiting"]
            self._waiting = None if waiting is None else int(waiting)
            self._alarm_log_e = float(state["alarm_log_e"])
            self.status = State(state["status"])
            self.rows, self.skipped = int(state["rows"]), int(state["skipped"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"calibration state: malformed ({error!r})") from None


_THIRDS: Final = ("low", "middle", "high")
