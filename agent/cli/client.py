"""Commands that talk to a running agent over its admin API.

The token is sent to the address that was asked for and nowhere else: redirects are not followed,
and an address on this machine is never asked through a proxy.
"""

import argparse
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from agent.errors import BadInputError, UnreachableError, one_line

ADMIN_URL = "http://127.0.0.1:9311"
TOKEN_VARIABLE = "REMORA_ADMIN__TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT_S = 15.0
ANSWER_BYTES_MAX = 64 << 20


class NotPossibleError(Exception):
    """The agent understood and said no (404, 409): exit 1, its reason in one line."""


def add_admin(parser: argparse.ArgumentParser) -> None:
    """`--admin` and `--token-file`."""
    parser.add_argument(
        "--admin",
        metavar="URL",
        default=ADMIN_URL,
        help=f"the agent's admin address, http://host:port or unix:/path (default {ADMIN_URL})",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help=f"file that holds the token (or set {TOKEN_VARIABLE})",
    )


class AdminClient:
    """One agent's admin API. Every failure is one of the exceptions that a command may raise."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.url: str = args.admin
        self._socket = _socket_of(args.admin)
        self._token = _token(args.token_file)

    def get(self, path: str, **query: object) -> Any:
        """The JSON that the agent answers."""
        return self._ask("GET", path, query=query)

    def post(self, path: str, body: dict[str, object] | list[dict[str, object]]) -> Any:
        """Asks for a change; the JSON that the agent answers."""
        return self._ask("POST", path, body=body)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, object] | None = None,
        body: dict[str, object] | list[dict[str, object]] | None = None,
    ) -> Any:
        import httpx

        headers = {"accept": "application/json"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        base = "http://localhost" if self._socket else self.url.rstrip("/")
        transport = httpx.HTTPTransport(uds=self._socket) if self._socket else None
        parameters = {k: str(v) for k, v in (query or {}).items() if v is not None}
        try:
            with httpx.Client(
                timeout=TIMEOUT_S, transport=transport, trust_env=not self._local()
            ) as client:
                answer = client.request(
                    method, f"{base}{path}", headers=headers, params=parameters, json=body
                )
        except httpx.InvalidURL as error:
            raise BadInputError(f"--admin {self.url}: {error}: write http://host:port") from None
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise UnreachableError(
                f"no agent answers at {self.url} ({said}): is `remora run` up, is --admin right?"
            ) from None
        return _result(answer, self.url)

    def _local(self) -> bool:
        host = urlsplit(self.url).hostname or "localhost"
        return host in ("localhost", "::1") or host.startswith("127.")


def segment(text: str) -> str:
    """The text as one part of a path."""
    return quote(text, safe="")


def rows_of(answer: Any, key: str) -> list[dict[str, Any]]:
    """The list in an answer, be it bare or under its name."""
    found = answer.get(key) if isinstance(answer, dict) else answer
    if not isinstance(found, list):
        raise UnreachableError(f"the answer holds no list of {key}: is --admin a Remora agent?")
    return [row for row in found if isinstance(row, dict)]


def _result(answer: Any, url: str) -> Any:
    status: int = answer.status_code
    if 200 <= status < 300:
        try:
            return answer.json()
        except ValueError:
            raise UnreachableError(f"{url} does not answer as a Remora agent does") from None
    reason = _reason(answer)
    if status == 401:
        raise BadInputError(
            f"{url} asks for a token{reason}: give --token-file (admin.token in the"
            f" agent's state directory, unless another is configured), or set {TOKEN_VARIABLE}"
        )
    if status == 403:
        raise BadInputError(f"the token may not do that{reason}: use one with the role for it")
    if status in (404, 409):
        raise NotPossibleError(one_line(f"the agent says no{reason or f' ({status})'}"))
    if 400 <= status < 500:
        raise BadInputError(f"{url} refuses the request ({status}){reason}")
    raise UnreachableError(f"{url} answers {status}{reason}: see the agent's logs")


def _reason(answer: Any) -> str:
    try:
        body = answer.json()
    except ValueError:
        return ""
    if isinstance(body, dict):
        for key in ("error", "reason", "detail", "message"):
            if isinstance(body.get(key), str):
                return f": {body[key]}"
    return ""


def _socket_of(url: str) -> str | None:
    if url.startswith("unix:"):
        return url.removeprefix("unix:")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise BadInputError(f"--admin {url} is no address: write http://host:port or unix:/path")
    return None


def _token(file: Path | None) -> str | None:
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
    else:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or "it is not text"
            raise BadInputError(f"--token-file {file}: cannot be read ({said})") from None
        if not token:
            raise BadInputError(f"--token-file {file} is empty: write the token into it")
    if not (token.isascii() and token.isprintable()):
        raise BadInputError("the token holds characters that a header cannot carry")
    return token or None
