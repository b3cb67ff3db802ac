"""Can estimates without labels still be believed? They are, until labels say otherwise.

On labelled rows the same table that estimates says how likely the model was right (for a
regression: how large its error would be, up to the table's cap), and the label says whether it was.
This detector bets that the two differ by more than a tolerance and what the reference leaves open:
a Shiryaev-Roberts e-detector over both directions and a few stakes, so that in a month it cries
wolf no more often than its share of the budget on average, however often one looks. It is inside
the budget (`budget.SHARES["estimation"]`).

One thing must not break: a row's expectation, the margin and the stakes are fixed before its label
is seen.

Sources: Shin, Ramdas and Rinaldo, "E-detectors" (2023); Waudby-Smith and Ramdas (2024) for bets on
bounded outcomes.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detectors.performance.classes import UNKNOWN, ClassNames
from detectors.performance.error_estimation import numbers_of
from detectors.performance.estimation_table import EstimationTable
from detectors.reading import Change, Effect, Kind, Scope, State

Floats: TypeAlias = NDArray[np.float64]
Basis: TypeAlias = Literal["realised", "estimated"]

#: A gap of a hundredth (of all rows, or of the largest error that counts) does no harm.
TOLERANCE: Final = 0.01
#: Standard errors that the reference is given.
MARGIN_ERRORS: Final = 3.0
#: Rows that the reference's own mix of scores counts for, against that of the labelled rows.
MIX_ROWS: Final = 1_000.0
STAKES: Final = (0.05, 0.1, 0.2, 0.4)
ROWS_AT_ONCE: Final = 20
#: After a warning so many rows are compared at a time, until they agree.
CALM_ROWS: Final = 3_000
_LOG_MAX: Final = 300.0


class EstimateTrust:
    """Compares estimates and labels on the same rows, and says when to stop believing estimates.

    `false_alarms_per_month` is its share of the budget. Raises ValueError for senseless budgets.

    >>> from detectors.performance.estimation import EstimationBuilder
    >>> rng = np.random.default_rng(7)
    >>> score = rng.random(20_000)
    >>> builder = EstimationBuilder("classification")
    >>> builder.update(score, score > 0.5, rng.random(20_000) < score)
    >>> trust = EstimateTrust(builder.finish())
    >>> trust.update(score, score > 0.5, rng.random(20_000) < score), trust.trusted
    ([], True)
    >>> [change.state.value for change in trust.update(score, score > 0.5, score > 0.3)]
    ['warning']
    """

    def __init__(
        self,
        table: EstimationTable,
        *,
        false_alarms_per_month: float = 0.02,
        ticks_per_month: float = 43_200.0,
    ) -> None:
        if not 0.0 < false_alarms_per_month < math.inf or not 0.0 < ticks_per_month < math.inf:
            raise ValueError("a budget that is not positive and finite")
        self.table = table
        self.left_out = 0  # rows without a usable score, prediction or truth
        self._a_tick = false_alarms_per_month / ticks_per_month
        self._names = ClassNames(table.classes)
        regression = table.basis == "regression"
        self._expected = [_error_rates(table)] if regression else _hit_rates(table)
        # Each bin's share of the reference, and the variance of what is expected of it.
        rows = [part.sums[:, :1] if regression else part.sums for part in table.tables]
        counts = [np.maximum(part.sum(axis=1), 1.0) for part in rows]
        # (of a binary table the same, whichever class was said)
        self._doubt = [
            rate * (1.0 - rate) / count
            for rate, count in zip(self._expected[-len(counts) :], counts, strict=True)
        ]
        whole = sum(float(count.sum()) for count in counts)
        self._mix = [MIX_ROWS * count / whole for count in counts]
        self._stakes = np.array([*STAKES, *STAKES])
        self._sides = np.repeat([1.0, -1.0], len(STAKES))
        self.reset()

    def reset(self) -> None:
        """Believe again, and forget the evidence."""
        bets = len(self._stakes)
        self.trusted = True
        self._log_e = np.full(bets, -np.inf)
        self._cusum = np.zeros(bets)
        self._since = np.zeros((bets, 3))  # rows, outcomes, expectations
        self._calm = np.zeros(3)

    def update(
        self,
        score: NDArray[Any] | None,
        predicted: NDArray[Any],
        truth: NDArray[Any],
        *,
        ticks: float = 1.0,
    ) -> list[Change]:
        """Take labelled rows of the uniform stratum, oldest first: scores as the table's (None for
        a regression), predictions and truths [rows]; `ticks` is the budget they bring, at most 1.

        Rows that cannot be used are left out and counted. Raises ValueError for arrays of different
        lengths.
        """
        if len(predicted) != len(truth) or (score is not None and len(score) != len(truth)):
            raise ValueError("scores, predictions and truths of different lengths")
        tables, places, outcomes = self._rows(score, predicted, truth)
        self.left_out += len(truth) - len(outcomes)
        length = min(max(ticks, 0.0), 1.0) if math.isfinite(ticks) else 0.0
        changes: list[Change] = []
        for start in range(0, len(outcomes), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            share = length * len(outcomes[part]) / len(outcomes)
            change = self._take(tables[part], places[part], outcomes[part], share)
            if change is not None:
                changes.append(change)
        return changes

    def _rows(
        self, score: NDArray[Any] | None, predicted: NDArray[Any], truth: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Which table and bin each row is priced by, and its outcome in [0, 1]."""
        table, count = self.table, len(truth)
        nothing = np.zeros(0, dtype=np.int64)
        if not count:
            return nothing, nothing, np.zeros(0)
        if table.basis == "regression":
            said, true = numbers_of(predicted), numbers_of(truth)
            with np.errstate(over="ignore", invalid="ignore"):
                size = np.abs(true - said)
            usable = np.isfinite(size) & (table.cap > 0.0)
            places = table.tables[0].places(said[usable]).astype(np.int64)
            outcomes = np.minimum(size[usable], table.cap) / max(table.cap, 1e-300)
            return np.zeros(len(places), dtype=np.int64), places, outcomes
        columns = np.empty((count, 0)) if score is None else np.asarray(score, dtype=np.float64)
        columns = columns.reshape(count, -1)
        if not table.takes(columns.shape[1]):
            return nothing, nothing, np.zeros(0)
        said_codes, true_codes = self._names.codes(predicted), self._names.codes(truth)
        usable = (said_codes != UNKNOWN) & (true_codes != UNKNOWN)
        usable &= np.isfinite(columns).all(axis=1)
        if table.classes:
            usable &= said_codes < len(table.classes)
        columns = table.aligned(columns[usable], said_codes[usable] == 1)
        said_codes, true_codes = said_codes[usable], true_codes[usable]
        many = table.basis == "multiclass"
        # Hit rates of a binary table are two: of rows said to be negative, and positive.
        tables = np.zeros_like(said_codes) if table.basis == "confidence" else said_codes
        places = np.zeros(len(said_codes), dtype=np.int64)
        for index, part in enumerate(table.tables):
            here = tables == index if many else np.ones(len(places), dtype=np.bool_)
            places[here] = part.places(columns[here, index])
        return tables, places, (said_codes == true_codes).astype(np.float64)

    def _take(
        self, tables: NDArray[np.int64], places: NDArray[np.int64], outcomes: Floats, ticks: float
    ) -> Change | None:
        """A few rows."""
        priced = zip(tables.tolist(), places.tolist(), strict=True)
        expected = np.array([self._expected[table][place] for table, place in priced])
        margin = self._margin()
        gaps = outcomes - expected
        for table, place in zip(tables.tolist(), places.tolist(), strict=True):
            self._mix[min(table, len(self._mix) - 1)][place] += 1.0
        summary = np.array([len(gaps), outcomes.sum(), expected.sum()])
        if not self.trusted:
            return self._calmed(summary, margin)
        gains = self._sides[:, None] * gaps - margin
        steps = np.log1p(self._stakes[:, None] * gains).sum(axis=1)
        share = self._a_tick * ticks / len(self._stakes)
        begun = np.log(share) if share > 0.0 else -np.inf
        self._log_e = np.minimum(np.logaddexp(self._log_e, begun) + steps, _LOG_MAX)
        self._cusum = np.maximum(self._cusum + steps, 0.0)
        self._since = np.where(self._cusum[:, None] > 0.0, self._since + summary, 0.0)
        evidence = float(np.logaddexp.reduce(self._log_e))
        return self._warned(evidence, margin) if evidence >= 0.0 else None

    def _margin(self) -> float:
        """What estimates may be off by, at the mix of scores so far, with nothing wrong."""
        whole = sum(float(mix.sum()) for mix in self._mix)
        pairs = zip(self._mix, self._doubt, strict=True)
        doubt = sum(float(((mix / whole) ** 2 * variance).sum()) for mix, variance in pairs)
        return TOLERANCE + MARGIN_ERRORS * math.sqrt(doubt)

    def _warned(self, evidence: float, margin: float) -> Change:
        rows, outcomes, expected = self._since[int(self._log_e.argmax())].tolist()
        self.reset()
        self.trusted = False
        return self._change(
            State.WARNING, (rows, outcomes, expected), margin, evidence / math.log(10.0)
        )

    def _calmed(self, summary: Floats, margin: float) -> Change | None:
        """Believe again when three thousand rows agree with what was expected of them."""
        self._calm += summary
        rows, outcomes, expected = self._calm.tolist()
        if rows < CALM_ROWS:
            return None
        self._calm = np.zeros(3)
        if abs(outcomes - expected) / rows > margin:
            return None
        self.reset()
        return self._change(State.OK, (rows, outcomes, expected), margin, None)

    def _change(
        self,
        state: State,
        seen: tuple[float, float, float],
        margin: float,
        evidence: float | None,
    ) -> Change:
        rows, outcomes, expected = seen
        whole = max(rows, 1.0)
        scale = self.table.cap if self.table.basis == "regression" else 1.0
        true, said = scale * outcomes / whole, scale * expected / whole
        what = "accuracy" if self.table.basis != "regression" else "mean absolute error"
        verdict = "again" if state is State.OK else "no longer"
        return Change(
            kind=Kind.QUALITY,
            scope=Scope.MODEL,
            subject="estimation",
            detector="estimate_trust",
            state=state,
            statistic=true - said,
            threshold=scale * margin,
            evidence=evidence,
            effect=Effect(name="realised_less_estimated", value=true - said),
            rows=round(rows),
            explain=f"estimates without labels can {verdict} be believed: over {rows:,.0f} "
            f"labelled rows the {what} was {true:.3f}, estimated {said:.3f}",
        )

    def state(self) -> dict[str, Any]:
        """Everything that matters, as JSON values; the table is kept elsewhere."""
        return {
            "trusted": self.trusted,
            "left_out": self.left_out,
            "log_e": np.maximum(self._log_e, -1e300).tolist(),
            "cusum": self._cusum.tolist(),
            "since": self._since.tolist(),
            "calm": self._calm.tolist(),
            "mix": [mix.tolist() for mix in self._mix],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` left off, with the same table. Raises ValueError for a state
        that does not fit.
        """
        try:
            mix = [np.asarray(part, dtype=np.float64) for part in state["mix"]]
            parts = {
                name: np.asarray(state[name], dtype=np.float64)
                for name in ("log_e", "cusum", "since", "calm")
            }
            trusted, left_out = bool(state["trusted"]), int(state["left_out"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a state of trust: {error!r}") from error
        bets = len(self._stakes)
        shapes = {"log_e": (bets,), "cusum": (bets,), "since": (bets, 3), "calm": (3,)}
        if {name: part.shape for name, part in parts.items()} != shapes:
            raise ValueError("bets of another number")
        if [part.shape for part in mix] != [part.shape for part in self._mix]:
            raise ValueError("bins of another table")
        if not all(np.isfinite(part).all() for part in (*parts.values(), *mix)):
            raise ValueError("figures that are not finite")
        self.trusted, self.left_out, self._mix = trusted, left_out, mix
        self._log_e, self._cusum = parts["log_e"], parts["cusum"]
        self._since, self._calm = parts["since"], parts["calm"]


def _hit_rates(table: EstimationTable) -> list[Floats]:
    """How likely the model is right, by bin: of each predicted class, or of any."""
    if table.basis != "binary":
        return [table.calibration(index) for index in range(len(table.tables))]
    chance = table.calibration()
    return [1.0 - chance, chance]


def _error_rates(table: EstimationTable) -> Floats:
    """Mean size of an error as a share of the cap, by bin."""
    sums = table.tables[0].sums
    whole = sums.sum(axis=0)
    known = np.where(sums[:, :1] > 0.0, sums, whole)
    return np.clip(known[:, 4] / known[:, 0] / max(table.cap, 1e-300), 0.0, 1.0)
