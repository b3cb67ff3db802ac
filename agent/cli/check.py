"""`remora check` and `remora config schema`: is the configuration right, and what would run?"""

import argparse
import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.cli.output import print_facts, print_json
from agent.cli.parser import Subparsers, add_command, add_group, add_json
from agent.cli.run import add_config_flags, read_with_flags
from agent.errors import UnreachableError

if TYPE_CHECKING:
    from agent.config import Address, Config, Problem, Where
    from detectors import Reference

CONNECT_TIMEOUT_S = 2.0


def add(subparsers: Subparsers) -> None:
    """Registers `check` and `config schema`."""
    parser = add_command(
        subparsers,
        "check",
        check,
        purpose="validate configuration, files, secrets and the upstream; print what would run",
        example="remora check --config remora.yaml",
    )
    add_config_flags(parser)
    parser.add_argument(
        "--offline", action="store_true", help="do not connect to the upstream: for CI"
    )
    add_json(parser)
    group = add_group(
        subparsers,
        "config",
        purpose="about the configuration file",
        example="remora config schema > remora.schema.json",
    )
    add_command(
        group,
        "schema",
        schema,
        purpose="print the JSON Schema of the configuration, for editors",
        example="remora config schema > remora.schema.json",
    )


def schema(args: argparse.Namespace) -> int:
    """Prints the JSON Schema."""
    from agent.config import config_schema

    print_json(config_schema())
    return 0


def check(args: argparse.Namespace) -> int:
    """Validates everything that can be validated without starting."""
    from agent.config import ConfigError, Problem, loose_secrets, notices

    config, where = read_with_flags(args)
    problems = _problems(config, where)
    if problems:
        raise ConfigError(tuple(problems))
    warnings = [
        str(Problem(where=where(path), key=".".join(map(str, path)), message=message))
        for path, message in (*loose_secrets(config), *notices(config))
    ]
    facts = _facts(config, args.role)
    if args.json:
        print_json({"would_run": facts, "warnings": warnings, "config": config.public()})
    else:
        print_facts(facts)
        for warning in warnings:
            sys.stderr.write(f"remora: warning: {warning}\n")
    if not args.offline:
        _reach(config)
    return 0


def _problems(config: "Config", where: "Where") -> list[Any]:
    from agent.config import ConfigError, Problem, check_files

    problems = [
        Problem(where=where(path), key=".".join(map(str, path)), message=message)
        for path, message in check_files(config)
    ]
    named = {problem.key for problem in problems}
    readers = [config.admin.operator_token, config.retrain.signing_secret]
    readers += [token.secret for token in config.admin.tokens]
    readers += [source.secret for source in config.sources if source.kind == "push"]
    for target in config.webhooks.targets:
        readers += [target.signing_secret, target.access_token]
    for read in readers:
        try:
            read()
        except ConfigError as error:
            problems += [_placed(p, where) for p in error.problems if p.key not in named]
    if config.reference.path is not None and "reference.path" not in named:
        problems += _reference_problems(config, where)
    return problems


def _placed(problem: "Problem", where: "Where") -> "Problem":
    """With its place, where whoever found it did not know that."""
    # "admin.tokens (ann) token_file" stands in admin.tokens.
    parts = problem.key.partition(" (")[0].split(".")
    path = tuple(int(part) if part.isdigit() else part for part in parts)
    return replace(problem, where=problem.where or where(path))


def _reference_problems(config: "Config", where: "Where") -> list[Any]:
    from agent.cli.profile import read_reference
    from agent.config import Problem
    from agent.configured_reference import configured_reference
    from agent.errors import BadInputError
    from detectors import ProfileError

    assert config.reference.path is not None
    try:
        reference = read_reference(config.reference.path)
        configured_reference(config.reference)
    except (BadInputError, ProfileError, OSError) as error:
        return [
            Problem(where=where(("reference", "path")), key="reference.path", message=str(error))
        ]
    return _fairness_problems(config, reference, where)


def _fairness_problems(config: "Config", reference: "Reference", where: "Where") -> list[Any]:
    """Attributes that the reference has never heard of: nothing would be compared."""
    import difflib

    from agent.config import Problem

    known = [*reference.columns, *reference.feature_names]
    problems = []
    for place, group in enumerate(config.detect.fairness):
        if group.attribute in known:
            continue
        near = difflib.get_close_matches(group.attribute, known, n=1)
        mend = f"did you mean {near[0]!r}?" if near else "name one of its features"
        path = ("detect", "fairness", place, "attribute")
        message = f"{group.attribute!r} is no feature of the reference: {mend}"
        problems.append(Problem(where=where(path), key=".".join(map(str, path)), message=message))
    return problems


def _facts(config: "Config", role: str) -> dict[str, object]:
    learnt = f"learnt from the first {config.reference.learn_rows} rows"
    triggers = ", ".join(f"{t.name} ({t.on})" for t in config.triggers) or "none"
    retrain = {
        "none": "nobody is asked",
        "webhook": f"webhook to {config.retrain.target}",
        "local": f"here, by {config.retrain.recipe}",
    }[config.retrain.via]
    return {
        "model": f"{config.model.name} version {config.model.version}",
        "role": role,
        **_source_facts(config),
        "admin": config.admin.listen,
        "protocol": config.protocol.name,
        "sampling": f"{config.sampling.rate:g} of exchanges",
        "reference": str(config.reference.path or learnt),
        "captures": str(config.capture_dir) if config.capture.enabled else "off",
        "triggers": triggers,
        "retrains": retrain,
        "rollout": config.rollout.strategy if config.rollout.candidate else "candidates wait",
        "state": str(config.state_dir),
        "digest": config.digest,
    }


def _source_facts(config: "Config") -> dict[str, object]:
    found: dict[str, object] = {}
    proxy, tap, push = config.proxy, config.tap, config.push
    if proxy is not None:
        workers = f", {proxy.workers} workers" if proxy.workers > 1 else ""
        found["relays"] = f"{proxy.listen} to {proxy.upstream}{workers}"
        if proxy.grpc is not None:
            found["grpc"] = f"{proxy.grpc.listen} to {proxy.grpc.upstream}"
    if tap is not None:
        found["taps"] = f"{tap.interface}, port {tap.port}"
    if push is not None:
        found["takes"] = f"events and rows on {push.listen}"
    if config.tails:
        found["follows"] = ", ".join(f"{tail.path} ({tail.format})" for tail in config.tails)
    return found


def _reach(config: "Config") -> None:
    if config.proxy is not None:
        _connect(config.proxy.upstream_address)


def _connect(address: "Address") -> None:
    try:
        if address.path is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(CONNECT_TIMEOUT_S)
                probe.connect(address.path)
        else:
            there = (address.host, address.port)
            socket.create_connection(there, timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        said = error.strerror or str(error)
        raise UnreachableError(
            f"the upstream {address} accepts no connection ({said}): start it, or check offline"
            " with --offline"
        ) from None
