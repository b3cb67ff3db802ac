"""A certificate authority of the tests' own, made by openssl in a temporary directory."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def names(self) -> tuple[str, str]:
        return str(self.cert), str(self.key)


class Authority:
    """Signs what it is asked to; `cert` is what to trust."""

    def __init__(self, home: Path, name: str = "authority") -> None:
        self.home = home
        self.cert, self._key = home / f"{name}.pem", home / f"{name}.key"
        self._number = 0
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(self._key), "-out", str(self.cert), "-days", "2"),
            *("-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE"),
        )

    def pair(self, common_name: str, *alternatives: str) -> Pair:
        """`alternatives` are as openssl writes them: DNS:name, IP:address."""
        self._number += 1
        stem = self.home / f"{self.cert.stem}-{self._number}"
        pair = Pair(cert=stem.with_suffix(".pem"), key=stem.with_suffix(".key"))
        names = ", ".join(alternatives or ("DNS:localhost", "IP:127.0.0.1"))
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(pair.key), "-out", str(pair.cert), "-days", "2"),
            *("-CA", str(self.cert), "-CAkey", str(self._key), "-subj", f"/CN={common_name}"),
            *("-addext", f"subjectAltName={names}", "-addext", "basicConstraints=CA:FALSE"),
        )
        return pair

    def client(self, pair: Pair | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority."""
        context = ssl.create_default_context(cafile=str(self.cert))
        if pair is not None:
            context.load_cert_chain(*pair.names)
        return context

    def server(self, pair: Pair, *, client_ca: Path | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair.names)
        if client_ca is not None:
            context.load_verify_locations(str(client_ca))
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
