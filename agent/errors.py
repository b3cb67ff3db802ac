"""The exceptions that some `except` treats differently, and what each means for the exit status.

Do not add one per module: a new class belongs here only when a caller does something different
because of it. Everything else is a ValueError or OSError with a good message.
"""

from dataclasses import dataclass


def one_line(text: str, *, length_max: int = 400) -> str:
    """The text as one printable line: what operators grep must not be split or coloured by input.

    >>> one_line("a\\nb")
    'a b'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length_max else line[: length_max - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in the configuration: where it stands, which key it is, and how to mend it."""

    where: str  # "remora.yaml:12", "environment REMORA_...", "command line"; empty for the whole
    key: str  # dotted, list items by index: sources.0.listen
    message: str  # what is wrong and the mend, without a final stop

    def __str__(self) -> str:
        parts = [part for part in (self.where, self.key, self.message) if part]
        return one_line(": ".join(parts))


class ConfigError(ValueError):
    """The configuration is wrong. Nothing was started; exit 2, one line for each problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


class BadInputError(Exception):
    """What was asked cannot be done as asked: a file, column or flag is wrong. Exit 2, one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UnreachableError(Exception):
    """Something that the command depends on does not answer. Exit 3, one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))
