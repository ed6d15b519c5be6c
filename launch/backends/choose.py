"""Which backend a configuration means."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from fmtrain.schema.launch import Inline, Launch, LocalRay, Slurm
from launch.backends.command import Backend
from launch.backends.inline import InlineBackend


@contextlib.contextmanager
def open_backend(config: Launch, folder: Path, recipe: str, check: Callable[[], None]) -> Iterator[Backend]:
    """The backend for `config`; inside a Slurm job Ray over the job's nodes. What it started ends with the block.

    `folder` is the run's; `check` is called while we wait, and raises when a signal has asked the run to end.
    """
    if isinstance(config, Inline):
        yield InlineBackend()
        return
    from launch.backends.ray_cluster.backend import open_ray

    assert isinstance(config, (LocalRay, Slurm))
    with open_ray(config, folder, recipe, check) as backend:
        yield backend
