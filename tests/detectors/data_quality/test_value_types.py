"""Types of values, through all that watches the data."""

import numpy as np

from detectors import build_reference
from detectors.data_quality.watch import DataQuality
from detectors.rows.columns import as_table


def said(quality: DataQuality, columns: dict[str, np.ndarray]) -> list[tuple[str, str, str]]:
    changes = quality.update(as_table(columns))
    return [(change.detector, change.subject, change.state.value) for change in changes]


def watch(columns: dict[str, np.ndarray]) -> DataQuality:
    return DataQuality(build_reference(columns), false_alarms_per_month=0.1)


def mixed(rng: np.random.Generator, count: int, numbers: float) -> np.ndarray:
    """Texts, a share of `numbers` among them."""
    column = np.empty(count, dtype=object)
    column[:] = [
        k if number else f"t{k}"
        for k, number in zip(
            rng.integers(0, 9, count).tolist(), (rng.random(count) < numbers).tolist(), strict=True
        )
    ]
    return column


def test_text_among_which_there_always_were_numbers_is_no_change_of_type() -> None:
    rng = np.random.default_rng(18)
    quality = watch({"code": mixed(rng, 3_000, 0.3)})
    heard = [said(quality, {"code": mixed(rng, 1, 0.3)}) for _ in range(3_000)]
    assert [tick for tick in heard if tick] == []
    heard = [said(quality, {"code": mixed(rng, 1, 1.0)}) for _ in range(200)]
    assert [tick for tick in heard if tick] == [[("types", "code", "warning")]]


def test_what_a_small_reference_may_have_missed_is_no_change_of_type() -> None:
    rng = np.random.default_rng(19)

    def readings(count: int, texts: float) -> dict[str, np.ndarray]:
        column = rng.normal(size=count).astype(object)
        column[rng.random(count) < texts] = "n/a"
        return {"x": column}

    quality = watch(readings(500, 0.0))
    heard = [said(quality, readings(200, 0.004)) for _ in range(300)]
    assert [tick for tick in heard if tick] == []
    heard = [said(quality, readings(200, 0.2)) for _ in range(20)]
    assert [tick for tick in heard if tick] == [[("types", "x", "warning")]]
