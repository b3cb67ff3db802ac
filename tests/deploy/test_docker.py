"""The image: what the Dockerfile promises, read from it, and its health check run for real."""

import http.server
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"

Step = tuple[str, str]


@pytest.fixture(scope="module")
def stages() -> list[list[Step]]:
    """Per stage its instructions, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M)
    steps = [tuple(line.split(None, 1)) for line in text.replace("\\\n", " ").splitlines() if line]
    found: list[list[Step]] = []
    for name, rest in steps:
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest.strip()))
    return found


def only(steps: list[Step], name: str) -> str:
    (value,) = [rest for step, rest in steps if step == name]
    return value


def test_it_builds_in_one_stage_and_runs_in_another(stages: list[list[Step]]) -> None:
    assert len(stages) == 2
    assert not [rest for name, rest in stages[1] if name == "RUN"]
    copied = [rest for name, rest in stages[1] if name == "COPY"]
    assert all(rest.startswith("--from=build ") for rest in copied)


def test_no_registry_or_index_is_named(stages: list[list[Step]]) -> None:
    for steps in stages:
        image = only(steps, "FROM").split()[0]
        assert "/" not in image.replace("${PYTHON}", "")
    assert "://" not in re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M)


def test_it_runs_as_nobody_in_particular_and_stops_when_asked(stages: list[list[Step]]) -> None:
    final = stages[1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", only(final, "USER"))
    assert only(final, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(only(final, "ENTRYPOINT")) == ["remora", "run"]
    assert only(final, "VOLUME") == "/var/lib/remora"
    owner = only(final, "USER")
    assert ("COPY", f"--from=build --chown={owner} /empty /var/lib/remora") in final
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"VERSION={project['version']}" in [rest for name, rest in final if name == "ARG"]


def test_everything_copied_exists_and_is_let_in(stages: list[list[Step]]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored, "what is not named stays out"
    sources = [source for name, rest in stages[0] if name == "COPY" for source in rest.split()[:-1]]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert set(wheel["targets"]["wheel"]["packages"]) <= set(sources)


def test_every_base_dependency_is_held_at_the_version_that_was_tested() -> None:
    script = re.search(r"sed -n '([^']+)' requirements-dev\.lock", DOCKERFILE.read_text())
    assert script is not None
    done = subprocess.run(
        ["sed", "-n", script[1], ROOT / "requirements-dev.lock"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    pins = dict(line.split("==") for line in done.stdout.splitlines())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=!~\[ ]", dependency)[0] for dependency in project["dependencies"]}
    assert wanted <= set(pins)
    assert "hatchling" in pins


@contextmanager
def answering(status: int) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", ""])
@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_says_what_healthz_says(
    stages: list[list[Step]], host: str, status: int, code: int
) -> None:
    argv = json.loads(only(stages[1], "HEALTHCHECK").partition("CMD ")[2])
    assert argv[0] == "python"
    with answering(status) as port:
        done = subprocess.run(
            [sys.executable, *argv[1:]],
            env={"REMORA_ADMIN__LISTEN": f"{host}:{port}"},
            timeout=30,
            check=False,
        )
    assert done.returncode == code


def test_the_health_check_fails_when_nobody_answers(stages: list[list[Step]]) -> None:
    argv = json.loads(only(stages[1], "HEALTHCHECK").partition("CMD ")[2])
    done = subprocess.run(
        [sys.executable, *argv[1:]],
        env={"REMORA_ADMIN__LISTEN": "127.0.0.1:1"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0


@pytest.mark.real
def test_hadolint_finds_nothing(server_environment: Callable[[str], Path]) -> None:
    done = subprocess.run(
        [server_environment("deploy_lint") / "hadolint", DOCKERFILE],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
