"""What 1,000 predictions cost: every price by itself, windows, restarts."""

import pytest

from agent.resources.cost import Costs, Prices

GIB = 1 << 30


def cost(
    prices: Prices, *, cpu_s: float = 0.0, energy_j: float = 0.0, gpus: int = 0
) -> float | None:
    """Of half an hour, 500 predictions, and 2 GiB in use."""
    costs = Costs(prices)
    for minute in range(31):
        share = minute / 30
        used = {"cpu_s": 5 + cpu_s * share, "energy_j": energy_j * share, "memory_bytes": 2 * GIB}
        costs.update(used, gpus=gpus, predictions=100 + 500 * share, at=1e9 + 60 * minute)
    return costs.per_thousand


def test_each_price_is_charged_for_what_was_used() -> None:
    assert cost(Prices(currency="EUR", per_hour=4.0)) == pytest.approx(2.0 * 2)
    assert cost(Prices(currency="EUR", per_cpu_hour=3.0), cpu_s=1_200) == pytest.approx(1.0 * 2)
    assert cost(Prices(currency="EUR", per_gib_hour=0.5)) == pytest.approx(0.5 * 2)
    assert cost(Prices(currency="EUR", per_gpu_hour=2.0), gpus=2) == pytest.approx(2.0 * 2)
    assert cost(Prices(currency="EUR", per_kwh=0.3), energy_j=7.2e6) == pytest.approx(0.6 * 2)
    everything = Prices(currency="EUR", per_hour=4.0, per_gib_hour=0.5)
    assert cost(everything) == pytest.approx(5.0)


def test_a_month_is_like_the_last_hour() -> None:
    costs = Costs(Prices(currency="USD", per_hour=2.0))
    for minute in range(10):
        costs.update({}, gpus=0, predictions=minute, at=60.0 * minute)
    assert costs.per_month == pytest.approx(2.0 * 730)


def test_the_first_minute_and_silence_say_nothing() -> None:
    costs = Costs(Prices(currency="USD", per_hour=2.0))
    assert (costs.per_thousand, costs.per_month) == (None, None)
    costs.update({}, gpus=0, predictions=0, at=0.0)
    costs.update({}, gpus=0, predictions=10, at=59.0)
    assert costs.per_thousand is None
    idle = Costs(Prices(currency="USD", per_hour=2.0))
    for minute in range(5):
        idle.update({}, gpus=0, predictions=7, at=60.0 * minute)
    assert idle.per_thousand is None
    assert idle.per_month == pytest.approx(1_460.0)


def test_only_the_last_hour_counts() -> None:
    costs = Costs(Prices(currency="USD", per_hour=1.0))
    for minute in range(600):
        # Ten predictions a minute at first, then a thousand.
        made = 10 * minute if minute < 300 else 3_000 + 1_000 * (minute - 300)
        costs.update({}, gpus=0, predictions=made, at=60.0 * minute)
    assert costs.per_thousand == pytest.approx(1_000 / 60_000, rel=0.02)


def test_a_server_that_was_restarted_and_predictions_counted_anew_give_nothing_back() -> None:
    costs = Costs(Prices(currency="USD", per_cpu_hour=1.0))
    costs.update({"cpu_s": 3_600.0}, gpus=0, predictions=1_000, at=0.0)
    costs.update({"cpu_s": 10.0}, gpus=0, predictions=5, at=60.0)
    costs.update({"cpu_s": 46.0}, gpus=0, predictions=1_005, at=180.0)
    assert costs.per_thousand == pytest.approx(0.01)
