"""Regular expressions that strangers' texts may be searched with: which are refused, and how the
others are kept from taking for ever.

Python's `re` can neither be interrupted nor be told a limit. So a pattern that may take
exponential time is refused when it is configured, one that turns out slow on a probe as well, and
what remains is run over short windows; a pattern that is slow all the same is run no more, and
whole values are taken out instead. Never let a doubtful pattern through: one text could stop the
whole analysis.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

PATTERN_CHARACTERS_MAX: Final = 256
MARKER: Final = "[redacted]"
# A match may be as long as the overlap wherever it lies, and longer ones are found piece by piece.
WINDOW_CHARACTERS: Final = 2_048
OVERLAP_CHARACTERS: Final = 1_024
TEXT_CHARACTERS_MAX: Final = 1_048_576  # longer values are taken out whole
_NOTHING: Final = "\n1 a.B@ \t"  # whoever matches nothing matches it here
SLOW_S: Final = 0.25  # of processor time, for one window
# Each length takes a pattern that is too slow at most 2 ** _OPEN_REPEATS_MAX times the one before.
_PROBE_CHARACTERS: Final = (8, 16, 32, 64, 128, 256)
_OPEN_REPEATS_MAX: Final = 6
_OPEN: Final = 16
_PROBE_S: Final = 0.05
_OPTIONAL_REPEATS_MAX: Final = 24
_NESTED_REPEATS_MAX: Final = 4  # of a repeat in a repeat: the parts of an address, say

_TOKEN: Final = re.compile(
    r"""
      (?P<escape>\\(?P<escaped>.))
    | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])
    | (?P<open>\((?:\?(?:[:=!>]|<[=!]|P<\w+>|[aimsu-]+[:)])|(?!\?)))
    | (?P<strange>\(\?)
    | (?P<close>\))
    | (?P<bar>\|)
    | (?P<repeat>\*|\+|\?|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\})(?P<manner>[?+]?)
    | (?P<plain>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True, kw_only=True)
class _Group:
    """What stands in a group so far."""

    mandatory: int = 0  # items that must be there
    optional: int = 0  # items that may
    varying: float = 1.0  # how often the most repeated item that repeats now so, now so, may
    forked: bool = False  # it has alternatives

    def add(self, *, least: int, most: float) -> None:
        self.mandatory += least > 0
        self.optional += least == 0
        if most > max(least, 1):
            self.varying = max(self.varying, most)

    def add_group(self, inner: "_Group", *, least: int, most: float) -> None:
        self.add(least=least if inner.mandatory else 0, most=most)
        self.varying = max(self.varying, inner.varying)
        self.optional += inner.optional
        self.forked = self.forked or inner.forked


def refusal(text: str) -> str | None:
    """Why a pattern is not used, with the mend; None for one that is.

    >>> refusal(r"[\\w.+-]+@[\\w-]+\\.[\\w.-]+"), refusal(r"\\b(?:\\d[ -]?){13,19}\\b")
    (None, None)
    >>> refusal("(a+)+")
    'repeats a group that holds a repeat: write one repeat of a class, [...]+'
    """
    if len(text) > PATTERN_CHARACTERS_MAX:
        return f"is longer than {PATTERN_CHARACTERS_MAX} characters: split it into several"
    try:
        compiled = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression ({error})"
    if any(match.start() == match.end() for match in compiled.finditer(_NOTHING)):
        return "matches where nothing is: let it need at least one character"
    return _structural(text) or _probed(compiled)


def _structural(text: str) -> str | None:
    """What may take exponential time, told by how the pattern is built."""
    groups = [_Group()]
    opened = 0
    for token in _TOKEN.finditer(text):
        if token["strange"]:
            return "has a group of a kind that is not used here: write it with (?:...)"
        if token["escape"] and token["escaped"].isdigit() and token["escaped"] != "0":
            return "refers back to a group: write the repetition out"
        if token["open"]:
            if not token["open"].endswith(")"):  # flags for all of it open nothing
                groups.append(_Group())
        elif token["bar"]:
            groups[-1].forked = True
        elif not token["repeat"]:
            least, most = _bounds(_TOKEN.match(text, token.end()))
            opened += most - least > _OPEN
            if opened > _OPEN_REPEATS_MAX:
                return f"has over {_OPEN_REPEATS_MAX} open repeats: split it into several patterns"
            if not token["close"]:
                groups[-1].add(least=least, most=most)
                continue
            inner = groups.pop()
            if most > 1 and (why := _unsafe(inner, most)):
                return why
            groups[-1].add_group(inner, least=least, most=most)
    return None


def _unsafe(group: _Group, most: float) -> str | None:
    if group.varying > 1 and max(group.varying, most) > _NESTED_REPEATS_MAX:
        return "repeats a group that holds a repeat: write one repeat of a class, [...]+"
    if group.forked:
        return "repeats a group of alternatives: write a class, [...], or the alternatives apart"
    if not group.mandatory:
        return "repeats a group that may be empty: let it need one character"
    if group.optional > 1 or (group.optional and most > _OPTIONAL_REPEATS_MAX):
        return (
            "repeats a group with optional parts: keep one of them, and at most "
            f"{_OPTIONAL_REPEATS_MAX} repeats"
        )
    return None


def _bounds(follower: "re.Match[str] | None") -> tuple[int, float]:
    """How often an item may come, by what stands behind it."""
    if follower is None or not follower["repeat"]:
        return 1, 1.0
    sign = follower["repeat"]
    if sign in "*+?":
        return (1 if sign == "+" else 0), (1.0 if sign == "?" else float("inf"))
    least = int(follower["least"] or 0)
    if not follower["comma"]:
        return least, float(least)
    return least, float(follower["most"]) if follower["most"] else float("inf")


def _probed(compiled: "re.Pattern[str]") -> str | None:
    """Whether it is slow on texts made of its own characters: more than quadratic, that is."""
    letters = dict.fromkeys(
        [*(c for c in compiled.pattern if c not in "\\[](){}|?*+^$"), *"a0 -_.@"]
    )
    for letter in letters:
        for length in _PROBE_CHARACTERS:
            started = time.thread_time()
            compiled.search(letter * length + "\0")
            if time.thread_time() - started > _PROBE_S:
                return "is slow on long texts: write fewer open repeats, {1,64} instead of +"
    return None


class Eraser:
    """One pattern, run within bounds.

    `dropped` counts values that were taken out whole, because they were too long, or because the
    pattern was found to be too slow: then it wants to be written otherwise.
    """

    def __init__(self, text: str, *, clock: Callable[[], float] = time.thread_time) -> None:
        self._pattern = re.compile(text)
        self._clock = clock
        self.is_slow = False
        self.dropped: Counter[str] = Counter()

    def erased(self, text: str) -> str:
        """The text with a marker in place of each match."""
        if len(text) > TEXT_CHARACTERS_MAX:
            self.dropped["redaction_too_long"] += 1
            return MARKER
        if not self.is_slow:
            kept: list[str] = []
            at = 0
            for start, end in self._matches(text):
                kept += [text[at:start], MARKER]
                at = end
            if not self.is_slow:
                return "".join([*kept, text[at:]]) if at else text
        self.dropped["redaction_too_slow"] += 1
        return MARKER

    def found(self, text: str) -> bool:
        """Whether all of a short text is a match."""
        return not self.is_slow and self._pattern.fullmatch(text) is not None

    def _matches(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the matches are. Ends early, and says so, when the pattern is slow."""
        at = 0
        while at < len(text):
            border = at + WINDOW_CHARACTERS
            started = self._clock()
            match = self._pattern.search(text, at, border + OVERLAP_CHARACTERS)
            if match is not None and match.start() < border and match.end() < len(text):
                # It may go on behind the window: look again from where it begins.
                again = match.start() + WINDOW_CHARACTERS + OVERLAP_CHARACTERS
                match = self._pattern.match(text, match.start(), again) or match
            if self._clock() - started > SLOW_S:
                self.is_slow = True
                return
            if match is None or match.start() >= border:
                at = border
                continue
            if match.end() > match.start():
                yield match.start(), match.end()
            at = max(match.end(), at + 1)
