"""What the model server uses and costs, and what Remora itself uses.

One file for each place that is read. What cannot be read is absent with its reason, never a zero.
"""

from agent.resources.finding import Target, address_target, find_process
from agent.resources.own import AgentResources
from agent.resources.server import NO_PERMISSION, Resources, ServerResources, costs_of

__all__ = [
    "NO_PERMISSION",
    "AgentResources",
    "Resources",
    "ServerResources",
    "Target",
    "address_target",
    "costs_of",
    "find_process",
]
