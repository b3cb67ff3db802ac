"""The systemd unit: read by systemd itself, and its example environment by our configuration."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import ProxySource, load_config, parse_listen
from agent.listeners import addresses
from agent.supervisor import END_S, SAVE_S

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "remora.service"
SOCKET = ROOT / "deploy" / "systemd" / "remora.socket"
TAP = ROOT / "deploy" / "systemd" / "remora-tap.conf"
ENVIRONMENT = ROOT / "deploy" / "systemd" / "remora.env"
# Tenths of systemd's exposure level, which goes from 0 (nothing is open) to 100.
EXPOSURE_MAX = 20


def setting(key: str) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", UNIT.read_text(), flags=re.M)
    return str(value)


def test_the_state_directory_is_the_one_that_remora_takes(tmp_path: Path) -> None:
    made = f"/var/lib/{setting('StateDirectory')}"
    config = load_config(
        None,
        environ={
            "STATE_DIRECTORY": made,
            "REMORA_SOURCES__0__UPSTREAM": "http://127.0.0.1:8000",
        },
    )
    assert str(config.state_dir) == made


def test_the_supervisor_says_when_it_is_ready_and_has_time_to_stop() -> None:
    assert setting("Type") == "notify"
    assert setting("NotifyAccess") == "main"
    assert "WatchdogSec" not in UNIT.read_text(), "nobody would ping it"
    # The edges drain, then analysis saves; and something over.
    drain_s = float(ProxySource.model_fields["drain_s"].default)
    assert float(setting("TimeoutStopSec")) >= drain_s + END_S + SAVE_S + 2
    # Everybody asked at once would restart what is meant to end.
    assert setting("KillMode") == "mixed"


def test_what_the_agent_reads_of_other_processes_stays_readable() -> None:
    assert not re.findall(r"^(?:ProtectProc|ProcSubset)=", UNIT.read_text(), flags=re.M)


def test_the_example_environment_has_keys_that_there_are() -> None:
    text = ENVIRONMENT.read_text()
    names = re.findall(r"^#?(REMORA_\w+)=$", text, flags=re.M)
    assert len(names) == len(re.findall(r"REMORA_\w+=", text)) == 3
    environ = dict.fromkeys(names, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") | {
        "REMORA_SOURCES__0__UPSTREAM": "http://127.0.0.1:8000",
        "REMORA_WEBHOOKS__TARGETS__0__NAME": "ci",
        "REMORA_WEBHOOKS__TARGETS__0__URL": "https://ci.example.com/hook",
    }
    config = load_config(None, environ=environ)
    assert config.admin.operator_token() is not None
    assert config.webhooks.targets[0].signing_secret() is not None
    assert config.retrain.signing_secret() is not None
    assert setting("EnvironmentFile") == f"-/etc/remora/{ENVIRONMENT.name}"


@pytest.fixture
def analyze(program: Callable[[str], Path], tmp_path: Path) -> Callable[..., str]:
    """`analyze(text, *arguments)`: what systemd-analyze says about a unit of that text."""

    def run(text: str, *arguments: str) -> str:
        # It wants the programs to be there: any program will do.
        unit = tmp_path / UNIT.name
        unit.write_text(re.sub(r"^(Exec\w+=)\S+", r"\1/bin/sh", text, flags=re.M))
        done = subprocess.run(
            [program("systemd-analyze"), *arguments, unit],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        # Unknown keys are warnings to it, and exit status 0.
        return f"{done.returncode}\n{done.stderr}".strip()

    return run


@pytest.mark.real
def test_systemd_finds_nothing_wrong_with_it(analyze: Callable[..., str]) -> None:
    assert analyze(UNIT.read_text(), "verify", "--man=no") == "0"
    assert analyze(UNIT.read_text().replace("KillMode", "KillMood"), "verify", "--man=no") != "0"


@pytest.mark.real
def test_the_drop_in_for_the_tap_opens_one_capability_and_no_more(
    analyze: Callable[..., str],
) -> None:
    both = f"{UNIT.read_text()}\n{TAP.read_text()}"
    assert analyze(both, "verify", "--man=no") == "0"
    capabilities = re.findall(r"^(?:Ambient|CapabilityB)\w+=(.*)$", TAP.read_text(), flags=re.M)
    assert capabilities == ["CAP_NET_RAW"] * 2
    # Only privileged users, one capability and one address family more than without it.
    arguments = ("security", "--offline=true", f"--threshold={EXPOSURE_MAX + 10}", "--no-pager")
    assert analyze(both, *arguments) == "0"


@pytest.mark.real
def test_little_is_open_to_it(analyze: Callable[..., str]) -> None:
    arguments = ("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager")
    assert analyze(UNIT.read_text(), *arguments) == "0"
    open_unit = re.sub(r"^SystemCallFilter=.*\n", "", UNIT.read_text(), flags=re.M)
    assert analyze(open_unit, *arguments) != "0"


def test_every_port_that_it_holds_open_is_one_that_remora_listens_on() -> None:
    overrides = {
        "sources.proxy.upstream": "http://127.0.0.1:8000",
        "sources.0.grpc.upstream": "http://127.0.0.1:8001",
        "sources.1.kind": "push",
    }
    ours = set(addresses(load_config(None, environ={}, overrides=overrides)).values())
    listed = re.findall(r"^(#?)ListenStream=(.*)$", SOCKET.read_text(), flags=re.M)
    assert {parse_listen(text) for _, text in listed} == ours
    in_force = {parse_listen(text) for hash, text in listed if not hash}
    alone = load_config(
        None,
        environ={},
        overrides={**overrides, "sources.0.grpc.upstream": None, "sources.1.kind": None},
    )
    assert in_force == set(addresses(alone).values())


@pytest.mark.real
def test_systemd_finds_nothing_wrong_with_the_ports(
    program: Callable[[str], Path], tmp_path: Path
) -> None:
    def verify(text: str) -> str:
        service = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/sh", UNIT.read_text(), flags=re.M)
        (tmp_path / UNIT.name).write_text(service)
        (tmp_path / SOCKET.name).write_text(text)
        done = subprocess.run(
            [program("systemd-analyze"), "verify", "--man=no", tmp_path / SOCKET.name],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return f"{done.returncode}\n{done.stderr}".strip()

    assert verify(SOCKET.read_text()) == "0"
    assert verify(SOCKET.read_text().replace("Backlog", "Backlogg")) != "0"
