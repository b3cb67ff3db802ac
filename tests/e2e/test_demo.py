"""The demo, as a new user starts it: every step must truly happen, and nothing may stay behind."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

STEPS = (
    "a first model was trained",
    "ordinary traffic raised no alarm",
    "drift found",
    "retrained by CI",
    "gates measured again by Remora",
    "canary promoted",
    "the new model is live",
    "bad candidate caught by the canary and rolled back",
    "the good model serves on",
    "the ledger's hash chain holds",
    "every webhook arrived signed",
    "no request failed but those that the bad candidate answered",
)


@pytest.mark.real
@pytest.mark.timeout(420)
def test_the_demo_shows_the_whole_line_and_cleans_up(tmp_path: Path) -> None:
    # TMPDIR: the demo's directory is where a person's temporary files are.
    ended = subprocess.run(
        [sys.executable, "-m", "agent", "demo"],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "COLUMNS": "400"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    told = ended.stdout
    assert ended.returncode == 0, told + ended.stderr
    for step in STEPS:
        assert re.search(rf"✓ .*{re.escape(step)}", told), f"{step!r} is missing in\n{told}"
    assert f"{len(STEPS)} of {len(STEPS)} steps happened" in told
    assert "Traceback" not in told + ended.stderr
    assert list(tmp_path.glob("remora-demo-*")) == []
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(tmp_path) in " ".join(process.info["cmdline"] or ())
    ]
    assert left == []
