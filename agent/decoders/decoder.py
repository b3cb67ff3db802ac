"""The contract of a decoder, the closed set of reasons it may refuse with, and its limits.

Do not let anything but `DecodeError` out of `decode`, and do no I/O in it: decoders are fed
bytes that strangers chose, in the middle of a pure pipeline that replay runs as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from agent.exchange import Exchange
from agent.generation import Generation
from agent.inference import Inference


class DecodeReason(StrEnum):
    """Why an exchange gave no inference. A metric label: the set is closed."""

    NOT_JSON = "not_json"
    NOT_CSV = "not_csv"
    NOT_PROTOBUF = "not_protobuf"
    NOT_AN_INFERENCE = "not_an_inference"
    WRONG_TYPE = "wrong_type"
    RAGGED_ROWS = "ragged_rows"
    EMPTY_BATCH = "empty_batch"
    TOO_MANY_COLUMNS = "too_many_columns"
    TOO_MANY_ROWS = "too_many_rows"
    TOO_DEEP = "too_deep"
    BODY_TRUNCATED = "body_truncated"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    UNSUPPORTED_DATATYPE = "unsupported_datatype"
    UNSUPPORTED_PROTOCOL = "unsupported_protocol"
    ROWS_MISMATCH = "rows_mismatch"
    ERROR_STATUS = "error_status"
    ANSWER_FAILED = "answer_failed"
    TOO_MANY_PIXELS = "too_many_pixels"
    REDACTED = "redacted"
    INCOMPLETE_EXCHANGE = "incomplete_exchange"


# What each reason means to the person who sees it counted, and what can be done about it.
REMEDY: Mapping[DecodeReason, str] = {
    DecodeReason.NOT_JSON: "A body that should be JSON is not. Look at what this client sends; "
    "the model server most likely refused it too.",
    DecodeReason.NOT_CSV: "A text/csv body has no header, or its rows cannot be told apart. "
    "Send a header line and quote fields that hold commas.",
    DecodeReason.NOT_PROTOBUF: "A gRPC message is none of the kind that its method takes. Look at "
    "what this client sends; the model server most likely refused it too.",
    DecodeReason.NOT_AN_INFERENCE: "Whole and well-formed, but no question to a model with its "
    "answer: health probes, metadata, other endpoints. Nothing to do unless predictions are "
    "missing; then set `protocol`.",
    DecodeReason.WRONG_TYPE: "A member has a type that the protocol does not allow: rows of "
    "mixed shapes, an object where a cell belongs, names longer than `name_characters_max`. "
    "Mend the client.",
    DecodeReason.RAGGED_ROWS: "Rows of one request differ in length. Variable-length inputs "
    "(token ids, say) have no columns to watch; for tables, mend the client.",
    DecodeReason.EMPTY_BATCH: "A request without rows, or rows without cells. Nothing to do, "
    "unless a client means to ask for something.",
    DecodeReason.TOO_MANY_COLUMNS: "Rows are wider than `columns_max`: often an image or an "
    "embedding. Raise the limit if the columns are worth watching one by one.",
    DecodeReason.TOO_MANY_ROWS: "One request holds more than `rows_max` rows, or more than "
    "`cells_max` cells. Raise the limit, or send smaller batches.",
    DecodeReason.TOO_DEEP: "JSON is nested deeper than `depth_max`. Raise the limit if it is "
    "meant to be.",
    DecodeReason.BODY_TRUNCATED: "The body was longer than the source keeps. Raise the source's "
    "body limit to see these requests.",
    DecodeReason.BODY_TOO_LARGE: "A body, unpacked, is longer than `body_bytes_max`. Raise the "
    "limit if there is memory for it.",
    DecodeReason.UNSUPPORTED_ENCODING: "A content encoding (br, zstd), a character set other "
    "than UTF-8, a content type of no decoder (libsvm, RecordIO), or tensors whose bytes are "
    "elsewhere. Have client and server speak plain or gzip JSON to see these.",
    DecodeReason.UNSUPPORTED_DATATYPE: "A tensor has a datatype that is not in the protocol's "
    "list. Check the client library.",
    DecodeReason.UNSUPPORTED_PROTOCOL: "No decoder recognises these requests. Set `protocol`, or "
    "describe the bodies by `json_path`.",
    DecodeReason.ROWS_MISMATCH: "The answer has another number of entries than the request has "
    "rows, so that predictions cannot be told which row they are for.",
    DecodeReason.ERROR_STATUS: "The model server answered with an error. It is counted in the "
    "request metrics; look at its log.",
    DecodeReason.ANSWER_FAILED: "The server answered 200 and then said inside the answer that it "
    "had failed. Look at its log; such answers count in latency and tokens, not in statistics.",
    DecodeReason.TOO_MANY_PIXELS: "An image says it has over 100 million pixels, and was not "
    "looked into: small files can unpack without end. Look at what this client sends.",
    DecodeReason.REDACTED: "Nothing is left of the request once `protocol.redact` has taken out "
    "what it names. Narrow the rules if these requests are to be watched.",
    DecodeReason.INCOMPLETE_EXCHANGE: "There was no whole answer: the client left, the server "
    "was not reached or took too long. See the request metrics.",
}


class DecodeError(ValueError):
    """Whole bytes that are no inference. The caller counts it by reason and moves on."""

    def __init__(
        self, reason: DecodeReason, detail: str, *, generation: Generation | None = None
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: DecodeReason = reason  # a metric label: the set is closed
        self.detail = detail  # for a person's eye, never a label: it may quote the body
        # Of a language model: times and tokens are known of an answer that is not whole, too.
        self.generation = generation


class SettingsError(ValueError):
    """Settings that no decoder can be made from. Names key and mend, for one line on exit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """How much of a stranger's body is looked at; beyond, it is dropped and counted."""

    body_bytes_max: int = 16 * 1024 * 1024  # of each body, unpacked
    nan_body_bytes_max: int = 1024 * 1024  # bodies with NaN tokens take a ten times slower parser
    columns_max: int = 5_000  # also pixels of an image, laid out flat
    rows_max: int = 100_000
    cells_max: int = 4_000_000  # rows x columns: objects with changing names can multiply
    name_characters_max: int = 256  # of a feature or an output
    depth_max: int = 16  # arrays and objects inside a row


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPathSettings:
    """Where the parts of an inference lie in the bodies of any JSON API; see `json_path`.

    `features` is a path to the rows, or a mapping of feature name to path. `feature_names` and
    `request_id` are looked up in the request, `prediction`, `score` and `response_id` in the
    response. `route` is the request path it applies to, None for any.
    """

    features: str | Mapping[str, str]
    feature_names: str | None = None
    prediction: str | None = None
    score: str | None = None
    request_id: str | None = None
    response_id: str | None = None
    route: str | None = None


_CUT: Final = 1_024  # as long as a match may be; see `OVERLAP_CHARACTERS` of patterns


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactionRule:
    """What never leaves the decoders: one of a path, a pattern and the name of a feature."""

    path: str | None = None
    pattern: str | None = None
    feature: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings:
    """What every decoder is made from; each takes what it needs."""

    limits: DecodeLimits = field(default_factory=DecodeLimits)
    json_path: JsonPathSettings | None = None
    redact: tuple[RedactionRule, ...] = ()
    # How much of a prompt and a reply an inference may carry along, for captures; 0: nothing.
    text_kept_characters: int = 0

    @property
    def text_read_characters(self) -> int:
        """How much of a text a decoder carries: where it is cut must not hide from a pattern."""
        patterned = any(rule.pattern is not None for rule in self.redact)
        return self.text_kept_characters and self.text_kept_characters + _CUT * patterned


class Decoder(Protocol):
    """One protocol of model servers. Made once, from `DecoderSettings`; holds no state.

    The caller may assume: the same exchange gives the same inference or the same reason, in
    any order and any process; every row count agrees (`rows` and each of `outputs`); there is
    at least one row and one column. It may not assume that `matches` is right: it looks at
    path, headers and the first bytes only, and `decode` has the last word.
    """

    @property
    def name(self) -> str:
        """The word used in `protocol:` and in status; lower case, unique in the catalog."""
        ...

    def matches(self, exchange: Exchange) -> bool:
        """Whether this may be an exchange of the protocol. Cheap, parses nothing, never raises."""
        ...

    def decode(self, exchange: Exchange) -> Inference:
        """What was asked and answered.

        Raises:
            DecodeError: the exchange is no inference of this protocol. Nothing else escapes,
                whatever the bytes are.
        """
        ...
