"""A CI system's part, played by a small HTTP server: it is asked, trains, and calls back.

It knows what any partner knows: the signing secret it shares with Remora, the webhook it was
sent, and its own recipe. What it serves is fetched and judged by Remora; nothing is taken on trust.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from retrain.runners.local import JobLimits, LocalRunner, pipeline_argv
from retrain.webhooks.sign import SignatureError, read_secret, sign, verify

REQUESTED = "remora.retrain.requested"
ROWS_WANTED = 2_500
ROWS_WAIT_S_MAX = 60.0
START_S_MAX = 10.0


class ContinuousIntegration:
    """Receives signed webhooks at /hook, serves artifacts below /artifacts."""

    def __init__(
        self,
        *,
        directory: Path,
        recipe: Path,
        secret: str,
        remora_token: str,
        stable_artifact: Callable[[], Path],
        on_step: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._directory = directory
        self._recipe = recipe
        self._secret = secret
        self._token = remora_token
        self._stable_artifact = stable_artifact
        self._on_step = on_step
        self._jobs: set[asyncio.Task[None]] = set()
        self._seen: set[str] = set()
        self.url = ""
        self.refused = 0
        self.received: list[str] = []  # types of the webhooks that were verified
        self.finished: list[dict[str, Any]] = []  # one for each artifact that was called back

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/hook", self._hook, methods=["POST"]),
                Route("/artifacts/{name}", self._artifact),
            ]
        )

    async def _hook(self, request: Request) -> Response:
        body = await request.body()
        try:
            id = verify([read_secret(self._secret)], dict(request.headers), body, now=time.time())
        except SignatureError:
            self.refused += 1
            return Response(status_code=401)
        event = json.loads(body)
        if id in self._seen:
            return Response(status_code=204)
        self._seen.add(id)
        self.received.append(event["type"])
        self._on_step("webhook", {"type": event["type"], "data": event["data"]})
        if event["type"] == REQUESTED:
            job = asyncio.get_running_loop().create_task(self._run(event["data"]))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
        return Response(status_code=204)

    async def _artifact(self, request: Request) -> Response:
        name = Path(request.path_params["name"]).name
        return FileResponse(self._directory / name)

    async def _run(self, asked: dict[str, Any]) -> None:
        work = self._directory / asked["run_id"]
        work.mkdir(parents=True)
        await self._call_back(asked, {"status": "running"})
        (work / "data").mkdir()
        rows = await self._download(asked, work / "data")
        self._on_step("training", {"rows": rows, "done": 0, "total": 1, "step": "prepare"})
        job = await LocalRunner().start(
            pipeline_argv(
                "run",
                str(self._recipe),
                "--out",
                str(work),
                "--data",
                str(work / "data"),
                "--stable",
                str(self._stable_artifact()),
                "--trigger",
                json.dumps({"run_id": asked["run_id"]}),
            ),
            cwd=work,
            limits=JobLimits(time_s_max=300.0, nice=0),
        )
        async for progress in job.events():
            self._on_step("training", dict(progress))
        end = await job.wait()
        archive = work / "artifact.tar.gz"
        if end.returncode not in (0, 1) or not archive.exists():
            self._on_step("failed", {"code": end.returncode, "why": end.stderr_tail[-500:]})
            await self._call_back(asked, {"status": "failed"})
            return
        served = self._directory / f"{asked['run_id']}.tar.gz"
        archive.rename(served)
        data = served.read_bytes()
        report = json.loads((work / "report.json").read_bytes())
        manifest = json.loads((work / "artifact" / "manifest.json").read_bytes())
        found = {"digest": report["digest"], "manifest": manifest, "report": report}
        self._on_step("trained", found)
        await self._call_back(
            asked,
            {
                "status": "succeeded",
                "artifact": {
                    "url": f"{self.url}/artifacts/{served.name}",
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "bytes": len(data),
                },
                "external_url": f"{self.url}/runs/{asked['run_id']}",
            },
        )
        self.finished.append(found)

    async def _download(self, asked: dict[str, Any], into: Path) -> int:
        """The captured and labelled rows of the run, once there are enough to learn from."""
        deadline = time.monotonic() + ROWS_WAIT_S_MAX
        headers = {"authorization": f"Bearer {self._token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=60.0, headers=headers) as client:
            while True:
                answer = await client.get(asked["window"]["data_url"])
                rows = answer.text.count("\n") if answer.status_code == 200 else 0
                self._on_step("waiting", {"rows": rows, "wanted": ROWS_WANTED})
                if rows >= ROWS_WANTED or time.monotonic() > deadline:
                    (into / "labelled.jsonl").write_bytes(answer.content)
                    return rows
                await asyncio.sleep(1.0)

    async def _call_back(self, asked: dict[str, Any], report: dict[str, Any]) -> None:
        body = json.dumps(report).encode()
        now = time.time()
        id = f"{asked['run_id']}-{report['status']}"
        headers = sign([read_secret(asked["callback_secret"])], webhook_id=id, at=now, body=body)
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
            answer = await client.post(
                asked["callback_url"],
                content=body,
                headers={**headers, "content-type": "application/json"},
            )
        self._on_step("callback", {"status": report["status"], "answer": answer.status_code})


class _Guest(uvicorn.Server):
    """The demo keeps its signals: Ctrl-C ends all of it, in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Serving:
    """An application on a loopback port, in this process' loop."""

    def __init__(self, application: Starlette, port: int) -> None:
        config = uvicorn.Config(
            application, host="127.0.0.1", port=port, log_level="warning", access_log=False
        )
        self._server = _Guest(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._server.serve())
        async with asyncio.timeout(START_S_MAX):
            # uvicorn tells of its start by an attribute alone.
            while not self._server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
