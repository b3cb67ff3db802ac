"""What is written about the configuration says what the models say: the annotated file, the
reference page, the schema."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from agent.config import Config, config_schema, load_config
from agent.config.keys import every_key, fields_of, kinds_at, takes_secret
from agent.config.yaml_file import parse_yaml

ROOT = Path(__file__).resolve().parent.parent
UPSTREAM = {"REMORA_SOURCES__0__UPSTREAM": "http://127.0.0.1:8000"}


def test_the_annotated_file_is_the_defaults() -> None:
    annotated = load_config(ROOT / "deploy" / "remora.yaml", environ={})
    assert annotated.public() == load_config(None, environ=UPSTREAM).public()


def with_examples() -> tuple[dict[str, Any], list[str]]:
    """The annotated file with its `#:` examples switched on in place of the empty lists."""
    text = (ROOT / "deploy" / "remora.yaml").read_text(encoding="utf-8")
    empty = r"^ *(routes|features|triggers|targets|slo|fairness): \[\].*\n(?= *#:)"
    text = re.sub(empty, "", text, flags=re.M)
    text = re.sub(r"^( *)#: ", r"\1", text, flags=re.M)
    found = parse_yaml(text, "annotated")
    assert not found.problems
    return found.data, text.splitlines()


def keys_in(tree: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield prefix + key
            yield from keys_in(value, f"{prefix}{key}.")
    elif isinstance(tree, list):
        for value in tree:
            yield from keys_in(value, f"{prefix}*.")


def is_secret(key: str) -> bool:
    return takes_secret(path_of(key))


def path_of(key: str) -> tuple[str | int, ...]:
    return tuple(0 if part == "*" else part for part in key.split("."))


def test_the_annotated_file_has_every_key_and_a_word_about_each() -> None:
    data, lines = with_examples()
    assert set(keys_in(data)) == {key for key in every_key() if not is_secret(key)}
    # The second and third of alike things need no second word.
    plain = re.compile(r" *(- )?(name|on|kind|metric|error|slow|quality|psi|ks): [^#]*$")
    silent = [
        line
        for line in lines
        if re.match(r" *(- )?\w+: \S", line) and "#" not in line and not plain.match(line)
    ]
    assert not silent


def test_the_examples_of_the_annotated_file_are_valid() -> None:
    data, _ = with_examples()
    del data["rollout"]["candidate"]["upstream"]  # the one or the other
    config = Config.model_validate(data)
    assert config.rollout.candidate is not None
    assert {trigger.on for trigger in config.triggers} == {"drift", "quality", "schedule"}


def reference_rows() -> Iterator[str]:
    """The rows of docs/configuration.md, from the models."""
    return iter(dict.fromkeys(_rows(Config, "")))


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if prefix and not is_secret(key):
            default = "required" if field.is_required() else _shown(field.default)
            yield f"| `{key}` | {default} | {field.description}{allowed_at(key)} |"
        path = path_of(key)
        for below, kinds in ((key, kinds_at(path)), (f"{key}.*", kinds_at((*path, 0)))):
            for kind in kinds:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    yield from _rows(kind, f"{below}.")


def allowed_at(key: str) -> str:
    """The values of a key, or of the items of its list, where they are a closed set."""
    for path, words in ((path_of(key), "One of"), ((*path_of(key), 0), "Any of")):
        kinds = [kind for kind in kinds_at(path) if get_origin(kind) is Literal]
        values = dict.fromkeys(str(value) for kind in kinds for value in get_args(kind))
        if values:
            return f" {words if len(values) > 1 else 'Only'}: {', '.join(values)}."
    return ""


def _shown(default: object) -> str:
    if default is None:
        return "null"
    if isinstance(default, BaseModel):
        return "section"
    if isinstance(default, tuple) and len(default) > 6:
        return "all"
    text = json.dumps(default)
    return f"`{text}`"


def test_the_reference_page_has_every_key() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    missing = [row for row in reference_rows() if row not in page]
    assert not missing, "add to docs/configuration.md:\n" + "\n".join(missing)


def test_the_schema_describes_every_key() -> None:
    schema = config_schema()
    for name, definition in schema["$defs"].items():
        for key, value in definition.get("properties", {}).items():
            assert value.get("description"), f"{name}.{key}"
    assert set(schema["properties"]) == set(fields_of(Config))
