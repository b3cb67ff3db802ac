"""Whether the model server answers, as the edge's counters tell: said once when it changes."""

import structlog

from agent.edge_totals import EdgeTotals

log = structlog.get_logger("remora.analysis")

NOT_ANSWERED = ("upstream_unreachable", "timeout")


class UpstreamWatch:
    """Looks at each snapshot of counters; `state` is for people."""

    def __init__(self) -> None:
        self._answered = 0
        self._unanswered = 0
        self.state = "no requests yet"

    def look(self, totals: EdgeTotals) -> None:
        """Compare with the look before."""
        codes = [cell.codes for cell in totals.cells().values()]
        unanswered = sum(code[name] for code in codes for name in NOT_ANSWERED)
        answered = sum(code.total() for code in codes) - unanswered
        failed, served = unanswered - self._unanswered, answered - self._answered
        self._unanswered, self._answered = unanswered, answered
        if failed > 0 and served <= 0 and self.state != "unreachable":
            self.state = "unreachable"
            log.warning("the model server does not answer: clients get 502 or 504", requests=failed)
        elif served > 0 and self.state != "answers":
            if self.state == "unreachable":
                log.info("the model server answers again")
            self.state = "answers"
