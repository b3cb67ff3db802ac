"""The source `push`: others send what they saw, as CloudEvents or as rows.

KServe's logger can send no token: that is why this listener is apart from the admin port, and why
leaving it open beyond this machine must be written out, with the networks that may.
"""

from collections.abc import Iterator
from typing import Literal

from agent.config.address import Address, parse_listen
from agent.config.key_path import KeyPath
from agent.config.secret import Secret, read_secret
from agent.config.section import Bytes, Cidr, Count, FilePath, Listen, Name, Seconds, Section
from agent.config.sources.rows import RowNames


class TlsConfig(Section):
    """TLS on the listener. Certificates are read at start."""

    cert_file: FilePath
    """The certificate and what it was signed by, PEM."""
    key_file: FilePath
    """Its private key, PEM."""
    client_ca_file: FilePath | None = None
    """Who signs the certificates of clients; needed by auth mtls, and by it alone."""


class PushSource(Section):
    """A listener for CloudEvents and rows."""

    kind: Literal["push"]
    """What brings exchanges in."""
    listen: Listen = "127.0.0.1:9312"
    """HOST:PORT, [v6]:PORT, :PORT or unix:/path."""
    auth: Literal["bearer", "path_token", "mtls", "none"] | None = None
    """How senders show who they are; null: none, which beyond loopback must be written out."""
    token: Secret | None = None
    """Only by environment."""
    token_file: FilePath | None = None
    """File of the token of auth bearer and path_token; or by environment as TOKEN."""
    tls: TlsConfig | None = None
    """TLS, with any auth; needed by mtls."""
    allow_cidrs: tuple[Cidr, ...] = ()
    """Networks that may connect; none named: any may."""
    body_bytes_max: Bytes = 16_777_216
    """Longest body, unpacked; a longer one is answered 413."""
    queue_bytes_max: Bytes = 67_108_864
    """Bodies being read or waiting for analysis, together; beyond, senders are answered 429."""
    queue_max: Count = 10_000
    """Exchanges and groups of rows that wait for analysis; beyond, senders are answered 429."""
    connections_max: Count = 256
    """Connections at once; beyond, they are answered 503."""
    body_timeout_s: Seconds = 30.0
    """How long a sender may take over one request."""
    pair_s: Seconds = 60.0
    """How long an event of a request waits for that of its response, or the other way round."""
    pair_bytes_max: Bytes = 33_554_432
    """Events that wait for their other half, together; the oldest go first."""
    pair_max: Count = 10_000
    """How many events may wait for their other half."""
    components: tuple[Literal["predictor", "transformer", "explainer"], ...] = ("predictor",)
    """Components of KServe whose events count."""
    canary_version: Name = "canary"
    """Version of the answers that KServe's endpoint canary gave."""
    rows: RowNames = RowNames()
    """What the members of a pushed row are called."""

    @property
    def listen_address(self) -> Address:
        """`listen`, parsed."""
        return parse_listen(self.listen)

    def secret(self) -> Secret | None:
        """The token, from the environment or its file. May raise ConfigError."""
        if self.token is not None or self.token_file is None:
            return self.token
        return read_secret(self.token_file, key="sources (push) token_file")

    def findings(self, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
        """Mistakes between keys that are each right by themselves."""
        address = self.listen_address
        if not address.loopback and self.auth is None:
            yield (
                (*path, "auth"),
                "is not written, and other machines reach this listener: set bearer, path_token "
                "or mtls, or none together with allow_cidrs",
            )
        if not address.loopback and self.auth == "none" and not self.allow_cidrs:
            yield (
                (*path, "allow_cidrs"),
                "is needed by auth none beyond loopback: name the networks that may send, such as "
                "the cluster's pods, 10.0.0.0/8",
            )
        has_token = self.token is not None or self.token_file is not None
        if self.auth in ("bearer", "path_token") and not has_token:
            name = "__".join(str(part) for part in path).upper()
            message = f"is needed by auth {self.auth}: name it, or set REMORA_{name}__TOKEN"
            yield (*path, "token_file"), message
        if self.auth == "mtls" and (self.tls is None or self.tls.client_ca_file is None):
            yield (*path, "tls"), "is needed by auth mtls, with client_ca_file"
        if self.auth != "mtls" and self.tls is not None and self.tls.client_ca_file is not None:
            yield (*path, "tls", "client_ca_file"), "is read only by auth mtls: set that too"
        if self.body_bytes_max > self.queue_bytes_max:
            yield (*path, "queue_bytes_max"), "is below body_bytes_max: raise it"
