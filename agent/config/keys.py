"""Which keys the tree has: asked by the loader for meanings, and for the nearest known key.

Everything is read off the models, so that a key exists once.
"""

import difflib
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from agent.config.key_path import KeyPath
from agent.config.secret import Secret
from agent.config.tree import Config


def fields_of(model: type[BaseModel]) -> dict[str, Any]:
    """Key in the file ▶ annotation."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def kinds_at(path: KeyPath) -> tuple[Any, ...]:
    """What may stand at that path: models, tuple types, plain types; empty when nothing may."""
    kinds = _plain(Config)
    for part in path:
        kinds = tuple(found for kind in kinds for found in _below(kind, part))
    return kinds


def known_keys(path: KeyPath) -> tuple[str, ...]:
    """The keys that a mapping at that path may have."""
    models = [kind for kind in kinds_at(path) if _is_model(kind)]
    return tuple(dict.fromkeys(key for model in models for key in fields_of(model)))


def nearest_key(path: KeyPath) -> str | None:
    """The known sibling that an unknown key was most likely meant to be.

    >>> nearest_key(("sampling", "rat"))
    'rate'
    """
    close = difflib.get_close_matches(str(path[-1]), known_keys(path[:-1]), n=1, cutoff=0.6)
    return close[0] if close else None


def takes_text(path: KeyPath) -> bool:
    """Whether a value there is text, so that 1.10 stays "1.10" and a token stays as it is."""
    return any(kind is str or kind is Path or kind is Secret for kind in kinds_at(path)) or any(
        get_origin(kind) is Literal for kind in kinds_at(path)
    )


def takes_list(path: KeyPath) -> bool:
    """Whether a list stands there."""
    return any(get_origin(kind) is tuple for kind in kinds_at(path))


def takes_path(path: KeyPath) -> bool:
    """Whether a file or directory is named there."""
    return any(kind is Path for kind in kinds_at(path))


def takes_secret(path: KeyPath) -> bool:
    """Whether a secret stands there."""
    return any(kind is Secret for kind in kinds_at(path))


@cache
def every_key() -> tuple[str, ...]:
    """All keys of the tree, dotted, list items as `*`: what documentation must cover."""
    return tuple(dict.fromkeys(_walk(Config, "")))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for key, annotation in fields_of(model).items():
        yield f"{prefix}{key}"
        for kind in _plain(annotation):
            if _is_model(kind):
                yield from _walk(kind, f"{prefix}{key}.")
            elif get_origin(kind) is tuple:
                for item in _plain(get_args(kind)[0]):
                    if _is_model(item):
                        yield from _walk(item, f"{prefix}{key}.*.")


def _below(kind: Any, part: str | int) -> tuple[Any, ...]:
    if isinstance(part, int):
        return _plain(get_args(kind)[0]) if get_origin(kind) is tuple else ()
    if _is_model(kind) and part in (fields := fields_of(kind)):
        return _plain(fields[part])
    return ()


def _plain(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation, with Annotated and None taken off."""
    if isinstance(annotation, types.NoneType) or annotation is types.NoneType:
        return ()
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain(get_args(annotation)[0])
    if origin is Union or origin is types.UnionType:
        return tuple(kind for argument in get_args(annotation) for kind in _plain(argument))
    return (annotation,)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
