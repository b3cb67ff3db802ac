"""Who is stable, read from the ledger by the supervisor before anything else runs.

Kept light on purpose: the supervisor only lives to keep others alive, and must not load what they
compute with.
"""

from dataclasses import dataclass

import structlog

from agent.config import Config
from retrain.ledger import Ledger, LedgerError

log = structlog.get_logger("remora.supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class StableUpstream:
    """Where the stable model is served."""

    address: str  # a URL, as in the configuration
    version: str


def stable_from_ledger(config: Config) -> StableUpstream | None:
    """Who the ledger says is stable, when that is not the configured upstream.

    Read by the supervisor before anything else runs, so that an edge routes right from its first
    request; None for a first start, and where the ledger cannot be read (analysis will say why).
    """
    path = config.state_dir / "decisions.db"
    if not path.exists():
        return None
    try:
        ledger = Ledger(path, read_only=True)
        rows = ledger.read(
            "SELECT slot.address AS address, version.label AS label FROM slot"
            " LEFT JOIN version ON version.digest = slot.digest WHERE slot.stable = 1"
        )
        ledger.close()
    except LedgerError as error:
        log.error("ledger cannot be read, routing to the configured upstream", error=str(error))
        return None
    if not rows or rows[0]["address"] in (None, config.stable_upstream):
        return None
    label = rows[0]["label"] or config.model.version
    return StableUpstream(address=rows[0]["address"], version=label)
