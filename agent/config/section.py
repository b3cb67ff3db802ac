"""What every section of the configuration is made of: the frozen base and the kinds of values.

Keep defaults in the sections and nowhere else, and give no key that may be null a default other
than null: null in the file means "the default".
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agent.config.address import parse_listen, parse_upstream, parse_url


class Section(BaseModel):
    """A part of the tree: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,  # an input may be a secret in the wrong place
        use_attribute_docstrings=True,
        validate_default=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        # `webhooks:` with everything below it commented out is null, and means the defaults.
        if not isinstance(data, Mapping):
            return data
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


def _listen(text: str) -> str:
    parse_listen(text)
    return text


def _upstream(text: str) -> str:
    parse_upstream(text)
    return text


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError("is no network: write it as 10.0.0.0/8, without host bits") from None


def _host(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", text):
        raise ValueError("is no host: write host or host:port, without scheme and path")
    return text.lower()


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression ({error})") from None
    return text


def _whole(value: object) -> object:
    # Lax integers would take true for 1 and "7" for 7; a configuration says what it means.
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("is no whole number: write it with digits only")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is no number")
    if isinstance(value, int) and abs(value) > 1 << 63:
        raise ValueError("is too large a number")
    return value


def _text(value: object) -> object:
    if isinstance(value, bool | int | float):
        raise ValueError("is no text: put it in quotes")
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


def _path(value: object) -> object:
    if isinstance(value, Path):
        return value
    text = _text(value)
    if not text or "\0" in str(text):
        raise ValueError("is no path")
    return text


Whole = Annotated[int, BeforeValidator(_whole), Field(le=1 << 62)]
Number = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=4096)]
Flag = Annotated[bool, Field(strict=True)]

Count = Annotated[Whole, Field(ge=1)]
Seconds = Annotated[Number, Field(gt=0, le=3.2e9)]  # a century
Pause = Annotated[Number, Field(ge=0, le=3.2e9)]  # seconds that may be none
Bytes = Annotated[Whole, Field(ge=1)]
Share = Annotated[Number, Field(ge=0, le=1)]
PositiveShare = Annotated[Number, Field(gt=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Port = Annotated[Whole, Field(ge=1, le=65_535)]

Name = Annotated[Text, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
ColumnName = Annotated[Text, Field(max_length=256)]
Listen = Annotated[Text, AfterValidator(_listen)]
Upstream = Annotated[Text, AfterValidator(_upstream)]
Url = Annotated[Text, AfterValidator(parse_url)]
Cidr = Annotated[Text, AfterValidator(_cidr)]
HostName = Annotated[Text, AfterValidator(_host)]
Pattern = Annotated[Text, AfterValidator(_pattern)]
FilePath = Annotated[Path, BeforeValidator(_path)]
