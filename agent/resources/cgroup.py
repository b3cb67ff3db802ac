"""Limits of the server's control group, and what they did: throttling and kills for memory.

Version 2 and version 1 (on hybrid machines each controller has its own). A group that is shared
with others says nothing about the server: the root's, and the one that Remora itself is in.

Source: the kernel's admin-guide, cgroup-v2.rst and cgroup-v1/.
"""

from pathlib import Path

from agent.resources.reading import Look, Roots, number_in, table_in

_NS = 1e9
_US = 1e6
# Version 1 says "no limit" by a number near 2^63, rounded down to a page.
_UNLIMITED_BYTES = 1 << 62


def read_cgroup(pid: int, roots: Roots, *, own_pid: int | str = "self") -> Look:
    """cgroup_memory_bytes, memory_limit_bytes, cpu_limit_cores, throttled_s, oom_kills."""
    look = Look()
    try:
        theirs, ours = _groups(pid, roots), _groups(own_pid, roots)
        _read(theirs, ours, roots, look)
    except PermissionError:
        look.absent["cgroup"] = "no permission to read its control group"
    if not look.values and not look.absent:
        look.absent["cgroup"] = "its control group is not visible from here: mount /sys/fs/cgroup"
    return look


def _read(theirs: dict[str, str], ours: dict[str, str], roots: Roots, look: Look) -> None:
    shared: set[str] = set()
    for controller, read in (("cpu", _cpu_v1), ("memory", _memory_v1)):
        path = theirs.get(controller)
        if path is None:
            continue  # version 2 has it
        if path in ("/", ours.get(controller)):
            shared.add(controller)
        else:
            read(_inside(roots.sys / "fs/cgroup" / controller, path), look)
    path = theirs.get("")
    if path is not None and path not in ("/", ours.get("")):
        _version_2(_unified(roots, path), look)
    elif path is not None and not theirs.keys() & {"cpu", "memory"}:
        shared.add("all")
    if shared and not look.values:
        look.absent["cgroup"] = "the server shares its control group with others"


def _groups(pid: int | str, roots: Roots) -> dict[str, str]:
    """Controller to path; version 2 has the empty name. Empty when the process is gone."""
    try:
        text = (roots.proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if colon:
            groups |= dict.fromkeys(names.split(","), path)
    return groups


def _unified(roots: Roots, path: str) -> Path:
    mount = roots.sys / "fs/cgroup"
    hybrid = mount / "unified"
    return _inside(hybrid if hybrid.is_dir() else mount, path)


def _inside(mount: Path, path: str) -> Path:
    """The group's directory. A path that leaves the mount is one of another namespace: nowhere."""
    parts = [part for part in path.split("/") if part]
    return mount / "not-visible" if ".." in parts else mount.joinpath(*parts)


def _version_2(group: Path, look: Look) -> None:
    cpu = table_in(group / "cpu.stat")
    if "throttled_usec" in cpu:
        look.values["throttled_s"] = cpu["throttled_usec"] / _US
    quota = _quota(group / "cpu.max")
    if quota is not None:
        look.values["cpu_limit_cores"] = quota
    memory, most = number_in(group / "memory.current"), number_in(group / "memory.max")
    if memory is not None:
        look.values["cgroup_memory_bytes"] = memory
    if most is not None:
        look.values["memory_limit_bytes"] = most
    events = table_in(group / "memory.events")
    if "oom_kill" in events:
        look.values["oom_kills"] = events["oom_kill"]


def _quota(path: Path) -> float | None:
    """Cores: `200000 100000` is two of them, `max 100000` no limit."""
    try:
        quota, _, period = path.read_text(encoding="ascii").strip().partition(" ")
        return float(quota) / float(period)
    except (FileNotFoundError, NotADirectoryError, ValueError, ZeroDivisionError):
        return None


def _cpu_v1(group: Path, look: Look) -> None:
    throttled = table_in(group / "cpu.stat").get("throttled_time")
    if throttled is not None:
        look.values["throttled_s"] = throttled / _NS
    quota, period = number_in(group / "cpu.cfs_quota_us"), number_in(group / "cpu.cfs_period_us")
    if quota is not None and period and quota > 0:
        look.values["cpu_limit_cores"] = quota / period


def _memory_v1(group: Path, look: Look) -> None:
    memory = number_in(group / "memory.usage_in_bytes")
    most = number_in(group / "memory.limit_in_bytes")
    if memory is not None:
        look.values["cgroup_memory_bytes"] = memory
    if most is not None and most < _UNLIMITED_BYTES:
        look.values["memory_limit_bytes"] = most
    kills = table_in(group / "memory.oom_control").get("oom_kill")
    if kills is not None:
        look.values["oom_kills"] = kills
