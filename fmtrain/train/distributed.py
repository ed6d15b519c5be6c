"""The ranks of a stage: how they meet, and the few words they exchange outside the engine.

Small values go over gloo between CPU tensors, also where gradients go over NCCL: nothing waits for a GPU's queue.
"""

import ctypes
import ipaddress
import json
import os
import platform
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore, HashStore, Store, TCPStore  # type: ignore[attr-defined]

from fmtrain.artifacts.machine import cpus, interface_of, own_address
from fmtrain.artifacts.storage import disk_errors
from fmtrain.errors import ConfigError, StoreError

# A rank that died is noticed at once, by its closed sockets or by the launcher; this is for one that hangs.
TIMEOUT = timedelta(minutes=10)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


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

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank, as JSON brings it over: what came from a socket is data, never
        code. For small things, and rarely."""
        if self.size == 1:
            return [json.loads(json.dumps(value))]
        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [int(size) for size in _all_gather(torch.tensor([len(mine)]), self.size)]
        rows = _all_gather(torch.nn.functional.pad(mine, (0, max(sizes) - len(mine))), self.size)
        return [json.loads(bytes(row[:size].tolist())) for row, size in zip(rows, sizes, strict=True)]

    def agree(self, where: Path, action: Callable[[], Any]) -> list[Any]:
        """Every rank's result of `action`, which JSON can hold; where the disk under `where` failed one of them, all
        raise StoreError."""
        mine: tuple[Any, str] = (None, "")
        try:
            with disk_errors(where):
                mine = (action(), "")
        except StoreError as e:
            mine = (None, str(e))
        everyone = self.gather(mine)
        for rank, (_, error) in enumerate(everyone):
            if error:
                raise StoreError(error if rank == self.rank else f"rank {rank}: {error}")
        return [value for value, _ in everyone]


def _all_gather(mine: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Every rank's tensor, all of one shape, by rank."""
    found = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(found, mine)
    return found


def set_threads() -> int:
    """Threads of one rank: OMP_NUM_THREADS, else an equal share of the cores."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    threads = int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, cpus() // local)
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
    """Meet the other ranks: in the file that our launcher made, in torchrun's store, or else at MASTER_ADDR."""
    defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)  # DeepSpeed looks for all five, and tries MPI where one lacks
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if sys.platform == "linux":
        _name_interface(size)
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_store(rank, size), rank=rank, world_size=size, timeout=TIMEOUT)
    return Group(rank, size)


def _store(rank: int, size: int) -> Store | None:
    """Where the ranks leave their addresses for each other; None: torch takes that of torchrun's agent."""
    if size == 1:
        return HashStore()  # memory of this process
    if path := os.environ.get("FMTRAIN_MEETING"):
        store: Store = FileStore(path, size)
        store.set_timeout(TIMEOUT)
        return store
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return None
    # torch's own would listen on every interface; this one listens on its address alone
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if rank != 0:
        return TCPStore(address, port, size, False, TIMEOUT)
    family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    fd = socket.create_server(where[:2], family=family).detach()  # the store owns it from here
    return TCPStore(address, port, size, True, TIMEOUT, False, master_listen_fd=fd)


def _name_interface(size: int) -> None:
    """Say by which interface the ranks reach each other. Gloo would ask what this machine's name stands for, which may
    be 127.0.1.1 or any of its addresses, and then listens there; NCCL takes the first that is up."""
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    if all(name in os.environ for name in names):
        return
    master, address = os.environ["MASTER_ADDR"], "127.0.0.1"
    try:
        if size > int(os.environ.get("LOCAL_WORLD_SIZE", size)):
            address = own_address(master)
            if ipaddress.ip_address(address).is_loopback:
                raise ConfigError(
                    f"MASTER_ADDR={master} is {address} on {socket.gethostname()}, which no other machine reaches; "
                    "give an address of the network between them, or name it: launch.interface=eth0"
                )
    except OSError as e:
        raise ConfigError(
            f"MASTER_ADDR={master} is not reached from {socket.gethostname()}: {e}; name the network between the "
            "machines: launch.interface=eth0"
        ) from None
    if interface := interface_of(address):
        for name in names:
            os.environ.setdefault(name, interface)
