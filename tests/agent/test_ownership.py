"""Somebody else's `detectors` must be named before half of it runs as ours."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.ownership import ForeignPackageError, refuse_foreign_packages

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "crime-lab"
version = "3.1"
[tool.hatch.build.targets.wheel]
packages = ["{package}"]
"""


def install_foreign(package: str, where: Path) -> Path:
    """Really build and install a distribution `crime-lab` that brings the package."""
    source, target = where / "source", where / "site"
    (source / package).mkdir(parents=True)
    (source / package / "__init__.py").write_text("")
    (source / "pyproject.toml").write_text(PYPROJECT.format(package=package))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=50)
    return target


def written_by_hand(where: Path, *, name: str, record: str | None, top_level: str = "") -> str:
    """The least that counts as an installed distribution."""
    info = where / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(top_level)
    if record is not None:
        (info / "RECORD").write_text(record)
    (where / "agent").mkdir(exist_ok=True)
    (where / "agent.py").touch()
    return str(where)


def test_this_environment_passes() -> None:
    refuse_foreign_packages()


def test_it_is_cheap() -> None:
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        refuse_foreign_packages()
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.030


@pytest.mark.slow
def test_an_installed_foreign_distribution_is_named(tmp_path: Path) -> None:
    site = install_foreign("detectors", tmp_path)
    with pytest.raises(ForeignPackageError) as caught:
        refuse_foreign_packages([str(site), *sys.path])
    message = str(caught.value)
    assert "'detectors'" in message
    assert "'crime-lab' 3.1" in message
    assert "pip uninstall crime-lab" in message
    assert "\n" not in message


@pytest.mark.slow
def test_a_foreign_package_that_python_would_import_first_is_named(tmp_path: Path) -> None:
    site = install_foreign("detectors", tmp_path)
    for leftover in site.glob("*.dist-info/RECORD"):
        leftover.unlink()  # as behind a .pth file: the package is there, no list names it
    code = (
        "import sys, agent.ownership as o\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "try: o.refuse_foreign_packages()\n"
        "except o.ForeignPackageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"'detectors' is taken by {site}" in done.stdout


def test_our_own_distribution_may_own_our_packages(tmp_path: Path) -> None:
    site = written_by_hand(tmp_path, name="Remora", record="agent/__init__.py,,\n")
    refuse_foreign_packages([site])


def test_a_single_module_of_our_name_counts(tmp_path: Path) -> None:
    site = written_by_hand(tmp_path, name="spy", record="README,,\nagent.py,,\n")
    with pytest.raises(ForeignPackageError, match=r"'agent' is also owned by .* 'spy' 1\.0"):
        refuse_foreign_packages([site])


def test_a_distribution_without_a_list_of_files_is_known_by_its_top_level(tmp_path: Path) -> None:
    site = written_by_hand(tmp_path, name="old-spy", record=None, top_level="agent\n")
    with pytest.raises(ForeignPackageError, match="old-spy"):
        refuse_foreign_packages([site])


def test_names_that_only_begin_like_ours_are_nobodys_business(tmp_path: Path) -> None:
    site = written_by_hand(tmp_path, name="agents", record="agents/__init__.py,,\nx/agent/a.py,,\n")
    refuse_foreign_packages([site])
