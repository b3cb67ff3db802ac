"""When a cron line fires next. Time is an argument: nothing here waits or has a thread.

APScheduler computes the times, but reads two things otherwise than cron does, and both are undone
here: it counts weekdays from Monday (cron: 0 and 7 are Sunday), and it joins day of month and day
of week by `and` (cron: when both are given, either is enough).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger

WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
SHORTHANDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
STEP: Final = timedelta(microseconds=1)  # the next time after, not at


class ScheduleError(ValueError):
    """The cron line or the time zone means nothing. The configuration check shows the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A cron line of five fields, or a shorthand such as `@daily`, in a time zone.

    >>> Schedule(cron="0 3 * * *").next_after(0.0)
    10800.0
    """

    cron: str
    timezone: str = "UTC"
    _triggers: tuple[Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ScheduleError."""
        object.__setattr__(self, "_triggers", _triggers(self.cron, self.timezone))

    def next_after(self, at: float) -> float | None:
        """The first time strictly after `at` (unix seconds), None when there is none any more.

        Where the clocks change, a local time that is skipped or comes twice is APScheduler's to
        choose; tests hold it to moving on.
        """
        start = datetime.fromtimestamp(at, UTC) + STEP
        times = [
            found.timestamp()
            for trigger in self._triggers
            if (found := trigger.get_next_fire_time(None, start)) is not None
        ]
        return min(times, default=None)


def _triggers(cron: str, timezone: str) -> tuple[Any, ...]:
    fields = SHORTHANDS.get(cron.strip(), cron).split()
    if len(fields) != 5:
        raise ScheduleError(
            f"{cron!r} has {len(fields)} fields, not 5: minute hour day month weekday"
        )
    minute, hour, day, month, weekday = fields
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(
            f"{timezone!r} is no time zone; write one like Europe/Berlin"
        ) from error
    weekday = _weekdays(weekday)
    days = [(day, weekday)]
    if not day.startswith("*") and not weekday.startswith("*"):
        days = [(day, "*"), ("*", weekday)]
    try:
        return tuple(
            CronTrigger(
                minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=zone
            )
            for day, weekday in days
        )
    except ValueError as error:
        raise ScheduleError(f"{cron!r}: {error}") from error


def _weekdays(text: str) -> str:
    """Cron's numbers from Sunday as names, which mean the same to everyone.

    >>> _weekdays("0"), _weekdays("5-7"), _weekdays("mon-fri"), _weekdays("1,3")
    ('sun', 'sun,fri,sat', 'mon,tue,wed,thu,fri', 'mon,wed')
    """
    if text == "*":
        return text
    chosen: set[int] = set()
    for item in text.lower().split(","):
        span, _, step_text = item.partition("/")
        first_text, _, last_text = span.partition("-")
        try:
            step = int(step_text) if step_text else 1
            if span == "*":
                first, last = 0, 6
            else:
                first = _weekday(first_text)
                # cron reads `2/2` as from Tuesday on, every second day
                last = _weekday(last_text) if last_text else (6 if step_text else first)
        except ValueError:
            raise ScheduleError(f"{text!r} is no weekday: 0 to 7 or sun to sat") from None
        if last < first and last == 0:
            last = 7  # sat-sun
        if not 0 < step <= 7 or last < first:
            raise ScheduleError(f"{text!r} is no range of weekdays")
        chosen.update(number % 7 for number in range(first, last + 1, step))
    return ",".join(WEEKDAYS[number] for number in sorted(chosen))


def _weekday(text: str) -> int:
    if text in WEEKDAYS:
        return WEEKDAYS.index(text)
    number = int(text)
    if not 0 <= number <= 7:
        raise ValueError(text)
    return number
