"""The source `tail`: logs that a model server writes."""

from collections.abc import Iterator
from typing import Literal

from agent.config.key_path import KeyPath
from agent.config.section import Bytes, Count, Seconds, Section, Text
from agent.config.sources.rows import RowNames
from agent.decoders.path import PathSyntaxError, parse_path


class LinePathsConfig(Section):
    """Where a line of JSON holds the bodies of a request and its response."""

    request: Text
    """Path of the request's body: JSON, or text that holds it."""
    response: Text
    """Path of the response's body: JSON, or text that holds it."""
    path: Text = "/"
    """The request path that such bodies were sent to: it tells the protocol."""
    id: Text | None = None
    """Path of the request's id."""
    at: Text | None = None
    """Path of the time of the request: RFC 3339 or unix seconds."""
    status: Text | None = None
    """Path of the response's status; null: 200."""
    duration_s: Text | None = None
    """Path of how long it took, in seconds."""
    version: Text | None = None
    """Path of the model's version."""


class TailSource(Section):
    """Lines that are added to files."""

    kind: Literal["tail"]
    """What brings exchanges in."""
    path: Text
    """The file, or a pattern of files with *, ? and **. Files that are packed are passed over."""
    format: Literal["json_lines", "sagemaker", "torchserve", "bentoml"]
    """What a line is."""
    start: Literal["beginning", "end"] = "beginning"
    """Where to begin in files that are there before the first start; later ones: at their start."""
    poll_s: Seconds = 1.0
    """How often files are looked at."""
    rotated_s: Seconds = 10.0
    """How long a file that was moved away or deleted is still read, after its last line."""
    line_bytes_max: Bytes = 4_194_304
    """Longest line; longer ones are counted and passed over."""
    files_max: Count = 4_096
    """Files that are known at once; of more, those changed longest ago are passed over."""
    rows: RowNames = RowNames()
    """What the members of a line are called, where a line is a row."""
    exchange: LinePathsConfig | None = None
    """Where a line of json_lines holds a request and its response, instead of a row."""

    def findings(self, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
        """Mistakes between keys that are each right by themselves."""
        if self.exchange is not None and self.format != "json_lines":
            yield (*path, "exchange"), "is read only by format json_lines: leave it out"
        if not self.path.startswith("/") or "\0" in self.path:
            yield (*path, "path"), "is no absolute path: write it whole, /var/log/model/*.jsonl"
        for name in ("request", "response", "id", "at", "status", "duration_s", "version"):
            text = None if self.exchange is None else getattr(self.exchange, name)
            try:
                parse_path(text or "$")
            except PathSyntaxError as error:
                yield (*path, "exchange", name), f"cannot be read: {error}"
