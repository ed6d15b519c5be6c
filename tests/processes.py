"""What is left of what a test started, told by a TMPDIR of its own: nobody else on the machine counts."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from launch.backends.ray_cluster.backend import RayJob


@dataclass(frozen=True)
class Place:
    """A TMPDIR. Its path is short, for Ray's sockets lie below it."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"TMPDIR": str(self.folder)}

    def living(self) -> list[str]:
        """Living processes that have it in their environment, their arguments or their open files.

        Ray's agents write over the first two, but keep their logs open.
        """
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(process.name) != os.getpid() and self._named_by(process):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(f"{process.name} {command}")
        return found

    def _named_by(self, process: Path) -> bool:
        path = os.fsencode(self.folder)
        if any(path in (process / name).read_bytes() for name in ("environ", "cmdline")):
            return True
        return any(path in os.readlink(os.fsencode(fd)) for fd in (process / "fd").iterdir())

    def empty(self, seconds: float = 10) -> None:
        """Fail where something still lives after so long."""
        deadline = time.monotonic() + seconds
        while found := self.living():
            assert time.monotonic() < deadline, f"alive after {seconds} s: {found}"
            time.sleep(0.1)


def placed(job: RayJob, seconds: float = 180.0) -> RayJob:
    """The job once Ray has room for it; what refuses it is raised."""
    deadline = time.monotonic() + seconds
    while not job.hosts:
        assert job.wait(1.0) is None and time.monotonic() < deadline
    return job
