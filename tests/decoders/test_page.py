"""docs/decoders.md names every protocol and every reason, with what the code says of it."""

from pathlib import Path

import pytest

from agent.decoders.catalog import CATALOG
from agent.decoders.decoder import REMEDY, DecodeReason

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "decoders.md").read_text()


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_protocol_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("reason", list(DecodeReason))
def test_every_reason_is_on_the_page_in_the_words_of_the_code(reason: DecodeReason) -> None:
    assert f"| `{reason.value}` | {REMEDY[reason]} |" in PAGE
