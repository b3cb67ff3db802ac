"""The Kubernetes example: its configuration loads, and its parts fit each other."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.config import Config, check_role, load_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
STATE = "/var/lib/remora"

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def objects() -> dict[str, Tree]:
    """By kind; the example has one of each."""
    found = list(yaml.safe_load_all((FOLDER / "sidecar.yaml").read_text()))
    kinds = {found_object["kind"]: found_object for found_object in found}
    assert len(kinds) == len(found)
    return kinds


@pytest.fixture(scope="module")
def pod(objects: dict[str, Tree]) -> Tree:
    spec: Tree = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def remora(pod: Tree) -> Tree:
    (container,) = pod["initContainers"]
    assert container["name"] == "remora"
    found: Tree = container
    return found


@pytest.fixture
def config(objects: dict[str, Tree], remora: Tree, tmp_path: Path) -> Config:
    """The configuration as the container gets it: the file of the ConfigMap, the environment."""
    (name,) = objects["ConfigMap"]["data"]
    (tmp_path / name).write_text(objects["ConfigMap"]["data"][name])
    mounts = {mount["name"]: mount["mountPath"] for mount in remora["volumeMounts"]}
    assert remora["args"] == ["--config", f"{mounts['config']}/{name}"]
    environ = {entry["name"]: entry.get("value", "from the secret") for entry in remora["env"]}
    return load_config(tmp_path / name, environ=environ)


def test_every_manifest_is_looked_at_here() -> None:
    assert [path.name for path in FOLDER.iterdir()] == ["sidecar.yaml"]


def test_the_configuration_is_right_and_has_its_token(config: Config) -> None:
    assert list(check_role(config, "all")) == []
    assert not config.admin.listen_address.loopback
    assert config.admin.operator_token() is not None


def test_the_token_comes_from_a_secret(remora: Tree) -> None:
    (token,) = [entry for entry in remora["env"] if entry["name"] == "REMORA_ADMIN__TOKEN"]
    assert set(token["valueFrom"]) == {"secretKeyRef"}


def test_ports_are_those_of_the_configuration(
    objects: dict[str, Tree], pod: Tree, remora: Tree, config: Config
) -> None:
    ports = {port["name"]: port["containerPort"] for port in remora["ports"]}
    assert config.proxy is not None
    assert ports["http"] == config.proxy.listen_address.port
    assert ports["admin"] == config.admin.listen_address.port
    service = objects["Service"]["spec"]
    assert [port["targetPort"] for port in service["ports"]] == ["http"]
    template = objects["Deployment"]["spec"]["template"]["metadata"]
    assert service["selector"].items() <= template["labels"].items()
    assert template["annotations"]["prometheus.io/port"] == str(ports["admin"])
    assert not [port for container in pod["containers"] for port in container.get("ports", ())]


def test_it_is_a_native_sidecar_that_starts_without_the_model_server(remora: Tree) -> None:
    assert remora["restartPolicy"] == "Always"
    paths = {
        name: remora[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }
    # /readyz waits for the upstream, and the upstream is started after us.
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    for name in ("startup", "liveness", "readiness"):
        assert remora[f"{name}Probe"]["httpGet"]["port"] == "admin"


def test_it_has_a_share_of_cpu_and_no_quota(remora: Tree) -> None:
    assert "cpu" in remora["resources"]["requests"]
    assert "cpu" not in remora["resources"]["limits"]
    assert "memory" in remora["resources"]["limits"]


def test_it_can_do_nothing_but_its_work(pod: Tree, remora: Tree) -> None:
    own = remora["securityContext"]
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    mounts = {mount["mountPath"] for mount in remora["volumeMounts"]}
    assert {STATE, "/tmp"} <= mounts, "the root file system is read-only"


def test_the_model_server_is_seen_and_cannot_read_the_token(pod: Tree, remora: Tree) -> None:
    assert pod["shareProcessNamespace"] is True
    users = [container["securityContext"]["runAsUser"] for container in pod["containers"]]
    assert remora["securityContext"]["runAsUser"] not in users


def test_of_another_user_only_the_name_is_known(config: Config) -> None:
    assert config.resources.name is not None


def test_the_grace_covers_the_wait_and_both_drains(pod: Tree) -> None:
    (model,) = pod["containers"]
    wait_s = int(model["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= wait_s + 20 + 12


def test_the_user_is_the_one_of_the_image(remora: Tree) -> None:
    own = remora["securityContext"]
    dockerfile = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    assert f"\nUSER {own['runAsUser']}:{own['runAsGroup']}\n" in dockerfile


@pytest.mark.real
def test_the_schema_of_kubernetes_agrees(server_environment: Callable[[str], Path]) -> None:
    done = subprocess.run(
        [
            server_environment("deploy_lint") / "kubernetes-validate",
            "--strict",
            *sorted(FOLDER.glob("*.yaml")),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
