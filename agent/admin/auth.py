"""Who may do what on the admin port: bearer tokens with names and roles, and a list of hosts.

The name of a token is the actor in the ledger. Comparing takes the same time for every wrong
token, and all refusals look alike.
"""

import hmac
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from agent.config import Config

Role = Literal["read", "ingest", "labels", "operate", "approve"]
EVERYTHING: tuple[Role, ...] = ("read", "ingest", "labels", "operate", "approve")
GENERATED = "admin.token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One bearer of rights; never printed."""

    name: str
    secret: str
    roles: tuple[Role, ...]

    def __repr__(self) -> str:
        return f"Token(name={self.name!r}, roles={self.roles!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gatekeeper:
    """Knows the tokens and the names under which the port may be addressed.

    `open_reads`: only this machine reaches the port, so reading needs no token.
    """

    tokens: Sequence[Token]
    hosts: frozenset[str]
    open_reads: bool
    metrics_need_token: bool = False

    def actor(self, authorization: str | None, role: Role) -> str | None:
        """The name of the token that has the role; None when there is no such token."""
        scheme, _, given = (authorization or "").partition(" ")
        secret = given.strip().encode()
        if scheme.lower() != "bearer" or not secret:
            return None
        found: Token | None = None
        for token in self.tokens:
            if hmac.compare_digest(token.secret.encode(), secret):
                found = token
        return found.name if found is not None and role in found.roles else None

    def addressed(self, host: str | None) -> bool:
        """Whether the Host header may be ours.

        A page elsewhere can make a browser send any name that it has pointed at us (DNS
        rebinding), never a bare address: those are always let in.
        """
        try:
            name = urlsplit(f"//{host or ''}").hostname
        except ValueError:  # brackets that do not close
            return False
        if not name:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self.hosts
        return True


def gatekeeper(config: Config, state_dir: Path) -> Gatekeeper:
    """From the configuration. Raises `ConfigError` or `OSError` when a token cannot be read."""
    admin = config.admin
    tokens = [
        Token(name=named.name, secret=secret.reveal(), roles=tuple(named.roles))
        for named in admin.tokens
        if (secret := named.secret()) is not None
    ]
    operator = admin.operator_token()
    if operator is not None:
        tokens.append(Token(name="operator", secret=operator.reveal(), roles=EVERYTHING))
    elif not tokens:
        secret_text = _generated(state_dir / GENERATED)
        tokens.append(Token(name="operator", secret=secret_text, roles=EVERYTHING))
    hosts = {"localhost", admin.listen_address.host.lower(), *(h.lower() for h in admin.hosts)}
    if admin.public_url is not None:
        hosts.add((urlsplit(admin.public_url).hostname or "").lower())
    return Gatekeeper(
        tokens=tuple(tokens),
        hosts=frozenset(hosts - {""}),
        open_reads=admin.listen_address.loopback,
        metrics_need_token=config.export.metrics_token,
    )


def _generated(path: Path) -> str:
    """The token of the state directory, made on first use and readable by its owner alone."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        token = ""
    # A crash between making and writing leaves an empty file: that must never be the token.
    if token:
        return token
    token = secrets.token_urlsafe(32)
    fresh = path.with_name(path.name + ".fresh")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return token
