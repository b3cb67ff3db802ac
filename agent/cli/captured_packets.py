"""Rows out of a capture of packets, for `replay`: what tcpdump saw becomes columns.

The bytes take the tap's way, and the bodies the decoders': what could not be read is told by
reason on standard error, because rows that are missing must not look like rows that are quiet.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import BadInputError

if TYPE_CHECKING:
    from agent.inference import Inference
    from agent.tables import Columns

SUFFIXES = (".pcap", ".pcapng", ".cap")
PREDICTION = "prediction"


def is_capture(path: Path) -> bool:
    """Whether the file's name says that packets are in it."""
    return path.suffix in SUFFIXES


def read_capture(
    path: Path, *, port: int | None, names: Sequence[str], chunk_rows: int
) -> Iterator["Columns"]:
    """Chunks of rows in the order in which their answers came.

    `names` are the features of rows that come without any. Raises BadInputError.
    """
    if port is None:
        raise BadInputError(f"{path}: needs --port, the port that the model server listens on")
    rows = _rows(path, port, tuple(names))
    known: dict[str, bool] = {}
    while chunk := list(islice(rows, chunk_rows)):
        for name in dict.fromkeys(name for row in chunk for name in row):
            # As for JSON Lines, what a column is stays as its first rows were.
            known.setdefault(name, all(_is_number(row.get(name)) for row in chunk))
        yield {name: _column([row.get(name) for row in chunk], known[name]) for name in known}


def _rows(path: Path, port: int, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    from agent.decoders.catalog import AUTO, decoders
    from agent.decoders.decoder import DecodeError, DecoderSettings
    from agent.decoders.detection import Decoding
    from agent.sources.proxy import to_exchange
    from agent.tap.capture_file import CaptureFile
    from agent.tap.settings import TapSettings
    from agent.wire.http1 import WireError
    from agent.wire.pcap import PcapError

    file = CaptureFile(path, TapSettings(port=port, flows_max=1 << 20))
    detection = Decoding(decoders(AUTO, DecoderSettings()))
    unread: Counter[str] = Counter()
    try:
        for record in file.records():
            try:
                inference = detection.decode(to_exchange(record, source="tap"))
            except (DecodeError, WireError) as error:
                unread[error.reason] += 1
                continue
            yield from _rows_of(inference, names)
    except PcapError as error:
        raise BadInputError(f"{path}: is no whole capture file ({error})") from None
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror or error})") from None
    unread.update({reason: count for reason, count in file.losses.counts.items() if count})
    if unread:
        told = ", ".join(f"{count} {reason}" for reason, count in sorted(unread.items()))
        print(f"{path}: not read: {told}", file=sys.stderr)


def _rows_of(inference: "Inference", names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    features = inference.names
    if features is None:
        known = names if len(names) == inference.width else ()
        features = known or tuple(f"f{at}" for at in range(inference.width))
    outputs = inference.outputs.get(PREDICTION) or next(iter(inference.outputs.values()), ())
    for at, row in enumerate(inference.rows):
        found = dict(zip(features, row, strict=True))
        if at < len(outputs) and isinstance(outputs[at], int | float | str):
            found.setdefault(PREDICTION, outputs[at])
        yield found


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _column(values: list[Any], is_numeric: bool) -> Any:
    import numpy as np

    if is_numeric:
        numbers = [value if _is_number(value) and value is not None else np.nan for value in values]
        return np.array(numbers, dtype=np.float64)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
