"""What a configuration must satisfy as a whole: names, dates, the environment; what a stage must, its kind checks."""

import os
import re
from datetime import date

from fmtrain.errors import ConfigError
from fmtrain.kinds.base import At, of
from fmtrain.schema.fields import TEMPLATE_DATE
from fmtrain.schema.launch import Launch
from fmtrain.schema.root import Root
from launch import edges
from launch.backends.environment import environment

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # the name of a folder: file systems end at 255 bytes, or 143
STAGE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")  # a key of the configuration, and a folder


def check(root: Root) -> None:
    """Raise ConfigError for the first contradiction."""
    stages = {name: stage for name, stage in root.stages.items() if stage is not None}
    if not stages:
        raise ConfigError("stages: no stage is left to run; choose a recipe, e.g. recipe=quickstart")
    for name in stages:
        if not STAGE.fullmatch(name):
            raise ConfigError(f"stages.{name}: expected letters, digits, '_' and '-', the first a letter")
    _date(root.template_date)
    _environment(root.launch)
    root.filter.check("filter")
    at = [At(name, stage, root, stages) for name, stage in stages.items()]
    _artifacts(at)
    for one in at:
        of(one.cfg).check(one)
    _artifacts(list(edges.resolve(root).at.values()))  # with those that are implied


def _artifacts(stages: list[At]) -> None:
    """An artifact's name is a folder's name, and one of its kind in a run."""
    seen: dict[tuple[str, str], str] = {}
    for at in stages:
        key, name, kind = f"{at.key}.artifact", edges.artifact(at), of(at.cfg).makes
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{key}={name!r}: expected at most 128 letters, digits, '.', '_' and '-', e.g. {key}=my-{at.name}"
            )
        if (kind, name) in seen:
            raise ConfigError(f"{key}={name} is the name of {seen[kind, name]} too; give them two names")
        seen[kind, name] = key


def _date(given: str) -> None:
    try:
        if date.fromisoformat(given).isoformat() == given:
            return
    except ValueError:
        pass
    raise ConfigError(f"template_date: {given!r} is no date; e.g. template_date={TEMPLATE_DATE}")


def _environment(launch: Launch) -> None:
    """Names of launch.env that cannot be passed on. What is set in a job, its `setup` may say: that is asked there."""
    outside = launch.name == "slurm" and "FMTRAIN_JOB" not in os.environ
    environment("compute", launch.env, dict.fromkeys(launch.env, "") if outside else os.environ)
