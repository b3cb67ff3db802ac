"""When to retrain: rules over standing findings, quality and the calendar, with brakes.

Pure: `decide(state, view, now)` gives the next state and one decision, and every HOLD says with
numbers why. The state must be stored in the transaction that records the decision, or a crash
between them lets one drift start two runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from retrain.decision import Action, Because, Decision, Finding, decision_id
from retrain.triggers import Claim, Quality, Rule, ScheduleRule, claim, recovered

DAY_S: Final = 86_400.0


class Role(StrEnum):
    """What this agent is for; `--role`."""

    ALL = "all"
    SIDECAR = "sidecar"
    CONTROLLER = "controller"


class Ending(StrEnum):
    """How a run ended, as far as the policy cares."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # no artifact, too late, or refused by the gates
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A person asks. Cooldown and budget do not hold him; one run in flight and the role do."""

    actor: str
    reason: str
    action: Action = Action.RETRAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the policy looks at: the stable version's newest reading per subject, and quality."""

    findings: Sequence[Finding] = ()
    quality: Sequence[Quality] = ()
    request: Request | None = None
    busy: str | None = None  # a rollout under way, in words


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """What the policy remembers. JSON by `to_json`, back by `from_json`."""

    sequence: int = 0  # runs started ever: makes each decision's id its own
    in_flight: str | None = None  # the decision whose run is under way
    coalesced: frozenset[str] = frozenset()  # rules that fired meanwhile
    starts: tuple[float, ...] = ()  # unix seconds, of the last 24 hours, and the last of all
    acted: frozenset[str] = frozenset()  # what was acted upon and still stands: not again
    failures: int = 0  # runs failed in a row
    due: Mapping[str, float] = field(default_factory=dict)  # schedule rule ▶ its next time

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with a fixed order."""
        return {
            "sequence": self.sequence,
            "in_flight": self.in_flight,
            "coalesced": sorted(self.coalesced),
            "starts": list(self.starts),
            "acted": sorted(self.acted),
            "failures": self.failures,
            "due": dict(self.due),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PolicyState":
        """The inverse of `to_json`."""
        return cls(
            sequence=value["sequence"],
            in_flight=value["in_flight"],
            coalesced=frozenset(value["coalesced"]),
            starts=tuple(value["starts"]),
            acted=frozenset(value["acted"]),
            failures=value["failures"],
            due=dict(value["due"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules and the brakes. Times in seconds."""

    rules: Sequence[Rule]
    role: Role = Role.ALL
    enabled: bool = True  # retrain.via is not none
    cooldown_s: float = 21_600.0
    runs_per_day_max: int = 4
    failures_max: int = 3  # failed runs in a row that one standing drift may cost

    def decide(self, state: PolicyState, view: View, now: float) -> tuple[PolicyState, Decision]:
        """One look. `now` is unix seconds. Equal arguments give equal results."""
        state, claims = self._survey(state, view, now)
        asking = [one for one in claims if one.keys]
        fresh = [one for one in asking if not one.keys <= state.acted]
        # A time that came is used up, whatever comes of it: it never fires late.
        state = self._advance(state, now)
        if view.request is not None:
            return self._on_request(state, view.request, asking, now)
        if not asking:
            text = "; ".join(one.text for one in claims) or "no triggers are configured"
            return state, _hold(state, Because.QUIET, [], text, now)
        if not fresh:
            text = f"already acted upon, not yet over: {_texts(asking)}"
            return state, _hold(state, Because.STANDING, asking, text, now)
        if (brake := self._brake(state, view, now)) is not None:
            because, text = brake
            if because is Because.IN_FLIGHT:
                names = state.coalesced | {one.rule for one in fresh}
                state = replace(state, coalesced=names)
            return state, _hold(state, because, fresh, f"{text}: {_texts(fresh)}", now)
        return self._start(
            state,
            asking,
            now,
            action=Action.RETRAIN,
            because=Because.FIRED,
            policy=fresh[0].rule,
            reason=_texts(fresh),
        )

    def finished(self, state: PolicyState, ending: Ending) -> PolicyState:
        """The run in flight has ended. What fired meanwhile and still stands is looked at anew.

        After a failure what caused the run may cause another, `failures_max` times in a row at
        most; after a success or a cancellation it must first go away, or a person must ask.
        """
        failures = state.failures + 1 if ending is Ending.FAILED else 0
        acted = state.acted
        if ending is Ending.FAILED and failures < self.failures_max:
            acted = frozenset()
        return replace(state, in_flight=None, coalesced=frozenset(), failures=failures, acted=acted)

    def _survey(
        self, state: PolicyState, view: View, now: float
    ) -> tuple[PolicyState, list[Claim]]:
        known = {
            rule.name: following
            for rule in self.rules
            if isinstance(rule, ScheduleRule)
            and (following := state.due.get(rule.name, rule.schedule.next_after(now))) is not None
        }
        over = recovered(self.rules, findings=view.findings, quality=view.quality)
        claims = [
            claim(rule, findings=view.findings, quality=view.quality, due=known, now=now)
            for rule in self.rules
        ]
        return replace(state, due=known, acted=state.acted - over), claims

    def _advance(self, state: PolicyState, now: float) -> PolicyState:
        due = dict(state.due)
        for rule in self.rules:
            if isinstance(rule, ScheduleRule) and due.get(rule.name, now + 1) <= now:
                following = rule.schedule.next_after(now)
                if following is None:
                    del due[rule.name]
                else:
                    due[rule.name] = following
        return replace(state, due=due)

    def _brake(self, state: PolicyState, view: View, now: float) -> tuple[Because, str] | None:
        """The first brake that holds, with its arithmetic; None lets the run start."""
        recent = [start for start in state.starts if start > now - DAY_S]
        since_s = now - state.starts[-1] if state.starts else None
        if self.role is Role.SIDECAR:
            return Because.ROLE, "role sidecar never triggers"
        if not self.enabled:
            return Because.DISABLED, "retrain.via is none, so nothing is started"
        if state.in_flight is not None:
            return Because.IN_FLIGHT, f"joined to the run in flight ({state.in_flight})"
        if view.busy is not None:
            return Because.BUSY, f"waits for {view.busy}"
        if since_s is not None and since_s < self.cooldown_s:
            text = f"last run {since_s:.0f} s ago < cooldown {self.cooldown_s:.0f} s"
            return Because.COOLDOWN, text
        if len(recent) >= self.runs_per_day_max:
            return Because.BUDGET, f"{len(recent)} runs in 24 h >= {self.runs_per_day_max} a day"
        return None

    def _on_request(
        self, state: PolicyState, request: Request, asking: Sequence[Claim], now: float
    ) -> tuple[PolicyState, Decision]:
        text = f"{request.actor} asks: {request.reason}"
        if self.role is Role.SIDECAR or not self.enabled or state.in_flight is not None:
            because, brake = self._brake(state, View(), now) or (Because.ROLE, "")
            if because is Because.IN_FLIGHT:
                state = replace(state, coalesced=state.coalesced | {"operator"})
            return state, _hold(state, because, asking, f"{brake}: {text}", now, request)
        return self._start(
            state,
            asking,
            now,
            action=request.action,
            because=Because.OPERATOR,
            policy="operator",
            reason=text,
            actor=request.actor,
        )

    def _start(
        self,
        state: PolicyState,
        claims: Sequence[Claim],
        now: float,
        *,
        action: Action,
        because: Because,
        policy: str,
        reason: str,
        actor: str = "policy",
    ) -> tuple[PolicyState, Decision]:
        keys = _keys(claims)
        decision = Decision(
            id=decision_id(
                sequence=state.sequence,
                action=action,
                because=because,
                policy=policy,
                subjects=keys,
            ),
            at=now,
            action=action,
            because=because,
            policy=policy,
            reason=reason,
            findings=_findings(claims),
            actor=actor,
        )
        started = replace(
            state,
            sequence=state.sequence + 1,
            in_flight=decision.id,
            coalesced=frozenset(),
            starts=(*(start for start in state.starts if start > now - DAY_S), now),
            # A time that came is never due again, so it need not be remembered.
            acted=frozenset(key for key in state.acted | keys if not key.startswith("schedule|")),
        )
        return started, decision


def _hold(
    state: PolicyState,
    because: Because,
    claims: Sequence[Claim],
    reason: str,
    now: float,
    request: Request | None = None,
) -> Decision:
    policy = "operator" if request else (claims[0].rule if claims else "")
    return Decision(
        id=decision_id(
            sequence=state.sequence,
            action=Action.HOLD,
            because=because,
            policy=policy,
            subjects=_keys(claims),
        ),
        at=now,
        action=Action.HOLD,
        because=because,
        policy=policy,
        reason=reason,
        findings=_findings(claims),
        actor=request.actor if request else "policy",
    )


def _texts(claims: Sequence[Claim]) -> str:
    return "; ".join(one.text for one in claims)


def _keys(claims: Sequence[Claim]) -> frozenset[str]:
    return frozenset().union(*(one.keys for one in claims))


def _findings(claims: Sequence[Claim]) -> tuple[Finding, ...]:
    return tuple(finding for one in claims for finding in one.findings)
