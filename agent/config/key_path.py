"""Where a key stands in the tree: a tuple of keys and list indices, ("sources", 0, "listen")."""

from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """The path as people write it.

    >>> dotted(("sources", 0, "listen"))
    'sources.0.listen'
    """
    return ".".join(str(part) for part in path)
