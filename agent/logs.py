"""Logs, to standard error: for people on a terminal, one JSON object per line elsewhere.

Standard output belongs to results. Every process calls `start_logs` once, before it logs.
"""

import logging
import os
import sys
from typing import Literal, TypeAlias

import structlog

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


def start_logs(*, level: Level = "info", process: str | None = None) -> None:
    """Sets structlog up for this process, and sends what libraries log the same way.

    `process` is bound to every line of the JSON form: `remora-edge`, `remora-analysis`.
    """
    human = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if human else "iso", utc=not human),
        structlog.processors.StackInfoRenderer(),
    ]
    if human:
        colors = "NO_COLOR" not in os.environ
        end: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer(colors=colors)]
    else:
        end = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(default=str),
        ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *end],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    _adopt_libraries(shared, end, number)
    structlog.contextvars.clear_contextvars()
    if process is not None and not human:
        structlog.contextvars.bind_contextvars(process=process)


def _adopt_libraries(
    shared: list[structlog.typing.Processor], end: list[structlog.typing.Processor], level: int
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *end],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))  # what libraries say at info is theirs to know
