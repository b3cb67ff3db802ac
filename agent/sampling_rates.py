"""The sampling rates in force: measured for, decided about, told to whoever keeps exchanges.

The governor decides and `Sampler` weighs, both pure; here are their clocks and their figures. What
must not break: everybody is told the rates before the sampler here follows them for good, and a
request of a moment ago is judged by the rates of then (`was_kept`).
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from agent.config.serving import SamplingConfig
from agent.edge.draw import DRAWS, draw
from agent.governor import Budget, Governor, Limit, Measurement, Why
from agent.sampling import RateHistory, Sampler, SamplingOrder, Strategies
from agent.sources.proxy import EdgeCounters
from detectors.reading import Kind, Reading, Scope, State, Window

log = structlog.get_logger("remora.sampling")

# Long enough for a request to be answered and to come here, beside the tick that holds its rows.
ON_ITS_WAY_S: Final = 10.0
MEMORY_EVERY_S: Final = 10.0
EDGES_MAX: Final = 64
# Whose memory counts; jobs, the tap and the concept child are asked for one by one.
COUNTED: Final = ("supervisor", "edge", "analysis")
_EXPLAIN: Final[Mapping[Why, str]] = {
    "none": "everything asked for is kept: the budgets have room",
    "cpu": "lowered to hold sampling.cpu_budget",
    "memory": "lowered to hold sampling.memory_bytes_max",
    "rows": "lowered to hold sampling.rows_per_s_max",
}
_KEYS: Final[Mapping[Limit, str]] = {
    "cpu": "cpu_budget",
    "memory": "memory_bytes_max",
    "rows": "rows_per_s_max",
}


class SamplingRates:
    """One model's rates.

    `tell` is called with every new order. `memory` gives the bytes of all counted processes, or
    None; `rows` how many rows were looked at since the start.
    """

    def __init__(
        self,
        config: SamplingConfig,
        *,
        salt: bytes,
        tick_s: float,
        rows: Callable[[], int] = lambda: 0,
        memory: Callable[[], float | None] = lambda: None,
        cpu_s: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._salt = salt
        self._rows, self._memory = rows, memory
        self._cpu_s = cpu_s
        self._clock = clock
        self._memory_at = -MEMORY_EVERY_S
        self._memory_bytes: float | None = None
        self._capture_s = 0.0  # of all edges, as far as two snapshots of one tell
        self._capture_of: dict[str, float] = {}
        self._recent_s = tick_s + ON_ITS_WAY_S
        self._history = RateHistory()
        strategies = Strategies.of(config)
        self.sampler = Sampler(strategies, salt=salt)
        self.governor = Governor(_budget(config, strategies))
        self.since = time.time()
        self.tell: Callable[[SamplingOrder], None] = lambda order: None
        self.found: Callable[[Reading], None] = lambda reading: None
        self._history.note(self.sampler.rates.kept, clock())

    # What is in force.

    @property
    def rate(self) -> float:
        """The uniform rate in force."""
        return self.sampler.rates.uniform

    @property
    def order(self) -> SamplingOrder:
        """For whoever connects now."""
        rates = self.sampler.rates
        return SamplingOrder(
            rate=rates.uniform,
            salt=self._salt,
            also=rates.also,
            errors=rates.errors,
            error_codes=tuple(sorted(self.sampler.strategies.error_codes)),
        )

    def was_kept(self, id: str) -> bool:
        """Whether a request of that id would have been kept, now or a moment ago.

        One that was kept for a class may still have been dropped here: then its label waits.
        """
        share = self._history.highest_since(self._clock() - self._recent_s)
        return share >= 1.0 or draw(id.encode(), self._salt) / DRAWS < share

    def keeps(self, id: str) -> bool:
        """For sources that nobody samples before us: whether to read on. See `weight`."""
        rates = self.sampler.rates
        if self.sampler.strategies.any or rates.uniform >= 1.0:
            return True  # rows are chosen when they are known
        return draw(id.encode(), self._salt) / DRAWS < rates.uniform

    def weight(self) -> float:
        """For how many one stands that `keeps` says yes to."""
        rates = self.sampler.rates
        return 1.0 if self.sampler.strategies.any or not rates.uniform else 1.0 / rates.uniform

    # What changes it.

    def reconfigure(self, config: SamplingConfig) -> None:
        """A reload."""
        self._config = config
        strategies = Strategies.of(config)
        self.governor.set_budget(_budget(config, strategies))
        self._apply(strategies)

    def take_counters(self, counters: EdgeCounters) -> None:
        """What an edge says that capturing cost it."""
        before = self._capture_of.pop(counters.start_id, None)
        if before is not None:
            self._capture_s += max(0.0, counters.capture_s - before)
        elif len(self._capture_of) >= EDGES_MAX:
            del self._capture_of[next(iter(self._capture_of))]
        self._capture_of[counters.start_id] = counters.capture_s

    def step(self) -> None:
        """Measure and decide: about once a second."""
        now = self._clock()
        if now - self._memory_at >= MEMORY_EVERY_S:
            self._memory_at = now
            self._memory_bytes = self._memory()
        unheld = self.governor.unheld
        changed = self.governor.step(
            Measurement(
                at=now,
                cpu_s=self._cpu_s() + self._capture_s,
                rows=self._rows(),
                memory_bytes=self._memory_bytes,
            )
        )
        if changed:
            self._apply(self.sampler.strategies)
        for limit in sorted(self.governor.unheld ^ unheld):
            self._report(limit, held=limit not in self.governor.unheld)

    def _apply(self, strategies: Strategies) -> None:
        before = self.rate
        if not self.sampler.ask_for(strategies, scale=self.governor.scale):
            return
        self.since = time.time()
        self._history.note(self.sampler.rates.kept, self._clock())
        self.tell(self.order)
        if self.rate != before:
            governor = self.governor
            log.info(
                "sampling rate changed",
                rate=round(self.rate, 6),
                before=round(before, 6),
                why=_EXPLAIN[governor.why],
                used_cores=round(governor.used_cpu, 4),
                memory_bytes=governor.memory_bytes,
            )

    def _report(self, limit: Limit, *, held: bool) -> None:
        governor = self.governor
        key = f"sampling.{_KEYS[limit]}"
        used, budget = {
            "cpu": (governor.used_cpu, governor.budget.cpu),
            "memory": (governor.memory_bytes or 0.0, governor.budget.memory_bytes),
            "rows": (governor.rows_per_s, governor.budget.rows_per_s or 0.0),
        }[limit]
        if held:
            explain = f"{key} is held again: {used:.4g} of {budget:.4g}"
            log.info("budget held again", key=key)
        else:
            explain = (
                f"{key} cannot be held: {used:.4g} > {budget:.4g} at the lowest rate, "
                f"{self.rate:.4g} (sampling.rate_min)"
            )
            log.warning("budget cannot be held", key=key, used=used, budget=budget)
        rows = self._rows()
        self.found(
            Reading(
                at=time.time(),
                row=rows,
                kind=Kind.RESOURCE,
                scope=Scope.MODEL,
                subject=key,
                detector="governor",
                state=State.OK if held else State.WARNING,
                statistic=used,
                threshold=budget,
                evidence=None,
                effect=None,
                window=Window(rows=0, start=rows, end=rows),
                reference="",
                version="",
                explain=explain,
            )
        )

    # What is shown, and what survives a restart.

    @property
    def cpu_s(self) -> dict[str, float]:
        """What the CPU budget is about, cumulative, by part."""
        return {"analysis": self._cpu_s(), "capture": self._capture_s}

    @property
    def held(self) -> dict[str, bool]:
        """Budgets, and whether each is held; the limit of rows only where there is one."""
        limits: tuple[Limit, ...] = ("cpu", "memory", "rows")
        given = limits if self.governor.budget.rows_per_s is not None else limits[:2]
        return {limit: limit not in self.governor.unheld for limit in given}

    def status(self) -> dict[str, Any]:
        """For `GET /api/v1/status`: the parts `sampling` and `governor`."""
        governor, rates, tally = self.governor, self.sampler.rates, self.sampler.tally
        failed = tally.share(self.sampler.strategies.error_codes)
        return {
            "sampling": {
                "rate": rates.uniform,
                "asked": self.sampler.strategies.rate,
                "errors": rates.errors,
                "kept": rates.kept,
                "failed_ratio": failed,
            },
            "governor": {
                "scale": governor.scale,
                "why": governor.why,
                "explain": _EXPLAIN[governor.why],
                "since": self.since,
                "changes": governor.changes,
                "cpu": {"budget_cores": governor.budget.cpu, "used_cores": governor.used_cpu},
                "memory": {
                    "budget_bytes": governor.budget.memory_bytes,
                    "used_bytes": governor.memory_bytes,
                },
                "rows": {
                    "budget_per_s": governor.budget.rows_per_s,
                    "used_per_s": governor.rows_per_s,
                },
                "held": self.held,
            },
        }

    def state(self) -> dict[str, Any]:
        """For a snapshot."""
        return self.governor.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where the last analysis was. Raises KeyError, TypeError or ValueError."""
        self.governor.restore(state)
        self._apply(self.sampler.strategies)


def _budget(config: SamplingConfig, strategies: Strategies) -> Budget:
    return Budget(
        cpu=config.cpu_budget,
        memory_bytes=float(config.memory_bytes_max),
        rows_per_s=config.rows_per_s_max,
        scale_min=strategies.scale_min,
    )


def memory_bytes(processes: Mapping[str, Mapping[str, float]]) -> float | None:
    """Memory of the counted ones among our processes, as `AgentResources.read` gives them.

    Their proportional set size: a page that two of them share is there once, and counts once.
    Where the kernel does not tell that, resident sizes, which count shared pages twice.
    """
    found = [
        _pss_bytes(int(figures["pid"])) or figures["memory_bytes"]
        for name, figures in processes.items()
        if name.startswith(COUNTED) and "pid" in figures
    ]
    return sum(found) if found else None


def _pss_bytes(pid: int) -> float | None:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(b"Pss:"):
            return float(line.split()[1]) * 1_024
    return None
