"""What follows on a turn of a job, from what stands in the run's folder; the turns themselves run in tests/slurm."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fmtrain.artifacts import remote
from launch import turns
from launch.backends.slurm import Report
from launch.cli import main
from launch.turns import AFRESH, AGAIN, END, GONE, REQUEUE, End, Mark, decide

RUNNING = Report("RUNNING")
PREEMPTED = Report("RUNNING", preempted=True)


def line(
    event: str, saved: int, *, counts: bool = True, code: int = 4, error: str = "", where: str = ""
) -> dict[str, Any]:
    mark = {"committed": 0, "saved": saved}
    return {"event": event, "mark": mark, "counts": counts, "code": code, "error": error, "where": where}


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (End(0), END),
        (End(2), END),  # the configuration, the input data, another run's lease, Ctrl-C: the user's
        (End(3), END),
        (End(6), END),
        (End(130), END),
        (End(4, error="Diverged: step 3: the loss is nan"), END),
        (End(4, error="StageFailed: a rank was killed"), AGAIN),
        (End(3, error="InputError: corpus: a.jsonl is empty"), END),
        (End(3, error="Unavailable: corpus: s3://b/a.jsonl cannot be read"), AGAIN),
        (End(3, "USR1", error="Unavailable: corpus: s3://b/a.jsonl cannot be read"), REQUEUE),
        (End(5), AGAIN),
        (End(137), AGAIN),  # the driver was killed
        (End(1), AGAIN),
        (End(1, ray="ended"), AFRESH),  # the GCS is dead, and the driver with it
        (End(143, ray="ended"), AFRESH),
        (End(2, ray="ended"), AFRESH),  # "the ranks find no room": a node was lost
        (End(4, ray="down"), AFRESH),
        (End(4, deaf="n2"), REQUEUE),
        (End(2, deaf="n2"), REQUEUE),
        (End(4, error="NodesSilent: 1 of 2 node(s) of this Ray do not answer:"), REQUEUE),
        (End(2, error="NodesSilent: of the turn before"), END),
        (End(4, ray="down", error="NodesSilent: of the turn before"), AFRESH),
        (End(2, error="Unavailable: of the turn before"), END),
        (End(75, "USR1"), REQUEUE),
        (End(4, "USR1"), REQUEUE),
        (End(75, "TERM", job=PREEMPTED), REQUEUE),
        (End(75, job=PREEMPTED), REQUEUE),  # before the canary was missed
        (End(1, "TERM", job=PREEMPTED), REQUEUE),
        (End(0, "TERM", job=PREEMPTED), END),
        (End(75, "TERM", job=Report("COMPLETING", reason="TimeLimit")), REQUEUE),
        (
            End(75, "TERM", job=Report("COMPLETING", reason="None")),
            GONE,
        ),  # scancel, as scontrol shows it until it is over
        (End(75, "TERM", job=Report("CANCELLED")), GONE),
        (End(75, "TERM"), REQUEUE),  # somebody's kill, not Slurm's
        (End(75, "TERM", job=Report("COMPLETING", restarts=1)), GONE),
    ],
)
def test_what_follows(now: End, then: str) -> None:
    assert decide(now, Mark(0, 5), [line("begun", 0)], 3).then == then


def test_turns_that_made_a_step_never_count() -> None:
    past = []
    for day in range(40):
        past += [line("begun", day), line("ended", day + 1, error=f"day {day}", counts=True)]
    assert decide(End(75, "USR1"), Mark(0, 41), [*past, line("begun", 40)], 3).then == REQUEUE
    assert decide(End(4, error="other"), Mark(0, 41), [*past, line("begun", 40)], 0).then == AGAIN


def test_steps_that_a_turn_made_which_was_cut_off_count_as_progress() -> None:
    past = [line("begun", 0), *[line("ended", 0, error=str(n)) for n in range(3)], line("begun", 7)]
    assert decide(End(4), Mark(0, 7), past, 3).then == AGAIN


@pytest.mark.parametrize("most", [0, 1, 3])
def test_no_more_idle_turns_than_allowed(most: int) -> None:
    past: list[dict[str, Any]] = []
    for turn in range(most):
        past.append(line("begun", 0))
        now = End(4, error=f"another {turn}")
        assert decide(now, Mark(), past, most).then == (AGAIN if turn == 0 else AFRESH)
        past.append(line("ended", 0, error=now.error))
    last = decide(End(75, "USR1"), Mark(), [*past, line("begun", 0)], most)
    assert last.then == END and f"launch.max_restarts={most}" in last.why


def test_a_hub_that_stays_away_is_asked_as_often_as_a_turn_may_be_idle() -> None:
    past: list[dict[str, Any]] = []
    away = End(3, error="Unavailable: the hub does not answer", where="corpus 0")
    for then in (AGAIN, AFRESH, AFRESH, END):
        past.append(line("begun", 0))
        assert decide(away, Mark(), past, 3).then == then
        past.append(line("ended", 0, code=3, error=away.error, where=away.where))


def test_a_hub_that_is_away_when_a_turn_is_planned_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the run itself has begun, and after an earlier turn of it."""
    monkeypatch.setattr(remote, "WAITS", ())
    monkeypatch.setenv("FMTRAIN_JOB", "7")
    monkeypatch.setenv("FMTRAIN_RUN", "r1")
    run = run_folder(tmp_path)
    assert (
        main(["run", "recipe=tokens", "data=local", "data.files=http://127.0.0.1:1/a.jsonl", f"store={tmp_path}"]) == 3
    )
    error, _ = turns.standing(run)
    assert error.startswith("Unavailable: http://127.0.0.1:1/a.jsonl cannot be read")


def test_preemptions_never_count() -> None:
    past = [part for _ in range(9) for part in (line("begun", 0), line("ended", 0, counts=False))]
    assert decide(End(75, "TERM", job=PREEMPTED), Mark(), past, 0).then == REQUEUE


@pytest.mark.parametrize("end", [End(2, deaf="n2"), End(4, error="NodesSilent: n2 (10.0.0.2)", where=" 0")], ids=str)
def test_a_node_that_never_answers_does_not_queue_a_job_for_ever(end: End) -> None:
    past: list[dict[str, Any]] = []
    for _ in range(3):
        past.append(line("begun", 0))
        now = decide(end, Mark(), past, 3)
        assert now.then == REQUEUE
        ended = line("ended", 0, code=end.code, error=end.error, where=end.where, counts=now.counts)
        past.append({**ended, "deaf": end.deaf})
    assert decide(end, Mark(), [*past, line("begun", 0)], 3).then == END
    assert decide(end, Mark(0, 1), [*past, line("begun", 0)], 3).then == REQUEUE


def test_an_error_beside_a_lost_node_is_not_the_first_of_two() -> None:
    past = [line("begun", 3), {**line("ended", 3, error="RankLost: x", where="sft 3"), "deaf": "n2"}, line("begun", 3)]
    assert decide(End(4, error="RankLost: x", where="sft 3"), Mark(0, 3), past, 3).then != END


def test_the_same_step_with_the_same_error_twice_ends_it() -> None:
    past = [line("begun", 3), line("ended", 5, error="StageFailed: x", where="sft 7"), line("begun", 5)]
    assert decide(End(4, error="StageFailed: x", where="sft 7"), Mark(0, 5), past, 3).then == END
    assert decide(End(4, error="StageFailed: x", where="sft 8"), Mark(0, 5), past, 3).then == AGAIN
    assert decide(End(4, error="StageFailed: y", where="sft 7"), Mark(0, 5), past, 3).then == AGAIN
    assert decide(End(137, error="StageFailed: x", where="sft 7"), Mark(0, 5), past, 3).then == AGAIN


def run_folder(store: Path) -> Path:
    """A run whose first stage is committed and whose second is under way: two of three steps saved, an error."""
    run, work = store / "runs" / "r1", store / "work" / "model" / "ab"
    (work / "checkpoints" / "step-00000002").mkdir(parents=True)
    (work / "checkpoints" / "tmp-00000003-x").mkdir()
    (work / "metrics.jsonl").write_text("".join(json.dumps({"step": n}) + "\n" for n in range(3)) + '{"st')
    (run / "stages" / "sft").mkdir(parents=True)
    (run / "stages" / "sft" / "error.json").write_text(json.dumps({"error": "StageFailed", "message": "why\nmore"}))
    (run / "run.json").write_text(json.dumps({"state": "failed", "stage": "sft", "message": "sft failed: why"}))
    (run / "plan.json").write_text(json.dumps([{"stage": "sft", "fingerprint": "ab"}]))
    (run / "events.jsonl").write_bytes(b'{"event": "started"}\n\xff\xfe\n[]\n{"event": "committed"}\n')
    return run


def test_what_the_disk_says(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    assert turns.mark_of(run) == Mark(1, 2)
    assert turns.standing(run) == ("StageFailed: sft failed: why", "sft 2")
    work = tmp_path / "work" / "model" / "ab"
    assert turns.stand(work) == "step 2 is saved; steps made after it, and lost: 1"
    done = work / "parts" / "key" / "read" / ".done"
    done.mkdir(parents=True)
    for name in ("00000.json", "00001.json", "00002-x.tick"):
        (done / name).touch()
    assert turns.mark_of(run) == Mark(1, 4)
    assert turns.mark_of(tmp_path / "runs" / "other") == Mark()
    ended = {"state": "failed", "stage": None, "error": "NodesSilent", "message": "1 of 2 nodes ..:\n  n2"}
    (run / "run.json").write_text(json.dumps(ended))  # before any stage
    assert turns.standing(run) == ("NodesSilent: 1 of 2 nodes ..:", " 0")


def test_as_the_batch_script_calls_it(tmp_path: Path) -> None:
    """From a folder that holds a `json.py`, with Slurm's answer beside the run: one word, and a line a turn."""
    run = run_folder(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the working directory')")
    (run / "slurm-job.txt").write_text("JobId=7 JobName=a JobState=CANCELLED\n   JobState=RUNNING Reason=None\n")
    program = [sys.executable, "-P", "-m", "launch.turns", str(run)]
    subprocess.run([*program, "begin"], cwd=tmp_path, check=True)
    ended = [*program, "end", "--code=4", "--max-restarts=3"]
    answers = [
        subprocess.run([*ended, f"--turn={n}"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()
        for n in (0, 0, 1)  # the second, because the first answer did not arrive
    ]
    assert answers == [AGAIN, AGAIN, END]
    lines = [json.loads(text) for text in (run / "turns.jsonl").read_text().splitlines()]
    assert [(at["event"], at.get("then"), at.get("job")) for at in lines] == [
        ("begun", None, None), ("ended", AGAIN, "RUNNING"), ("ended", END, "RUNNING"),
    ]  # fmt: skip
