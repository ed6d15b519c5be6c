"""The ranks of a stage: how they meet, and the few words they exchange outside the engine.

Small values go over gloo between CPU tensors, also where gradients go over NCCL: nothing waits for a GPU's queue.
"""

import ctypes
import ipaddress
import os
import platform
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from fmtrain.errors import StoreError
from fmtrain.run.storage import disk_errors

# A rank that died is noticed at once, by its closed sockets or by the launcher; this is for one that hangs.
TIMEOUT = timedelta(minutes=10)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
T = TypeVar("T")


class Group:
    """This process among the ranks; a world of one needs no process group."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def sum(self, values: list[float]) -> list[float]:
        """Each value summed over ranks, in float64."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return [float(v) for v in tensor.tolist()]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank, on every rank. Pickled: for small things, and rarely."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def agree(self, where: Path, action: Callable[[], T]) -> list[T]:
        """Every rank's result of `action`; where the disk under `where` failed one of them, all raise StoreError."""
        mine: tuple[T | None, str] = (None, "")
        try:
            with disk_errors(where):
                mine = (action(), "")
        except StoreError as e:
            mine = (None, str(e))
        everyone = self.gather(mine)
        for rank, (_, error) in enumerate(everyone):
            if error:
                raise StoreError(error if rank == self.rank else f"rank {rank}: {error}")
        return [value for value, _ in everyone]  # type: ignore[misc]


def set_threads() -> int:
    """Threads of one rank: OMP_NUM_THREADS, else an equal share of the cores."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, cores // local)
    torch.set_num_threads(threads)
    return threads


def keep_memory(where: torch.device) -> None:
    """On the CPU under glibc: keep freed memory instead of handing it back and faulting it in again every step.

    Large tensors are otherwise mapped anew each time: 40,000 page faults a step of a 2 M model, 14% of its CPU time
    (benchmarked on one core, 8 rows of 256). The bits do not change; the peak memory hardly does.
    """
    if where.type == "cpu" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def start(where: torch.device) -> Group:
    """Meet the other ranks at MASTER_ADDR:MASTER_PORT. A world of one picks a free port of its own."""
    defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)  # DeepSpeed looks for all five, and tries MPI where one lacks
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    store = None
    if _loopback(os.environ["MASTER_ADDR"]):
        if sys.platform == "linux":
            for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                os.environ.setdefault(name, "lo")
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            store = _loopback_store(rank, size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    return Group(rank, size)


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(address)).is_loopback
    except OSError:
        return False


def _loopback_store(rank: int, size: int) -> TCPStore:
    """A store that listens on the loopback address alone; torch's own listens on every interface."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank != 0:
        return TCPStore(address, port, size, False, TIMEOUT)
    listener = socket.create_server((socket.gethostbyname(address), port))
    os.environ["MASTER_PORT"] = str(listener.getsockname()[1])
    fd = listener.detach()  # the store owns it from here
    return TCPStore(address, int(os.environ["MASTER_PORT"]), size, True, TIMEOUT, False, master_listen_fd=fd)
