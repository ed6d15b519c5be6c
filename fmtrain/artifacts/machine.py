"""What this machine gives this process: processors, and the network interfaces by which it reaches the others."""

import math
import os
import socket
from pathlib import Path

import psutil

_MINE, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cpus() -> int:
    """Processors that this process may use: those of its affinity mask, within its cgroups' quotas; 1 at least."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *(max(1, math.ceil(quota)) for quota in _quotas())])


def _quotas() -> list[float]:
    """Processors' worth of time that each cgroup above this process allows (cpu.max; cpu.cfs_quota_us in version 1)."""
    found = []
    try:
        lines = _MINE.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUPS / "cpu" if controllers else _CGROUPS
        here = root / path.lstrip("/")
        for folder in (here, *here.parents):
            if (quota := _quota(folder)) is not None:
                found.append(quota)
            if folder == root:
                break
    return found


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def interface_of(address: str) -> str | None:
    """The network interface that holds `address` on this machine; None where none does."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.partition("%")[0] == address for entry in addresses):
            return str(name)
    return None


def address_of(interface: str) -> str | None:
    """The address of a network interface, IPv4 before IPv6; None where there is no such one, or it has none."""
    entries = psutil.net_if_addrs().get(interface, [])
    found = {entry.family: entry.address.partition("%")[0] for entry in reversed(entries)}
    return found.get(socket.AF_INET) or found.get(socket.AF_INET6)


def own_address(towards: str, family: int = 0) -> str:
    """This machine's address on the way to `towards`, a name or an address; nothing is sent. OSError: no way there.

    Asked of the kernel's routes: a machine's own name may stand for 127.0.1.1, and its first address may be a bridge's.
    """
    family, _, _, _, target = socket.getaddrinfo(towards, 9, family, socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])
