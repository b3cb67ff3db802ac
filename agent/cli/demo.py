"""`remora demo`: the main job end to end on this machine, with real parts and real rows."""

import argparse
import asyncio
import importlib.util
import signal
import tempfile
from pathlib import Path

from agent.cli.parser import Subparsers, add_command
from agent.errors import BadInputError, UnreachableError

EXTRA = ("torch", "onnx", "onnxruntime", "pyarrow", "safetensors")


def add(subparsers: Subparsers) -> None:
    """Registers `demo`."""
    parser = add_command(
        subparsers,
        "demo",
        run,
        purpose="watch it work: drift, retraining, canary, promotion, and a rollback",
        example="remora demo",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave everything running at the end, until Ctrl-C",
    )


def run(args: argparse.Namespace) -> int:
    """0: every step truly happened; 1: one did not."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise BadInputError(
            f"the demo needs {missing[0]}, which is not installed: pip install 'remora[retrain]'"
        )
    return asyncio.run(_demo(keep=args.keep))


async def _demo(*, keep: bool) -> int:
    from rich.console import Console

    from agent.demo.stage import Stage, StageError
    from agent.demo.story import Story, remove
    from agent.demo.timeline import Timeline

    # Whoever ends us by SIGTERM wants everything ended that we started, too.
    loop, ourselves = asyncio.get_running_loop(), asyncio.current_task()
    assert ourselves is not None
    loop.add_signal_handler(signal.SIGTERM, ourselves.cancel)
    directory = Path(tempfile.mkdtemp(prefix="remora-demo-"))
    timeline = Timeline(Console(highlight=False))
    stage = Stage(directory)
    story = Story(stage, timeline)
    code = 1
    try:
        code = await story.tell()
        if keep:
            timeline.say(f"kept running; files in {directory} until then; Ctrl-C ends it")
            await asyncio.Event().wait()
    except StageError as error:
        keep = True
        raise UnreachableError(str(error)) from error
    except asyncio.CancelledError:
        if not keep:
            raise
    finally:
        await story.close()
        await asyncio.to_thread(stage.close)
        if code == 0:
            remove(directory)
        else:
            timeline.say(f"logs are in {directory}")
    failed = len(timeline.failures)
    timeline.console.print(
        f"\n{timeline.checks - failed} of {timeline.checks} steps happened", style="bold"
    )
    return code
