"""No Ray: one process, or ranks under torchrun, as children of this process that die with it."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time

from launch.backends.command import Command, worker_env

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In the child, before exec: be killed when the parent dies. torchrun itself would not notice."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class InlineJob:
    """A child in a session of its own: Ctrl-C in the terminal reaches the driver alone, which then decides."""

    def __init__(self, command: Command) -> None:
        self.hosts = [socket.gethostname()] * command.ranks
        command.log_dir.mkdir(parents=True, exist_ok=True)
        with open(command.log_dir / "launcher.log", "ab") as log:
            self.process = subprocess.Popen(
                _argv(command),
                env=worker_env(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def wait(self, timeout: float) -> int | None:
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float) -> None:
        if self.process.poll() is not None:
            return
        self.process.terminate()
        deadline = time.monotonic() + grace
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _argv(command: Command) -> list[str]:
    if command.ranks == 1:
        return command.argv
    python, flag, *rest = command.argv
    assert flag == "-m", "ranks are started from a module"
    launcher = ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={command.ranks}"]
    rendezvous = [
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0",
        "--local-addr=127.0.0.1",
        f"--rdzv-id={os.getpid()}",
    ]
    return [python, *launcher, *rendezvous, "-m", *rest]


class InlineBackend:
    executor = "inline"

    def __init__(self) -> None:
        self.cpus = self.node_cpus = os.cpu_count() or 1
        self.gpus = _gpus()
        self.notes: list[str] = []

    def submit(self, command: Command) -> InlineJob:
        return InlineJob(command)


def _gpus() -> int:
    """NVIDIA GPUs that this process may use, counted without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([d for d in visible.split(",") if d.strip() not in ("", "-1")])
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())
