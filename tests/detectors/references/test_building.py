"""Building from columns in memory: what cannot be meant is refused, with the mend."""

from typing import Any

import numpy as np
import pytest

from detectors import ProfileError, build_reference


@pytest.mark.parametrize("role", ["prediction", "score", "label", "segment"])
def test_a_column_that_is_named_and_not_there_is_refused(role: str) -> None:
    columns = {"age": np.arange(500) % 70, "default": np.arange(500) % 2}
    named: dict[str, Any] = {role: "defualt"}
    with pytest.raises(ProfileError, match=f"{role} 'defualt'.*did you mean 'default'"):
        build_reference(columns, **named)


def test_a_column_of_another_length_is_refused_where_it_is_named() -> None:
    with pytest.raises(ProfileError, match="label 'y' has 3 rows"):
        build_reference({"x": np.ones(5), "z": np.ones(5), "y": np.ones(3)}, label="y")
