"""Stages side by side: a stage's work is a generator that is taken one step further at a time.

One process and one thread look after all of them, so that a signal, a lease and a line of the terminal are what they
are for one stage alone.
"""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

from fmtrain.errors import FmtrainError
from launch.plan import Step

Work = Generator[None, None, None]


def side_by_side(
    todo: list[Step],
    start: Callable[[Step], Work],
    fits: Callable[[Step, list[Step]], bool],
    most: int,
    halt: Callable[[], None],
) -> None:
    """Do the work of every step, none before those that feed it and at most so many at a time.

    One begins beside others where it `fits`. Where one fails, `halt` asks all to save what they have, and each is
    closed, before that failure goes on to the caller.
    """
    waiting, running = list(todo), list[tuple[Step, Work]]()
    try:
        while waiting or running:
            for step in _ready(waiting, running):
                others = [other for other, _ in running]
                if len(running) < most and not _made_by(step, others) and (not running or fits(step, others)):
                    waiting.remove(step)
                    running.append((step, start(step)))
            for step, work in list(running):
                if next(work, _DONE) is _DONE:
                    running.remove((step, work))
    except BaseException:
        halt()
        for _, work in running:
            with contextlib.suppress(FmtrainError, OSError):  # the first failure is what the user is told
                work.close()
        raise


_DONE: Any = object()


def _made_by(step: Step, others: list[Step]) -> bool:
    """Whether one of the others makes the very same: then there is nothing to make, once it is there."""
    return any((step.node.kind.makes, step.fingerprint) == (o.node.kind.makes, o.fingerprint) for o in others)


def _ready(waiting: list[Step], running: list[tuple[Step, Work]]) -> list[Step]:
    """Those that nothing feeds which is still to be made."""
    unmade = {step.node.stage for step in waiting} | {step.node.stage for step, _ in running}
    fed_by = {step.node.stage: [p for p in step.parents.values() if isinstance(p, Step)] for step in waiting}
    return [step for step in waiting if not any(p.node.stage in unmade for p in fed_by[step.node.stage])]
