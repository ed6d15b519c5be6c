"""No Ray: a command's ranks as children of this process, which die with it. They meet in a file, see `meeting`."""

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from fmtrain.artifacts.machine import cpus
from launch.backends.command import SETTLE, STOP, Command, Failure, meeting, rank_env, worker_env
from launch.backends.environment import environment
from launch.backends.process import Process
from launch.backends.scratch import scratch

POLL = 0.05  # seconds between two looks at the processes


_ASK = """
import ctypes
cuda, count, name = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.create_string_buffer(128)
if cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0:
    for device in range(count.value):
        cuda.cuDeviceGetName(name, 128, device)
        print(name.value.decode(errors="replace") or "unknown")
"""


class InlineJob:
    def __init__(self, command: Command, free: list[tuple[int, str]] | None = None) -> None:
        """`free` are GPUs that nobody has, each with its place; those that the command takes come back to it."""
        self.hosts = [socket.gethostname()] * command.ranks
        self._open = contextlib.ExitStack()
        env = {**worker_env(command), "TMPDIR": self._open.enter_context(scratch())}
        if free and (gpus := self._open.enter_context(taken(free, command.ranks * command.gpus))):
            env["CUDA_VISIBLE_DEVICES"] = ",".join(gpu for _, gpu in gpus)
        place = [dict[str, str]()]
        if command.ranks > 1:
            file, ranks = self._open.enter_context(meeting()), command.ranks
            place = [rank_env(rank, rank, ranks, ranks, file, "127.0.0.1") for rank in range(ranks)]
        self.processes: list[Process] = []
        try:
            for rank, ours in enumerate(place):
                self.processes.append(Process(command.argv, {**env, **ours}, command.log(rank)))
        except BaseException:
            self.stop(0.0)
            raise

    def wait(self, timeout: float) -> list[Failure] | None:
        deadline = time.monotonic() + timeout
        while not self._failed():
            if all(process.poll() == 0 for process in self.processes):
                self._open.close()
                return []
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL)
        seen = self._failed()
        time.sleep(SETTLE)
        seen |= self._failed()
        self.stop(STOP)
        return list(seen.values())

    def ask(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()

    def stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        running = [process for process in self.processes if process.poll() is None]
        self.ask()
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            time.sleep(POLL)
        for process in running:
            process.kill()
        self._open.close()

    def _failed(self) -> dict[int, Failure]:
        codes = ((rank, process.poll()) for rank, process in enumerate(self.processes))
        return {rank: Failure(rank, self.hosts[rank], code) for rank, code in codes if code}


class InlineBackend:
    executor = "inline"

    def __init__(self) -> None:
        self.cpus, self.gpus = cpus(), len(gpu_names())
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self.free = list(enumerate(shown.split(",") if shown else map(str, range(self.gpus))))[: self.gpus]
        self.notes: list[str] = []

    def node_cpus(self, gpus: int) -> int:
        return self.cpus

    def submit(self, command: Command) -> InlineJob:
        return InlineJob(command, self.free)


@contextlib.contextmanager
def taken(free: list[tuple[int, str]], count: int) -> Iterator[list[tuple[int, str]]]:
    """The first so many of `free` for the block; none where there are fewer, and the command sees all."""
    mine = free[:count] if count <= len(free) else []
    del free[: len(mine)]
    try:
        yield mine
    finally:
        free[:] = sorted([*free, *mine])


def gpu_names() -> list[str]:
    """The NVIDIA GPUs that a process started here may use, as their driver has them, which reads CUDA_VISIBLE_DEVICES.

    In a process of its own: whoever has asked the driver holds the GPUs open until it ends.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    try:
        asked = [sys.executable, "-IS", "-c", _ASK]
        said = subprocess.run(asked, env=environment("compute"), capture_output=True, text=True, timeout=60)
        return said.stdout.splitlines()
    except subprocess.SubprocessError:
        return []
