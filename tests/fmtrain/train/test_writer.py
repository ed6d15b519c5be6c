"""A disk's error is told as one, also where the library that met it says something else."""

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from fmtrain.artifacts.storage import disk_errors
from fmtrain.errors import StoreError


class FailsOnce(io.RawIOBase):
    """A file whose first write the disk refuses, and no other: torch's writer then fails over its own position."""

    def __init__(self, number: int) -> None:
        self.number: int | None = number

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.number is not None:
            number, self.number = self.number, None
            raise OSError(number, os.strerror(number))
        return len(data)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_an_error_in_the_middle_of_torchs_writer(number: int, tmp_path: Path) -> None:
    state = {"weight": torch.zeros(100_000)}
    with pytest.raises(RuntimeError, match="unexpected pos"):
        torch.save(state, io.BufferedWriter(FailsOnce(number)))
    with pytest.raises(StoreError, match="cannot write under"), disk_errors(tmp_path):
        torch.save(state, io.BufferedWriter(FailsOnce(number)))


def test_what_is_no_error_of_the_disk_stays_itself(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), disk_errors(tmp_path):
        raise RuntimeError("shapes differ") from PermissionError(errno.EACCES, "no", "/etc/shadow")
