"""Resolves pyproject.toml into the development lock file: exact versions, each with its hashes.

The lock file names no index and no path: whoever installs uses what pip is configured with there.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from piptools.repositories import PyPIRepository
from piptools.scripts.compile import cli

HEAD = """\
# Exact versions and hashes of everything that `make setup` installs. Written by `make lock`.
#
# torch is missing on purpose: its CPU build comes from another index than its CUDA build, under
# the same version and with other hashes. constraints.txt pins it, and what it needs is below.
"""
OPTIONS = [
    "--quiet",
    "--all-extras",
    "--strip-extras",
    "--generate-hashes",
    "--allow-unsafe",
    "--unsafe-package=torch",
    "--no-header",
    "--no-emit-options",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
    "--constraint=constraints.txt",
]


def trust_hashes_of_the_index() -> None:
    """Take the hashes that the index states beside each file.

    pip-compile asks an interface for them that mirrors do not have, and then downloads every file
    of every platform to compute them: tens of gigabytes.
    """
    compute = PyPIRepository._get_file_hash

    def stated_or_computed(self: PyPIRepository, link: Any) -> str:
        if link.hash_name == "sha256" and link.hash:
            return f"sha256:{link.hash}"
        return compute(self, link)

    PyPIRepository._get_file_hash = stated_or_computed  # type: ignore[method-assign]


def lock(target: Path) -> None:
    """Write the lock file; versions in the present one stay unless they no longer fit."""
    trust_hashes_of_the_index()
    with tempfile.TemporaryDirectory() as folder:
        resolved = Path(folder, "resolved.txt")
        if target.exists():
            resolved.write_text(target.read_text())
        cli([*OPTIONS, f"--output-file={resolved}", "pyproject.toml"], standalone_mode=False)
        # What pip-compile says about packages it left out stands in our own words in the head.
        body = resolved.read_text().partition("\n# The following packages")[0]
    target.write_text(f"{HEAD}{body.rstrip()}\n")


if __name__ == "__main__":
    lock(Path(sys.argv[1]))
