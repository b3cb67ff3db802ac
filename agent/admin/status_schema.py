"""What `GET /api/v1/status` answers, described for the API's document.

Members that are not known yet, or that nothing was configured for, are null or empty; figures that
cannot be read are missing, and `absent` says why. A test holds a running agent's answer to this.
"""

from typing import Final

from agent.admin.detection_schema import DETECTION
from agent.admin.json_schema import Json, by_name, flag, listed, members, number, text

_COUNT: Final[Json] = {"type": "number"}
_ANY: Final[Json] = {}
_RATIO_OF_TIME: Final[Json] = {"type": ["number", "null"]}

_SOURCE: Final = members(
    "One configured source.",
    kind=text("proxy, tap, push, tail ..."),
    of=text("What it listens to or reads."),
    state=text("runs, starts, waits or refused."),
    reason=text("Why it does not run.", null=True),
    completeness=number("Share of what passed that was seen; null: it cannot know.", null=True),
    dropped=by_name("What it lost, by reason.", _COUNT),
)
_SAMPLING: Final = members(
    "How much of the traffic is looked at.",
    rate=number("The uniform rate in force."),
    asked=number("The rate that is configured."),
    errors=number("Probability with which an error is kept; 0: as all others."),
    kept=number("Share of requests that an edge keeps at least."),
    failed_ratio=number("Share of errors among what was seen; null before any.", null=True),
)
_GOVERNOR: Final = members(
    "What the sampling rate is lowered for.",
    scale=number("Factor on everything that is asked for."),
    why=text("none, cpu, memory or rows."),
    explain=text("The same as a sentence."),
    since=number("Unix time of the last change."),
    changes=number("How often it changed."),
    cpu=members(
        "Capture, decoding and detection.",
        budget_cores=number("The budget."),
        used_cores=number("In use, smoothed."),
    ),
    memory=members(
        "All processes but jobs and opt-in children.",
        budget_bytes=number("The budget."),
        used_bytes=number("In use; null before the first look.", null=True),
    ),
    rows=members(
        "Rows looked at.",
        budget_per_s=number("The budget; null: none.", null=True),
        used_per_s=number("At present."),
    ),
    held=by_name("Budgets, and whether each is held.", {"type": "boolean"}),
)
_LATENCY: Final = members(
    "Of the last minutes, every kept request counted for as many as it stands for.",
    version=text("The model's version."),
    route=text("A named route of the proxy, or other."),
    p50_s=number("Seconds."),
    p90_s=number("Seconds."),
    p95_s=number("Seconds."),
    p99_s=number("Seconds."),
)
_OBJECTIVE: Final = members(
    "One of `slo`.",
    name=text("Its name."),
    objective=number("Share of requests that are to be good."),
    burn=by_name(
        "By window (5m, 30m, 1h, 6h, 3d): how many times as fast as allowed the budget of bad "
        "requests is used; null without requests.",
        _RATIO_OF_TIME,
    ),
    remaining=number("Share of the budget that is left; below 0 when more than all was used."),
)
_TIMES: Final = members(
    "Seconds; null before the first streamed answer.",
    p50_s=number("Median.", null=True),
    p99_s=number("99 % are within it.", null=True),
)
_GENERATIONS: Final = members(
    "What a version of a language model said since the agent started, weighted when sampled.",
    version=text("The model's version."),
    answers=number("Answers."),
    input_tokens=number("Tokens of prompts."),
    output_tokens=number("Tokens of answers."),
    first_token=_TIMES,
    per_token=_TIMES,
    finish_reasons=by_name("Answers by how they ended.", _COUNT),
    bases=by_name("Answers by where the number of output tokens is from.", _COUNT),
)
_SERVER: Final = members(
    "What the model server uses. Counts rise for as long as the agent lives.",
    cpu_s=number("CPU time."),
    memory_bytes=number("Resident memory."),
    threads=number("Threads."),
    fds=number("Open file descriptors."),
    cgroup_memory_bytes=number("Memory of its control group, caches included."),
    memory_limit_bytes=number("Beyond it the server is killed."),
    cpu_limit_cores=number("Beyond it the server is throttled."),
    throttled_s=number("Time for which it was kept from running by that limit."),
    oom_kills=number("Processes killed for memory."),
    received_bytes=number("Over its interfaces but loopback."),
    sent_bytes=number("Over its interfaces but loopback."),
    energy_j=number("Energy of the processor for its share of the time; see energy_source."),
)
_PAIRS: Final = members(
    "Answers of both models to one request.",
    compared=number("Pairs."),
    disagreeing=number("Pairs that differ."),
    disagreement=number("Their share; null before the first pair.", null=True),
    unpaired=by_name("Answers to copies that found no other, by reason.", _COUNT),
)
_ROLLOUT: Final = members(
    "The candidate on trial.",
    null=True,
    id=text("Its name."),
    candidate=text("Digest of the candidate."),
    stable=text("Digest of the stable model."),
    state=text("staging, shadow, canary, held, promoting, baking, rolling_back ..."),
    because=text("What decided: the evidence, or the person."),
    reason=text("Of the last step."),
    weight=number("The candidate's share of requests."),
    step=number("Of `steps`, from 0; -1 before the first."),
    steps=listed("Shares of a canary.", _COUNT),
    strategy=text("canary, immediate or shadow."),
    shadow_share=number("Share of requests that is copied before the canary; 0: no copies."),
    copies_min=number("Copies that must have been answered; 0 without copies."),
    copies_answered=number("Copies answered, while it is a shadow."),
    pairs=_PAIRS,
    assessment=members("What was measured last.", words=text("In a sentence.")),
    requests=number("Answered by the candidate."),
    bake_requests=number("Since it was promoted."),
    promoted=flag("Whether it is the stable model now."),
    paused=flag("By a person."),
    frozen=flag("The stable model is unwell, so nothing is concluded."),
    started_at=number("Unix time."),
    entered_at=number("Unix time at which it came into its state."),
)
STATUS: Final = members(
    "Everything at a glance.",
    DETECTION,
    model=text("Its name."),
    stable=members(
        "The version that serves.",
        version=text("Its name."),
        digest=text("Of its artifact.", null=True),
        address=text("Where it is served.", null=True),
        slot=text("A or B."),
    ),
    role=text("What this agent does: all, or a part."),
    uptime_s=number("Since it started."),
    config_digest=text("Of the configuration in force."),
    protocol=by_name("Protocols found, by path.", {"type": "string"}),
    reference=members(
        "What is compared against; null while it is learnt.",
        null=True,
        digest=text("Of its profile."),
        rows=number("Rows it is from."),
        learnt=flag("From traffic."),
        accepted=flag("By a person."),
        provisional=flag("Made from the first rows only."),
    ),
    learning=members(
        "How far the reference is learnt; null when it is there.",
        null=True,
        rows=number("Rows so far."),
        of=number("Rows needed."),
    ),
    sampling=_SAMPLING,
    governor=_GOVERNOR,
    sources=listed("In the order of the configuration.", _SOURCE),
    upstream=text("answers, unreachable, or no requests yet."),
    rows_total=number("Rows watched."),
    requests_total=number("Requests that passed."),
    drops=by_name("What was not looked at, by reason.", _COUNT),
    undecoded=listed("The newest reasons why something could not be decoded.", {"type": "string"}),
    latency=listed("By version and route.", _LATENCY),
    slo=listed("The configured objectives.", _OBJECTIVE),
    generations=listed("By version; empty for what is no language model.", _GENERATIONS),
    labels=by_name("Labels by what became of them.", _COUNT),
    label_cohorts=members(
        "When labels are believed, and whether they come as they did.",
        maturity_s=number("Age from which on a prediction's label is used."),
        waiting=number("Joined rows that are younger."),
        join_ratio=number("Of rows older than that, the share with a label.", null=True),
        join_state=text("Of the share of rows that get no label in time."),
        delay_state=text("Of the time that labels take."),
    ),
    rollout=_ROLLOUT,
    run=members("The newest run of retraining.", null=True, id=text("Its name.")),
    decision=members("The newest decision of a trigger.", null=True, id=text("Its name.")),
    processes=by_name(
        "Our own, by name: pid, cpu_s, memory_bytes, restarts.", by_name("One.", _ANY)
    ),
    server=_SERVER,
    gpus=listed(
        "On which the model server runs.",
        members(
            "One GPU.",
            gpu=number("Its index."),
            utilization_ratio=number("Share of time it was busy, with whatever."),
            memory_bytes=number("Of the server's processes."),
        ),
    ),
    energy_source=text("rapl: measured; model: from resources.watts_per_core.", null=True),
    cost=members(
        "From resources.price, of the last hour; null without prices.",
        null=True,
        currency=text("As configured."),
        per_thousand_predictions=number("Null for the first minute.", null=True),
        per_month=number("A month like the last hour.", null=True),
    ),
    absent=by_name("What cannot be read, and why.", {"type": "string"}),
)
