"""Addresses as people write them: HOST:PORT, [v6]:PORT, :PORT, unix:/path, and http URLs of those.

Parsing only. Nothing here resolves a name: names are resolved where they are dialled.
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen or to connect: a host and port, or the path of a Unix socket."""

    host: str = ""  # without brackets; "" means every interface when listening
    port: int = 0
    path: str | None = None  # a Unix socket; host and port mean nothing then
    tls: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost counts as not."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        written = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"https://{written}" if self.tls else written


def parse_listen(text: str) -> Address:
    """The address to listen on. Port 0 asks the kernel for a free one.

    >>> parse_listen(":9000").port, str(parse_listen("[::1]:80")), str(parse_listen("unix:/run/r"))
    (9000, '[::1]:80', 'unix:/run/r')
    """
    if text.startswith("unix:"):
        return _socket_path(text)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("has no port: write HOST:PORT, [v6]:PORT, :PORT or unix:/path")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host.partition("%")[0])
        except ValueError:
            raise ValueError("is no IPv6 address in its brackets: write [v6]:PORT") from None
    elif ":" in host:
        raise ValueError("has more than one colon: put an IPv6 address in brackets, [v6]:PORT")
    if any(c.isspace() or c in "/?#@[]" for c in host):
        raise ValueError("is no address: write HOST:PORT, [v6]:PORT, :PORT or unix:/path")
    return Address(host=host, port=_port(port))


def parse_upstream(text: str) -> Address:
    """The model server behind the proxy: http://host:port, https://host:port or unix:/path.

    >>> str(parse_upstream("http://model:8000")), parse_upstream("http://model").port
    ('model:8000', 80)
    """
    if text.startswith("unix:"):
        return _socket_path(text)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no upstream: write http://host:port, https://host:port or unix:/path")
    if parts.username or parts.password:
        raise ValueError("carries a user or password: leave them out, clients send their own")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("has a path: paths are forwarded as they come, write http://host:port")
    tls = parts.scheme == "https"
    port = _url_port(parts.netloc, parts.port, 443 if tls else 80)
    return Address(host=parts.hostname, port=port, tls=tls)


def parse_url(text: str) -> str:
    """An http or https URL that something is sent to, unchanged; credentials in it are refused."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no URL: write https://host/path")
    if any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("has spaces or control characters in it: write https://host/path")
    if parts.username or parts.password:
        raise ValueError("carries a user or password: give secrets by file or environment")
    _url_port(parts.netloc, parts.port, 443)
    return text


def _socket_path(text: str) -> Address:
    path = text.removeprefix("unix:")
    if not path.startswith("/") or "\0" in path:
        raise ValueError("is no absolute socket path: write unix:/path")
    if len(path.encode()) > 107:  # sun_path of Linux, less its final zero
        raise ValueError("is too long for a socket: at most 107 bytes after unix:")
    return Address(path=path)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > 65_535:
        raise ValueError("has no port between 0 and 65535 after its last colon")
    return int(text)


def _url_port(netloc: str, port: int | None, default: int) -> int:
    if port == 0:
        raise ValueError("has port 0: name the port")
    if netloc.endswith(":"):
        raise ValueError("ends in a colon: name the port or leave the colon out")
    return default if port is None else port
