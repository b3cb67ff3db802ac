"""Results on standard output: tables for people, JSON for machines.

Text from requests and files (names of features, categories) passes through `plain` before a
terminal sees it: escape sequences in a feature's name must not move anybody's cursor.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agent.errors import one_line

CELL_CHARACTERS_MAX = 120


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
    """Lines of `name: value`, aligned."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"{name + ':':<{width + 2}}{plain(value)}")


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
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return str(value) if abs(value) < 10_000 else f"{value:,}"
    return one_line(str(value), length_max=CELL_CHARACTERS_MAX)


def when(value: object) -> str:
    """A time, given as unix seconds or text, for people."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
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
