"""What tests on several workers (pytest-xdist) share: groups that stay on one worker, and folders made once for all.

A test goes to whichever worker is free, unless it stands on something dear that is made once in a process: then it
goes where the others that stand on it go. The longest come first, so that none of them begins last.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Fixtures that hold processes: all tests on one are a group, for another worker would start a second.
ONE_EACH = {"ray_env": "ray", "started": "slurm"}


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills once for all workers: the first makes it, the others wait. Not to be written to."""
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = root / name, root / f"{name}.made"
    with FileLock(root / f"{name}.lock"):
        if not made.exists():
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def group(item: pytest.Item) -> str | None:
    """The group that a test belongs to; None where it may run anywhere."""
    assert isinstance(item, pytest.Function)
    if (mark := item.get_closest_marker("xdist_group")) is not None:
        return str(mark.args[0])
    for fixture, name in ONE_EACH.items():
        if fixture in item.fixturenames:
            return name
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    return item.location[0] if any(found[-1].scope == "module" for found in fixtures) else None


def mark(items: list[pytest.Item]) -> None:
    for item in items:
        if (name := group(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(name))


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Group by group, those with the most minutes first: as the mark `long` says, one where it says none."""
    members: dict[str, list[pytest.Item]] = {}
    for item in items:
        members.setdefault(group(item) or item.nodeid, []).append(item)
    return [item for found in sorted(members.values(), key=minutes, reverse=True) for item in found]


def minutes(items: list[pytest.Item]) -> float:
    marks = [mark for item in items if (mark := item.get_closest_marker("long"))]
    return sum(float(mark.args[0]) if mark.args else 1.0 for mark in marks) + 0.02 * (len(items) - len(marks))
