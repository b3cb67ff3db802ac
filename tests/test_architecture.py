"""What import-linter cannot say: who may import what, from the side of the allowed."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent", "detectors", "exporters", "retrain")
EDGE_MAY_IMPORT = {"uvloop", "httptools", *sys.stdlib_module_names}
# Present in a full environment, absent from a base install.
EXTRAS = {
    "PIL", "evidently", "mlflow", "onnx", "onnxruntime", "onnxscript", "pandas", "pyarrow", "ray",
    "river", "safetensors", "scipy", "sklearn", "torch",
}  # fmt: skip
# Run in processes of their own, where heavy imports are at home.
JOBS = (
    "agent.concept_child",
    "agent.demo",
    "exporters.evidently",
    "exporters.mlflow",
    "retrain.compress",
    "retrain.pipeline",
    "retrain.runners",
)
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "base", "misc"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def test_the_edge_imports_only_itself_and_what_it_may(graph: grimp.ImportGraph) -> None:
    edge = {"agent.edge", *graph.find_descendants("agent.edge")}
    imported = {
        f"{module} -> {other}"
        for module in edge
        for other in graph.find_modules_directly_imported_by(module)
        if other not in edge and other.partition(".")[0] not in EDGE_MAY_IMPORT
    }
    assert imported == set()


def test_importing_any_module_of_a_base_install_loads_no_extra(graph: grimp.ImportGraph) -> None:
    light = sorted(
        module
        for module in graph.modules
        if module.partition(".")[0] in PACKAGES
        and not any(module == job or module.startswith(job + ".") for job in JOBS)
        and not module.endswith("__main__")
    )
    code = (
        "import importlib, json, sys\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert EXTRAS & set(json.loads(done.stdout)) == set()


def test_no_file_has_a_name_that_says_nothing() -> None:
    named = {
        path.relative_to(ROOT)
        for package in (*PACKAGES, "tests")
        for path in (ROOT / package).rglob("*.py")
        if path.stem in FORBIDDEN_NAMES
    }
    assert named == set()


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_lock_file_knows_every_dependency_and_no_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    lock = (ROOT / "requirements-dev.lock").read_text()
    locked = {line.partition("==")[0] for line in lock.splitlines() if "==" in line}
    missing = {
        requirement
        for requirement in wanted
        if _name(requirement) not in locked | {"torch"}  # constraints.txt pins torch
    }
    assert missing == set(), "run `make lock`"
    assert "://" not in lock, "an index or a path of one machine stands in the lock file"


def _name(requirement: str) -> str:
    for sign in "<>=!~[; ":
        requirement = requirement.partition(sign)[0]
    return requirement.lower().replace("_", "-")
