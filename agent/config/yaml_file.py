"""YAML read the safe way, with the line of every key kept for messages.

YAML 1.2's plain rules: only true and false are booleans (`on:` is a key, `no` is text), numbers
have no base 60, dates are text. Keys that stand twice are mistakes. Nothing is constructed but
dicts, lists and scalars; depth and size are bounded, because aliases multiply.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agent.config.key_path import KeyPath, dotted
from agent.errors import ConfigError, Problem, one_line

FILE_BYTES_MAX = 1 << 20
VALUES_MAX = 50_000
DEPTH_MAX = 32

_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_WHOLE = re.compile(r"[-+]?[0-9]{1,300}\Z", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z", re.ASCII)
_KINDS = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_TAGS = frozenset({"!", *(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)})
_SPECIAL = {".inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


@dataclass(slots=True)
class YamlFile:
    """What a file says, where each key stands, and what is wrong with it as YAML."""

    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def scalar(text: str) -> Any:
    """The value of a plain YAML scalar.

    >>> scalar("0.5"), scalar("on"), scalar("1e-3"), scalar("null"), scalar("true")
    (0.5, 'on', 0.001, None, True)
    """
    if _NULL.match(text):
        return None
    if _TRUE.match(text):
        return True
    if _FALSE.match(text):
        return False
    if _WHOLE.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text)
    return _SPECIAL.get(text.lower(), text)


def read_yaml(path: Path) -> YamlFile:
    """Reads the file. Raises ConfigError when it cannot be read or is no YAML at all."""
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _broken(name, f"cannot be read ({error.strerror}): name a readable file") from None
    except ValueError:  # a zero byte in the path
        raise _broken(one_line(name), "is no path: name a readable file") from None
    if len(content) > FILE_BYTES_MAX:
        raise _broken(name, f"is longer than {FILE_BYTES_MAX} bytes: name a configuration file")
    found = parse_yaml(content, name)
    if not isinstance(found.data, dict):
        raise _broken(name, "is no mapping of sections: start with a line like `model:`")
    return found


def parse_yaml(content: bytes | str, name: str) -> YamlFile:
    """The value of one YAML document. Raises ConfigError when it is no YAML."""
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise _broken(name, "is not UTF-8 text: save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = name if mark is None else f"{name}:{mark.line + 1}"
        raise _broken(
            where, f"is no YAML ({error.problem or error.context}): mend that line"
        ) from None
    except yaml.YAMLError as error:
        raise _broken(name, f"is no YAML ({error}): mend it") from None
    except (RecursionError, ValueError):
        raise _broken(name, "is nested too deeply or holds a broken number: mend it") from None
    found = YamlFile()
    if node is not None:
        found.data = _Builder(name, found).value(node, ())
    return found


class _Builder:
    """Node tree ▶ values. One per file: it counts what it has made."""

    def __init__(self, name: str, found: YamlFile) -> None:
        self._name = name
        self._found = found
        self._made = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._made += 1
        if self._made > VALUES_MAX or len(path) > DEPTH_MAX:
            where = f"{self._name}:{node.start_mark.line + 1}"
            raise _broken(where, "holds too many values or too deep ones: use fewer aliases")
        if node.tag not in _TAGS:
            self._problem(node, path, f"has the tag {node.tag}: leave the tag out")
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self._found.lines[(*path, index)] = item.start_mark.line + 1
                items.append(self.value(item, (*path, index)))
            return items
        if not isinstance(node, yaml.ScalarNode):
            return None
        # Plain scalars by our rules, whatever PyYAML resolved; quoted ones stay text.
        return scalar(node.value) if node.style is None else node.value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, path, "has a key that is no text: use plain words as keys")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in values:
                first = self._found.lines[here]
                self._problem(key_node, here, f"stands twice, first on line {first}: keep one")
                continue
            self._found.lines[here] = key_node.start_mark.line + 1
            values[key] = self.value(value_node, here)
        return values

    def _problem(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        where = f"{self._name}:{node.start_mark.line + 1}"
        self._found.problems.append(Problem(where=where, key=dotted(path), message=message))


def _broken(where: str, message: str) -> ConfigError:
    return ConfigError((Problem(where=where, key="", message=message),))
