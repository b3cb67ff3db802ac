"""The two directions of one connection, paired into whole HTTP/1.1 exchanges.

`request` and `response` are fed the bytes of either direction, in order and however they were cut,
with the time at which they passed; what comes back are the pairs that they completed. The live tap
and capture files share this. What must not break: a pair is never made of two halves that do not
belong together. Whoever feeds says `lost` when bytes are missing, and then everything that is not
whole is given up.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from agent.wire.message_ends import UNTIL_CLOSE, ResponseHead, other_protocol
from agent.wire.message_side import CLOSE, HEAD, TOO_LONG, Side
from agent.wire.pair import CLIENT_DISCONNECT, UPSTREAM_UNREACHABLE, Observer, Pair

# Requests on their way at once on one connection. Nobody pipelines this deep in earnest.
PIPELINED_MAX: Final = 64

_BODILESS: Final = frozenset({204, 304})
_SPECIAL: Final = frozenset({b"HEAD", b"CONNECT"})  # whose answers end differently
_NONE: Final[tuple["Pair", ...]] = ()


class Conversation:
    """One connection."""

    __slots__ = (
        "_asking",
        "_client_closed",
        "_observer",
        "_pending",
        "_request",
        "_response",
        "_unmatched",
        "deaf",
        "foreign",
    )

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._pending: deque[Pair] = deque()  # begun, in the order of the requests
        self._asking: Pair | None = None  # whose request's body is not at its end
        self._request = Side()
        self._response = Side()
        self._unmatched = False  # the response that passes belongs to no request of ours
        self._client_closed = False
        self.deaf = False  # nothing that follows can be understood
        self.foreign = False  # and that will stay so: it is another protocol

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return bool(self._pending)

    def request(self, data: bytes, at: float) -> Sequence[Pair]:
        """Bytes from the client."""
        if self.deaf:
            return _NONE
        side = self._request
        if side.mode == HEAD and not side.held and self._whole_request(data, at):
            return _NONE
        position = 0
        while True:
            if side.mode == HEAD:
                data, position, end = side.find_head(data, position, at)
                if end < 0:
                    if end == TOO_LONG or other_protocol(data):
                        self._unreadable(data)
                    return _NONE
                position = self._begin(data, position, end)
            else:
                position = self._request_body(data, position)
            if position < 0:
                return _NONE
            asked, self._asking = self._asking, None
            if asked is not None:
                asked.request_whole = True
                if asked.response_whole:  # the server did not wait for the end of the request
                    return self._finish(asked.finished_at)
            if position >= len(data):
                return _NONE

    def _whole_request(self, data: bytes, at: float) -> bool:
        """Most requests are one segment, with nothing else in it. False: look at it in detail."""
        end = data.find(b"\r\n\r\n")
        if end <= 0 or len(self._pending) >= PIPELINED_MAX:
            return False
        observer = self._observer
        head = observer.requests.read(data, end)
        if head is None or head.chunked or end + 4 + head.length != len(data):
            return False
        pair = Pair(head, at, observer.budget)
        pair.request_whole = True
        self._pending.append(pair)
        observer.begun(pair)
        if pair.kept:
            pair.add_request(data)
        return True

    def _begin(self, data: bytes, at: int, end: int) -> int:
        """A request's head, and of its body what is there: where it ends, -1 where it does not."""
        observer = self._observer
        side = self._request
        head = observer.requests.read(data[at:end] if at else data, end - at)
        if head is None or (head.chunked and head.length):
            self._unreadable(data[at:])
            return -1
        if len(self._pending) >= PIPELINED_MAX:
            self.lost("malformed")
            self.deaf = True
            return -1
        pair = Pair(head, side.began_at, observer.budget)
        self._pending.append(pair)
        observer.begun(pair)
        self._asking = pair
        body_at = end + 4
        if head.chunked:
            side.begin_chunked()
            if pair.kept:
                pair.add_request(data[at:body_at])
            return self._request_body(data, body_at)
        stop = body_at + head.length
        if stop == len(data):  # by far the most often: all of it, and nothing else
            if pair.kept:
                pair.add_request(data[at:] if at else data)
            return stop
        if pair.kept:
            pair.add_request(data[at:stop])
        if stop < len(data):
            return stop
        side.begin_sized(stop - len(data))
        return -1

    def _request_body(self, data: bytes, at: int) -> int:
        side = self._request
        stop = side.end_of_body(data, at)
        pair = self._asking
        if pair is not None and pair.kept and not pair.request_cut:
            whole = at == 0 and (stop < 0 or stop == len(data))
            pair.add_request(data if whole else data[at : len(data) if stop < 0 else stop])
        if side.malformed:
            self._unreadable(b"")
        return stop

    def _unreadable(self, data: bytes) -> None:
        """The client's bytes are no HTTP/1.1 that could be followed."""
        other = other_protocol(data)
        self.lost(other or "malformed")
        self.deaf = True
        self.foreign = bool(other)

    def response(self, data: bytes, at: float) -> Sequence[Pair]:
        """Bytes from the server."""
        if self.deaf:
            return _NONE
        side = self._response
        if side.mode == HEAD and not side.held and len(self._pending) == 1:
            pair = self._whole_response(data, at)
            if pair is not None:
                return (pair,)
        position = 0
        finished: list[Pair] = []
        while not self.deaf:
            pending = self._pending
            pair = pending[0] if pending and not self._unmatched else None
            if side.mode == HEAD:
                if pair is not None and pair.response_whole:
                    pair = None  # its request still goes on, but the server says something more
                data, position, end = side.find_head(data, position, at)
                if end < 0:
                    if end == TOO_LONG:
                        self._unanswerable()
                    break
                head = self._observer.responses.read(data, position, end)
                if head is None:
                    self._unanswerable()
                    break
                position = self._answered(head, pair, data, position, end + 4, at)
            else:
                position = self._response_body(pair, data, position, at)
            if position < 0:
                break
            if side.mode == HEAD and not side.interim:
                self._unmatched = False
                if pair is not None:
                    pair.response_whole = True
                    pair.finished_at = at
                    if pair.request_whole:
                        finished += self._finish(at)
            if position >= len(data):
                break
        return finished or _NONE

    def _whole_response(self, data: bytes, at: float) -> Pair | None:
        """The answer to the only request, in one segment; None: look at it in detail."""
        pair = self._pending[0]
        end = data.find(b"\r\n\r\n")
        if end <= 0 or not pair.request_whole or self._unmatched:
            return None
        head = self._observer.responses.read(data, 0, end)
        if head is None or head.chunked or end + 4 + head.length != len(data):
            return None
        if head.status < 200 or head.status in _BODILESS or pair.head.line.method in _SPECIAL:
            return None
        del self._pending[0]
        pair.status = head.status
        pair.response_whole = True
        pair.first_byte_at = pair.finished_at = at
        if head.length:
            pair.first_body_at = at
        if pair.kept:
            pair.add_response(data)
        return pair

    def _answered(
        self,
        head: ResponseHead,
        pair: Pair | None,
        data: bytes,
        start: int,
        body_at: int,
        at: float,
    ) -> int:
        """A response's head: where in `data` the response ends, -1 where it does not."""
        side = self._response
        status = head.status
        side.interim = status < 200 and status != 101
        if pair is None and not side.interim:
            self._unmatched = True
            self._observer.drop("unmatched")
        if side.interim:
            if pair is not None and pair.kept:
                pair.add_response(data[start:body_at])
            return body_at
        method = b"" if pair is None else pair.head.line.method
        if pair is not None:
            pair.status = status
            pair.first_byte_at = side.began_at
        tunnel = status == 101 or (method == b"CONNECT" and status < 300)
        length = head.length
        if tunnel or status in _BODILESS or method == b"HEAD":
            length = 0
        elif head.chunked:
            side.begin_chunked()
        elif length == UNTIL_CLOSE:
            side.mode = CLOSE
        else:
            self._sized(length, body_at, len(data))
        if side.mode != HEAD:
            # The head goes along with what of the body came with it.
            return self._response_body(pair, data, body_at, at, start)
        stop = body_at + length
        if pair is not None:
            if length:
                pair.first_body_at = at
            if pair.kept:
                whole = start == 0 and stop == len(data)
                pair.add_response(data if whole else data[start:stop])
        if tunnel:
            self.deaf = self.foreign = True  # after the pair: whatever follows is not HTTP
            return len(data)
        return stop

    def _sized(self, length: int, body_at: int, size: int) -> None:
        if body_at + length > size:
            self._response.begin_sized(length)

    def _response_body(
        self, pair: Pair | None, data: bytes, body_at: int, at: float, start: int = -1
    ) -> int:
        side = self._response
        stop = side.end_of_body(data, body_at)
        if pair is not None:
            if not pair.first_body_at and body_at < len(data):
                pair.first_body_at = at
            if pair.kept and not pair.response_cut:
                first = body_at if start < 0 else start
                last = len(data) if stop < 0 else stop
                pair.add_response(data if last - first == len(data) else data[first:last])
        if side.malformed:
            self._unanswerable()
        return stop

    def _unanswerable(self) -> None:
        self.lost("malformed")
        self.deaf = True

    def _finish(self, at: float) -> list[Pair]:
        """The oldest pair is whole; others behind it may have been waiting for it."""
        finished = []
        pending = self._pending
        while pending and pending[0].response_whole and pending[0].request_whole:
            pair = pending.popleft()
            pair.finished_at = pair.finished_at or at
            finished.append(pair)
        return finished

    # What happens to the connection.

    def client_ended(self) -> None:
        """The client will send no more; a response may still come."""
        self._client_closed = True

    def server_ended(self, at: float, *, reset: bool = False) -> Sequence[Pair]:
        """The server will send no more: what lasted until now is whole, the rest never will be."""
        side = self._response
        if side.mode == CLOSE and not reset and self._pending and not self._unmatched:
            side.mode = HEAD
            self._pending[0].response_whole = True
            if self._pending[0].request_whole:
                self._pending[0].finished_at = at
        outcome = CLIENT_DISCONNECT if self._client_closed else UPSTREAM_UNREACHABLE
        return self._cut_off(outcome, at)

    def client_reset(self, at: float) -> Sequence[Pair]:
        return self._cut_off(CLIENT_DISCONNECT, at)

    def _cut_off(self, outcome: int, at: float) -> Sequence[Pair]:
        """Pairs that end with their connection: they were seen to the end, and it was no good."""
        pairs = list(self._pending)
        self._pending.clear()
        self._asking = None
        for pair in pairs:
            pair.finished_at = pair.finished_at or at
            pair.request_cut |= not pair.request_whole
            if not pair.response_whole:
                pair.response_cut = True
                pair.outcome = outcome
        return pairs

    def lost(self, reason: str) -> int:
        """Bytes are missing: nothing that is under way can become whole. How much that was."""
        pairs, self._pending = self._pending, deque()
        self._asking = None
        self._request = Side()
        self._response = Side()
        self._unmatched = False
        for pair in pairs:
            self._observer.gave_up(pair, reason)
        if not pairs and reason != "gap":
            self._observer.drop(reason)
        return len(pairs)
