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


def shown(answer: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    print_status(answer)
    return " ".join(capsys.readouterr().out.split())


def test_everything_is_said_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    view = StandIn(hostile=False)
    view.service, view.rollout = deepcopy(SERVICE), deepcopy(SHADOW)
    text = shown(view.status(), capsys)
    for words in SAID:
        assert words in text, words
    assert text.startswith("attention: source tap")
    assert "route 3 confirmed" not in text
    assert "channel_full 12" in text


def test_nothing_is_said_of_what_there_is_nothing_of(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown({"model": "m", "drops": {"tap_gap": 0}, "slo": [], "server": {}}, capsys)
    assert text == "model: m"


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.sampled_from(("rate", "name", "burn", "cpu", "state", "x")), below)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from((*SERVICE, "rollout", "drops", "decision", "absent", "quality")), JSON
    )
)
def test_another_agents_answer_never_breaks_it(answer: dict[str, Any]) -> None:
    print_status(answer)
