"""The few failures a user can meet, each with the process exit code it ends in.

Every message says what was given, what was expected and how to mend it. Anything else that is raised is our fault and
ends in INTERNAL.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a process of ours returns: the command line and every stage worker use the same numbers."""

    DONE = 0
    INTERNAL = 1
    CONFIG = 2
    INPUT = 3
    STAGE_FAILED = 4
    STORE = 5
    HELD = 6
    REQUEUE = 75
    INTERRUPTED = 130


class FmtrainError(Exception):
    """A failure with a message for the user; `exit_code` is what the process returns."""

    exit_code = ExitCode.INTERNAL


class ConfigError(FmtrainError):
    """A setting that cannot be used: unknown key, wrong value, two fields that contradict each other."""

    exit_code = ExitCode.CONFIG


class InputError(FmtrainError):
    """Input data that is missing, unreadable or empty after filtering."""

    exit_code = ExitCode.INPUT


class Unavailable(InputError):
    """A store of input files that does not answer: the same may be read a minute later."""


class StageFailed(FmtrainError):
    """A stage's worker ended with an error of its own."""

    exit_code = ExitCode.STAGE_FAILED


class RankLost(StageFailed):
    """A process of a stage ended without a word of its own: killed, or gone with its machine. Nobody's setting is to
    blame, and the same command goes on from what is saved."""


class NodesSilent(RankLost):
    """Nodes that are there and start no process in time: busy or ill, where a queue may give others."""


class Diverged(StageFailed):
    """A training whose loss is no number any more: the same steps would end there again."""


class StoreError(FmtrainError):
    """The store cannot be read or written: permissions, a full disk, a damaged artifact."""

    exit_code = ExitCode.STORE


class HeldError(FmtrainError):
    """Another run is making the very artifact this run needs."""

    exit_code = ExitCode.HELD


class Requeue(FmtrainError):
    """Asked to stop: the state is saved, and the same command goes on from it."""

    exit_code = ExitCode.REQUEUE
