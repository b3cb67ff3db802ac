"""A receiver of Standard Webhooks: the body as it is, signed.

Only here does a body carry `callback_secret`: it goes to one receiver, over TLS, and is not shown
to anybody else on the way, as GitHub would show it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from retrain.webhooks.bodies import encode
from retrain.webhooks.sign import derive_secret, sign
from retrain.webhooks.targets.target import Message, Outgoing, Receipt, receipt_by_status

USER_AGENT = "remora"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GenericTarget:
    """POSTs to `url`, signed with every one of `keys`; without keys it would not be made."""

    name: str
    events: frozenset[str]
    url: str
    keys: tuple[bytes, ...]
    callback_root: bytes | None = None

    def request(self, message: Message, *, now: float) -> Outgoing:
        """The body never changes between attempts, the timestamp and signature do."""
        data = message.data
        if message.run_id is not None and self.callback_root is not None:
            secret = derive_secret(self.callback_root, message.run_id)
            data = {**data, "callback_secret": secret}
        body = encode(message.type, message.at, data)
        headers = {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            **sign(self.keys, webhook_id=message.webhook_id, at=now, body=body),
        }
        return Outgoing(method="POST", url=self.url, headers=headers, body=body)

    def receipt(
        self, status: int, headers: Mapping[str, str], body: bytes, *, now: float
    ) -> Receipt:
        """Any 2xx is delivered; the answer's body means nothing."""
        return receipt_by_status(status, headers, now=now)

    def lookup(self, message: Message) -> Outgoing | None:
        """Never: a receiver tells repeated messages by their id."""
        return None

    def found(self, message: Message, status: int, body: bytes) -> Receipt | None:
        """Never asked."""
        return None
