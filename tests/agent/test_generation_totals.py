"""Sums of what language models said: weighted, bounded, and from zero after a restart."""

from dataclasses import replace
from typing import Any

from agent.generation import Generation
from agent.generation_families import generation_families
from agent.generation_totals import OVERFLOW, VERSIONS_MAX, GenerationTotals
from exporters.prometheus import Histogram
from tests.exporters.full_scrape import named, scrape_input


def generation(**other: Any) -> Generation:
    fields: dict[str, Any] = {
        "version": "v1", "weight": 1.0, "streamed": True, "whole": True, "duration_s": 1.0,
        "first_token_s": 0.5, "input_tokens": 10, "output_tokens": 6, "basis": "usage",
        "finish_reasons": ("stop",),
    }  # fmt: skip
    return Generation(**(fields | other))


SEEN = scrape_input()


def shown(totals: GenerationTotals, name: str) -> dict[tuple[str, ...], Any]:
    made = generation_families(replace(SEEN, generations=totals.versions))
    return dict(named(made, name).rows)


def test_an_answer_counts_for_as_many_as_it_stands_for() -> None:
    totals = GenerationTotals()
    totals.take(generation(weight=4.0))
    totals.take(generation(finish_reasons=("length", "stop")))
    tokens = shown(totals, "tokens_total")
    assert tokens["income", "v1", "input"] == 50.0
    assert tokens["income", "v1", "output"] == 30.0
    reasons = shown(totals, "finish_reasons_total")
    assert reasons["income", "v1", "stop"] == 5.0
    assert reasons["income", "v1", "length"] == 1.0
    assert reasons["income", "v1", "error"] == 0.0
    first = shown(totals, "time_to_first_token_seconds")["income", "v1"]
    assert (sum(first.counts), first.sum) == (5, 2.5)


def test_buckets_of_broken_weights_are_whole_and_never_fall() -> None:
    totals = GenerationTotals()
    before: list[int] = []
    for turn in range(200):
        totals.take(generation(weight=1.3, first_token_s=0.004 * turn))
        made = shown(totals, "time_to_first_token_seconds")["income", "v1"]
        assert isinstance(made, Histogram)
        assert all(type(count) is int and count >= 0 for count in made.counts)
        running = [sum(made.counts[: place + 1]) for place in range(len(made.counts))]
        assert all(now >= was for was, now in zip(before, running, strict=False))
        before = running
    assert before[-1] == int(200 * 1.3)


def test_what_is_not_known_is_not_added() -> None:
    totals = GenerationTotals()
    totals.take(
        generation(
            first_token_s=None, input_tokens=None, output_tokens=None, basis="unknown",
            streamed=False, finish_reasons=(),
        )
    )  # fmt: skip
    assert sum(shown(totals, "time_to_first_token_seconds")["income", "v1"].counts) == 0
    assert sum(shown(totals, "time_per_output_token_seconds")["income", "v1"].counts) == 0
    assert shown(totals, "generations_total")["income", "v1", "unknown"] == 1.0
    assert not any(shown(totals, "finish_reasons_total").values())


def test_one_token_takes_the_time_after_it_once() -> None:
    alone = generation(output_tokens=1)
    assert alone.per_token_s == 0.5
    assert generation(output_tokens=0).per_token_s is None
    assert generation(first_token_s=2.0).per_token_s == 0.0


def test_versions_without_end_share_one_row() -> None:
    totals = GenerationTotals()
    for number in range(VERSIONS_MAX + 100):
        totals.take(generation(version=f"v{number}"))
    assert len(totals.versions) == VERSIONS_MAX + 1
    assert totals.versions[OVERFLOW].output_tokens == 600.0


def test_a_model_that_generates_nothing_has_no_such_families() -> None:
    assert all(not family.rows for family in generation_families(replace(SEEN, generations={})))
