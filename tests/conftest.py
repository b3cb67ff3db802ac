"""What all tests share: property-test profiles, and real components that are there or not.

A real component that is missing skips its test with the reason, and fails it when `CI` is set:
never catch that yourself, ask `program` or `server_environment`.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
CI = bool(os.environ.get("CI"))

# No deadlines: how long one example takes says more about the machine than about the code.
settings.register_profile(
    "dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", settings.get_profile("dev"), max_examples=100, derandomize=True, print_blob=True
)
settings.register_profile("deep", settings.get_profile("dev"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if CI else "dev"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real servers take their time to start on a busy machine: 120 s are not unheard of."""
    for item in items:
        if item.get_closest_marker("real") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))


def absent(what: str) -> NoReturn:
    """End the test: a failure in CI, a skip elsewhere."""
    if CI:
        pytest.fail(f"{what} is missing, and CI is set", pytrace=False)
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="session")
def program() -> Callable[[str], Path]:
    """`program("nginx")` is the path of a program that `tests/install_system.sh` installs."""

    def find(name: str) -> Path:
        places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/bin"])
        found = shutil.which(name, path=places) or shutil.which(f"prometheus-{name}", path=places)
        return Path(found) if found else absent(f"the program {name}")

    return find


@pytest.fixture(scope="session")
def server_environment() -> Callable[[str], Path]:
    """`server_environment("mlserver")` is the bin folder of the venv that `make servers` made."""

    def find(name: str) -> Path:
        home = ROOT / ".venv-servers" / name
        return home / "bin" if (home / ".installed").exists() else absent(f"the server {name}")

    return find
