"""What language models said, as metric families: tokens, their times, how answers ended.

Pure, and bounded: versions by `agent.generation_totals`, every other label by a closed set. A
model that generates nothing has none of these families.
"""

from itertools import accumulate, pairwise

from agent.generation_totals import Times
from agent.scrape import Row, ScrapeInput, family
from exporters.prometheus import Family, Histogram

_SLACK = 1e-6  # ten weights of 1.3 add up to a little less than 13
_WEIGHTED = "Weighted by inverse probability when sampled."


def generation_families(seen: ScrapeInput) -> list[Family]:
    """Families with rows for each version that generated something."""
    first: list[Row] = []
    each: list[Row] = []
    tokens: list[Row] = []
    reasons: list[Row] = []
    bases: list[Row] = []
    for version, sums in sorted(seen.generations.items()):
        labels = (seen.model, version)
        first.append((labels, _histogram(sums.first_token)))
        each.append((labels, _histogram(sums.per_token)))
        tokens.append(((*labels, "input"), sums.input_tokens))
        tokens.append(((*labels, "output"), sums.output_tokens))
        reasons += [((*labels, name), count) for name, count in sums.finish_reasons.items()]
        bases += [((*labels, name), count) for name, count in sums.bases.items()]
    return [
        family(
            "time_to_first_token_seconds",
            "histogram",
            f"Of streamed answers: to the first byte of the body. {_WEIGHTED}",
            "model version",
            first,
        ),
        family(
            "time_per_output_token_seconds",
            "histogram",
            f"Of streamed answers: time after the first token by the tokens after it. {_WEIGHTED}",
            "model version",
            each,
        ),
        family(
            "tokens_total",
            "counter",
            "Tokens as the server reported them, or else pieces of the stream that were counted. "
            f"{_WEIGHTED}",
            "model version kind",
            tokens,
        ),
        family(
            "finish_reasons_total",
            "counter",
            f"Answers of language models by how they ended. {_WEIGHTED}",
            "model version reason",
            reasons,
        ),
        family(
            "generations_total",
            "counter",
            "Answers of language models by where the number of output tokens is from: usage, "
            "counted pieces, pieces counted in a copy that was cut, unknown, or none made. "
            f"{_WEIGHTED}",
            "model version tokens",
            bases,
        ),
    ]


def _histogram(times: Times) -> Histogram:
    """With whole counts, which is all that OpenMetrics allows: sums of weights rounded down.

    It is the running sums that are rounded, so that none of them ever falls.
    """
    running = [int(count + _SLACK) for count in accumulate(times.counts)]
    counts = tuple(now - before for before, now in pairwise((0, *running)))
    return Histogram(bounds=times.bounds_s, counts=counts, sum=times.sum_s)
