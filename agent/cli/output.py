"""Results on standard output: tables for people, JSON for machines.

Text from requests and files (names of features, categories) passes through `plain` before a
terminal sees it: escape sequences in a feature's name must not move anybody's cursor.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from agent.errors import one_line

# Far more than an address or a reason has: it is wrapped, and only nonsense is cut.
CELL_CHARACTERS_MAX = 2_000
# A mapping that is longer than this on one line gets a line for each key.
INLINE_CHARACTERS_MAX = 80
LISTED_MAX = 5
# Numbers that name something; nobody reads them by thousands.
NAMES = ("pid", "port", "id")
# Beyond it nobody counts digits.
WHOLE_MAX = 1e15


def print_json(value: Any) -> None:
    """One JSON document, NaN as null, keys as they come."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; a line that says so when there are no rows."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    count = 0
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
        count += 1
    if not count:
        print(f"{title}: none")
        return
    # In a pipe there is no width to keep to: wrapped cells would only break `grep`.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Lines of `name: value`, aligned; on a terminal, long ones go on below themselves."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        _print_wrapped(f"{name + ':':<{width + 2}}", plain(value))


def print_tree(tree: Mapping[str, Any], indent: int = 0) -> None:
    """As `print_facts`, for mappings in mappings: short ones on a line, long ones indented below.

    Values are written as their keys say (see `fact`), and what is empty is left out.
    """
    shown = {key: value for key, value in tree.items() if not empty(value)}
    width = max((len(title(key)) for key, value in shown.items() if _inline(key, value)), default=0)
    for key, value in shown.items():
        name = title(key) if indent else title(key).replace("_", " ")
        if _inline(key, value):
            _print_wrapped(f"{' ' * indent}{name + ':':<{width + 2}}", fact(key, value))
            continue
        print(f"{' ' * indent}{name}:")
        if isinstance(value, Mapping):
            print_tree(value, indent + 2)
            continue
        for item in value[:LISTED_MAX]:
            _print_wrapped(f"{' ' * indent}  - ", fact("", item))
        if len(value) > LISTED_MAX:
            print(f"{' ' * indent}  and {len(value) - LISTED_MAX} more: --json has them")


def title(key: str) -> str:
    """A key without the unit that its value is written with; underscores may belong to a name.

    >>> title("uptime_s"), title("memory_bytes"), title("open_inference")
    ('uptime', 'memory', 'open_inference')
    """
    return plain(key).removesuffix("_s").removesuffix("_bytes")


def _inline(key: str, value: Any) -> bool:
    if not isinstance(value, Mapping | list):
        return True
    below = value.values() if isinstance(value, Mapping) else value
    if any(isinstance(item, Mapping) and item for item in below):
        return False
    return len(fact(key, value)) <= INLINE_CHARACTERS_MAX


def _print_wrapped(start: str, text: str) -> None:
    # In a pipe there is no width to keep to: wrapped lines would only break `grep`.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if width < len(start) + 20:
        print(start + text)
        return
    lines = textwrap.wrap(
        text, width - len(start), break_long_words=False, break_on_hyphens=False
    ) or [""]
    print(start + lines[0])
    for line in lines[1:]:
        print(" " * len(start) + line)


def empty(value: object) -> bool:
    """Whether there is nothing to say: null, no text, a mapping or list of such.

    >>> empty({"a": None, "b": ""}), empty(0), empty(False)
    (True, False, False)
    """
    if isinstance(value, Mapping):
        return all(empty(item) for item in value.values())
    if isinstance(value, list):
        return all(empty(item) for item in value)
    return value is None or value == ""


def fact(key: str, value: Any) -> str:
    """A value on one line, written as its key says: a time, a duration, bytes, a number that is a
    name. Mappings as `key value` pairs.

    >>> fact("pid", 16639.0), fact("uptime_s", 227.4), fact("memory_bytes", 183_500_800)
    ('16639', '3 min 47 s', '175 MiB')
    >>> fact("run", {"state": "failed", "reason": ""})
    'state failed'
    """
    if isinstance(value, Mapping):
        return ", ".join(_pairs(value)) or "–"
    if isinstance(value, list):
        return ", ".join(fact("", item) for item in value if not empty(item)) or "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(value)
    if key in NAMES:
        return f"{value:.0f}"
    if key in ("at", "created") or key.endswith("_at"):
        return when(value)
    if key.endswith("_s"):
        return lasted(value)
    if key.endswith("bytes"):
        mib = value / (1 << 20)
        return f"{mib:.3g} MiB" if abs(mib) < 1000 else f"{mib:,.0f} MiB"
    return plain(value)


def _pairs(value: Mapping[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        if not empty(item):
            name, said = title(key), fact(key, item)
            yield f"{name} ({said})" if isinstance(item, Mapping) else f"{name} {said}"


def lasted(seconds: float) -> str:
    """A duration in its two largest units.

    >>> lasted(0.92), lasted(227), lasted(7_500), lasted(200_000)
    ('0.92 s', '3 min 47 s', '2 h 5 min', '2 d 7 h')
    """
    if abs(seconds) < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    for unit, size, below, part in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {below}"
    return f"{seconds:.3g} s"


def plain(value: object) -> str:
    """A value as a short printable text.

    >>> plain(None), plain(0.123456), plain(True), plain("a\\x1b[2J")
    ('–', '0.123', 'yes', 'a [2J')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1_000 <= abs(value) < WHOLE_MAX else f"{value:.3g}"
    if isinstance(value, int):
        return str(value) if abs(value) < 10_000 else f"{value:,}"
    return one_line(str(value), length_max=CELL_CHARACTERS_MAX)


def when(value: object) -> str:
    """A time, given as unix seconds or text, for people: of this machine, and saying its offset."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value).astimezone().isoformat(timespec="seconds")
        except (ValueError, OverflowError, OSError):
            return plain(value)
    return plain(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
