"""A secret that cannot be printed by accident.

Nothing but `reveal()` gives the text away: not repr, str, format, pickles of the configuration,
its JSON, its schema or its digest. Keep it that way; logs and crash reports are made of reprs.
"""

import hmac
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, SerializationInfo
from pydantic_core import PydanticOmit, core_schema

from agent.errors import ConfigError, Problem

REVEAL = "reveal"  # key of the serialisation context that gives secrets away
SECRET_BYTES_MAX = 65_536  # a key or a token; anything longer is the wrong file


class Secret:
    """Text that is never shown. Equality takes the same time wherever two secrets differ."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled: pass the file or the variable that it comes from")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        from_text = core_schema.no_info_after_validator_function(
            cls, core_schema.str_schema(strict=True, min_length=1)
        )
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema(
                [core_schema.is_instance_schema(cls), from_text], mode="left_to_right"
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(
                _serialised, info_arg=True
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # A secret never stands in the file, so an editor must not offer the key.
        raise PydanticOmit


def read_secret(path: Path, *, key: str) -> Secret:
    """The secret that a file holds, without the line end that editors add.

    Raises ConfigError naming `key` when the file cannot be read or is empty.
    """
    try:
        with path.open("rb") as file:
            text = file.read(SECRET_BYTES_MAX + 1).decode("utf-8").strip()
    except OSError as error:
        raise _unusable(
            key, f"cannot read {path} ({error.strerror}): name a readable file"
        ) from None
    except UnicodeDecodeError:
        raise _unusable(key, f"{path} is not text: name a file that holds the secret") from None
    if not text:
        raise _unusable(key, f"{path} is empty: write the secret into it")
    if len(text) > SECRET_BYTES_MAX:
        raise _unusable(key, f"{path} is longer than {SECRET_BYTES_MAX} bytes: wrong file?")
    return Secret(text)


def _serialised(secret: Secret, info: SerializationInfo) -> str:
    return secret.reveal() if (info.context or {}).get(REVEAL) else "***"


def _unusable(key: str, message: str) -> ConfigError:
    return ConfigError((Problem(where="", key=key, message=message),))
