"""Which packets the kernel copies for us: a classic BPF program, assembled here.

It runs for every packet of the interface, before anything is copied, so all that is not wanted
ends here: other ports, bare acknowledgements (half of all packets), the second sight of loopback's
frames, and flows that sampling leaves out. What must not break: the program decides by the
packet's own bytes alone, and jumps only forward, or the kernel refuses it.
"""

import struct
from dataclasses import dataclass
from typing import Final

# Opcodes of linux/filter.h, by the names that tcpdump -d prints.
LDH: Final = 0x28  # A = two bytes at k
LDB: Final = 0x30
LDH_X: Final = 0x48  # A = two bytes at X + k
LDB_X: Final = 0x50
LDX_IMM: Final = 0x01
LDX_MEM: Final = 0x61
LDX_MSH: Final = 0xB1  # X = 4 * (byte at k & 15): the length of an IPv4 header
LD_MEM: Final = 0x60
ST: Final = 0x02
ADD: Final = 0x04
ADD_X: Final = 0x0C
SUB_X: Final = 0x1C
MUL: Final = 0x24
AND: Final = 0x54
LSH: Final = 0x64
RSH: Final = 0x74
TAX: Final = 0x07
JA: Final = 0x05
JEQ: Final = 0x15
JGE: Final = 0x35
JSET: Final = 0x45
RET: Final = 0x06

INSTRUCTIONS_MAX: Final = 4_096  # BPF_MAXINSNS
_PACKET_TYPE_AT: Final = 0xFFFF_F004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_PACKET_OUTGOING: Final = 4
_SNAP_BYTES: Final = 0x8_0000  # BIG TCP: up to half a megabyte in one frame

_ETHERNET_BYTES: Final = 14
_VLAN_BYTES: Final = 4
_FIN_SYN_RST: Final = 7

# Of 4,096 parts of all client ports, how many are kept.
PARTS: Final = 4_096
_PART_SHIFT: Final = 20
_WORD: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSampling:
    """Which connections are seen: those whose client port falls into the first `keep` parts.

    Adding the salt turns the circle of parts, so over all salts each port is kept with exactly
    keep / PARTS. The multiplier has to be odd.
    """

    keep: int = PARTS
    multiplier: int = 0x9E37_79B1
    salt: int = 0

    @property
    def everything(self) -> bool:
        return self.keep >= PARTS

    @property
    def weight(self) -> float:
        """For how many connections a kept one stands."""
        return PARTS / min(self.keep, PARTS)

    def keeps(self, client_port: int) -> bool:
        """What the program decides, for those that run outside of the kernel.

        >>> FlowSampling(keep=0).keeps(40_000), FlowSampling().keeps(40_000)
        (False, True)
        """
        return (client_port * self.multiplier + self.salt & _WORD) >> _PART_SHIFT < self.keep


class Program:
    """Instructions with labels to jump to. A label of "" means the next instruction."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def add(self, code: int, k: int = 0, *, yes: str = "", no: str = "") -> None:
        self._lines.append((code, yes, no, k))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._lines)

    def instructions(self) -> list[tuple[int, int, int, int]]:
        """Code, jump if true, jump if false, k. Raises ValueError when a jump is too far."""
        found = []
        for at, (code, yes, no, k) in enumerate(self._lines):
            if code == JA:
                found.append((code, 0, 0, self._distance(at, yes)))
                continue
            found.append((code, self._short(at, yes), self._short(at, no), k))
        if len(found) > INSTRUCTIONS_MAX:
            raise ValueError("the packet filter is too long")
        return found

    def _short(self, at: int, label: str) -> int:
        distance = self._distance(at, label)
        if distance > 255:
            raise ValueError(f"{label} is too far away to jump to")
        return distance

    def _distance(self, at: int, label: str) -> int:
        return self._labels[label] - at - 1 if label else 0


def flow_filter(
    port: int, sampling: FlowSampling, *, ethernet: bool, skip_outgoing: bool
) -> list[tuple[int, int, int, int]]:
    """The program for one server port, IPv4 and IPv6, with at most one VLAN tag in the frame.

    Without `ethernet` frames begin with the IP header, as those of tunnels do. `skip_outgoing` is
    for loopback, which shows each frame twice.
    """
    program = Program()
    if skip_outgoing:
        program.add(LDH, _PACKET_TYPE_AT)
        program.add(JEQ, _PACKET_OUTGOING, yes="drop")
    if ethernet:
        _link_layer(program)
        bases = {" plain": _ETHERNET_BYTES, " behind vlan": _ETHERNET_BYTES + _VLAN_BYTES}
    else:
        program.add(LDB, 0)
        program.add(RSH, 4)
        program.add(JEQ, 4, yes="v4 plain")
        program.add(JEQ, 6, yes="v6 plain", no="drop")
        bases = {" plain": 0}
    for name, base in bases.items():
        _network_layer(program, name, base, port)
    program.label("sampled")
    _flow_sampling(program, sampling)
    program.add(RET, _SNAP_BYTES)
    program.label("drop")
    program.add(RET, 0)
    return program.instructions()


def _link_layer(program: Program) -> None:
    program.add(LDH, 12)
    program.add(JEQ, 0x0800, yes="v4 plain")
    program.add(JEQ, 0x86DD, yes="v6 plain")
    program.add(JEQ, 0x8100, yes="vlan")
    program.add(JEQ, 0x88A8, no="drop")
    program.label("vlan")
    program.add(LDH, 16)
    program.add(JEQ, 0x0800, yes="v4 behind vlan")
    program.add(JEQ, 0x86DD, yes="v6 behind vlan", no="drop")


def _network_layer(program: Program, name: str, base: int, port: int) -> None:
    """X becomes the length of the IP header, M[1] that of the whole packet, 0 for BIG TCP's."""
    program.label("v4" + name)
    program.add(LDB, base + 9)
    program.add(JEQ, 6, no="drop" + name)
    program.add(LDH, base + 6)
    program.add(JSET, 0x1FFF, yes="drop" + name)  # a later fragment has no ports
    program.add(LDH, base + 2)
    program.add(ST, 1)
    program.add(LDX_MSH, base)
    program.add(JA, yes="tcp" + name)

    program.label("v6" + name)
    program.add(LDX_IMM, 40)
    program.add(LDB, base + 6)
    program.add(JEQ, 6, yes="v6 length" + name)
    program.add(JEQ, 0, no="drop" + name)  # hop-by-hop options: jumbograms have them
    program.add(LDB, base + 40)
    program.add(JEQ, 6, no="drop" + name)
    program.add(LDB, base + 41)
    program.add(LSH, 3)
    program.add(ADD, 48)
    program.add(TAX)
    program.label("v6 length" + name)
    program.add(LDH, base + 4)
    program.add(JEQ, 0, yes="v6 no length" + name)
    program.add(ADD, 40)
    program.label("v6 no length" + name)
    program.add(ST, 1)

    program.label("tcp" + name)
    program.add(LDH_X, base + 2)
    program.add(JEQ, port, yes="to server" + name)
    program.add(LDH_X, base)
    program.add(JEQ, port, no="drop" + name)
    program.add(LDH_X, base + 2)
    program.add(JA, yes="client port" + name)
    program.label("to server" + name)
    program.add(LDH_X, base)
    program.label("client port" + name)
    program.add(ST, 0)
    _payload_or_event(program, name, base)
    # Near enough for short jumps. No RET here: to the kernel's check of what M[] holds, the
    # instruction behind a RET comes from the RET.
    program.label("drop" + name)
    program.add(JA, yes="drop")


def _payload_or_event(program: Program, name: str, base: int) -> None:
    """Bare acknowledgements end here."""
    program.add(LDB_X, base + 13)
    program.add(JSET, _FIN_SYN_RST, yes="wanted" + name)
    program.add(LDB_X, base + 12)
    program.add(AND, 0xF0)
    program.add(RSH, 2)
    program.add(ADD_X)
    program.add(TAX)  # both headers
    program.add(LD_MEM, 1)
    program.add(JEQ, 0, yes="wanted" + name)
    program.add(SUB_X)
    program.add(JEQ, 0, yes="drop" + name)
    program.label("wanted" + name)
    program.add(JA, yes="sampled")


def _flow_sampling(program: Program, sampling: FlowSampling) -> None:
    if sampling.everything:
        return
    program.add(LD_MEM, 0)
    program.add(MUL, sampling.multiplier)
    program.add(ADD, sampling.salt)
    program.add(RSH, _PART_SHIFT)
    program.add(JGE, sampling.keep, yes="drop")


def packed(instructions: list[tuple[int, int, int, int]]) -> bytes:
    """As the kernel wants it: an array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *one) for one in instructions)
