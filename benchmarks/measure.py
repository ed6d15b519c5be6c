"""What the benchmarks share: the memory and the processor time of a process and all its descendants.

Memory is the sum of proportional set sizes (Pss: a page that n processes share counts 1/n), sampled.
"""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self


def tree(root: int) -> list[int]:
    """`root` and its living descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def memory(pids: list[int]) -> int:
    """Bytes of proportional set size."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


class Peak:
    """`with Peak(pid) as peak: ...; peak.bytes`: the largest memory of the tree under `pid` meanwhile."""

    def __init__(self, pid: int, interval: float = 0.2) -> None:
        self.pid, self.interval, self.bytes = pid, interval, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._over.is_set():
            self.bytes = max(self.bytes, memory(tree(self.pid)))
            self._over.wait(self.interval)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
