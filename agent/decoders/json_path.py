"""Any JSON API whose rows and answers lie at paths that the operator names.

Do not raise anything but `SettingsError` while being made, and nothing but `DecodeError`
afterwards: a wrong path is a matter of configuration, a missing value one of traffic.
"""

from collections.abc import Mapping
from typing import Any

from agent.decoders.answers import Entries, outputs_of
from agent.decoders.body import concluded, request_json, require_answered, response_json
from agent.decoders.decoder import (
    DecodeError,
    DecodeLimits,
    DecodeReason,
    DecoderSettings,
    SettingsError,
)
from agent.decoders.path import Missing, Path, PathSyntaxError, parse_path
from agent.decoders.tabular import (
    Table,
    require_names,
    require_width,
    table,
    table_of_columns,
    unique_names,
)
from agent.exchange import Exchange
from agent.inference import Inference


class JsonPath:
    """Outputs are called `prediction` and `score`.

    `features` may lead to a list of rows (lists or objects), or to one object or one flat list
    of cells, which is a single row. `rows[*]` says that every entry is a row, so that a flat
    list is n rows of one feature. A mapping of feature name to path takes each feature from a
    place of its own: with `[*]` in the paths from each row, without it from a single row.
    """

    name = "json_path"

    def __init__(self, settings: DecoderSettings) -> None:
        if settings.json_path is None:
            raise SettingsError("protocol json_path needs json_path.features")
        said = settings.json_path
        self._limits = settings.limits
        self._route = said.route
        self._features: Path | dict[str, Path]
        if isinstance(said.features, str):
            self._features = _read("features", said.features)
        else:
            self._features = _read_features(said.features)
        self._feature_names = _read_optional("feature_names", said.feature_names)
        self._prediction = _read_optional("prediction", said.prediction)
        self._score = _read_optional("score", said.score)
        self._request_id = _read_optional("request_id", said.request_id)
        self._response_id = _read_optional("response_id", said.response_id)

    def matches(self, exchange: Exchange) -> bool:
        if self._route is not None:
            return exchange.path == self._route
        return exchange.request_body[:64].lstrip()[:1] in (b"{", b"[", b"\x1f")

    def decode(self, exchange: Exchange) -> Inference:
        require_answered(exchange)
        asked = request_json(exchange, self._limits)
        names, rows = self._table(asked)
        outputs: dict[str, Entries] = {}
        response_id = None
        if any(path is not None for path in (self._prediction, self._score, self._response_id)):
            said = response_json(exchange, self._limits)
            for name, path in (("prediction", self._prediction), ("score", self._score)):
                if path is not None:
                    outputs |= _outputs(name, _found(path, said), len(rows), self._limits)
            response_id = _identity(self._response_id, said)
        return concluded(
            exchange,
            names=names,
            rows=rows,
            outputs=outputs,
            body_ids=(_identity(self._request_id, asked), response_id),
        )

    def _table(self, asked: Any) -> Table:
        if isinstance(self._features, dict):
            return _gathered(self._features, asked, self._limits)
        found = _found(self._features, asked)
        is_one_row = isinstance(found, dict) or (
            isinstance(found, list)
            and not self._features.is_many
            and bool(found)
            and not any(isinstance(entry, list | dict) for entry in found)
        )
        names, rows = table([found] if is_one_row else found, self._limits)
        if self._feature_names is None or names is not None:
            return names, rows
        carried = _found(self._feature_names, asked)
        if not isinstance(carried, list) or len(carried) != len(rows[0]):
            detail = f"{self._feature_names.text} does not name {len(rows[0])} columns"
            raise DecodeError(DecodeReason.WRONG_TYPE, detail)
        require_width(len(carried), self._limits)
        names = unique_names(carried)
        require_names(names, len(rows), self._limits)
        return names, rows


def _gathered(features: Mapping[str, Path], asked: Any, limits: DecodeLimits) -> Table:
    """Each feature from a path of its own; one that is not there is missing, all is an error."""
    columns: dict[str, Any] = {}
    absent: list[str] = []
    for name, path in features.items():
        try:
            found = path.find(asked)
        except Missing:
            absent.append(name)
            continue
        columns[name] = found if path.is_many else [found]
    if not columns:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, "none of the features is there")
    rows = len(next(iter(columns.values())))
    columns |= {name: [None] * rows for name in absent}
    return table_of_columns({name: columns[name] for name in features}, limits)


def _outputs(name: str, said: Any, rows: int, limits: DecodeLimits) -> dict[str, Entries]:
    """For one row a list of several values is its vector of scores, not several answers."""
    if rows == 1 and isinstance(said, list) and len(said) != 1:
        said = [said]
    return outputs_of(name, said, rows, limits)


def _found(path: Path, body: Any) -> Any:
    try:
        return path.find(body)
    except Missing as missing:
        raise DecodeError(DecodeReason.NOT_AN_INFERENCE, str(missing)) from None


def _identity(path: Path | None, body: Any) -> object:
    """The id in a body; none when it is not there, because it is only a name."""
    if path is None:
        return None
    try:
        return path.find(body)
    except Missing:
        return None


def _read(key: str, text: str) -> Path:
    try:
        return parse_path(text)
    except PathSyntaxError as error:
        raise SettingsError(f"json_path.{key}: {error}") from None


def _read_optional(key: str, text: str | None) -> Path | None:
    return None if text is None else _read(key, text)


def _read_features(texts: Mapping[str, str]) -> dict[str, Path]:
    if not texts:
        raise SettingsError("json_path.features: name at least one feature")
    paths = {name: _read(f"features.{name}", text) for name, text in texts.items()}
    if len({path.is_many for path in paths.values()}) > 1:
        raise SettingsError("json_path.features: either every path holds [*] or none does")
    return paths
