"""metrics.jsonl: a row an optimizer step, appended while training, cut back where a resumed run goes on.

A checkpoint holds a copy, hashed like all of it, and a resumed run goes on from that one.
"""

import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fmtrain.artifacts.storage import read_rows, write_text

FILE = "metrics.jsonl"
Row = dict[str, float]


@dataclass(frozen=True)
class Summary:
    """Over every step of the stage, earlier attempts included."""

    loss: float  # nats a target token (dpo: a pair), mean of the last 10% of the steps
    first_loss: float
    tokens: int
    tokens_per_second: float  # median over steps
    seconds: float  # in steps; without start-up, saves and steps that were lost
    data_wait_seconds: float


class MetricsFile:
    """Rows of steps 0..n-1, in order, each once. Only the first rank holds one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def resume(self, step: int, checkpoint: Path | None = None) -> None:
        """Begin with the rows before `step`, as the checkpoint's copy has them where there is one; then append."""
        saved = checkpoint / FILE if checkpoint is not None else self.path
        rows = read_rows(saved if saved.exists() else self.path)  # an earlier version's checkpoint has no copy
        kept = [json.dumps(row) + "\n" for row in rows if row["step"] < step]
        write_text(self.path, "".join(kept))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - held while the stage trains

    def append(self, row: Row) -> None:
        assert self._file is not None, "resume first"
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def save(self, checkpoint: Path) -> Path:
        """The copy in a checkpoint."""
        write_text(checkpoint / FILE, self.path.read_text(encoding="utf-8"))
        return checkpoint / FILE

    def sync(self) -> None:
        """To the disk, before a checkpoint that starts after these rows."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self.sync()
            self._file.close()

    def rows(self) -> list[Row]:
        return read_rows(self.path)


def summarise(rows: list[Row]) -> Summary:
    losses = [row["loss"] for row in rows]
    return Summary(
        loss=statistics.fmean(losses[-max(1, len(losses) // 10) :]),
        first_loss=losses[0],
        tokens=int(sum(row["tokens"] for row in rows)),
        tokens_per_second=statistics.median(row["tokens_per_second"] for row in rows),
        seconds=sum(row["step_seconds"] for row in rows),
        data_wait_seconds=sum(row["data_wait_seconds"] for row in rows),
    )
