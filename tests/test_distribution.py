"""What people install: the wheel has all that the code reads, and runs without any extra."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "detectors", "exporters", "retrain")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=50)
    return next(folder.glob("remora-*.whl"))


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    present = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert present - packed == set()
    assert {name.partition("/")[0] for name in packed} == set(PACKAGES)


def test_every_package_says_that_it_is_typed(wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel).namelist()
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(packed)


@pytest.mark.real
def test_a_base_install_runs_and_says_which_extra_a_command_needs(
    wheel: Path, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    home = tmp_path / "venv" / "bin"
    subprocess.run([home / "python", "-m", "pip", "install", "--quiet", wheel], check=True)

    def remora(*arguments: str) -> subprocess.CompletedProcess[str]:
        # Far away from the checkout, and with nobody's PYTHONPATH: only the install counts.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command: list[str | Path] = [home / "remora", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    helped = remora("--help")
    assert helped.returncode == 0, helped.stderr
    assert "run" in helped.stdout.split()
    demo = remora("demo")
    assert demo.returncode == 2, demo.stderr
    assert "pip install 'remora[retrain]'" in demo.stderr
