"""TLS of the proxy: the certificate that clients are shown, and how upstreams are verified.

`remora check` tries the files (`unusable`); the edge takes up new ones while it runs.
"""

from collections.abc import Iterator

from agent.config.key_path import KeyPath
from agent.config.section import FilePath, Flag, Section, Text


class ListenerTlsConfig(Section):
    """The certificate of the listener. Files that change are taken up without a restart."""

    cert_file: FilePath
    """Certificate chain in PEM, the server's own first."""
    key_file: FilePath
    """Its private key in PEM, not encrypted."""
    client_ca_file: FilePath | None = None
    """When given, only clients with a certificate of this authority come in."""


class UpstreamTlsConfig(Section):
    """How an https upstream is verified, and what it is shown."""

    ca_file: FilePath | None = None
    """Authorities to trust, in PEM; without it those of this machine."""
    cert_file: FilePath | None = None
    """Certificate chain to show to an upstream that asks for one."""
    key_file: FilePath | None = None
    """Its private key, not encrypted."""
    server_name: Text | None = None
    """The name that the certificate must have; without it the upstream's host."""
    verify: Flag = True
    """Whether to verify at all; false trusts whoever answers."""


def findings(
    path: KeyPath, upstream: str, tls: UpstreamTlsConfig | None
) -> Iterator[tuple[KeyPath, str]]:
    """Mistakes between keys that are each right by themselves."""
    if tls is None:
        return
    if not upstream.startswith("https://"):
        yield (*path, "upstream_tls"), "is read only by an https upstream: write https://host:port"
    if tls.key_file is not None and tls.cert_file is None:
        yield (*path, "upstream_tls", "key_file"), "needs its certificate: set cert_file too"
    if tls.cert_file is not None and tls.key_file is None:
        yield (*path, "upstream_tls", "cert_file"), "needs its key: set key_file too"


def unusable(
    path: KeyPath, listener: ListenerTlsConfig | None, upstream: UpstreamTlsConfig | None
) -> Iterator[tuple[KeyPath, str]]:
    """What the edge would stumble over: a key that does not fit, a file that is no certificate."""
    # Only `check` and `run` look at files, and only these import what reads them.
    from agent.edge.tls import client_context, server_context

    if listener is not None:
        cert, key = str(listener.cert_file), str(listener.key_file)
        try:
            server_context(cert, key, str(listener.client_ca_file or ""))
        except (OSError, ValueError) as error:
            yield (*path, "tls"), f"cannot be used ({error}): give a certificate, and the key to it"
    if upstream is not None:
        given = (upstream.ca_file, upstream.cert_file, upstream.key_file)
        try:
            client_context(*(str(file or "") for file in given), verify=upstream.verify)
        except (OSError, ValueError) as error:
            yield (*path, "upstream_tls"), f"cannot be used ({error}): give files in PEM"
