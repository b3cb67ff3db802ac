"""File, environment and command line become one Config, or a line for every mistake.

Later wins: defaults, then the file, then REMORA_ variables, then the command line. Every value
remembers where it came from, because the message must name the place to mend.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from agent.config.checks import cross_check
from agent.config.key_path import KeyPath, dotted
from agent.config.keys import (
    kinds_at,
    known_keys,
    takes_list,
    takes_path,
    takes_secret,
    takes_text,
)
from agent.config.messages import problem_of
from agent.config.tree import Config, default_state_dir
from agent.config.yaml_file import parse_yaml, read_yaml
from agent.errors import ConfigError, Problem

PREFIX = "REMORA_"
LIST_ITEMS_MAX = 1_000
# The place that set a key: "remora.yaml:12", "environment REMORA_...", "command line", the file's
# name where nothing set it, and nothing where there is no file.
Where: TypeAlias = Callable[[KeyPath], str]


def load_config(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
) -> Config:
    """The configuration, whole and valid.

    Parameters
    ----------
    path: the YAML file; None for defaults.
    environ: the environment, of which REMORA_SECTION__KEY count.
    overrides: dotted key ▶ value, from the command line; None values do not count. The proxy
        among the sources is `sources.proxy`, wherever it stands.

    Raises ConfigError with every problem found.
    """
    return load_with_places(path, environ=environ, overrides=overrides)[0]


def load_with_places(
    path: Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] | None = None,
) -> tuple[Config, Where]:
    """As `load_config`, with the place of every key for mistakes that are found later."""
    sources = _Sources()
    if path is not None:
        sources.add_file(path)
    sources.add_environment(environ)
    sources.add_overrides(overrides or {})
    try:
        config = Config.model_validate(sources.data)
    except ValidationError as error:
        found = [problem_of(detail, sources.data, sources.where) for detail in error.errors()]
        raise ConfigError(_unique(sources.problems + found)) from None
    problems = [
        Problem(where=sources.where(path), key=dotted(path), message=message)
        for path, message in cross_check(config)
    ]
    if sources.problems or problems:
        raise ConfigError(_unique(sources.problems + problems))
    if config.state.dir is None:
        state = config.state.model_copy(update={"dir": default_state_dir(environ)})
        config = config.model_copy(update={"state": state})
    base = Path.cwd() if path is None else path.absolute().parent
    return config.based(base), sources.where


def _unique(problems: list[Problem]) -> tuple[Problem, ...]:
    """Each once, those of the file in the order of its lines."""

    def line(problem: Problem) -> int:
        number = problem.where.rpartition(":")[2]
        return int(number) if number.isascii() and number.isdigit() else 1 << 30

    return tuple(sorted(dict.fromkeys(problems), key=line))


class _Sources:
    """The layers laid over each other, and where every value came from."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._origins: dict[KeyPath, str] = {}
        self._file = ""

    def where(self, path: KeyPath) -> str:
        """The place that set the value at the path, or what it stands in, or something in it."""
        for length in range(len(path), 0, -1):
            above = path[:length]
            if (origin := self._origins.get(above)) is not None:
                return origin
            inside = (o for p, o in self._origins.items() if p[:length] == above)
            if (origin := next(inside, None)) is not None:
                return origin
        return self._file

    def add_file(self, path: Path) -> None:
        self._file = str(path)
        found = read_yaml(path)
        self.data = found.data
        self.problems += found.problems
        self._origins = {key: f"{path}:{line}" for key, line in found.lines.items()}
        for key in found.lines:
            self._judge_file_value(key, path)

    def _judge_file_value(self, key: KeyPath, path: Path) -> None:
        """Refuses secrets in the file; makes paths relative to it."""
        holder: Any = self.data
        for part in key[:-1]:
            holder = holder[part]
            if holder is None:
                return  # a secret was here, and is gone with all that was in it
        value = holder[key[-1]]
        if value is None:
            return
        if takes_secret(key):
            name = PREFIX + "__".join(str(part) for part in key).upper()
            message = f"secrets do not stand in the file: use {key[-1]}_file, or {name}"
            self.problems.append(Problem(where=self.where(key), key=dotted(key), message=message))
            holder[key[-1]] = None
        elif takes_path(key) and isinstance(value, str) and value and "\0" not in value:
            holder[key[-1]] = str(path.absolute().parent / Path(value).expanduser())

    def add_environment(self, environ: Mapping[str, str]) -> None:
        # Sorted, so that SOURCES__0 is there before SOURCES__1, and messages have one order.
        # Names without a double underscore are not ours: Kubernetes sets REMORA_PORT for a
        # service called remora.
        names = [n for n in environ if n.upper().startswith(PREFIX) and "__" in n[len(PREFIX) :]]
        for name in sorted(names, key=_natural):
            parts = name[len(PREFIX) :].lower().split("__")
            if not all(parts):
                self._refuse(f"environment {name}", (), "has an empty part: REMORA_SECTION__KEY")
                continue
            path: KeyPath = tuple(int(p) if p.isascii() and p.isdigit() else p for p in parts)
            origin = f"environment {name}"
            try:
                value = _environment_value(environ[name], path)
            except ConfigError as error:
                self._refuse(origin, path, error.problems[0].message)
                continue
            self._set(path, value, origin)

    def add_overrides(self, overrides: Mapping[str, object]) -> None:
        for key, value in overrides.items():
            if value is not None:
                parts = key.split(".")
                if parts[:2] == ["sources", "proxy"]:
                    parts[1] = str(self._place_of_proxy())
                path: KeyPath = tuple(int(p) if p.isdigit() else p for p in parts)
                self._set(path, value, "command line")

    def _place_of_proxy(self) -> int:
        """Which of the sources is the proxy; where there is none, one is added at the end."""
        listed = self.data.get("sources")
        sources = listed if isinstance(listed, list) else []
        for place, source in enumerate(sources):
            if isinstance(source, Mapping) and source.get("kind") in (None, "proxy"):
                return place
        return len(sources)

    def _set(self, path: KeyPath, value: object, origin: str) -> None:
        holder: Any = self.data
        for depth, part in enumerate(path):
            last = depth == len(path) - 1
            if isinstance(part, int):
                if not self._has_room(holder, path[:depth], part, origin):
                    return
                if part == len(holder):
                    holder.append(None)
            elif not isinstance(holder, dict):
                self._refuse(
                    origin, path, f"{dotted(path[:depth])} is no section: nothing is below it"
                )
                return
            if last:
                holder[part] = value
            else:
                below = holder[part] if isinstance(part, int) else holder.get(part)
                if below is None:
                    below = [] if takes_list(path[: depth + 1]) else {}
                    holder[part] = below
                holder = below
        self._origins[path] = origin

    def _has_room(self, holder: Any, path: KeyPath, index: int, origin: str) -> bool:
        if not isinstance(holder, list):
            self._refuse(origin, (*path, index), f"{dotted(path)} is no list: leave the number out")
            return False
        if index > min(len(holder), LIST_ITEMS_MAX):
            mend = f"{dotted(path)} has {len(holder)} items: the next one is {len(holder)}"
            self._refuse(origin, (*path, index), mend)
            return False
        return True

    def _refuse(self, origin: str, path: KeyPath, message: str) -> None:
        self.problems.append(Problem(where=origin, key=dotted(path), message=message))


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = name.lower().split("__")
    return [(0, int(p[:9]), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in parts]


def _environment_value(text: str, path: KeyPath) -> object:
    """The value of a variable: text as it stands where text is meant, YAML elsewhere."""
    if takes_text(path) and not takes_list(path):
        empty = text in ("", "null", "~") and not takes_secret(path)
        return None if empty else text
    if not kinds_at(path) and not known_keys(path[:-1]):
        return text
    return parse_yaml(text, "the value").data if text.strip() else None
