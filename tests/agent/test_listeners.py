"""Sockets that were open before us: taken by name or address, and never by mistake."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import listeners
from agent.config import load_config, parse_listen
from agent.listeners import Inherited, addresses, inherited, matched, open_listeners

FIRST_FD = 700


@pytest.fixture
def hand_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, str]]]:
    """Puts sockets where systemd would, and gives the variables that it would set."""
    monkeypatch.setattr(listeners, "FIRST_FD", FIRST_FD)
    made: list[int] = []

    def hand(*sockets: socket.socket, names: str | None = None) -> dict[str, str]:
        for place, sock in enumerate(sockets):
            os.dup2(sock.fileno(), FIRST_FD + place)
            made.append(FIRST_FD + place)
            sock.close()
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))}
        return environ if names is None else {**environ, "LISTEN_FDNAMES": names}

    yield hand
    for descriptor in made:
        try:
            os.close(descriptor)
        except OSError:
            continue  # whoever took it has closed it


def listening(host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def shown(found: list[Inherited]) -> list[tuple[str, object]]:
    return [(one.name, one.sock.getsockname()) for one in found]


def test_they_come_with_their_names_and_the_variables_go(
    hand_on: Callable[..., dict[str, str]],
) -> None:
    one, other = listening(), listening()
    places = [one.getsockname(), other.getsockname()]
    environ = hand_on(one, other, names="proxy:admin")
    found = inherited(environ)
    assert shown(found) == [("proxy", places[0]), ("admin", places[1])]
    assert environ == {}  # a child of ours inherits none of them
    assert not any(one.sock.get_inheritable() or one.sock.getblocking() for one in found)
    for taken in found:
        taken.sock.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
    ],
)
def test_what_is_not_meant_for_us_is_left_alone(environ: dict[str, str]) -> None:
    assert inherited(environ) == []
    assert environ == {}


def test_what_is_meant_for_another_process_is_left_alone(
    hand_on: Callable[..., dict[str, str]],
) -> None:
    environ = hand_on(listening(), names="proxy") | {"LISTEN_PID": "1"}
    assert inherited(environ) == []
    assert environ == {}
    os.fstat(FIRST_FD)


def test_a_number_beyond_all_sense_ends_somewhere(hand_on: Callable[..., dict[str, str]]) -> None:
    environ = hand_on(listening()) | {"LISTEN_FDS": "999999999999"}
    (found,) = inherited(environ)
    found.sock.close()


def test_what_does_not_listen_is_passed_over(hand_on: Callable[..., dict[str, str]]) -> None:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    assert inherited(hand_on(datagrams, silent)) == []
    os.fstat(FIRST_FD)  # whatever it is, it was not ours to close


def test_a_name_wins_over_an_address() -> None:
    one, other = listening(), listening()
    with one, other:
        wanted = {
            "proxy": parse_listen(f"127.0.0.1:{one.getsockname()[1]}"),
            "admin": parse_listen(f"127.0.0.1:{other.getsockname()[1]}"),
        }
        found = [Inherited(name="admin", sock=one), Inherited(name="remora.socket", sock=other)]
        assert matched(wanted, found) == {"admin": one}
        unnamed = [Inherited(name="x", sock=other), Inherited(name="x", sock=one)]
        assert matched(wanted, unnamed) == {"proxy": one, "admin": other}


@pytest.mark.parametrize(
    ("bound", "listen", "same"),
    [
        ("::", "0.0.0.0:{}", True),  # systemd binds both families for a mere port
        ("::", ":{}", True),
        ("0.0.0.0", ":{}", True),
        ("127.0.0.1", "localhost:{}", True),
        ("::1", "[::1]:{}", True),
        ("::1", "127.0.0.1:{}", False),
        ("127.0.0.1", ":{}", False),  # fewer would reach us than are meant to
        ("0.0.0.0", "127.0.0.1:{}", False),  # more would
    ],
)
def test_addresses_are_compared_by_what_they_mean(bound: str, listen: str, same: bool) -> None:
    with listening(bound) as sock:
        wanted = {"proxy": parse_listen(listen.format(sock.getsockname()[1]))}
        found = matched(wanted, [Inherited(name="", sock=sock)])
        assert (found == {"proxy": sock}) is same


def test_a_unix_socket_is_known_by_its_path(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/s")
        found = [Inherited(name="", sock=sock)]
        assert matched({"push": parse_listen(f"unix:{tmp_path}/s")}, found) == {"push": sock}
        assert matched({"push": parse_listen(f"unix:{tmp_path}/t")}, found) == {}
        assert matched({"push": parse_listen("127.0.0.1:9312")}, found) == {}


async def test_the_rest_is_bound_and_what_is_left_over_is_closed(
    hand_on: Callable[..., dict[str, str]],
) -> None:
    config = load_config(
        None,
        environ={},
        overrides={
            "sources.0.upstream": "http://127.0.0.1:9",
            "sources.0.listen": "127.0.0.1:0",
            "sources.1.kind": "push",
            "sources.1.listen": "127.0.0.1:0",
            "admin.listen": "127.0.0.1:0",
        },
    )
    assert list(addresses(config)) == ["proxy", "push", "admin"]
    given, stray = listening(), listening()
    place = given.getsockname()
    opened = await open_listeners(config, hand_on(stray, given, names="stray:push"))
    assert opened.keys() == {"proxy", "push", "admin"}
    assert opened["push"].getsockname() == place
    assert len({sock.getsockname()[1] for sock in opened.values()}) == 3
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(FIRST_FD)  # its holder has it; here nobody would accept
    for sock in opened.values():
        sock.close()


def test_a_listener_is_written_as_the_configuration_writes_it(tmp_path: Path) -> None:
    for host, written in (("127.0.0.1", "127.0.0.1:{}"), ("::1", "[::1]:{}")):
        with listening(host) as sock:
            assert listeners.shown(sock) == written.format(sock.getsockname()[1])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "r"))
        assert listeners.shown(sock) == f"unix:{tmp_path}/r"
