"""The contexts of TLS that this edge has, by side; none where nobody configured any.

What must not break: an edge without TLS imports and reads nothing for it, and one whose files are
spoilt while it runs goes on with what it has.
"""

import json
import sys
from typing import TYPE_CHECKING

from agent.edge.settings import EdgeSettings, tls_name

if TYPE_CHECKING:
    from agent.edge.tls import Contexts


class Sides:
    """Made when first asked for, because a candidate may speak TLS where stable does not."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._settings = settings
        self._made: dict[str, Contexts] = {}

    def listener(self) -> "Contexts | None":
        """Raises OSError or ValueError when the certificate cannot be used."""
        if not self._settings.tls_cert_file:
            return None
        if "listener" not in self._made:
            from agent.edge.tls import listener_contexts

            self._made["listener"] = listener_contexts(self._settings)
        return self._made["listener"]

    def upstream(self, address: str) -> "Contexts | None":
        """None where the address asks for no TLS, and where the files are of no use."""
        if not tls_name(address):
            return None
        if "upstream" not in self._made:
            from agent.edge.tls import upstream_contexts

            try:
                self._made["upstream"] = upstream_contexts(self._settings)
            except (OSError, ValueError) as error:
                _tell("TLS files (upstream) cannot be used, it is not reached", str(error))
                return None
        return self._made["upstream"]

    def refresh(self) -> None:
        """Take up files that have changed; connections that are open keep what they have."""
        for side, contexts in self._made.items():
            if not contexts.refresh():
                continue
            if contexts.failure:
                _tell(f"new TLS files ({side}) cannot be used, the old stay", contexts.failure)
            else:
                _tell(f"new TLS files ({side}) are in use")

    def counts(self) -> dict[str, dict[str, int]]:
        return {
            side: {"reloaded": contexts.reloads, "failed": contexts.failures}
            for side, contexts in self._made.items()
        }


def _tell(what: str, error: str = "") -> None:
    """A line for the log, which is the supervisor's standard error; rare enough to be written."""
    line = {"process": "remora-edge", "event": what} | ({"error": error} if error else {})
    sys.stderr.write(json.dumps(line) + "\n")
