"""A small model server of the V1 protocol, without a dependency: in a test's loop, or by itself.

`python model.py --port P --artifact DIR [--faults FILE]` is what a test's agent starts as its
candidate. FILE is JSON: digest to the share of requests that fail.
"""

import argparse
import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any


class Model:
    """Answers `{"instances": [[...], ...]}` with one number a row, and counts what it was asked."""

    def __init__(self, *, failing: float = 0.0) -> None:
        self.failing = failing
        self.begun = 0  # heads of predictions that arrived, of whole requests or not
        self.requests = 0
        self.port = 0
        self.last_body = b""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 26)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Connections and port are closed at once, as when the process had died."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                self.begun += "predict" in head
                length = 0
                for line in head.split("\r\n"):
                    if line.startswith("content-length:"):
                        length = int(line.partition(":")[2])
                body = await reader.readexactly(length)
                status, answer = self._answer(head.split(" ", 2)[1], body)
                writer.write(
                    b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n" % (status, len(answer)) + answer
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over: asyncio of 3.11 logs that as a crash
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if "predict" not in path:
            return 200, b'{"ready": true}'
        self.requests += 1
        self.last_body = body
        if self.failing and (self.requests * self.failing) % 1.0 < self.failing:
            return 500, b'{"error": "out of memory"}'
        try:
            rows: list[Any] = json.loads(body)["instances"]
            return 200, json.dumps({"predictions": [_predict(row) for row in rows]}).encode()
        except (ValueError, KeyError, TypeError):
            # What it was asked is the client's business; the test looks at what arrived.
            return 200, b'{"predictions": []}'


def _predict(row: Any) -> int:
    values = list(row.values()) if isinstance(row, dict) else row
    first = values[0]
    return int(isinstance(first, int | float) and first > 0)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--faults", type=Path)
    args = parser.parse_args()
    manifest = (args.artifact / "manifest.json").read_bytes()
    digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    faults = json.loads(args.faults.read_text()) if args.faults else {}
    model = Model(failing=faults.get(digest, 0.0))
    await model.start(args.port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
