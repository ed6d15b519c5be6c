"""Which backend a configuration means. Ray is imported only where it is used."""

import contextlib
from collections.abc import Iterator

from fmtrain.schema.launch import Inline, Launch, LocalRay, Slurm
from launch.backends.command import Backend
from launch.backends.inline import InlineBackend


@contextlib.contextmanager
def open_backend(config: Launch, run: str) -> Iterator[Backend]:
    """The backend for `config`; inside a Slurm job Ray over the job's nodes. What it started ends with the block."""
    if isinstance(config, Inline):
        yield InlineBackend()
        return
    from launch.backends.ray_cluster import RayBackend, connect

    assert isinstance(config, (LocalRay, Slurm))
    with connect(config, run) as address:
        yield RayBackend(address, run)
