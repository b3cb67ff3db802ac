"""A small path language to say where a value lies in a JSON body.

    predictions[0].label     member, position, member
    rows[*].age              the `age` of every row; `[*]` may come more than once
    data["key with.dots"]    members whose names are no plain words go in quotes
    $                        the whole body; `$.a` and `a` are the same

Do not grow it into a query language: what it cannot say is better said by a decoder.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias


class Each(Enum):
    """The step `[*]`: every entry of an array."""

    EACH = "[*]"


Step: TypeAlias = str | int | Each

_STEP = re.compile(
    r"""
      (?P<dot>\.)?(?P<member>[A-Za-z_][A-Za-z0-9_\-]*)
    | \[(?P<position>\d{1,9})\]
    | \[(?P<each>\*)\]
    | \["(?P<quoted>[^"\\]+)"\]
    """,
    re.VERBOSE,
)


class PathSyntaxError(ValueError):
    """A path that cannot be read. Says which, where, and what was expected."""


class Missing(LookupError):
    """The body has nothing at this path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    text: str
    steps: tuple[Step, ...]

    @property
    def is_many(self) -> bool:
        """Whether the path stands for a list of values, by `[*]`."""
        return Each.EACH in self.steps

    def find(self, body: Any) -> Any:
        """The value at this path; a flat list of values when the path holds `[*]`.

        Raises:
            Missing: the body has no such member or position, or no array where `[*]` stands.

        >>> parse_path("rows[*].age").find({"rows": [{"age": 41}, {"age": 67}]})
        [41, 67]
        """
        found = [body]
        for step in self.steps:
            if isinstance(step, Each):
                if not all(isinstance(value, list) for value in found):
                    raise Missing(f"{self.text}: no array at [*]")
                found = [entry for value in found for entry in value]
            else:
                found = [self._one(value, step) for value in found]
        return found if self.is_many else found[0]

    def _one(self, value: Any, step: str | int) -> Any:
        if isinstance(step, str) and isinstance(value, dict) and step in value:
            return value[step]
        if isinstance(step, int) and isinstance(value, list) and step < len(value):
            return value[step]
        raise Missing(f"{self.text}: nothing at {step!r}")


def parse_path(text: str) -> Path:
    """Reads a path.

    Raises:
        PathSyntaxError: with the text, the position, and how paths are written.

    >>> parse_path('a.b[0]["c d"][*]').steps
    ('a', 'b', 0, 'c d', <Each.EACH: '[*]'>)
    >>> parse_path("a..b")
    Traceback (most recent call last):
    ...
    agent.decoders.path.PathSyntaxError: path 'a..b': cannot read '..b' at character 2; ...
    """
    place = 1 if text.startswith("$") else 0
    if not text:
        raise PathSyntaxError('an empty path; write "$" for the whole body')
    steps: list[Step] = []
    while place < len(text):
        match = _STEP.match(text, place)
        # The dot separates: needed before a member, but for the first one.
        if match is None or (match["member"] and (place > 0) != bool(match["dot"])):
            rest = text[place:]
            raise PathSyntaxError(
                f"path {text!r}: cannot read {rest!r} at character {place + 1}; "
                'paths are written like a.b[0].c, rows[*].x or data["a key"]'
            )
        if match["member"] or match["quoted"]:
            steps.append(match["member"] or match["quoted"])
        else:
            steps.append(Each.EACH if match["each"] else int(match["position"]))
        place = match.end()
    return Path(text=text, steps=tuple(steps))
