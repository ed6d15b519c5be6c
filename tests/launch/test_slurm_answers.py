"""What `scontrol show job` prints, read; and how long a stage has to save by it. No Slurm needed."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from launch.backends import slurm

TEXT = """JobId=6 JobName=x JobState=FAILED Reason=no
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState={state} Reason=None Dependency=(null)
   Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=0:15
   RunTime=00:05:39 TimeLimit=00:30:00 TimeMin=N/A
   StartTime=2026-11-27T20:26:44 EndTime={end} Deadline=N/A
   PreemptEligibleTime=2026-11-27T20:26:44 PreemptTime={preempt}
   WorkDir=/tmp/JobState=FAILED
   Comment=JobState=CANCELLED Restarts=9 PreemptTime=now
"""


def answer(state: str = "RUNNING", left: float = 90, preempt: str = "None", end: str = "") -> str:
    """Slurm's words on a job that ends in `left` seconds."""
    when = datetime.datetime.now() + datetime.timedelta(seconds=left)
    return TEXT.format(state=state, end=end or when.isoformat(timespec="seconds"), preempt=preempt)


def test_a_name_or_a_comment_is_no_field() -> None:
    read = slurm.parse(answer(preempt="2026-11-27T20:30:00", end="2026-11-27T20:56:44"))
    end = datetime.datetime(2026, 11, 27, 20, 56, 44).timestamp()
    assert read == slurm.Report("RUNNING", 128 + 15, "None", restarts=2, preempted=True, end=end)
    assert not slurm.parse(answer()).preempted
    assert slurm.parse("slurm_load_jobs error: Invalid job id specified").state == slurm.UNKNOWN


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [
        ({"left": 90}, 60, 80),  # USR1 before the time limit
        ({"left": 15, "preempt": "2026-11-27T20:30:00"}, 5, 11),  # a GraceTime of 15
        ({"left": 4}, 0, 2),
        ({"state": "COMPLETING", "left": 500}, slurm.LAST_GRACE, slurm.LAST_GRACE),  # queued again from outside
        ({"state": "CANCELLED", "left": 0}, slurm.LAST_GRACE, slurm.LAST_GRACE),  # until SIGKILL
        ({"state": "TIMEOUT", "left": -1}, slurm.LAST_GRACE, slurm.LAST_GRACE),
        ({"end": "Unknown"}, slurm.GRACE, slurm.GRACE),  # no time limit
        ({}, slurm.GRACE, slurm.GRACE),
        (None, slurm.GRACE, slurm.GRACE),  # not asked to stop by Slurm: Ctrl-C on one's own machine
    ],
    ids=str,
)
def test_as_long_as_there_is(told: dict[str, Any] | None, least: float, most: float, tmp_path: Path) -> None:
    if told is not None:
        (tmp_path / slurm.ANSWER).write_text(answer(**told) if told else "")
    assert least <= slurm.grace(tmp_path) <= most
