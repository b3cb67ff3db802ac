"""`remora status` for people: what needs attention first, then facts, then tables.

`--json` has everything; here is what a person reads, with units. An agent of another version may
leave anything out or send it in another shape: what is not as expected is not shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agent.cli.detection import (
    MEMBERS,
    attention,
    facts_of,
    mapping,
    number,
    print_detection,
    rows_in,
    share,
)
from agent.cli.output import empty, fact, lasted, plain, print_table, print_tree, title

# Shown below, or only by --json.
_APART: Final = (
    *("processes", "absent", "sources", "latency", "slo", "generations"),
    *MEMBERS,
    *("server", "gpus", "energy_source", "cost", "sampling", "governor"),
)
_BUDGETS: Final = {"cpu": "CPU", "memory": "memory", "rows": "rows"}
_WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")
# Of the alerts that come with Remora: both windows above it.
_BURNS: Final = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))
_ENERGY: Final = {"rapl": "measured by RAPL", "model": "estimated from resources.watts_per_core"}
_QUANTILES: Final = ("p50_s", "p90_s", "p95_s", "p99_s")


def print_status(answer: Mapping[str, Any]) -> None:
    """The whole status."""
    for trouble in troubles(answer):
        print(f"attention: {plain(trouble)}")
    facts = {key: value for key, value in answer.items() if key not in _APART}
    facts["drops"] = {name: n for name, n in mapping(answer.get("drops")).items() if n}
    facts["rollout"] = _rollout(mapping(answer.get("rollout")))
    facts["decision"] = _without(mapping(answer.get("decision")), "findings")
    print_tree(facts | facts_of(answer) | _sampling(answer) | _server(answer))
    print_detection(answer)
    _print_sources(answer.get("sources"))
    _print_objectives(rows_in(answer.get("slo")))
    _print_latency(rows_in(answer.get("latency")))
    _print_generations(rows_in(answer.get("generations")))
    _print_nested("Processes", "process", answer.get("processes"))
    for metric, reason in mapping(answer.get("absent")).items():
        print(f"absent: {plain(metric)}: {plain(reason)}")


def troubles(answer: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about what is not as it should be, the worst first."""
    if answer.get("upstream") == "unreachable":
        yield "the model server does not answer: clients get 502 or 504"
    for source in rows_in(answer.get("sources")):
        if source.get("reason"):
            name = f"source {source.get('kind')} ({source.get('of')})"
            yield f"{name} {source.get('state')}: {source['reason']}"
    for one in rows_in(answer.get("slo")):
        if _burns_fast(mapping(one.get("burn"))):
            yield f"objective {one.get('name')}: its budget burns fast"
    kills = number(mapping(answer.get("server")).get("oom_kills"))
    if kills:
        yield f"the model server was killed for memory {kills:.0f} times"
    for limit, held in mapping(mapping(answer.get("governor")).get("held")).items():
        if held is False:
            name = _BUDGETS.get(limit, limit)
            yield f"the {name} budget cannot be held, even at the lowest sampling rate"
    yield from attention(answer)


def _burns_fast(burn: Mapping[str, Any]) -> bool:
    return any(
        all((number(burn.get(window)) or 0.0) > limit for window in windows)
        for limit, *windows in _BURNS
    )


def _rollout(rollout: Mapping[str, Any]) -> dict[str, Any]:
    """Without the measurements' figures, and with one reason: what decided."""
    shown = _without(rollout, "assessment", "reason", "pairs", "copies_answered", "copies_min")
    if not shown.get("because"):
        shown["because"] = rollout.get("reason")
    if (number(rollout.get("step")) or 0.0) < 0:  # before the first one
        del shown["step"]
    if rollout.get("state") == "shadow":
        answered = rollout.get("copies_answered", 0)
        shown["copies"] = f"answered {plain(answered)} of {plain(rollout.get('copies_min'))}"
    pairs = mapping(rollout.get("pairs"))
    if pairs.get("compared"):
        differ = f"{plain(pairs.get('disagreeing'))} differ ({share(pairs.get('disagreement'))})"
        shown["pairs"] = f"of {plain(pairs['compared'])} pairs of answers {differ}"
    shown["evidence"] = mapping(rollout.get("assessment")).get("words")
    return shown


def _sampling(answer: Mapping[str, Any]) -> dict[str, str]:
    sampling, governor = mapping(answer.get("sampling")), mapping(answer.get("governor"))
    if not sampling:
        return {}
    rate = f"{share(sampling.get('rate'))} of requests"
    if sampling.get("asked") not in (None, sampling.get("rate")):
        rate += f", {share(sampling['asked'])} asked for"
    if governor.get("why") not in (None, "none"):
        rate += f": {plain(governor.get('explain'))}"
    if (number(sampling.get("errors")) or 0.0) > (number(sampling.get("rate")) or 0.0):
        rate += f"; {share(sampling.get('errors'))} of errors"
    cpu, memory, rows = (mapping(governor.get(limit)) for limit in _BUDGETS)
    used = []
    if number(cpu.get("used_cores")) is not None:
        used.append(f"CPU {plain(cpu['used_cores'])} of {plain(cpu.get('budget_cores'))} cores")
    if number(memory.get("used_bytes")) is not None:
        used.append(
            f"memory {_bytes(memory.get('used_bytes'))} of {_bytes(memory.get('budget_bytes'))}"
        )
    if number(rows.get("budget_per_s")) is not None:
        used.append(
            f"rows {plain(rows.get('used_per_s'))} of {plain(rows['budget_per_s'])} a second"
        )
    return {"sampling": rate, "budgets": ", ".join(used)}


def _server(answer: Mapping[str, Any]) -> dict[str, str]:
    used, cost = mapping(answer.get("server")), mapping(answer.get("cost"))
    limit = used.get("memory_limit_bytes")
    memory = used.get("cgroup_memory_bytes" if limit else "memory_bytes", used.get("memory_bytes"))
    of = f" of {_bytes(limit)}" if limit else ""
    cores = used.get("cpu_limit_cores")
    said = {
        f"memory {_bytes(memory)}{of}": memory,
        f"CPU {_lasted(used.get('cpu_s'))}": used.get("cpu_s"),
        f"{plain(cores)} cores allowed": cores,
        f"held back {_lasted(used.get('throttled_s'))} by its CPU limit": used.get("throttled_s"),
        f"killed for memory {fact('id', used.get('oom_kills'))} times": used.get("oom_kills"),
        f"{fact('id', used.get('threads'))} threads": used.get("threads"),
        f"{fact('id', used.get('fds'))} open files": used.get("fds"),
        f"received {_bytes(used.get('received_bytes'))}": used.get("received_bytes"),
        f"sent {_bytes(used.get('sent_bytes'))}": used.get("sent_bytes"),
    }
    shown = {"server": ", ".join(words for words, figure in said.items() if figure)}
    for gpu in rows_in(answer.get("gpus")):
        busy = f"{share(gpu.get('utilization_ratio'))} busy"
        shown[f"GPU {plain(gpu.get('gpu'))}"] = f"{busy}, {_bytes(gpu.get('memory_bytes'))}"
    if number(used.get("energy_j")) is not None:
        source = str(answer.get("energy_source"))
        shown["energy"] = f"{plain(used['energy_j'])} J, {_ENERGY.get(source, source)}"
    if number(cost.get("per_thousand_predictions")) is not None:
        currency = plain(cost.get("currency"))
        each = f"{plain(cost['per_thousand_predictions'])} {currency} for 1,000 predictions"
        shown["cost"] = f"{each}, {plain(cost.get('per_month'))} {currency} a month"
    return shown


def _print_sources(listed: Any) -> None:
    columns = ("kind", "of", "state", "reason", "completeness", "dropped")
    rows = [{**row, "dropped": _total(row.get("dropped"))} for row in rows_in(listed)]
    if rows:
        print_table("Sources", columns, ([fact(c, row.get(c)) for c in columns] for row in rows))


def _print_objectives(slo: Sequence[Mapping[str, Any]]) -> None:
    if not slo:
        return
    rows = []
    for one in slo:
        left, burn = number(one.get("remaining")), mapping(one.get("burn"))
        said = "none" if left is not None and left <= 0 else share(left)
        rates = (plain(burn.get(window)) for window in _WINDOWS)
        rows.append((one.get("name"), share(one.get("objective")), said, *rates))
    columns = ("objective", "goal", "budget left", *(f"burn {window}" for window in _WINDOWS))
    print_table("Objectives", columns, rows)


def _print_latency(latency: Sequence[Mapping[str, Any]]) -> None:
    if latency:
        columns = ("version", "route", *(title(key) for key in _QUANTILES))
        print_table(
            "Latency",
            columns,
            (
                (one.get("version"), one.get("route"), *(_duration(one.get(q)) for q in _QUANTILES))
                for one in latency
            ),
        )


def _print_generations(generations: Sequence[Mapping[str, Any]]) -> None:
    if not generations:
        return
    rows = []
    for one in generations:
        first, each = mapping(one.get("first_token")), mapping(one.get("per_token"))
        counts = (_count(one.get(key)) for key in ("answers", "input_tokens", "output_tokens"))
        times = (_duration(of.get(q)) for of in (first, each) for q in ("p50_s", "p99_s"))
        ended = mapping(one.get("finish_reasons"))
        whole = sum(number(n) or 0.0 for n in ended.values())
        said = ", ".join(f"{name} {share(n / whole)}" for name, n in ended.items() if whole)
        rows.append((one.get("version"), *counts, *times, said))
    print_table(
        "Language model",
        (
            *("version", "answers", "tokens in", "tokens out"),
            *("first p50", "first p99", "further p50", "further p99", "ended by"),
        ),
        rows,
    )


def _print_nested(heading: str, first: str, table: Any) -> None:
    rows = {name: row for name, row in mapping(table).items() if isinstance(row, Mapping)}
    if rows:
        columns = list(
            dict.fromkeys(key for row in rows.values() for key in row if not empty(row[key]))
        )
        print_table(
            heading,
            (first, *map(title, columns)),
            ((name, *(fact(c, row.get(c)) for c in columns)) for name, row in rows.items()),
        )


def _without(mapping: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}


def _total(counts: Any) -> int:
    return sum(n for n in mapping(counts).values() if isinstance(n, int))


def _count(value: Any) -> str:
    count = number(value)
    return "–" if count is None else f"{count:,.0f}"


def _bytes(value: Any) -> str:
    return fact("bytes", number(value))


def _lasted(value: Any) -> str:
    seconds = number(value)
    return "–" if seconds is None else lasted(seconds)


def _duration(value: Any) -> str:
    """Milliseconds below a second: that is how latency is spoken of."""
    seconds = number(value)
    if seconds is None:
        return "–"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1_000 * seconds:.3g} ms"
