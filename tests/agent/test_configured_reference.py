"""The reference of the configuration: with a key named, only what is signed with it is taken."""

from pathlib import Path

import numpy as np
import pytest

from agent.config.detection import ReferenceConfig
from agent.configured_reference import configured_reference
from detectors import ProfileError, Reference, build_reference

KEY = b"sixteen bytes at least"


@pytest.fixture
def reference() -> Reference:
    return build_reference({"age": np.arange(1_000) % 80})


def written(folder: Path, reference: Reference, key: bytes = KEY) -> ReferenceConfig:
    (folder / "reference.json").write_bytes(reference.to_bytes())
    (folder / "reference.key").write_bytes(key + b"\n")
    return ReferenceConfig(path=folder / "reference.json", key_file=folder / "reference.key")


def test_what_is_signed_with_the_key_is_taken(tmp_path: Path, reference: Reference) -> None:
    config = written(tmp_path, reference.sign(KEY))
    assert configured_reference(config) == reference


def test_without_a_path_there_is_none_and_without_a_key_any_is_taken(
    tmp_path: Path, reference: Reference
) -> None:
    assert configured_reference(ReferenceConfig()) is None
    path = written(tmp_path, reference).path
    assert configured_reference(ReferenceConfig(path=path)) == reference


def test_nothing_else_is_taken(tmp_path: Path, reference: Reference) -> None:
    for other in (reference, reference.sign(b"another key of somebody")):
        with pytest.raises(ProfileError, match="is not signed with the key"):
            configured_reference(written(tmp_path, other))
    with pytest.raises(ProfileError, match="key"):
        configured_reference(written(tmp_path, reference.sign(KEY), key=b"short"))
