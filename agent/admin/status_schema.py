"""What `GET /api/v1/status` answers, described for the API's document.

Members that are not known yet, or that nothing was configured for, are null or empty; figures that
cannot be read are missing, and `absent` says why. A test holds a running agent's answer to this.
"""

from typing import Any, Final

Json = dict[str, Any]


def _number(description: str, *, null: bool = False) -> Json:
    return {"type": ["number", "null"] if null else "number", "description": description}


def _text(description: str, *, null: bool = False) -> Json:
    return {"type": ["string", "null"] if null else "string", "description": description}


def _flag(description: str) -> Json:
    return {"type": "boolean", "description": description}


def _object(description: str, *, null: bool = False, **properties: Json) -> Json:
    return {
        "type": ["object", "null"] if null else "object",
        "description": description,
        "properties": properties,
    }


def _by(description: str, each: Json) -> Json:
    return {"type": "object", "description": description, "additionalProperties": each}


def _list(description: str, item: Json) -> Json:
    return {"type": "array", "description": description, "items": item}


_COUNT: Final[Json] = {"type": "number"}
_ANY: Final[Json] = {}
_RATIO_OF_TIME: Final[Json] = {"type": ["number", "null"]}

_SOURCE: Final = _object(
    "One configured source.",
    kind=_text("proxy, tap, push, tail ..."),
    of=_text("What it listens to or reads."),
    state=_text("runs, starts, waits or refused."),
    reason=_text("Why it does not run.", null=True),
    completeness=_number("Share of what passed that was seen; null: it cannot know.", null=True),
    dropped=_by("What it lost, by reason.", _COUNT),
)
_SAMPLING: Final = _object(
    "How much of the traffic is looked at.",
    rate=_number("The uniform rate in force."),
    asked=_number("The rate that is configured."),
    errors=_number("Probability with which an error is kept; 0: as all others."),
    kept=_number("Share of requests that an edge keeps at least."),
    failed_ratio=_number("Share of errors among what was seen; null before any.", null=True),
)
_GOVERNOR: Final = _object(
    "What the sampling rate is lowered for.",
    scale=_number("Factor on everything that is asked for."),
    why=_text("none, cpu, memory or rows."),
    explain=_text("The same as a sentence."),
    since=_number("Unix time of the last change."),
    changes=_number("How often it changed."),
    cpu=_object(
        "Capture, decoding and detection.",
        budget_cores=_number("The budget."),
        used_cores=_number("In use, smoothed."),
    ),
    memory=_object(
        "All processes but jobs and opt-in children.",
        budget_bytes=_number("The budget."),
        used_bytes=_number("In use; null before the first look.", null=True),
    ),
    rows=_object(
        "Rows looked at.",
        budget_per_s=_number("The budget; null: none.", null=True),
        used_per_s=_number("At present."),
    ),
    held=_by("Budgets, and whether each is held.", {"type": "boolean"}),
)
_LATENCY: Final = _object(
    "Of the last minutes, every kept request counted for as many as it stands for.",
    version=_text("The model's version."),
    route=_text("A named route of the proxy, or other."),
    p50_s=_number("Seconds."),
    p90_s=_number("Seconds."),
    p95_s=_number("Seconds."),
    p99_s=_number("Seconds."),
)
_OBJECTIVE: Final = _object(
    "One of `slo`.",
    name=_text("Its name."),
    objective=_number("Share of requests that are to be good."),
    burn=_by(
        "By window (5m, 30m, 1h, 6h, 3d): how many times as fast as allowed the budget of bad "
        "requests is used; null without requests.",
        _RATIO_OF_TIME,
    ),
    remaining=_number("Share of the budget that is left; below 0 when more than all was used."),
)
_TIMES: Final = _object(
    "Seconds; null before the first streamed answer.",
    p50_s=_number("Median.", null=True),
    p99_s=_number("99 % are within it.", null=True),
)
_GENERATIONS: Final = _object(
    "What a version of a language model said since the agent started, weighted when sampled.",
    version=_text("The model's version."),
    answers=_number("Answers."),
    input_tokens=_number("Tokens of prompts."),
    output_tokens=_number("Tokens of answers."),
    first_token=_TIMES,
    per_token=_TIMES,
    finish_reasons=_by("Answers by how they ended.", _COUNT),
    bases=_by("Answers by where the number of output tokens is from.", _COUNT),
)
_SERVER: Final = _object(
    "What the model server uses. Counts rise for as long as the agent lives.",
    cpu_s=_number("CPU time."),
    memory_bytes=_number("Resident memory."),
    threads=_number("Threads."),
    fds=_number("Open file descriptors."),
    cgroup_memory_bytes=_number("Memory of its control group, caches included."),
    memory_limit_bytes=_number("Beyond it the server is killed."),
    cpu_limit_cores=_number("Beyond it the server is throttled."),
    throttled_s=_number("Time for which it was kept from running by that limit."),
    oom_kills=_number("Processes killed for memory."),
    received_bytes=_number("Over its interfaces but loopback."),
    sent_bytes=_number("Over its interfaces but loopback."),
    energy_j=_number("Energy of the processor for its share of the time; see energy_source."),
)
_PAIRS: Final = _object(
    "Answers of both models to one request.",
    compared=_number("Pairs."),
    disagreeing=_number("Pairs that differ."),
    disagreement=_number("Their share; null before the first pair.", null=True),
    unpaired=_by("Answers to copies that found no other, by reason.", _COUNT),
)
_ROLLOUT: Final = _object(
    "The candidate on trial.",
    null=True,
    id=_text("Its name."),
    candidate=_text("Digest of the candidate."),
    stable=_text("Digest of the stable model."),
    state=_text("staging, shadow, canary, held, promoting, baking, rolling_back ..."),
    because=_text("What decided: the evidence, or the person."),
    reason=_text("Of the last step."),
    weight=_number("The candidate's share of requests."),
    step=_number("Of `steps`, from 0; -1 before the first."),
    steps=_list("Shares of a canary.", _COUNT),
    strategy=_text("canary, immediate or shadow."),
    shadow_share=_number("Share of requests that is copied before the canary; 0: no copies."),
    copies_min=_number("Copies that must have been answered; 0 without copies."),
    copies_answered=_number("Copies answered, while it is a shadow."),
    pairs=_PAIRS,
    assessment=_object("What was measured last.", words=_text("In a sentence.")),
    requests=_number("Answered by the candidate."),
    bake_requests=_number("Since it was promoted."),
    promoted=_flag("Whether it is the stable model now."),
    paused=_flag("By a person."),
    frozen=_flag("The stable model is unwell, so nothing is concluded."),
    started_at=_number("Unix time."),
    entered_at=_number("Unix time at which it came into its state."),
)
_ESTIMATE: Final = _object(
    "A metric with its 95 % interval.",
    value=_number("Estimate."),
    lower=_number("Lower end.", null=True),
    upper=_number("Upper end.", null=True),
    rows=_number("Rows that it rests on."),
    basis=_text("realised: from labels."),
)

STATUS: Final = _object(
    "Everything at a glance.",
    model=_text("Its name."),
    stable=_object(
        "The version that serves.",
        version=_text("Its name."),
        digest=_text("Of its artifact.", null=True),
        address=_text("Where it is served.", null=True),
        slot=_text("A or B."),
    ),
    role=_text("What this agent does: all, or a part."),
    uptime_s=_number("Since it started."),
    config_digest=_text("Of the configuration in force."),
    protocol=_by("Protocols found, by path.", {"type": "string"}),
    reference=_object(
        "What is compared against; null while it is learnt.",
        null=True,
        digest=_text("Of its profile."),
        rows=_number("Rows it is from."),
        learnt=_flag("From traffic."),
        accepted=_flag("By a person."),
        provisional=_flag("Made from the first rows only."),
    ),
    learning=_object(
        "How far the reference is learnt; null when it is there.",
        null=True,
        rows=_number("Rows so far."),
        of=_number("Rows needed."),
    ),
    sampling=_SAMPLING,
    governor=_GOVERNOR,
    sources=_list("In the order of the configuration.", _SOURCE),
    upstream=_text("answers, unreachable, or no requests yet."),
    rows_total=_number("Rows watched."),
    requests_total=_number("Requests that passed."),
    drops=_by("What was not looked at, by reason.", _COUNT),
    undecoded=_list("The newest reasons why something could not be decoded.", {"type": "string"}),
    latency=_list("By version and route.", _LATENCY),
    slo=_list("The configured objectives.", _OBJECTIVE),
    generations=_list("By version; empty for what is no language model.", _GENERATIONS),
    states=_by("Subjects by state.", _COUNT),
    concept=_text("State of the error rate."),
    quality=_by("By metric, of labelled rows.", _ESTIMATE),
    labels=_by("Labels by what became of them.", _COUNT),
    label_cohorts=_object(
        "When labels are believed, and whether they come as they did.",
        maturity_s=_number("Age from which on a prediction's label is used."),
        waiting=_number("Joined rows that are younger."),
        join_ratio=_number("Of rows older than that, the share with a label.", null=True),
        join_state=_text("Of the share of rows that get no label in time."),
        delay_state=_text("Of the time that labels take."),
    ),
    rollout=_ROLLOUT,
    run=_object("The newest run of retraining.", null=True, id=_text("Its name.")),
    decision=_object("The newest decision of a trigger.", null=True, id=_text("Its name.")),
    processes=_by("Our own, by name: pid, cpu_s, memory_bytes, restarts.", _by("One.", _ANY)),
    server=_SERVER,
    gpus=_list(
        "On which the model server runs.",
        _object(
            "One GPU.",
            gpu=_number("Its index."),
            utilization_ratio=_number("Share of time it was busy, with whatever."),
            memory_bytes=_number("Of the server's processes."),
        ),
    ),
    energy_source=_text("rapl: measured; model: from resources.watts_per_core.", null=True),
    cost=_object(
        "From resources.price, of the last hour; null without prices.",
        null=True,
        currency=_text("As configured."),
        per_thousand_predictions=_number("Null for the first minute.", null=True),
        per_month=_number("A month like the last hour.", null=True),
    ),
    absent=_by("What cannot be read, and why.", {"type": "string"}),
)
