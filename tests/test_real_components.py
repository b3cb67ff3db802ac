"""The real tests are only as real as what they find: in CI all of it must be there."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

PROGRAMS = {
    "nginx": "-v",
    "wrk": "-v",
    "curl": "--version",
    "haproxy": "-v",
    "h2load": "--version",
    "strace": "-V",
    "prometheus": "--version",
    "promtool": "--version",
    "alertmanager": "--version",
    "pushgateway": "--version",
    "chromium": "--version",
    "openssl": "version",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_runs(name: str, program: Callable[[str], Path]) -> None:
    done = subprocess.run(
        [program(name), PROGRAMS[name]], capture_output=True, text=True, timeout=50, check=False
    )
    assert name in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("name", ["mlserver", "mlflow"])
def test_the_server_environment_has_its_server(
    name: str, server_environment: Callable[[str], Path]
) -> None:
    assert (server_environment(name) / name).exists()
