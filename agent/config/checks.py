"""What must fit between keys, and what is judged only once a role is known or files are looked at.

Each check yields (path of the key, message with its mend). `cross_check` is part of loading;
`check_role` and `check_files` are asked before anything starts; `notices` are no mistakes.
"""

import importlib.util
import os
import socket
import stat
from collections.abc import Iterator
from glob import iglob
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

from agent.config.address import Address, parse_listen
from agent.config.key_path import KeyPath
from agent.config.lifecycle import QualityTrigger, WebhookTarget
from agent.config.section import Section
from agent.config.sources import ProxySource, PushSource, TailSource
from agent.edge.counters import bound_above

if TYPE_CHECKING:
    from agent.config.tree import Config

AgentRole: TypeAlias = Literal["all", "sidecar", "controller"]
Finding: TypeAlias = tuple[KeyPath, str]


def cross_check(config: "Config") -> Iterator[Finding]:
    """Mistakes between keys that are each right by themselves."""
    yield from _sources(config)
    yield from _doubles(config)
    yield from _protocol(config)
    yield from _sampling(config)
    yield from _objectives(config)
    yield from _resources(config)
    for index, target in enumerate(config.webhooks.targets):
        yield from _target(config, target, ("webhooks", "targets", index))
    yield from _retrain(config)
    yield from _rollout(config)
    yield from _admin(config)


def check_role(config: "Config", role: AgentRole) -> Iterator[Finding]:
    """Mistakes that depend on what this agent is to be."""
    if not config.sources:
        yield ("sources",), "is empty: add a proxy with its upstream, or start with --upstream URL"
    elif config.proxy is None and config.rollout.candidate is not None:
        yield (
            ("rollout", "candidate"),
            "needs a proxy among the sources, for nobody else could route to it: add one, or "
            "leave the candidate out",
        )
    if role == "all" and config.detect.replicas > 1:
        yield (
            ("detect", "replicas"),
            "is more than 1, and then a single agent decides: run one with --role controller "
            "and the others with --role sidecar",
        )


def _sources(config: "Config") -> Iterator[Finding]:
    for index, source in enumerate(config.sources):
        before = {earlier.kind for earlier in config.sources[:index]}
        if source.kind != "tail" and source.kind in before:
            what = f"is a second {source.kind}: an agent has one, run another agent for it"
            yield ("sources", index), what
        if isinstance(source, ProxySource | PushSource | TailSource):
            yield from source.findings(("sources", index))


def _doubles(config: "Config") -> Iterator[Finding]:
    lists: tuple[tuple[KeyPath, tuple[str, ...]], ...] = (
        (("schema", "features"), tuple(f.name for f in config.schema_.features)),
        (("triggers",), tuple(t.name for t in config.triggers)),
        (("slo",), tuple(objective.name for objective in config.slo)),
        (("webhooks", "targets"), tuple(t.name for t in config.webhooks.targets)),
        (("admin", "tokens"), tuple(t.name for t in config.admin.tokens)),
    )
    for path, names in lists:
        for index, name in enumerate(names):
            if name in names[:index]:
                yield (*path, index, "name"), f"{name!r} is taken by an earlier one: rename it"
    listens: list[tuple[KeyPath, str]] = [
        (("sources", index, "listen"), source.listen)
        for index, source in enumerate(config.sources)
        if isinstance(source, ProxySource | PushSource)
    ]
    listens += [
        (("sources", index, "grpc", "listen"), source.grpc.listen)
        for index, source in enumerate(config.sources)
        if isinstance(source, ProxySource) and source.grpc is not None
    ]
    listens.append((("admin", "listen"), config.admin.listen))
    taken: list[Address] = []
    for where, listen in listens:
        address = parse_listen(listen)
        if any(_clash(address, earlier) for earlier in taken):
            yield where, f"{listen} is taken by an earlier one: choose another port"
        taken.append(address)


def _clash(one: Address, other: Address) -> bool:
    """Whether the kernel would refuse the second; every interface has each of them."""
    if one.path is not None or other.path is not None:
        return one.path == other.path
    if one.port != other.port or one.port == 0:
        return False
    hosts = {one.host or "0.0.0.0", other.host or "0.0.0.0"}  # noqa: S104 -- compared, not bound
    if len(hosts) == 1:
        return True
    of_six = any(":" in host for host in hosts)
    every = "::" if of_six else "0.0.0.0"  # noqa: S104
    return every in hosts and all((":" in host) == of_six for host in hosts)


def _protocol(config: "Config") -> Iterator[Finding]:
    named = config.protocol.name == "json_path"
    if named and config.protocol.json_path is None:
        yield (
            ("protocol", "json_path"),
            "is needed by protocol.name json_path: say where features stand",
        )
    if not named and config.protocol.json_path is not None:
        yield ("protocol", "json_path"), "is read only by protocol.name json_path: set that too"
    for index, rule in enumerate(config.protocol.redact):
        if sum(given is not None for given in (rule.path, rule.pattern, rule.feature)) != 1:
            where = ("protocol", "redact", index)
            yield where, "needs exactly one of path, pattern and feature: write a rule for each"
    if config.capture.text and not config.capture.enabled:
        yield ("capture", "text"), "writes nothing unless capture.enabled: set that too"


def _objectives(config: "Config") -> Iterator[Finding]:
    routes = (
        {"other", *(route.name for route in config.proxy.routes)} if config.proxy else {"other"}
    )
    for index, objective in enumerate(config.slo):
        if objective.route is not None and objective.route not in routes:
            known = ", ".join(sorted(routes))
            yield (
                ("slo", index, "route"),
                f"is none of the proxy's routes ({known}): name one of them",
            )


def _sampling(config: "Config") -> Iterator[Finding]:
    if 0 < config.sampling.rate < config.sampling.rate_min:
        yield ("sampling", "rate_min"), "is above sampling.rate: lower it"
    if config.reference.provisional_rows > config.reference.learn_rows:
        yield ("reference", "provisional_rows"), "is above reference.learn_rows: lower it"


def _resources(config: "Config") -> Iterator[Finding]:
    given = [
        key
        for key in ("pid", "port", "name", "container")
        if getattr(config.resources, key) is not None
    ]
    if len(given) > 1:
        yield ("resources", given[1]), f"stands beside {given[0]}: keep one of them"


def _target(config: "Config", target: WebhookTarget, path: KeyPath) -> Iterator[Finding]:
    github = target.kind != "generic"
    if not github and target.url is None:
        yield (*path, "url"), "is missing: say where to post"
    if github and target.repository is None:
        yield (*path, "repository"), f"is needed by {target.kind}: write owner/name"
    if github and target.token is None and target.token_file is None:
        name = "__".join(str(part) for part in path).upper()
        message = f"is needed by {target.kind}: name it, or set REMORA_{name}__TOKEN"
        yield (*path, "token_file"), message
    if not github and target.secret is None and target.secret_file is None:
        name = "__".join(str(part) for part in path).upper()
        message = f"is missing: every delivery is signed, name it or set REMORA_{name}__SECRET"
        yield (*path, "secret_file"), message
    if target.kind == "github_workflow_dispatch" and target.workflow is None:
        yield (*path, "workflow"), f"is needed by {target.kind}: name its file or id"
    if target.url is not None:
        parts = urlsplit(target.url)
        if parts.scheme == "http" and not config.webhooks.allow_http:
            yield (*path, "url"), "is plain http: use https, or set webhooks.allow_http"
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if port not in config.webhooks.ports:
            yield (*path, "url"), f"calls port {port}: add it to webhooks.ports"


def _retrain(config: "Config") -> Iterator[Finding]:
    retrain = config.retrain
    if retrain.via == "webhook" and retrain.target is None:
        yield (
            ("retrain", "target"),
            "is needed by via webhook: name one of webhooks.targets",
        )
    if retrain.target is not None and config.target(retrain.target) is None:
        names = ", ".join(t.name for t in config.webhooks.targets) or "there are none"
        yield (
            ("retrain", "target"),
            f"{retrain.target!r} is none of webhooks.targets ({names}): add it",
        )
    if retrain.via == "webhook" and retrain.recipe is None and config.rollout.candidate is not None:
        yield (
            ("retrain", "recipe"),
            "is needed before a candidate may serve: its gates are measured here, name the recipe",
        )
    if retrain.fallback is not None and retrain.via != "webhook":
        yield ("retrain", "fallback"), "is read only by retrain.via webhook: leave it out"
    if retrain.via == "local" or (retrain.via == "webhook" and retrain.fallback == "local"):
        if retrain.recipe is None:
            yield ("retrain", "recipe"), "is needed to retrain here: name a recipe file"
        if not config.capture.enabled:
            yield (
                ("capture", "enabled"),
                "must be true to retrain here: without it there are no rows",
            )


def _rollout(config: "Config") -> Iterator[Finding]:
    rollout = config.rollout
    if rollout.total_s_min > rollout.duration_s_max:
        yield ("rollout", "total_s_min"), "is above rollout.duration_s_max: lower it"
    if rollout.candidate is None:
        return
    for index, source in enumerate(config.sources):
        if isinstance(source, ProxySource) and source.grpc is not None:
            yield (
                ("sources", index, "grpc"),
                "cannot stand beside rollout.candidate: calls on one gRPC connection cannot be "
                "routed one by one, leave one of the two out",
            )
    if rollout.candidate.upstream is None:
        return
    upstream = rollout.candidate.upstream
    if any(isinstance(s, ProxySource) and s.upstream == upstream for s in config.sources):
        path = ("rollout", "candidate", "upstream")
        yield path, "is the stable model's own address: name a second slot"
    if upstream.startswith("https://"):
        path = ("rollout", "candidate", "upstream")
        yield path, "is https: a candidate stands beside the agent, write http://host:port"


def _admin(config: "Config") -> Iterator[Finding]:
    admin = config.admin
    if admin.tokens and (admin.token is not None or admin.token_file is not None):
        yield ("admin", "tokens"), "stands beside the one operator token: keep one of them"
    for index, token in enumerate(admin.tokens):
        if token.token is None and token.token_file is None:
            name = f"REMORA_ADMIN__TOKENS__{index}__TOKEN"
            yield ("admin", "tokens", index, "token_file"), f"is missing: name it, or set {name}"
    given = admin.token is not None or admin.token_file is not None or bool(admin.tokens)
    if not admin.listen_address.loopback and not given:
        yield (
            ("admin", "listen"),
            "is reachable from other machines and there is no token: set admin.token_file or "
            "REMORA_ADMIN__TOKEN, or listen on 127.0.0.1",
        )


def notices(config: "Config") -> Iterator[Finding]:
    """What is allowed and may surprise."""
    if config.retrain.via != "none" and config.rollout.candidate is None:
        yield (
            ("rollout", "candidate"),
            "is not set: candidates wait in the registry and get no traffic",
        )
    if config.triggers and config.retrain.via == "none":
        yield ("retrain", "via"), "is none: triggers are recorded and nobody is asked to retrain"
    for index, objective in enumerate(config.slo):
        judged_s = objective.latency_s and bound_above(objective.latency_s)
        if objective.latency_s and judged_s != objective.latency_s:
            above = "never: it is above all buckets" if judged_s is None else f"by {judged_s:g} s"
            yield (
                ("slo", index, "latency_s"),
                f"is no bound of a bucket, requests are judged {above}",
            )
    if config.sampling.rate == 0:
        yield ("sampling", "rate"), "is 0: traffic is relayed and nothing is looked at"
    for index, source in enumerate(config.sources):
        if isinstance(source, TailSource) and not any(iglob(source.path, recursive=True)):
            yield ("sources", index, "path"), f"{source.path} is no file yet: it is waited for"
    tap, proxy = config.tap, config.proxy
    if tap is not None and not _is_interface(tap.interface):
        message = f"{tap.interface} is no interface here: it is waited for"
        yield ("sources", config.sources.index(tap), "interface"), message
    if tap is not None and proxy is not None and proxy.upstream_address.port == tap.port:
        message = "is where the proxy sends requests: they are seen twice, leave one out"
        yield ("sources", config.sources.index(tap), "port"), message
    for trigger in config.triggers:
        if isinstance(trigger, QualityTrigger) and config.sampling.rate == 0:
            yield ("sampling", "rate"), f"is 0: the trigger {trigger.name} never sees a label"


def _is_interface(name: str) -> bool:
    try:
        # Not if_nameindex: that needs netlink, which the systemd unit does not let us have.
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False


def check_files(config: "Config") -> Iterator[Finding]:
    """Files that are named and not there, or secrets that others may read."""
    for path, value in _paths(config, ()):
        key = str(path[-1])
        if key in ("dir",):
            continue  # directories of our own are made at start
        wants_dir = key in ("cwd", "stable_artifact")
        if wants_dir and not value.is_dir():
            yield path, f"{value} is no directory: make it or name another"
        elif not wants_dir and not value.is_file():
            yield path, f"{value} is no file: make it or name another"
        elif not wants_dir and not os.access(value, os.R_OK):
            yield path, f"{value} cannot be read by this user: change its owner or mode"
    for index, source in enumerate(config.sources):
        if isinstance(source, ProxySource):
            yield from source.unusable(("sources", index))
    if config.detect.concept.named and importlib.util.find_spec("river") is None:
        message = "needs river, which is not installed: pip install 'remora[concept]'"
        key = "detectors" if config.detect.concept.detectors else "adwin"
        yield ("detect", "concept", key), message
    recipe = config.recipe_path
    needed = config.retrain.via == "local" or config.rollout.candidate is not None
    if recipe is not None and needed and not recipe.is_file():
        yield ("retrain", "recipe"), f"{recipe} is no file: make it or name another"


def loose_secrets(config: "Config") -> Iterator[Finding]:
    """Secret files that more than their owner may read."""
    for path, value in _paths(config, ()):
        if str(path[-1]).endswith(("token_file", "secret_file", "key_file")):
            try:
                mode = stat.S_IMODE(value.stat().st_mode)
            except OSError:
                continue  # check_files says it
            if mode & 0o077:
                yield path, f"{value} has mode {mode:04o}: others may read it, chmod 600"


def _paths(section: Section, above: KeyPath) -> Iterator[tuple[KeyPath, Path]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        here = (*above, field.alias or name)
        if isinstance(value, Path):
            yield here, value
        elif isinstance(value, Section):
            yield from _paths(value, here)
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, Section):
                    yield from _paths(item, (*here, index))
