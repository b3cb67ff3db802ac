"""The budget: one false alarm a month, split so that the parts add up to no more."""

import math
from typing import Any

import pytest

from detectors.budget import SHARES, Budget
from detectors.catalog import DETECTORS


def test_the_shares_are_those_that_were_promised() -> None:
    concept = SHARES["error_rate"] + SHARES["calibration"] + SHARES["label"]
    quality = SHARES["data_quality"] + SHARES["estimation"]
    assert (SHARES["data"], SHARES["projections"], SHARES["prediction"]) == (0.5, 0.1, 0.1)
    assert concept == pytest.approx(0.2)
    assert quality == pytest.approx(0.1)
    assert math.fsum(SHARES.values()) == pytest.approx(1.0)
    assert DETECTORS  # each of them takes its share from here


def test_replicas_that_decide_for_themselves_share_it() -> None:
    assert Budget(replicas=4).of("data") == 0.125
    assert Budget(false_alarms_per_month=3).of("prediction") == pytest.approx(0.3)


@pytest.mark.parametrize(
    "senseless",
    [
        {"false_alarms_per_month": 0.0},
        {"false_alarms_per_month": math.inf},
        {"ticks_per_month": math.nan},
        {"ticks_per_month": -1.0},
        {"replicas": 0},
        {"shares": {"data": 0.9, "prediction": 0.2}},
    ],
)
def test_what_is_no_budget_is_refused(senseless: Any) -> None:
    with pytest.raises(ValueError, match=r"above 0 and finite|more than all"):
        Budget(**senseless)
