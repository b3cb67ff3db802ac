"""Jobs as real processes: what they may see, how they end, and that none outlives its agent."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from retrain.runners.local import (
    Ending,
    JobEnd,
    JobHandle,
    JobIdentity,
    JobLimits,
    LocalRunner,
    is_alive,
    pipeline_argv,
)

ROOT = Path(__file__).resolve().parents[2]


def is_running(pid: int) -> bool:
    """Not gone, and no zombie that only waits for its parent."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


async def start(
    tmp_path: Path, code: str, *, limits: JobLimits | None = None, env_allow: Sequence[str] = ()
) -> JobHandle:
    return await LocalRunner().start(
        [sys.executable, "-c", code], cwd=tmp_path, limits=limits, env_allow=env_allow
    )


async def end(tmp_path: Path, code: str, limits: JobLimits | None = None) -> JobEnd:
    return await (await start(tmp_path, code, limits=limits)).wait()


async def test_progress_comes_as_it_goes_and_noise_is_counted(tmp_path: Path) -> None:
    code = (
        "import json\n"
        "for i in range(3): print(json.dumps({'step': 'train', 'done': i, 'total': 3}))\n"
        "print('a library that talks'); print('[1]'); print('x' * 200_000)\n"
        "print(json.dumps({'step': 'finished', 'passed': True}))\n"
    )
    handle = await start(tmp_path, code)
    steps = [event["step"] async for event in handle.events()]
    assert steps == ["train", "train", "train", "finished"]
    assert handle.lines_dropped_total >= 3
    got = await handle.wait()
    assert (got.ending, got.returncode, got.last["passed"]) == (Ending.EXITED, 0, True)


async def test_a_job_sees_none_of_the_agents_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMORA_ADMIN__TOKEN", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("ALLOWED", "yes")
    code = "import json, os; print(json.dumps({'step': 'x', **os.environ}))"
    handle = await start(tmp_path, code, env_allow=["ALLOWED", "ABSENT"])
    got = await handle.wait()
    assert "secret" not in got.last.values()
    assert got.last["ALLOWED"] == "yes"
    assert got.last["HOME"] == str(tmp_path)
    assert got.last["OMP_NUM_THREADS"] == "1"


async def test_limits_are_in_force(tmp_path: Path) -> None:
    code = (
        "import json, os, resource as r\n"
        "print(json.dumps({'step': 'x', 'nice': os.nice(0), 'space': r.getrlimit(r.RLIMIT_AS)[0],\n"
        "  'core': r.getrlimit(r.RLIMIT_CORE)[0], 'leader': os.getsid(0) == os.getpid()}))\n"
        "bytearray(1 << 30)\n"
    )
    got = await end(tmp_path, code, JobLimits(address_bytes_max=512 << 20, nice=7))
    assert got.last["nice"] >= 7
    assert got.last["space"] == 512 << 20
    assert got.last["core"] == 0
    assert got.last["leader"] is True
    assert got.returncode == 1
    assert "MemoryError" in got.stderr_tail


async def test_a_job_over_its_time_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import json, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(json.dumps({'step': 'x', 'child': child.pid}))\n"
        "time.sleep(600)\n"
    )
    handle = await start(tmp_path, code, limits=JobLimits(time_s_max=1.5))
    got = await handle.wait()
    assert got.ending is Ending.TIMEOUT
    assert got.returncode == -signal.SIGTERM
    assert not is_running(got.last["child"])
    assert handle.poll() == got.returncode


async def test_cancelling_ends_a_job_and_does_nothing_to_an_ended_one(tmp_path: Path) -> None:
    code = "import json, time; print(json.dumps({'step': 'x'})); time.sleep(600)"
    handle = await start(tmp_path, code)
    async for _ in handle.events():
        break
    assert is_alive(handle.identity)
    assert handle.poll() is None
    got = await handle.cancel()
    assert got.ending is Ending.CANCELLED
    assert not is_alive(handle.identity)
    assert await handle.cancel() == got


async def test_a_command_that_does_not_exist_is_a_job_that_failed(tmp_path: Path) -> None:
    handle = await LocalRunner().start(["no-such-program-here"], cwd=tmp_path)
    got = await handle.wait()
    assert got.returncode == 1
    assert "no-such-program-here" in got.stderr_tail or "No such file" in got.stderr_tail


def test_another_process_with_the_same_pid_is_another_job() -> None:
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert is_alive(JobIdentity(pid=os.getpid(), started=int(stat[19])))
    assert not is_alive(JobIdentity(pid=os.getpid(), started=int(stat[19]) - 1))
    assert not is_alive(JobIdentity(pid=2**22 + 1, started=1))


async def test_a_job_dies_with_its_agent(tmp_path: Path) -> None:
    agent = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from retrain.runners.local import LocalRunner\n"
        "async def main():\n"
        "    job = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "    handle = await LocalRunner().start(job, cwd=Path('.'))\n"
        "    print(handle.identity.pid, handle.identity.started, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        agent,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    pid, started = (await process.stdout.readline()).split()
    identity = JobIdentity(pid=int(pid), started=int(started))
    assert is_alive(identity)
    process.kill()
    await process.wait()
    async with asyncio.timeout(10):
        while is_alive(identity):  # noqa: ASYNC110  # the kernel kills it, and tells nobody
            await asyncio.sleep(0.02)


async def test_the_pipeline_runs_as_a_job_and_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("lime: 3\n")
    # A module of the job's directory must not stand in for one of ours.
    (tmp_path / "yaml.py").write_text("raise SystemExit(77)\n")
    argv = pipeline_argv("run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path))
    got = await (await LocalRunner().start(argv, cwd=tmp_path)).wait()
    assert got.returncode == 2
    assert "lime: unknown key: did you mean line?" in got.last["error"]
    assert json.dumps(got.last)
