"""Sections admin and state: who may ask the agent what, and where it keeps its memory."""

from typing import Literal, TypeAlias, get_args

from pydantic import Field

from agent.config.address import Address, parse_listen
from agent.config.secret import Secret, read_secret
from agent.config.section import FilePath, HostName, Listen, Name, Seconds, Section, Url

Role: TypeAlias = Literal["read", "ingest", "labels", "operate", "approve"]
ROLES: tuple[Role, ...] = get_args(Role)


class TokenConfig(Section):
    """A token with a name of its own: the actor in the ledger."""

    name: Name
    """Who it is."""
    token_file: FilePath | None = None
    """File that holds the token; or by environment as TOKEN."""
    token: Secret | None = None
    """Only by environment."""
    roles: tuple[Role, ...] = Field(min_length=1)
    """What it may do."""

    def secret(self) -> Secret | None:
        """The token, from the environment or its file. May raise ConfigError."""
        if self.token is not None or self.token_file is None:
            return self.token
        return read_secret(self.token_file, key=f"admin.tokens ({self.name}) token_file")


class AdminConfig(Section):
    """The admin API and the status page."""

    listen: Listen = "127.0.0.1:9311"
    """HOST:PORT, [v6]:PORT, :PORT or unix:/path. Beyond loopback a token is required."""
    token: Secret | None = None
    """Only by environment: REMORA_ADMIN__TOKEN."""
    token_file: FilePath | None = None
    """File of the one operator token; none given: generated in the state directory, mode 0600."""
    tokens: tuple[TokenConfig, ...] = ()
    """Tokens with names and roles, instead of the one."""
    public_url: Url | None = None
    """Address under which others reach the API; makes callback_url."""
    hosts: tuple[HostName, ...] = ()
    """Further names that requests may be addressed to."""

    @property
    def listen_address(self) -> Address:
        """`listen`, parsed."""
        return parse_listen(self.listen)

    def operator_token(self) -> Secret | None:
        """The one operator token, from the environment or its file. May raise ConfigError."""
        if self.token is not None or self.token_file is None:
            return self.token
        return read_secret(self.token_file, key="admin.token_file")


class StateConfig(Section):
    """What survives a restart."""

    dir: FilePath | None = None
    """Null: $STATE_DIRECTORY, else /var/lib/remora when writable, else ~/.local/state/remora."""
    snapshot_s: Seconds = 30.0
    """How often detectors are saved; a crash loses at most this much."""
