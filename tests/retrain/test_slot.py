"""Real model processes: started, found ready, supervised, adopted and ended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from retrain.registry import SlotRecord
from retrain.traffic.process import ProcessId
from retrain.traffic.slot import (
    LOG_BYTES_MAX,
    SlotCommand,
    SlotError,
    SlotProcess,
    UpstreamSlot,
    backoff_s,
)

DIGEST = "sha256:" + "a" * 64
MODEL = textwrap.dedent(
    """
    import http.server, json, os, signal, subprocess, sys
    if "--ignore-term" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--fail" in sys.argv:
        sys.exit("no such model")
    child = None
    if "--child" in sys.argv:
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/die":
                os._exit(3)
            told = {"env": dict(os.environ), "argv": sys.argv, "child": child and child.pid}
            body = json.dumps(told).encode()
            self.send_response(200 if self.path == "/ready" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
    port = int(sys.argv[1])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print("serving", flush=True)
    server.serve_forever()
    """
)


class Workshop:
    """Makes slots, and ends every process that they left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model.py"
        self.model.write_text(MODEL)
        self.made: list[SlotProcess] = []

    def slot(self, *flags: str, timeout_s: float = 20.0, env: tuple[str, ...] = ()) -> SlotProcess:
        command = SlotCommand(
            argv=(sys.executable, str(self.model), "{port}", "{artifact}", *flags),
            ready_path="/ready",
            ready_timeout_s=timeout_s,
            env=env,
        )
        slot = SlotProcess(
            name="B",
            digest=DIGEST,
            command=command,
            artifact=self.folder / "artifact",
            home=self.folder / "slot-B",
        )
        self.made.append(slot)
        return slot


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    made = Workshop(tmp_path)
    yield made
    for slot in made.made:
        await slot.stop(grace_s=0.1)


async def ask(slot: SlotProcess, path: str = "/ready") -> dict[str, object]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer: dict[str, object] = (await client.get(slot.address + path)).json()
        return answer


@pytest.mark.real
async def test_a_command_serves_with_its_artifact_and_a_port_of_its_own(workshop: Workshop) -> None:
    slot = workshop.slot()
    slot.start()
    await slot.wait_ready()
    told = await ask(slot)
    assert told["argv"][2] == str(workshop.folder / "artifact")  # type: ignore[index]
    assert slot.record.pid is not None
    assert slot.alive()
    assert "serving" in slot.log.read_text()
    pid = slot.record.pid
    assert os.getpgid(pid) == pid
    await slot.stop()
    assert not slot.alive()
    assert ProcessId.of(pid) is None


@pytest.mark.real
async def test_a_model_sees_no_variable_that_was_not_allowed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMORA_ADMIN__TOKEN", "secret")
    monkeypatch.setenv("MODEL_THREADS", "2")
    slot = workshop.slot(env=("MODEL_THREADS",))
    slot.start()
    await slot.wait_ready()
    seen = (await ask(slot))["env"]
    assert isinstance(seen, dict)
    assert seen["MODEL_THREADS"] == "2"
    assert "secret" not in seen.values()


@pytest.mark.real
async def test_a_model_that_ends_before_it_is_ready_says_why(workshop: Workshop) -> None:
    slot = workshop.slot("--fail")
    slot.start()
    with pytest.raises(SlotError, match="exit 1: no such model"):
        await slot.wait_ready()


@pytest.mark.real
async def test_a_model_that_never_gets_ready_is_given_up(workshop: Workshop) -> None:
    slot = workshop.slot(timeout_s=0.3)
    workshop.model.write_text("import signal; signal.pause()")
    slot.start()
    with pytest.raises(SlotError, match=r"not ready after 0\.3 s"):
        await slot.wait_ready()


async def test_a_program_that_is_not_there_is_named(workshop: Workshop) -> None:
    command = SlotCommand(argv=("no-such-program", "{port}"))
    slot = SlotProcess(
        name="A",
        digest=DIGEST,
        command=command,
        artifact=workshop.folder,
        home=workshop.folder / "slot-A",
    )
    with pytest.raises(SlotError, match="no-such-program: No such file"):
        slot.start()


@pytest.mark.real
async def test_who_does_not_listen_to_reason_is_killed_with_all_his_children(
    workshop: Workshop,
) -> None:
    slot = workshop.slot("--ignore-term", "--child")
    slot.start()
    await slot.wait_ready()
    child = (await ask(slot))["child"]
    assert isinstance(child, int)
    found = ProcessId.of(child)
    assert found is not None
    await slot.stop(grace_s=0.1)
    await found.ended()
    assert not found.alive()


@pytest.mark.real
async def test_children_of_a_model_that_crashed_are_ended(workshop: Workshop) -> None:
    slot = workshop.slot("--child")
    slot.start()
    await slot.wait_ready()
    child = (await ask(slot))["child"]
    assert isinstance(child, int)
    found = ProcessId.of(child)
    assert found is not None
    assert slot.record.pid is not None
    os.kill(slot.record.pid, signal.SIGKILL)
    assert await slot.ended() in ("killed by signal 9", "the process ended")
    await slot.stop()
    await found.ended()
    assert not found.alive()


@pytest.mark.real
async def test_a_crash_of_the_stable_slot_is_told_and_mended(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrain.traffic.slot.BACKOFF_S", 0.0)
    slot = workshop.slot()
    news: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    watch = asyncio.ensure_future(
        slot.supervise(lambda what, why: news.put_nowait((what, why)), restart=lambda: True)
    )
    try:
        assert (await news.get())[0] == "ready"
        first = slot.record.pid
        with pytest.raises(httpx.HTTPError):
            await ask(slot, "/die")
        what, why = await news.get()
        assert what == "failed"
        assert "exit 3" in why
        assert (await news.get())[0] == "ready"
        assert slot.record.pid != first
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


@pytest.mark.real
async def test_a_candidate_that_crashes_is_not_restarted(workshop: Workshop) -> None:
    slot = workshop.slot("--fail")
    news: list[tuple[str, str]] = []
    await slot.supervise(lambda what, why: news.append((what, why)), restart=lambda: False)
    assert [what for what, _ in news] == ["failed"]


AGENT = textwrap.dedent(
    """
    import asyncio, json, sys
    from pathlib import Path
    from retrain.traffic.slot import SlotCommand, SlotProcess
    folder = Path(sys.argv[1])
    command = SlotCommand(
        argv=(sys.executable, str(folder / "model.py"), "{port}", "{artifact}"), ready_path="/ready"
    )
    slot = SlotProcess(name="B", digest=sys.argv[2], command=command,
                       artifact=folder / "artifact", home=folder / "slot-B")
    slot.start()
    asyncio.run(slot.wait_ready())
    record = slot.record
    print(json.dumps([record.address, record.pid, record.started]), flush=True)
    sys.stdin.read()
    """
)


@pytest.mark.real
async def test_a_model_survives_an_agent_killed_hard_and_the_next_agent_adopts_it(
    workshop: Workshop,
) -> None:
    agent = subprocess.Popen(  # noqa: ASYNC220 - its first line is all we wait for
        [sys.executable, "-c", AGENT, str(workshop.folder), DIGEST],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert agent.stdout is not None
    address, pid, started = json.loads(agent.stdout.readline())
    agent.kill()
    agent.communicate()
    slot = workshop.slot()
    record = SlotRecord(name="B", digest=DIGEST, address=address, pid=pid, started=started)
    assert slot.adopt(record)
    await slot.wait_ready()
    slot.start()  # starts nothing
    assert slot.record.pid == pid
    assert (await ask(slot))["argv"]
    await slot.stop()
    assert ProcessId.of(pid) is None


@pytest.mark.real
async def test_a_process_nobody_wrote_down_is_ended_before_another_starts(
    workshop: Workshop,
) -> None:
    lost, slot = workshop.slot(), workshop.slot()
    lost.start()
    await lost.wait_ready()
    slot.start()
    await slot.wait_ready()
    assert lost.record.pid != slot.record.pid
    await lost.ended()
    assert not lost.alive()


@pytest.mark.parametrize(
    "change",
    [{"digest": "sha256:" + "c" * 64}, {"started": "another-boot:1"}, {"pid": None}],
)
async def test_nobody_else_is_adopted(workshop: Workshop, change: dict[str, str | None]) -> None:
    # A process of our own stands for the one that got the pid: whoever adopts it, ends it.
    other = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)  # noqa: ASYNC220
    with other:
        found = ProcessId.of(other.pid)
        assert found is not None
        fields: dict[str, object] = {
            "name": "B",
            "digest": DIGEST,
            "address": "http://127.0.0.1:1",
            "pid": found.pid,
            "started": found.started,
        }
        assert workshop.slot().adopt(SlotRecord(**fields))  # type: ignore[arg-type]
        changed = SlotRecord(**{**fields, **change})  # type: ignore[arg-type]
        assert not workshop.slot().adopt(changed)


def test_a_full_log_moves_aside(tmp_path: Path) -> None:
    home = tmp_path / "slot-B"
    home.mkdir()
    slot = SlotProcess(
        name="B",
        digest=DIGEST,
        command=SlotCommand(argv=("model", "{port}")),
        artifact=tmp_path,
        home=home,
    )
    with slot.log.open("ab") as held:
        held.write(b"x" * (LOG_BYTES_MAX + 1))
        held.flush()
        slot.bound_log()
        assert slot.log.stat().st_size == 0
        held.write(b"after")
        held.flush()
    assert slot.log.read_bytes() == b"after"
    assert (home / "model.log.1").stat().st_size == LOG_BYTES_MAX + 1


def test_braces_of_others_are_left_alone() -> None:
    command = SlotCommand(argv=("serve", '{"port": {port}}', "{artifact}/model", "; rm {x}"))
    found = command.arguments(artifact=Path("/a b"), port=7)
    assert found == ["serve", '{"port": 7}', "/a b/model", "; rm {x}"]


def test_a_command_without_a_port_is_refused() -> None:
    with pytest.raises(ValueError, match="where the model listens"):
        SlotCommand(argv=("serve", "{artifact}"))


def test_restarts_back_off_up_to_half_a_minute() -> None:
    assert [backoff_s(failures) for failures in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.real
async def test_an_upstream_is_only_asked(workshop: Workshop) -> None:
    slot = workshop.slot()
    slot.start()
    await slot.wait_ready()
    upstream = UpstreamSlot(
        name="A", digest=DIGEST, address=slot.address, ready_path="/ready", ready_timeout_s=5.0
    )
    await upstream.wait_ready()
    assert upstream.record.pid is None
    absent = UpstreamSlot(
        name="A", digest=DIGEST, address=slot.address, ready_path="/no", ready_timeout_s=0.2
    )
    with pytest.raises(SlotError, match=r"/no not ready after 0\.2 s"):
        await absent.wait_ready()
