"""The tail as a source: taken first, noted after, and the next one goes on from there."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agent.config import TailSource
from agent.exchange import Exchange
from agent.inference import Inference
from agent.sources.tail import Tail
from tests.sources.house import Taking


class Died(BaseException):
    """The process ends in the middle of taking a line."""


class Dying(Taking):
    """Takes so many, and dies of the next."""

    def __init__(self, lives: int) -> None:
        super().__init__()
        self._lives = lives

    def emit(self, taken: Exchange | Inference, /) -> bool:
        if len(self.taken) >= self._lives:
            raise Died
        return super().emit(taken)


def tail(directory: Path, taking: Taking, **keys: Any) -> Tail:
    given = {"kind": "tail", "path": str(directory / "*.log"), "format": "json_lines", **keys}
    source = TailSource.model_validate({"poll_s": 0.01, **given})
    return Tail(source, state_dir=directory, take_labels=taking.take_labels)


def write(directory: Path, numbers: range, **more: object) -> None:
    with (directory / "app.log").open("a") as file:
        for n in numbers:
            file.write(json.dumps({"request_id": f"r-{n}", "x": n, "prediction": 0} | more) + "\n")


async def run_until(source: Tail, taking: Taking, count: int) -> None:
    running = asyncio.get_running_loop().create_task(source.run(taking.emit))
    await taking.until(count)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_line_whose_taking_was_interrupted_is_taken_again_and_no_other(
    tmp_path: Path,
) -> None:
    write(tmp_path, range(50))
    dying = Dying(20)
    with pytest.raises(Died):
        await tail(tmp_path, dying).run(dying.emit)
    taking = Taking()
    await run_until(tail(tmp_path, taking), taking, 30)
    ids = [one.id for one in (*dying.inferences, *taking.inferences)]
    assert ids == [f"r-{n}" for n in range(50)]


async def test_the_same_source_may_be_run_again(tmp_path: Path) -> None:
    taking = Taking()
    source = tail(tmp_path, taking)
    for turn in range(3):
        write(tmp_path, range(turn * 10, turn * 10 + 10))
        await run_until(source, taking, turn * 10 + 10)
    assert [one.id for one in taking.inferences] == [f"r-{n}" for n in range(30)]


async def test_labels_on_lines_go_where_posted_labels_go(tmp_path: Path) -> None:
    taking = Taking()
    write(tmp_path, range(3), label=1)
    source = tail(tmp_path, taking)
    running = asyncio.get_running_loop().create_task(source.run(taking.emit))
    async with asyncio.timeout(30.0):
        while not taking.labels:  # noqa: ASYNC110 -- nobody tells when
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [label["request_id"] for label in json.loads(taking.labels[0][0])] == [
        "r-0",
        "r-1",
        "r-2",
    ]


async def test_bad_lines_cost_themselves_and_are_counted(tmp_path: Path) -> None:
    taking = Taking()
    (tmp_path / "app.log").write_bytes(b"{\n\xff\n7\n" + b'{"x": 1}\n')
    source = tail(tmp_path, taking)
    await run_until(source, taking, 1)
    assert dict(source.dropped) == {"line_not_json": 2, "row_not_an_object": 1}


async def test_bentomls_schema_is_read_beside_its_data(tmp_path: Path) -> None:
    taking = Taking()
    for name in ("data", "schema"):
        (tmp_path / name).mkdir()
    columns = [{"name": "said", "role": "prediction"}]
    (tmp_path / "schema" / "schema.1.log").write_text(json.dumps({"columns": columns}) + "\n")
    (tmp_path / "data" / "data.1.log").write_text('{"x": 1, "said": 2}\n')
    path = str(tmp_path / "data" / "data.*.log")
    source = tail(tmp_path, taking, format="bentoml", path=path)
    await run_until(source, taking, 1)
    assert taking.inferences[0].outputs == {"prediction": [2]}
