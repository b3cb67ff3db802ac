"""A house per test: the stand-in view behind a real uvicorn and a real front desk."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.admin.house import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path) as served:
        yield served


@pytest.fixture
async def fortress(tmp_path: Path) -> AsyncIterator[House]:
    """The same as it is beyond loopback: nothing without a token, metrics neither."""
    async with House(tmp_path, open_reads=False, metrics=True) as served:
        yield served
