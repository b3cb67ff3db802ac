"""TLS on either side: contexts made from files, and made anew when the files have changed.

A context is never changed once it is in use: new connections get the new one, those that are open
keep theirs. What must not break: files that cannot be used leave the old context in force, because
a certificate that is being replaced is half written for a moment.
"""

import os
import ssl
from collections.abc import Callable
from typing import Final

from agent.edge.settings import EdgeSettings

HTTP_1: Final = "http/1.1"
HTTP_2: Final = "h2"

_Signature = tuple[tuple[int, int, int] | None, ...]


class Contexts:
    """One context for each protocol that is offered, all of the same files."""

    def __init__(self, files: tuple[str, ...], make: Callable[[str], ssl.SSLContext]) -> None:
        """Raises OSError (which ssl's errors are) or ValueError when the files cannot be used."""
        self._files = tuple(file for file in files if file)
        self._make = make
        self._signature = self._look()
        self._made = {HTTP_1: make(HTTP_1), HTTP_2: make(HTTP_2)}
        self.reloads = 0
        self.failures = 0
        self.failure = ""  # why the files as they are now cannot be used

    def context(self, protocol: str) -> ssl.SSLContext:
        return self._made[protocol]

    def refresh(self) -> bool:
        """Look at the files again; true when they had changed, whether or not they can be used."""
        signature = self._look()
        if signature == self._signature:
            return False
        self._signature = signature
        try:
            self._made = {HTTP_1: self._make(HTTP_1), HTTP_2: self._make(HTTP_2)}
        except (OSError, ValueError) as error:
            self.failures += 1
            self.failure = str(error)
        else:
            self.reloads += 1
            self.failure = ""
        return True

    def _look(self) -> _Signature:
        """Kubernetes swaps a link, certbot a link, others write over: all show in one of these."""
        return tuple(_stamp(file) for file in self._files)


def listener_contexts(settings: EdgeSettings) -> Contexts:
    def make(protocol: str) -> ssl.SSLContext:
        return server_context(
            settings.tls_cert_file,
            settings.tls_key_file,
            settings.tls_client_ca_file,
            protocol=protocol,
        )

    files = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    return Contexts(files, make)


def upstream_contexts(settings: EdgeSettings) -> Contexts:
    def make(protocol: str) -> ssl.SSLContext:
        context = client_context(
            settings.upstream_ca_file,
            settings.upstream_cert_file,
            settings.upstream_key_file,
            verify=settings.upstream_verify,
        )
        context.set_alpn_protocols([protocol])
        return context

    files = (settings.upstream_ca_file, settings.upstream_cert_file, settings.upstream_key_file)
    return Contexts(files, make)


def server_context(
    cert_file: str, key_file: str, client_ca_file: str = "", *, protocol: str = HTTP_1
) -> ssl.SSLContext:
    """For clients; with a CA only those that it has signed come in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_cert_chain(cert_file, key_file, password=_no_password)
    context.set_alpn_protocols([protocol])
    if client_ca_file:
        context.load_verify_locations(client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca_file: str = "", cert_file: str = "", key_file: str = "", *, verify: bool = True
) -> ssl.SSLContext:
    """For the upstream: checked against `ca_file`, else against what this machine trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.load_default_certs()
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted: give one that is not, readable by its owner alone")


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
