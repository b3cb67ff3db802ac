"""From packets to exchanges: the tap's middle, which knows neither socket nor loop.

Every exchange that passes is counted like the edge counts those that it relays; the ones that
sampling keeps leave as EXCHANGE frames. Nothing here waits, and nothing that comes from the wire
raises.
"""

import json
from collections.abc import Callable, Mapping
from mmap import mmap
from typing import Any, Final

from agent.edge.channel import COUNTERS, SAMPLING, SOURCE_COUNTERS, exchange_head, frame
from agent.edge.counters import CODE_OF_OUTCOME, Cell, Counters
from agent.edge.heads import MINTED, HeadReader
from agent.edge.minting import Minter
from agent.edge.routing import Routes
from agent.tap.filter import FlowSampling
from agent.tap.keeping import Keeping
from agent.tap.losses import Losses
from agent.tap.ring import packet_header
from agent.tap.settings import TapSettings
from agent.wire.message_ends import ResponseHeads
from agent.wire.packet import ETHERNET, locate, network_at, ports
from agent.wire.pair import Budget, Pair
from agent.wire.reassembly import Flows

_STABLE: Final = 0
_ID_BYTES_MAX: Final = 128
# First bytes of the EtherTypes of IPv4 and IPv6; those of VLAN tags begin otherwise.
_IP_TYPES: Final = (0x08, 0x86)


class Listening:
    """Observes the conversations of one port."""

    def __init__(
        self, settings: TapSettings, *, put: Callable[[list[bytes], int], None], flow_weight: float
    ) -> None:
        self._put = put
        self._version = settings.version.encode("utf-8", "replace")[:255]
        routes = Routes(settings.routes)
        self.counters = Counters(routes.names)
        self.requests = HeadReader(None, routes.index)
        self.responses = ResponseHeads()
        self.budget = Budget(
            side_bytes_max=settings.capture_bytes_max,
            total_bytes_max=settings.capture_total_bytes_max,
        )
        self.losses = Losses()
        self.keeping = Keeping(
            rate=settings.sampling_rate,
            salt=bytes.fromhex(settings.sampling_salt),
            flow_weight=flow_weight,
        )
        self.flows = Flows(
            self,
            port=settings.port,
            flows_max=settings.flows_max,
            idle_s=settings.flow_idle_s,
        )
        self.now = 0.0  # of the newest packet
        self._cells = self.counters.cells(settings.version)
        self._minter = Minter()

    # Packets.

    def block(self, memory: mmap, at: int, packets: int, link: int) -> None:
        """All packets of a block of the ring. Copies what it keeps: the block goes back after."""
        take = self.flows.take
        found_at = 0.0
        self.losses.packets += packets
        for _ in range(packets):
            following, seconds, nanoseconds, captured, _, _, mac, net = packet_header(memory, at)
            end = at + mac + captured
            network = at + net
            if link == ETHERNET and memory[network - 2] not in _IP_TYPES:
                network = network_at(memory, at + mac, end, link)
            found = locate(memory, network, end) if network >= 0 else "other"
            if isinstance(found, str):
                self.losses.counts[found] += 1
            else:
                key, seq, ack, flags, first, last = found
                found_at = seconds + nanoseconds * 1e-9
                for pair in take(key, seq, ack, flags, memory[first:last], found_at):
                    self.finished(pair)
            at += following
        self.now = found_at or self.now

    def packet(self, frame: bytes, link: int, at: float) -> None:
        """One frame of a capture file."""
        self.losses.packets += 1
        network = network_at(frame, 0, len(frame), link)
        found = locate(frame, network, len(frame)) if network >= 0 else "other"
        if isinstance(found, str):
            self.losses.counts[found] += 1
            return
        key, seq, ack, flags, first, last = found
        for pair in self.flows.take(key, seq, ack, flags, frame[first:last], at):
            self.finished(pair)

    # What the conversations say.

    def begun(self, pair: Pair) -> None:
        head = pair.head
        if head.id_from == MINTED:
            pair.id = self._minter.mint()
        self.keeping.decide(pair)
        cell = pair.cell = self._cells[head.line.route]
        cell.in_flight += 1

    def gave_up(self, pair: Pair, reason: str) -> None:
        pair.release()
        self.losses.counts[reason] += 1
        pair.cell.in_flight -= 1

    def drop(self, reason: str) -> None:
        self.losses.counts[reason] += 1

    def finished(self, pair: Pair) -> None:
        """A pair that passed to its end: counted, and if it is kept, handed on."""
        started_at = pair.started_at
        duration_s = pair.finished_at - started_at
        if duration_s < 0.0:
            duration_s = 0.0  # wall clocks are set back now and then
        first_byte_s = _since(started_at, pair.first_byte_at)
        outcome = pair.outcome
        code = CODE_OF_OUTCOME[outcome] if outcome else pair.status // 100 - 1
        cell: Cell = pair.cell
        if first_byte_s == duration_s:
            cell.answered(code, duration_s)
        else:
            cell.finished(outcome, pair.status, duration_s, first_byte_s)
        if pair.request_cut or pair.response_cut:
            self.losses.counts["truncated"] += 1
        else:
            self.losses.whole += 1
        if not pair.kept:
            return
        request_bytes, response_bytes = pair.request_bytes, pair.response_bytes
        pair.release()
        weight = self.keeping.weight(pair, code)
        if weight is None:
            return
        head = exchange_head(
            _STABLE,
            outcome,
            pair.head.id_from,
            pair.id[:_ID_BYTES_MAX],
            self._version,
            request_bytes,
            pair.request_cut,
            response_bytes,
            pair.response_cut,
            started_at,
            first_byte_s,
            duration_s,
            weight,
            _since(started_at, pair.first_body_at),
            pair.draw,
            self.keeping.uniform(pair),
        )
        size = len(head) + request_bytes + response_bytes
        self._put([head, *pair.request, *pair.response], size)

    def turn(self, sampling: FlowSampling) -> None:
        """Other connections are seen from now on; those that are not end here."""
        keys = self.flows.client_keys()
        unseen = [key for key in keys if not sampling.keeps(ports(key)[0])]
        self.flows.drop_flows(unseen, "rotated")

    # Analysis.

    def told(self, kind: int, message: Mapping[str, Any]) -> None:
        """Raises ValueError, KeyError or TypeError on what a message cannot be."""
        if kind != SAMPLING:
            return  # routes are for those that route
        self.keeping.set_sampling(
            rate=float(message["rate"]),
            salt=bytes.fromhex(message["salt"]),
            also=float(message.get("also", 0.0)),
            errors=float(message.get("errors", 0.0)),
            error_codes=[str(code) for code in message.get("error_codes", ())],
        )

    def snapshots(self, *, kept: int) -> list[bytes]:
        """COUNTERS and SOURCE_COUNTERS, both cumulative."""
        self.counters.kept = kept
        counters = self.counters.snapshot(generation=0, weight=0.0)
        return [
            frame(COUNTERS, json.dumps(counters).encode()),
            frame(SOURCE_COUNTERS, json.dumps(self.losses.snapshot()).encode()),
        ]


def _since(started_at: float, at: float) -> float | None:
    """0 means that it never came."""
    if at > started_at:
        return at - started_at
    return 0.0 if at else None
