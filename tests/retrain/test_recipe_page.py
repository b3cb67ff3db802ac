"""docs/recipes.md names every key of a recipe with its default."""

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from retrain.pipeline.recipe import Recipe

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "recipes.md"
# Fields that `read_recipe` fills in: no keys.
FILLED_IN = ("directory", "sha256")


def row_starts(kind: Any = Recipe, prefix: str = "") -> Iterator[str]:
    """The first two cells of each row."""
    hints = get_type_hints(kind)
    for entry in fields(kind):
        if not prefix and entry.name in FILLED_IN:
            continue
        key = f"{prefix}{entry.name}"
        yield f"| `{key}` | {default_of(entry)} | "
        hint = hints[entry.name]
        if is_dataclass(hint):
            yield from row_starts(hint, f"{key}.")
        elif get_origin(hint) is tuple and is_dataclass(get_args(hint)[0]):
            yield from row_starts(get_args(hint)[0], f"{key}.*.")


def default_of(entry: Field[Any]) -> str:
    if entry.default_factory is not MISSING:
        return "section"
    if entry.default is MISSING:
        return "required"
    return "null" if entry.default is None else f"`{json.dumps(entry.default)}`"


def test_the_page_has_every_key_and_no_other() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    starts = list(row_starts())
    missing = [start for start in starts if not any(row.startswith(start) for row in rows)]
    assert not missing, "add to docs/recipes.md:\n" + "\n".join(missing)
    known = tuple(starts)
    keys = [row for row in rows if row.count(" | ") == 2]
    assert not [row for row in keys if not row.startswith(known)]


def test_the_examples_that_the_page_links_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    links = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert links
    assert not [link for link in links if not (PAGE.parent / link).is_file()]
