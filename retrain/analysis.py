"""The sequential analysis of a canary: outcomes of both arms in, one verdict with its words out.

`observe` takes requests in the order they finished; `assess` may be called at any time and as
often as one likes: the evidence (`retrain/betting.py`) is valid under every schedule of looks.
Time comes with the outcomes and as an argument. The state is a few kilobytes of JSON and restores
to the very same floats. Never feed it means: one outcome per request, or the bounds are gone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from retrain.assessment import Arm, Assessment, HardStop, LabelledLoss, Outcome
from retrain.betting import Booleans, BoundBets, Floats, PairedBets, wilson
from retrain.gates import WORST_FIRST, Verdict
from retrain.guards import (
    Z_SHOWN,
    AnalysisPlan,
    Guard,
    GuardMeasurement,
    bake_bound,
    duration_bins,
    measure_bake,
    measure_canary,
    slow_limits,
)

# The control's health and the limits of slowness are looked at once per this many control
# outcomes: at fixed places in the stream, so that the cut of batches changes nothing.
BLOCK = 100
FAILING_RUN = 10
# Ten failures in a row say nothing where the control fails in the same moments.
FAILING_CONTROL_MAX = 0.2
FAILING_CONTROL_MIN = 5
# A silent arm is starved when chance explains it less often than e^-20.
STARVED_EXPECTED = 20.0
KEYS_MAX = 200_000

__all__ = ["Analysis", "Arm", "Assessment", "HardStop", "LabelledLoss", "Outcome"]


class Analysis:
    """One candidate against the stable model, from its first request to the end of the bake."""

    def __init__(self, plan: AnalysisPlan) -> None:
        self.plan = plan
        self._bets: dict[Guard, PairedBets] = {guard: plan.bets(guard) for guard in plan.guards}
        self._bake: dict[Guard, BoundBets] = {}
        self._bake_at: float | None = None
        self._window, self._window_count, self._window_sum = -1, 0, [0, 0, 0, 0]
        self._limits: Floats | None = None  # seconds; above them a request is slow
        self._durations: dict[int, int] = {}  # of control, binned, since the limits were frozen
        self._step, self._weight, self._step_at = -1, 0.0, 0.0
        self._blocks = [[0, 0, 0], [0, 0, 0]]  # control: requests, errors, over SLO; last and now
        self._sick = ""
        self._failing = [0, 0, 0]  # candidate's failures in a row; control meanwhile: all, failed
        self._stop: HardStop | None = None
        self._stop_words = ""
        self._count = {"step": 0, "requests": 0, "control": 0, "bake": 0, "since_candidate": 0}
        self._last_at = {"stable": 0.0, "candidate": 0.0, "assessed": 0.0}
        self._minute: dict[str, int] = {"stable": -1, "candidate": -1}
        self._keys: dict[str, set[int]] = {"stable": set(), "candidate": set()}

    def begin_step(self, *, step: int, weight: float, at: float) -> None:
        """The candidate's share is `weight` from now on. Evidence goes on, it never starts anew."""
        if step == self._step and weight == self._weight:
            return
        self._step, self._weight, self._step_at = step, weight, at
        self._count["step"] = self._count["since_candidate"] = 0
        for bets in self._bets.values():
            bets.pace(weight)
        if sum(self._durations.values()) >= self.plan.limit_requests_min:
            self._freeze_limits()

    def begin_bake(self, at: float) -> None:
        """The candidate has all traffic: from now on it is held against the control's past."""
        if self._bake_at is not None:
            return
        self._bake_at, self._weight = at, 1.0
        for guard, bets in self._bets.items():
            bound = bake_bound(bets, guard, self.plan)
            if bound is not None:
                self._bake[guard] = BoundBets(bound=bound)

    def observe(self, outcomes: Iterable[Outcome]) -> None:
        """Requests in the order they finished."""
        kept = [outcome for outcome in outcomes if self._counts(outcome)]
        if not kept:
            return
        if self._bake_at is not None:
            self._observe_bake([outcome for outcome in kept if outcome.arm == "candidate"])
            return
        controls, start = self._blocks[1][0], 0
        for index, outcome in enumerate(kept):
            controls += outcome.arm == "stable"
            if controls == BLOCK:
                self._observe_block(kept[start : index + 1])
                self._end_block()
                controls, start = 0, index + 1
        self._observe_block(kept[start:])

    def observe_losses(self, losses: Iterable[LabelledLoss]) -> None:
        """Labelled losses in the order the labels came; late labels of canary requests welcome."""
        bets = self._bets.get("quality")
        if bets is None:
            return
        baked_from = float("inf") if self._bake_at is None else self._bake_at
        entries = list(losses)
        paired = [entry for entry in entries if entry.at < baked_from]
        bets.update(_candidates(paired), _losses([entry.loss for entry in paired]))
        after = [e.loss for e in entries if e.at >= baked_from and e.arm == "candidate"]
        if after and "quality" in self._bake:
            self._bake["quality"].update(_losses(after))

    def observe_invalid_output(self, arm: Arm, what: str) -> None:
        """NaN, infinity or a wrong shape came out of a model: for a candidate that is the end."""
        if arm == "candidate":
            self._hard_stop("invalid_output", f"the candidate answered {what}")

    def assess(self, now: float) -> Assessment:
        """What everything seen so far adds up to."""
        if self._bake_at is None:
            self._starved(now)
        measurements = self._measurements()
        verdict, words = self._verdict(measurements)
        newest = max(self._last_at["stable"], self._last_at["candidate"])
        idle, self._last_at["assessed"] = newest <= self._last_at["assessed"], newest
        required = [entry for entry in measurements if entry.required]
        return Assessment(
            at=now,
            step=self._step,
            baking=self._bake_at is not None,
            verdict=verdict,
            words=words,
            measurements=measurements,
            hard_stop=self._stop,
            frozen=bool(self._sick) and self._bake_at is None,
            interim=bool(required) and all(entry.interim for entry in required),
            idle=idle,
            requests=self._count["requests"],
            step_requests=self._count["step"],
            control_requests=self._count["control"],
            bake_requests=self._count["bake"],
        )

    def _measurements(self) -> tuple[GuardMeasurement, ...]:
        canary = [measure_canary(guard, bets, self.plan) for guard, bets in self._bets.items()]
        if self._bake_at is None:
            return tuple(canary)
        # Labels of canary requests still come during the bake; errors and durations do not.
        late = [entry for entry in canary if entry.guard == "quality"]
        return (
            *(measure_bake(guard, bets, self.plan) for guard, bets in self._bake.items()),
            *late,
        )

    def _verdict(self, measurements: Sequence[GuardMeasurement]) -> tuple[Verdict, str]:
        if self._stop is not None:
            return Verdict.FAILED, f"{self._stop}: {self._stop_words}"
        failed = [entry.words for entry in measurements if entry.verdict is Verdict.FAILED]
        if self._sick and self._bake_at is None:
            return Verdict.INCONCLUSIVE, f"the stable model is sick: {self._sick}"
        if failed:
            return Verdict.FAILED, "; ".join(failed)
        required = [entry for entry in measurements if entry.required]
        found = {entry.verdict for entry in required}
        verdict = next((v for v in WORST_FIRST if v in found), Verdict.INCONCLUSIVE)
        # A bake ends by time and requests, which is the rollout's business.
        if self._bake_at is not None:
            verdict = Verdict.INCONCLUSIVE
        shown = [entry.words for entry in required or measurements if entry.verdict is verdict]
        return verdict, "; ".join(shown) or "nothing measured yet"

    def _counts(self, outcome: Outcome) -> bool:
        """Note when it came, and tell whether it counts: once per client key, minute and arm."""
        arm = outcome.arm
        self._last_at[arm] = max(self._last_at[arm], outcome.at)
        if not self.plan.clustered or outcome.key_hash is None:
            return True
        minute, keys = int(outcome.at // 60), self._keys[arm]
        if minute < self._minute[arm]:
            return False  # that minute is closed
        if minute > self._minute[arm]:
            self._minute[arm] = minute
            keys.clear()
        if outcome.key_hash in keys or len(keys) >= KEYS_MAX:
            return False
        keys.add(outcome.key_hash)
        return True

    def _observe_block(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes that hold no end of a control block but perhaps the last."""
        if not outcomes:
            return
        candidate = _candidates(outcomes)
        errors = np.asarray([outcome.error for outcome in outcomes], dtype=np.float64)
        # A duration that is no number is one that nobody saw the end of.
        durations = np.nan_to_num([outcome.duration_s for outcome in outcomes], nan=np.inf)
        if not self._sick:
            self._bets["error"].update(candidate, errors[:, None])
            if self._limits is not None:
                slow = (durations[:, None] > self._limits).astype(np.float64)
                self._bets["slow"].update(candidate, slow)
        for index in duration_bins(durations[~candidate]).astype(int).tolist():
            self._durations[index] = self._durations.get(index, 0) + 1
        block, slo = self._blocks[1], self.plan.slo_latency_s
        block[0] += int((~candidate).sum())
        block[1] += int(errors[~candidate].sum())
        block[2] += int((durations[~candidate] > slo).sum()) if slo else 0
        self._count_arms(candidate)
        self._note_failures(candidate, errors)

    def _count_arms(self, candidate: Booleans) -> None:
        places = np.flatnonzero(candidate)
        since = len(candidate) - (int(places[-1]) + 1 if len(places) else 0)
        if len(places):
            self._count["since_candidate"] = 0
        self._count["since_candidate"] += since
        self._count["step"] += len(places)
        self._count["requests"] += len(places)
        self._count["control"] += len(candidate) - len(places)

    def _end_block(self) -> None:
        """Judge the stable model by its last two blocks, and freeze the limits when they can be."""
        requests, errors, slow = (last + now for last, now in zip(*self._blocks, strict=True))
        self._blocks = [self._blocks[1], [0, 0, 0]]
        self._sick = ""
        for total, most, what in (
            (errors, self.plan.control_error_max, "failed"),
            (slow, self.plan.control_slow_max, "slower than the SLO"),
        ):
            if wilson(total, requests, Z_SHOWN)[0] > most:
                self._sick = f"{total} of its last {requests} requests {what}, more than {most:.0%}"
        enough = sum(self._durations.values()) >= self.plan.limit_requests_min
        if self._limits is None and enough:
            self._freeze_limits()

    def _freeze_limits(self) -> None:
        self._limits = slow_limits(self._durations, self.plan)
        self._durations = {}

    def _note_failures(self, candidate: Booleans, errors: Floats) -> None:
        """Ten failures in a row need no statistics, unless the control fails at the same time."""
        run, controls, failed = self._failing
        for is_candidate, error in zip(candidate.tolist(), errors.tolist(), strict=True):
            if not is_candidate:
                controls, failed = controls + 1, failed + int(error)
                continue
            run, controls, failed = (run + 1, controls, failed) if error else (0, 0, 0)
            enough = run >= FAILING_RUN and controls >= FAILING_CONTROL_MIN
            if enough and failed <= FAILING_CONTROL_MAX * controls:
                words = f"its last {run} requests failed, of the control's {failed} of {controls}"
                self._hard_stop("all_failing", words)
        self._failing = [run, controls, failed]

    def _observe_bake(self, outcomes: Sequence[Outcome]) -> None:
        """One bet per window: a short outage of everything must not look like a bad model."""
        self._count["bake"] += len(outcomes)
        for outcome in outcomes:
            window = int(outcome.at // self.plan.bake_window_s)
            if window > self._window:
                self._close_window()
                self._window = window
            slow = [] if self._limits is None else (outcome.duration_s > self._limits).tolist()
            self._window_count += 1
            for index, value in enumerate([outcome.error, *slow]):
                self._window_sum[index] += value

    def _close_window(self) -> None:
        if self._window_count:
            means = np.asarray(self._window_sum, dtype=np.float64) / self._window_count
            self._bake["error"].update(means[None, :1])
            if "slow" in self._bake:
                self._bake["slow"].update(means[None, 1:])
        self._window_count, self._window_sum = 0, [0, 0, 0, 0]

    def _starved(self, now: float) -> None:
        if not 0 < self._weight < 1:
            return
        expected = self._count["since_candidate"] * self._weight / (1 - self._weight)
        silent_s = now - max(self._last_at["candidate"], self._step_at)
        if expected >= STARVED_EXPECTED and silent_s > self.plan.starved_s:
            words = (
                f"no request for {silent_s:.0f} s > {self.plan.starved_s:.0f} s, "
                f"where {expected:.0f} were due"
            )
            self._hard_stop("starved", words)

    def _hard_stop(self, stop: HardStop, words: str) -> None:
        if self._stop is None:
            self._stop, self._stop_words = stop, words

    def state(self) -> dict[str, Any]:
        """JSON. Client keys of the running minute are left out: that minute closes on restore."""
        return {
            "bets": {guard: bets.state() for guard, bets in self._bets.items()},
            "bake": {guard: bets.state() for guard, bets in self._bake.items()},
            "bake_at": self._bake_at,
            "window": [self._window, self._window_count, list(self._window_sum)],
            "limits": None if self._limits is None else self._limits.tolist(),
            "durations": sorted(self._durations.items()),
            "step": [self._step, self._weight, self._step_at],
            "blocks": [list(block) for block in self._blocks],
            "sick": self._sick,
            "failing": list(self._failing),
            "stop": [self._stop, self._stop_words],
            "count": dict(self._count),
            "last_at": dict(self._last_at),
            "minute": dict(self._minute),
        }

    @classmethod
    def restore(cls, plan: AnalysisPlan, state: Mapping[str, Any]) -> Self:
        """The analysis as it was; raises KeyError or ValueError for a state of another kind."""
        analysis = cls(plan)
        for guard in plan.guards:
            analysis._bets[guard] = PairedBets.restore(state["bets"][guard])
            if guard in state["bake"]:
                analysis._bake[guard] = BoundBets.restore(state["bake"][guard])
        limits = state["limits"]
        analysis._bake_at = state["bake_at"]
        analysis._window, analysis._window_count, sums = state["window"]
        analysis._window_sum = list(sums)
        analysis._limits = None if limits is None else np.asarray(limits, dtype=np.float64)
        analysis._durations = {int(index): int(count) for index, count in state["durations"]}
        analysis._step, analysis._weight, analysis._step_at = state["step"]
        analysis._blocks = [list(block) for block in state["blocks"]]
        analysis._sick = state["sick"]
        analysis._failing = list(state["failing"])
        analysis._stop, analysis._stop_words = state["stop"]
        analysis._count = dict(state["count"])
        analysis._last_at = dict(state["last_at"])
        # Whose request was counted in the running minute is forgotten: count nobody again.
        closed = {arm: minute + (minute >= 0) for arm, minute in state["minute"].items()}
        analysis._minute = closed if plan.clustered else dict(state["minute"])
        return analysis


def _candidates(entries: Sequence[Outcome] | Sequence[LabelledLoss]) -> Booleans:
    return np.asarray([entry.arm == "candidate" for entry in entries], dtype=np.bool_)


def _losses(losses: Sequence[float]) -> Floats:
    """One column in [0, 1]; what is not a number is as bad as can be."""
    return np.clip(np.nan_to_num(losses, nan=1.0), 0.0, 1.0).reshape(-1, 1)
