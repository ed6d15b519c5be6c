"""The driver's side of Ray: starts the keeper under a reaper, and is a Backend whose jobs run in there.

It waits for nothing without hearing its signals: `check` is called at every turn, and may raise.
"""

import contextlib
import itertools
import os
import socket
import subprocess
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path

from fmtrain.errors import ConfigError, FmtrainError, NodesSilent, RankLost, StageFailed, StoreError
from fmtrain.schema.launch import LocalRay, Slurm
from launch.backends.command import Command, Failure, of_command
from launch.backends.environment import environment, module, travelling
from launch.backends.ray_cluster.job import Order, as_message
from launch.backends.ray_cluster.line import Closed, Line, Message
from launch.backends.ray_cluster.nodes import Node
from launch.backends.ray_cluster.start import Start, settle
from launch.backends.reaper import WELL, descendants, keep_orphans, tidy

LOG = "ray.log"  # in the run's folder: what the keeper prints
LOGS = "ray-logs"  # in the run's folder: Ray's own, of a turn that failed
START_WAIT = 300.0  # seconds for Ray to be up and its nodes to have answered
TURN = 0.2  # seconds between two looks at the signals
CLOSE_WAIT = 10.0  # seconds to leave a Ray that goes on without us
_TOLD = (ConfigError, NodesSilent, StageFailed, StoreError)  # all else that goes wrong in there is the machine's
_ERRORS = {e.__name__: e for e in _TOLD}


@contextlib.contextmanager
def open_ray(config: LocalRay | Slurm, folder: Path, recipe: str, check: Callable[[], None]) -> Iterator["RayBackend"]:
    """Ray for the block, for the run whose folder this is. All that we start ends with the block, or with us."""
    start = settle(config, check)
    keeper = Keeper(start, folder, recipe, check)
    try:
        yield RayBackend(config, keeper, start)
    except BaseException:
        keeper.close(well=False)
        raise
    keeper.close(well=True)


class Keeper:
    """The process that holds Ray, and the line to it."""

    def __init__(self, start: Start, folder: Path, recipe: str, check: Callable[[], None]) -> None:
        self.check, self.folder, self.home, self.joined = check, folder, start.home, not start.home
        keep_orphans()  # of a reaper that is killed itself
        self.others = descendants(os.getpid())
        ours, theirs = socket.socketpair()
        self.line = Line(ours)
        self.kept: defaultdict[int | None, deque[Message]] = defaultdict(deque)
        fd = str(theirs.fileno())
        command = module("launch.backends.ray_cluster.keeper", fd, f"recipe={recipe}", f"run={folder.name}")
        with open(folder / LOG, "ab") as log, theirs:
            self.process = subprocess.Popen(
                module("launch.backends.reaper", start.home, str(folder / LOGS), fd, *command),
                env=start.env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        metadata = {"job_name": f"{recipe} {folder.name}", "recipe": recipe, "run": folder.name}
        where = {"address": start.address, "named": start.named, "home": start.home, "options": start.options}
        self.tell("begin", run=folder.name, metadata=metadata, **where)

    def tell(self, kind: str, **fields: object) -> None:
        with contextlib.suppress(Closed):  # what there is to know of its end, the next `hear` tells
            self.line.say(kind, **fields)

    def hear(self, timeout: float, job: int | None = None) -> Message | None:
        """The keeper's next word, of a job where one is given; None where none comes in time.

        Prints notes, and raises what the keeper says has failed.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.check()
            try:
                message = self.next(max(0.0, min(TURN, deadline - time.monotonic())), job)
            except Closed:
                time.sleep(TURN)  # whoever ended it may have signalled us too
                self.check()
                raise RankLost(f"Ray has ended under this run: {self._last_words()}") from None
            if message is not None and message["kind"] == "refused":
                self.check()
                kind: type[FmtrainError] = _ERRORS.get(message["error"], RankLost)
                raise kind(f"{message['message']}{self._mend() if issubclass(kind, RankLost) else ''}")
            if message is not None or time.monotonic() >= deadline:
                return message

    def next(self, timeout: float, job: int | None) -> Message | None:
        """The next word of a job or of all; what is another job's is kept for it."""
        if self.kept[job]:
            return self.kept[job].popleft()
        message = self.line.hear(timeout)
        if message is not None and message["kind"] == "note":
            print(f"  {message['text']}", flush=True)
            return None
        if message is not None and message.get("job", job) != job:
            self.kept[message["job"]].append(message)
            return None
        return message

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.folder / LOG).read_text(errors="replace").strip().splitlines()[-5:]
            return "\n".join(f"  | {line}" for line in ["", *lines])[4:] + self._mend()
        return self._mend()

    def _mend(self) -> str:
        logs = f"\nlog: {self.folder / LOG}" + ("" if self.joined else f" and {self.folder / LOGS}")
        return f"\nThe same command goes on from what is saved.{logs}"

    def close(self, *, well: bool) -> None:
        """End it, with all that it started; a Ray that we joined is left in order."""
        assert self.process.stdin is not None
        if self.joined:
            self.tell("close")
            with contextlib.suppress(Closed):
                deadline = time.monotonic() + CLOSE_WAIT
                while time.monotonic() < deadline:
                    self.line.hear(TURN)
        with contextlib.suppress(BrokenPipeError):
            if well:
                self.process.stdin.write(WELL)
                self.process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if self.process.wait() != 0:
            tidy(self.home, str(self.folder / LOGS), well, self.others)
        keep_orphans(False)
        self.line.end.close()


class RayBackend:
    executor = "ray"

    def __init__(self, config: LocalRay | Slurm, keeper: Keeper, start: Start) -> None:
        self.config, self.keeper, self.start = config, keeper, start
        self.numbers = itertools.count()
        ready = keeper.hear(START_WAIT)
        if ready is None:
            raise RankLost(f"Ray did not come up within {START_WAIT:.0f} s; is this machine busy?{keeper._mend()}")
        self.nodes = [Node(**node) for node in ready["nodes"]]
        if isinstance(config, Slurm) and len(self.nodes) < config.nodes:
            there = " ".join(node.host for node in self.nodes)
            raise NodesSilent(f"{len(self.nodes)} of {config.nodes} nodes are in this job's Ray: {there}")
        self.cpus = sum(node.cpus for node in self.nodes)
        self.gpus = sum(node.gpus for node in self.nodes)
        self.address: str = ready["address"]
        self.notes = [
            f"Ray at {self.address}: {len(self.nodes)} node(s), {self.cpus} CPUs, {self.gpus} GPUs",
            *start.warnings,
        ]
        if ready["dashboard"]:
            asks = f"; it asks for the token that stands in {start.token}" if start.token else ""
            self.notes.append(f"dashboard http://{ready['dashboard']}{asks}")
            if way := os.environ.get("FMTRAIN_TUNNEL"):  # a queue job's: it listens on loopback there
                self.notes.append(f"from elsewhere {way}")

    def node_cpus(self, gpus: int) -> int:
        """The most that one process with so many GPUs can have."""
        return max([node.cpus for node in self.nodes if node.gpus >= gpus], default=1)

    def submit(self, command: Command) -> "RayJob":
        lacking = travelling(command.kind, command.passed)
        if not self.start.address:  # this very machine
            lacking = environment(command.kind, command.passed)
        ours = of_command(command)
        order = Order(command, ours, lacking, self.config.wait_seconds)
        number = next(self.numbers)
        self.keeper.tell("submit", job=number, order=as_message(order))
        return RayJob(self.keeper, number)


class RayJob:
    """A command that the keeper runs under a number, once it has found room for it."""

    def __init__(self, keeper: Keeper, number: int) -> None:
        self.keeper, self.number = keeper, number
        self.hosts: list[str] = []

    def wait(self, timeout: float) -> list[Failure] | None:
        message = self.keeper.hear(timeout, self.number)
        if message is not None and message["kind"] == "placed":
            self.hosts = message["hosts"]
            return None
        return None if message is None else [Failure(**failure) for failure in message["failures"]]

    def ask(self) -> None:
        self.keeper.tell("ask", job=self.number)

    def stop(self, grace: float) -> None:
        """The keeper is given a moment beyond `grace`; what it cannot end by then, the reaper does."""
        self.keeper.tell("stop", job=self.number, grace=grace)
        deadline = time.monotonic() + grace + CLOSE_WAIT
        with contextlib.suppress(Closed):
            while time.monotonic() < deadline:
                message = self.keeper.next(TURN, self.number)
                if message is not None and message["kind"] in ("stopped", "ended", "refused"):
                    return
