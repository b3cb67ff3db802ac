"""`remora status` as a person reads it: what needs attention first, figures with units, and nothing
of what there is nothing of.
"""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.status import print_status, troubles
from tests.admin.stand_in import StandIn
from tests.admin.stand_in_detection import DETECTION, QUIET
from tests.admin.stand_in_service import SERVICE, SHADOW

SAID = (
    "attention: source tap (eth0 port 8000) refused: needs CAP_NET_RAW",
    "attention: objective answers: its budget burns fast",
    "attention: the model server was killed for memory 2 times",
    "attention: the memory budget cannot be held, even at the lowest sampling rate",
    "25 % of requests, 100 % asked for: lowered to hold sampling.cpu_budget; 100 % of errors",
    "CPU 0.093 of 0.1 cores, memory 128 MiB of 256 MiB, rows 220 of 500 a second",
    "memory 3,584 MiB of 4,096 MiB, CPU 1 h 6 min, 2 cores allowed, held back 1 min 15 s",
    "18 threads, 104 open files, received 12,288 MiB, sent 3,072 MiB",
    "GPU 0: 87 % busy, 12,288 MiB",
    "7,200,000 J, measured by RAPL",
    "0.000217 EUR for 1,000 predictions, 371 EUR a month",
    "answered 123 of 500",
    "of 120 pairs of answers 3 differ (2.5 %)",
    "because: slot B is ready",
    "v7 predict 4.2 ms 9.1 ms 11 ms 1.25 s",
    "answers 99.9 % 41 % 21 18 15 4 0.8",
    "fast 99 % none – 0.2 0.2 0.3 0.6",
    "v7 1,000 73,500 2,340,000 38 ms 410 ms 17 ms 25 ms stop 90 %, tool_calls 10 %",
    "absent: gpu: no device",
)
DETECTED = (
    # What stands, by kind, after what is wrong with the service.
    "sampling rate attention: concept drift: calibration (drift)",
    "attention: data drift: hours_per_week, workclass (drift); age in north (warning)",
    "attention: data quality: workclass (warning)",
    "attention: quality: sex:disparate_impact, estimation (warning)",
    # Facts.
    "concept: bernoulli ok, calibration drift, adwin warning",
    "multivariate: drift: education_num 52 %, age 41 % go otherwise",
    "columns missing or unexpected: campaign; values of another type: education_num",
    "no longer varies: capital_loss; rows that are copies; new categories: workclass "
    "(gig 14 %, platform 0.3 %); new categories: native_country",
    "5,138 of 1,284,551 (0.4 %); the oddest is row 1,281,007: capital_gain high",
    "join_ratio: 0.83",
    # Tables.
    "drift data drift workclass – – warning data drift age in north",
    "accuracy 0.812 0.801 to 0.823 5,000 0.829 0.821 to 0.837 10,000 betting",
    "calibration error 0.083 – 5,000 – – – none",
    "roc auc – – – 0.871 0.865 to 0.877 10,000",
    "Intervals: betting: holds at every look at once; asymptotic:",
    "Estimates do not hold: labels contradict them.",
    "sex disparate impact 0.61 0.57 to 0.65 10,000 0.8 beyond it",
    "sex female 30 % 61 % 8 % 3,300",
    "Parts of the stream by region",
    "north 640,112 ok 8, warning 1, drift 2 hours_per_week, workclass, age",
)


def shown(answer: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    print_status(answer)
    return " ".join(capsys.readouterr().out.split())


def test_everything_is_said_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    view = StandIn(hostile=False)
    view.service, view.rollout = deepcopy(SERVICE) | deepcopy(DETECTION), deepcopy(SHADOW)
    text = shown(view.status(), capsys)
    for words in (*SAID, *DETECTED):
        assert words in text, words
    assert text.startswith("attention: source tap")
    assert "route 3 confirmed" not in text
    assert "channel_full 12" in text


def test_nothing_is_said_of_what_there_is_nothing_of(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown({"model": "m", "drops": {"tap_gap": 0}, "slo": [], "server": {}}, capsys)
    assert text == "model: m"


def test_a_quiet_day_needs_no_attention(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(deepcopy(QUIET), capsys)
    assert "attention" not in text
    for words in ("What stands", "Fairness", "Parts of", "contradict"):
        assert words not in text, words
    for words in (
        "odd rows: 902 of 1,284,551 (0.07 %)",
        "multivariate: ok",
        "data quality: ok",
        "concept: bernoulli ok, calibration ok",
    ):
        assert words in text, words


def test_a_projection_that_a_feature_explains_is_no_news(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = deepcopy(DETECTION)
    for one in answer["multivariate"]["drifted"]:
        one["explained_by"] = ["age"]
    text = shown(answer, capsys)
    assert "multivariate: drift, explained by age data quality" in text
    assert "go otherwise" not in text


def test_of_much_that_stands_the_first_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    one = DETECTION["standing"][1]
    many = [{**one, "subject": f"f{place}"} for place in range(30)]
    text = shown({"standing": many}, capsys)
    assert text.startswith("attention: data drift: f0, f1, f2, f3, f4 and 25 more (drift)")
    assert "and 10 more: --json has them" in text
    assert "f20 " not in text


def test_a_canary_shows_its_step_and_no_copies(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown({"rollout": {"state": "canary", "step": 1, "reason": "is up"}}, capsys)
    assert "step 1" in text
    assert "because is up" in text
    assert "copies" not in text


def test_a_burn_is_trouble_only_when_both_windows_are_over() -> None:
    def burns(**burn: float) -> list[str]:
        return list(troubles({"slo": [{"name": "a", "burn": burn, "remaining": 0.5}]}))

    assert burns(**{"1h": 20.0, "5m": 1.0}) == []
    assert burns(**{"6h": 7.0, "30m": 7.0}) != []
    assert list(troubles({"upstream": "unreachable"})) != []


KEYS = (
    *("rate", "name", "burn", "cpu", "state", "x", "kind", "value", "lower", "metrics", "groups"),
    *("drifted", "columns", "features", "oddest", "outliers", "segments", "new_category"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYS), below),
    max_leaves=8,
)


@settings(max_examples=120)
@given(
    st.dictionaries(
        st.sampled_from((*SERVICE, *DETECTION, "rollout", "drops", "decision", "absent")), JSON
    )
)
def test_another_agents_answer_never_breaks_it(answer: dict[str, Any]) -> None:
    print_status(answer)
