"""`remora run`: the agent."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.parser import Subparsers, add_command
from agent.errors import BadInputError

if TYPE_CHECKING:
    from agent.config import Config, Where

# Flag ▶ key of the configuration.
FLAGS = {
    "upstream": "sources.proxy.upstream",
    "listen": "sources.proxy.listen",
    "admin": "admin.listen",
    "reference": "reference.path",
    "model": "model.name",
    "version": "model.version",
}


def add(subparsers: Subparsers) -> None:
    """Registers `run`."""
    parser = add_command(
        subparsers,
        "run",
        run,
        purpose="the agent: relay traffic, measure, decide, act",
        example="remora run --upstream http://127.0.0.1:8000",
    )
    add_config_flags(parser)
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="least severe lines that are logged (default info)",
    )


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run` that set keys of the configuration; `check` takes the same."""
    add = parser.add_argument
    add("--config", metavar="FILE", type=Path, help="configuration (default: built-in defaults)")
    add("--upstream", metavar="URL", help="the model server: http://host:port or unix:/path")
    add("--listen", metavar="HOST:PORT", help="where to take requests (default 0.0.0.0:9000)")
    add("--admin", metavar="HOST:PORT", help="admin API and page (default 127.0.0.1:9311)")
    add("--reference", metavar="FILE", help="profile to compare with (default: learnt)")
    add("--model", metavar="NAME", help="name of the model, a label of every metric")
    add("--version", metavar="V", help="version of the stable model")
    add(
        "--role",
        choices=("all", "sidecar", "controller"),
        default="all",
        help="what this agent may do: a sidecar never triggers nor starts a rollout (default all)",
    )


def load_with_flags(args: argparse.Namespace) -> "Config":
    """The configuration of file, environment and flags. May raise ConfigError."""
    return read_with_flags(args)[0]


def read_with_flags(args: argparse.Namespace) -> "tuple[Config, Where]":
    """As `load_with_flags`, with the place of every key."""
    from agent.config import ConfigError, Problem, check_role, load_with_places

    overrides = {key: getattr(args, flag) for flag, key in FLAGS.items()}
    config, where = load_with_places(args.config, environ=os.environ, overrides=overrides)
    problems = tuple(
        Problem(where=where(path) or "command line", key=".".join(map(str, path)), message=message)
        for path, message in check_role(config, args.role)
    )
    if problems:
        raise ConfigError(problems)
    return config, where


def run(args: argparse.Namespace) -> int:
    """Loads everything, starts logs, and hands over to the supervisor."""
    from agent.config import ConfigError, Problem, check_files, notices
    from agent.logs import start_logs

    config, where = read_with_flags(args)
    missing = tuple(
        Problem(where=where(path), key=".".join(map(str, path)), message=message)
        for path, message in check_files(config)
    )
    if missing:
        raise ConfigError(missing)
    start_logs(level=args.log_level, process="remora-supervisor")
    import structlog

    from agent.supervisor import supervise

    log = structlog.get_logger("remora.run")
    for path, message in notices(config):
        log.warning("configuration", key=".".join(map(str, path)), notice=message)
    try:
        return supervise(config, role=args.role, reload=lambda: load_with_flags(args))
    except OSError as error:
        # Before anything is served: a port that is taken, a directory that may not be written.
        said = error.strerror or str(error)
        raise BadInputError(f"cannot start: {said}: choose another, or free this one") from None
