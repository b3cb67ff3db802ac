"""Captured TCP segments put in order again: bytes in order, or a loss that is counted.

A listener cannot ask for a segment again. So it holds what came too early for a while, and as
soon as it is sure that something was missed (the receiver acknowledged bytes that never passed
here, or too much has come too early) it gives up what was under way on that connection, and starts
anew at the next segment that begins with a request: whose acknowledgement number says where in
the other direction the answer to it will begin. What must not break: bytes on two sides of a hole
are never joined. Where copies of bytes differ, those delivered first stand.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from agent.wire.message_ends import starts_request, starts_response
from agent.wire.packet import ACK, FIN, RST, SYN, ports, reversed_key
from agent.wire.pair import Observer, Pair
from agent.wire.pairing import Conversation

_MASK: Final = 0xFFFF_FFFF
_HALF: Final = 0x8000_0000
_EVENTS: Final = SYN | FIN | RST
_UNKNOWN: Final = -1  # no sequence number is: every comparison with it takes the slow way

# Of one direction. 64 segments are a whole window of an ordinary network; beyond that it is a hole.
STASH_SEGMENTS_MAX: Final = 64
STASH_BYTES_MAX: Final = 2 * 1024 * 1024
# Of all flows together.
STASH_TOTAL_BYTES_MAX: Final = 32 * 1024 * 1024
_NONE: Final[tuple[Pair, ...]] = ()

# Sequence and acknowledgement number, flags, payload, time.
_Segment = tuple[int, int, int, bytes, float]


class Stream:
    """One direction of a flow."""

    __slots__ = ("fin_seq", "flow", "from_client", "next_seq", "other", "stash", "stash_bytes")

    other: "Stream"

    def __init__(self, flow: "Flow", *, from_client: bool) -> None:
        self.flow = flow
        self.from_client = from_client
        self.next_seq = _UNKNOWN
        self.fin_seq = _UNKNOWN  # where the sender said that its bytes end
        self.stash: list[_Segment] = []
        self.stash_bytes = 0


class Flow:
    """One connection: two streams, and the conversation that they carry."""

    __slots__ = ("client", "conversation", "key", "last_at", "owed", "owed_at", "server")

    def __init__(self, key: bytes, observer: Observer) -> None:
        self.key = key  # of the direction from the client
        self.conversation = Conversation(observer)
        self.client = Stream(self, from_client=True)
        self.server = Stream(self, from_client=False)
        self.client.other = self.server
        self.server.other = self.client
        self.last_at = 0.0
        self.owed = 0  # answers that may still come, to pairs that were given up and counted
        self.owed_at = _UNKNOWN  # where in the server's stream they begin


class Flows:
    """All connections to one port, bounded in number and in what they hold."""

    def __init__(
        self, observer: Observer, *, port: int, flows_max: int = 16_384, idle_s: float = 300.0
    ) -> None:
        self._observer = observer
        self._port = port
        self._flows_max = flows_max
        self._idle_s = idle_s
        self._streams: dict[bytes, Stream] = {}
        self.stashed_bytes = 0  # of all flows
        self._mending = False
        self.seen: Counter[str] = Counter()  # what was noticed and is no loss

    def __len__(self) -> int:
        return len(self._streams) // 2

    def take(
        self, key: bytes, seq: int, ack: int, flags: int, data: bytes, at: float
    ) -> Sequence[Pair]:
        """One segment; the pairs that it completed. Positional: this is called for every packet."""
        stream = self._streams.get(key)
        if stream is None:
            stream = self._meet(key, flags, data)
            if stream is None:
                return _NONE
        flow = stream.flow
        flow.last_at = at
        if (
            seq != stream.next_seq
            or ack != stream.other.next_seq
            or flags & _EVENTS
            or stream.stash
            or flow.conversation.deaf
        ):
            return self._rare(stream, (seq, ack, flags, data, at))
        stream.next_seq = (seq + len(data)) & _MASK
        if stream.from_client:
            return flow.conversation.request(data, at)
        return flow.conversation.response(data, at)

    def _meet(self, key: bytes, flags: int, data: bytes) -> Stream | None:
        """The stream of a flow that is not in the table; None when it need not get in."""
        source, destination = ports(key)
        if self._port not in (source, destination):
            self.seen["other_port"] += 1
            return None
        if flags & RST or not (data or flags & SYN):
            return None
        if len(self._streams) >= 2 * self._flows_max:
            self._evict()
        from_client = destination == self._port
        flow = Flow(key if from_client else reversed_key(key), self._observer)
        self._streams[flow.key] = flow.client
        self._streams[reversed_key(flow.key)] = flow.server
        return flow.client if from_client else flow.server

    # Segments that are not simply the next one.

    def _rare(self, stream: Stream, segment: _Segment) -> Sequence[Pair]:
        seq, ack, flags, data, at = segment
        flow = stream.flow
        if flags & RST:
            return self._reset(stream, at)
        if flags & SYN:
            self._opened(stream, seq, ack, flags)
            if not data:
                return _NONE
            seq = (seq + 1) & _MASK  # TCP Fast Open
            flags &= ~SYN
        if flow.conversation.deaf and not self._listens_again(stream, flags):
            return _NONE
        pairs: list[Pair] = []
        # The receiver has bytes that never passed here: no use in waiting for them.
        if flags & ACK and _after(ack, stream.other.next_seq):
            pairs += self._gap(flow)
        elif data and stream.from_client and flags & ACK:
            self._anchored(stream, ack)
        if stream.next_seq == _UNKNOWN and not self._joined(stream, seq, ack, data):
            if flags & FIN:
                self._ended(stream, at)
            return pairs
        if flags & FIN:
            stream.fin_seq = (seq + len(data)) & _MASK
        pairs += self._in_order(stream, (seq, ack, flags, data, at))
        return pairs

    def _opened(self, stream: Stream, seq: int, ack: int, flags: int) -> None:
        """SYN: a connection begins. One that was here under the same key has ended unnoticed."""
        first = (seq + 1) & _MASK
        if stream.next_seq == first:
            self.seen["retransmitted"] += 1
            return
        flow = stream.flow
        if stream.from_client or stream.next_seq != _UNKNOWN:
            self._forget_stashes(flow)
            flow.owed = 0
            flow.owed_at = _UNKNOWN
            if flow.conversation.busy:
                flow.conversation.lost("unended")
            flow.conversation = Conversation(self._observer)
            flow.client.next_seq = flow.server.next_seq = _UNKNOWN
            flow.client.fin_seq = flow.server.fin_seq = _UNKNOWN
        stream.next_seq = first
        if flags & ACK:
            stream.other.next_seq = ack

    def _anchored(self, stream: Stream, ack: int) -> None:
        """The server's handshake was missed: only now is it known where its answers begin."""
        if stream.next_seq == _UNKNOWN or stream.other.next_seq != _UNKNOWN:
            return
        stream.other.next_seq = ack
        if stream.flow.conversation.busy:
            stream.flow.owed = stream.flow.conversation.lost("gap")

    def _joined(self, stream: Stream, seq: int, ack: int, data: bytes) -> bool:
        """Finding the way in, in the middle of a connection: only a request's beginning is one."""
        flow = stream.flow
        if not stream.from_client:
            if starts_response(data):
                if flow.owed:
                    flow.owed -= 1
                else:
                    self._observer.drop("unmatched")
            return False
        if not starts_request(data) or ack == flow.owed_at:
            return False  # if the server has sent nothing since, its next answer is for another
        stream.next_seq = seq
        stream.other.next_seq = ack
        flow.owed = 0
        flow.owed_at = _UNKNOWN
        self.seen["joined"] += 1
        return True

    def _in_order(self, stream: Stream, segment: _Segment) -> list[Pair]:
        """Deliver what can be delivered now, of this segment and of those that came too early."""
        seq, _, _, data, at = segment
        ahead = (seq - stream.next_seq) & _MASK
        if 0 < ahead < _HALF:
            return self._stash(stream, segment)
        if ahead:
            seen = _HALF * 2 - ahead
            if data and seen >= len(data):
                self.seen["retransmitted"] += 1
            data = data[seen:]
        pairs = self._deliver(stream, data, at)
        while stream.stash:
            found = self._next_of_stash(stream)
            if found is None:
                break
            early_seq, _, _, data, at = found
            pairs += self._deliver(stream, data[(stream.next_seq - early_seq) & _MASK :], at)
        if stream.next_seq == stream.fin_seq:
            pairs += self._ended(stream, at)
        return pairs

    def _deliver(self, stream: Stream, data: bytes, at: float) -> list[Pair]:
        if not data:
            return []
        stream.next_seq = (stream.next_seq + len(data)) & _MASK
        conversation = stream.flow.conversation
        if conversation.deaf:
            return []
        feed = conversation.request if stream.from_client else conversation.response
        return list(feed(data, at))

    def _stash(self, stream: Stream, segment: _Segment) -> list[Pair]:
        size = len(segment[3])
        if (
            len(stream.stash) >= STASH_SEGMENTS_MAX
            or stream.stash_bytes + size > STASH_BYTES_MAX
            or self.stashed_bytes + size > STASH_TOTAL_BYTES_MAX
        ):
            return self._gap(stream.flow)
        stream.stash.append(segment)
        stream.stash_bytes += size
        self.stashed_bytes += size
        self.seen["out_of_order"] += 1
        return []

    def _next_of_stash(self, stream: Stream) -> _Segment | None:
        """One that begins where we are or before, out of the stash."""
        for index, segment in enumerate(stream.stash):
            if not _after(segment[0], stream.next_seq):
                del stream.stash[index]
                stream.stash_bytes -= len(segment[3])
                self.stashed_bytes -= len(segment[3])
                return segment
        return None

    def _gap(self, flow: Flow) -> list[Pair]:
        """Bytes are lost for good: give up, and look for a way in among what was stashed."""
        self.seen["gaps"] += 1
        held = sorted(
            [(flow.client, one) for one in flow.client.stash]
            + [(flow.server, one) for one in flow.server.stash],
            key=lambda entry: entry[1][4],
        )
        self._forget_stashes(flow)
        flow.owed = flow.conversation.lost("gap")
        flow.owed_at = flow.server.next_seq
        flow.client.next_seq = flow.server.next_seq = _UNKNOWN
        pairs: list[Pair] = []
        if self._mending:
            return pairs
        self._mending = True  # a second hole among these would look at them for ever
        for stream, segment in held:
            pairs += self._rare(stream, segment)
        self._mending = False
        return pairs

    # Ends.

    def _ended(self, stream: Stream, at: float) -> Sequence[Pair]:
        flow = stream.flow
        stream.fin_seq = _UNKNOWN
        stream.next_seq = (stream.next_seq + 1) & _MASK
        if stream.from_client:
            flow.conversation.client_ended()
            return _NONE
        pairs = flow.conversation.server_ended(at)
        self._forget(flow)
        return pairs

    def _reset(self, stream: Stream, at: float) -> Sequence[Pair]:
        conversation = stream.flow.conversation
        self._forget(stream.flow)
        if stream.from_client:
            return conversation.client_reset(at)
        return conversation.server_ended(at, reset=True)

    def _listens_again(self, stream: Stream, flags: int) -> bool:
        """Whether a flow that could not be read is given another chance: at its next request."""
        flow = stream.flow
        if flow.conversation.foreign:
            if flags & FIN and not stream.from_client:
                self._forget(flow)
            return False
        self._forget_stashes(flow)
        flow.client.next_seq = flow.server.next_seq = _UNKNOWN
        flow.conversation.deaf = False
        return True

    def _forget_stashes(self, flow: Flow) -> None:
        for stream in (flow.client, flow.server):
            self.stashed_bytes -= stream.stash_bytes
            stream.stash = []
            stream.stash_bytes = 0

    def _forget(self, flow: Flow) -> None:
        self._forget_stashes(flow)
        self._streams.pop(flow.key, None)
        self._streams.pop(reversed_key(flow.key), None)

    def _evict(self) -> None:
        """Make room: the sixteenth of all flows that were quiet for longest goes."""
        flows = sorted(self._all(), key=lambda flow: flow.last_at)
        for flow in flows[: max(1, len(flows) // 16)]:
            self._drop(flow, "evicted")

    def expire(self, now: float) -> None:
        """Flows that were quiet for long have ended somewhere else, or will be found again."""
        for flow in self._all():
            if now - flow.last_at > self._idle_s:
                self._drop(flow, "evicted")

    def drop_flows(self, unwanted: Sequence[bytes], reason: str) -> None:
        """Flows of these keys will not be seen any more."""
        for key in unwanted:
            stream = self._streams.get(key)
            if stream is not None:
                self._drop(stream.flow, reason)

    def client_keys(self) -> list[bytes]:
        return [flow.key for flow in self._all()]

    def _all(self) -> list[Flow]:
        return [stream.flow for stream in self._streams.values() if stream.from_client]

    def _drop(self, flow: Flow, reason: str) -> None:
        if flow.conversation.busy:
            flow.conversation.lost(reason)
        self._forget(flow)

    def close(self, reason: str = "unended") -> None:
        """Nothing more comes."""
        for flow in self._all():
            self._drop(flow, reason)


def _after(seq: int, other: int) -> bool:
    """Whether `seq` lies behind `other`, on a circle of 32 bits; nothing is behind the unknown."""
    return other != _UNKNOWN and 0 < (seq - other) & _MASK < _HALF
