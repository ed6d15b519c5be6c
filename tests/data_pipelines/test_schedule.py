"""The scheduler: what is finished is not run again, a failure is tried again a few times and keeps its words."""

import json
import threading
from pathlib import Path

import pytest

from data_pipelines.schedule import Counts, Scheduler, Task
from data_pipelines.tasks import MAX_RETRIES, Call, Done, Failure, Watch, attempt, publish
from fmtrain.artifacts.stage import Stage
from fmtrain.errors import InputError, StageFailed, StoreError
from launch.terminal import progress_text
from tests.data_pipelines.steps import drive


@pytest.fixture
def scheduler(tmp_path: Path) -> Scheduler:
    resources = {"executor": "inline"}
    return Scheduler(
        Stage("corpus", "corpus", "c", "f", "r", {}, {}, {}, [], str(tmp_path), resources, tmp_path), "key"
    )


def write(task: Task, item: str) -> Counts:
    if item == "stop":
        raise InputError("stopped")
    (task.scratch / "sub").mkdir()
    (task.scratch / "sub" / f"{task.rank}.txt").write_text(item)
    (task.parts / f"ran-{task.rank}").write_bytes(b"x")
    return {"tasks": 1}


def test_finished_tasks_are_not_run_again(scheduler: Scheduler) -> None:
    with scheduler:
        with pytest.raises(InputError, match="stopped"):
            scheduler.run("step", write, ["a", "stop", "c"])
        assert (scheduler.parts / "ran-0").exists()
        (scheduler.parts / "ran-0").unlink()
    with scheduler:
        assert scheduler.run("step", write, ["a", "b", "c"]) == [{"tasks": 1}] * 3
        assert not (scheduler.parts / "ran-0").exists()
        files = sorted(p.name for p in (scheduler.parts / "step").rglob("*.txt"))
        assert files == ["0.txt", "1.txt", "2.txt"]
        left = [p.name for p in (scheduler.parts / "step").rglob("*") if p.name.startswith(".") or "tick" in p.name]
        assert left == [".done"]


def test_another_key_starts_anew(scheduler: Scheduler) -> None:
    with scheduler:
        scheduler.run("step", write, ["a"])
    other = Scheduler(scheduler.stage, "other")
    with other:
        assert not scheduler.parts.exists() and other.parts.exists()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def double(task: Task, item: str) -> Counts:
    """Makes of what the step before has left."""
    text = (task.parts / "step" / "sub" / f"{item}.txt").read_text()
    (task.scratch / f"{item}.txt").write_text(text + text)
    return {"tasks": 1}


@pytest.mark.parametrize("where", ["sub/1.txt", ".done/00001.json", "missing"])
def test_a_part_that_has_changed_is_made_again_with_all_that_follows(
    where: str, scheduler: Scheduler, capsys: pytest.CaptureFixture[str]
) -> None:
    with scheduler:
        scheduler.run("step", write, ["a", "b"])
        scheduler.run("next", double, ["0", "1"])
    if where == "missing":
        (scheduler.parts / "step" / "sub" / "1.txt").unlink()
    else:
        flip(scheduler.parts / "step" / where)
    for rank in range(2):
        (scheduler.parts / f"ran-{rank}").unlink()
    again = Scheduler(scheduler.stage, "key")
    with again:
        (again.parts / "next" / "0.txt").write_text("of something else")
        again.run("step", write, ["a", "b"])
        again.run("next", double, ["0", "1"])
    assert not (again.parts / "ran-0").exists() and (again.parts / "ran-1").exists()
    assert "it is made again, and what was made of it" in capsys.readouterr().err
    assert [(again.parts / "next" / f"{n}.txt").read_text() for n in range(2)] == ["aa", "bb"]


def test_a_part_that_changes_under_a_running_stage_ends_it(scheduler: Scheduler) -> None:
    with pytest.raises(StoreError, match=r"1\.txt is not as its task left it"), scheduler:
        scheduler.run("step", write, ["a", "b"])
        flip(scheduler.parts / "step" / "sub" / "1.txt")


@pytest.fixture(scope="module", params=["inline", "ray"])
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """Where the steps ran, and what came of each; `stderr` is what was said meanwhile."""
    env = request.getfixturevalue("ray_env") if request.param == "ray" else {}
    steps = [
        "good",
        "raises_once=a",
        "bug=x",
        "full=a",
        *(["dies_once=ab"] if request.param == "ray" else []),
        "bad_input",
    ]
    return request.param, drive(tmp_path_factory.mktemp("steps"), request.param, steps, env)


@pytest.mark.xdist_group("ray")  # it asks for Ray by name, half of the time
@pytest.mark.parametrize(
    ("step", "outcome", "attempts"),
    [
        ("good", "[{'tasks': 1, 'rank': 0}, {'tasks': 1, 'rank': 1}, {'tasks': 1, 'rank': 2}]", 1),
        ("bad_input", "InputError b.jsonl is damaged", 1),
        ("full", "StoreError cannot write under", 1),
        ("bug", "StageFailed task corpus:bug:", MAX_RETRIES + 1),
        ("raises_once", "[{'tasks': 1}]", 2),
        ("dies_once", "[{'tasks': 1}, {'tasks': 1}]", 2),
    ],
)
def test_what_comes_of_a_step(outcomes: tuple[str, dict[str, str]], step: str, outcome: str, attempts: int) -> None:
    """Our own errors end the stage at once, others are tried again; an error keeps its type, its words, its trace."""
    where, said = outcomes
    if step not in said:
        pytest.skip("a task that dies in this process takes it along")
    assert said[step].startswith(outcome)
    assert said[f"{step} attempts"] == str(attempts)
    if step == "bug":
        assert f"ValueError: invalid literal for int() with base 10: 'x' (attempt {attempts}, the last)" in said[step]
        assert said["stderr"].count("in bug") == attempts, "the log has the tracebacks"
    assert said["files"] == "0.txt 1.txt 2.txt"
    assert said["ray imported"] == str(where == "ray")


def test_no_cluster_is_said_plainly(tmp_path: Path, ray_env: dict[str, str]) -> None:
    assert "RAY_ADDRESS is not set" in drive(tmp_path, "ray", ["good"], {**ray_env, "RAY_ADDRESS": ""})["good"]


def test_a_task_is_retried_a_bounded_number_of_times(scheduler: Scheduler, capfd: pytest.CaptureFixture[str]) -> None:
    tries: list[int] = []

    def flaky(task: Task, item: int) -> Counts:
        tries.append(item)
        if len(tries) <= item:
            raise ConnectionResetError("the peer went away")
        return {"tasks": 1}

    with scheduler:
        assert scheduler.run("mended", flaky, [MAX_RETRIES]) == [{"tasks": 1}]
        assert capfd.readouterr().err.count("the peer went away (attempt") == MAX_RETRIES
        tries.clear()
        with pytest.raises(StageFailed, match=r"task corpus:broken:0 failed on .*ConnectionResetError: the peer went"):
            scheduler.run("broken", flaky, [MAX_RETRIES + 1])
        assert len(tries) == MAX_RETRIES + 1


def test_an_attempt_that_ends_late_does_not_publish(tmp_path: Path) -> None:
    """Two attempts at one task, as on a node that was cut off: the one that the driver takes is the one that counts."""
    (tmp_path / "step" / ".done").mkdir(parents=True)
    go = threading.Event()

    def late(task: Task, item: str) -> Counts:
        (task.scratch / "out.txt").write_text(item)
        if item == "old":
            (task.scratch / "old.txt").touch()
            assert go.wait(20)
        return {"tasks": 1}

    old = Call(late, "old", tmp_path / "step", 0, 1)
    new = Call(late, "new", tmp_path / "step", 0, 1)
    outcomes: list[Done | Failure] = []
    zombie = threading.Thread(target=lambda: outcomes.append(attempt(old, lambda units, size: None)))
    zombie.start()
    done = attempt(new, lambda units, size: None)
    assert isinstance(done, Done)
    publish(new, done)
    go.set()
    zombie.join()
    assert isinstance(outcomes[0], Done)
    assert [p.name for p in (tmp_path / "step").glob("*") if not p.name.startswith(".")] == ["out.txt"]
    assert (tmp_path / "step" / "out.txt").read_text() == "new"


def test_a_store_that_nodes_do_not_share_is_said_plainly(tmp_path: Path) -> None:
    call = Call(write, "a", tmp_path, 0, 1)
    with pytest.raises(StageFailed, match="elsewhere has finished .* shared file system"):
        publish(call, Done({"tasks": 1}, 0, 0, "elsewhere"))


def test_progress_counts_documents_and_megabytes(scheduler: Scheduler) -> None:
    stage = scheduler.stage
    watch = Watch(stage, "documents", 50_000)
    watch.begin({0: Done({"documents": 2_345}, 2_345, 10**9, "h")})
    watch.begun -= 10
    watch.progress.start -= 10
    watch.set(1, 9_000, 50_000_000)
    watch.set(1, 0, 0)  # the attempt failed
    watch.set(1, 10_000, 56_000_000)
    watch.show(force=True)
    state = json.loads((stage.folder / "progress.json").read_text())
    assert state["done"] == 12_345 and state["mb_per_second"] == pytest.approx(5.6, rel=0.01)
    state |= {"rate": 1234.4, "seconds_left": 120.0}
    assert progress_text(state) == "12,345/50,000 documents, 1,234/s, 5.6 MB/s, 2 min 00 s left"
    assert progress_text({"done": 3, "unit": "steps", "rate": 2.12}) == "3 steps, 2.1/s"


def test_ticks_reach_the_progress_file(scheduler: Scheduler) -> None:
    def ticks(task: Task, item: int) -> Counts:
        task.tick(item, bytes=7 * item)
        return {"documents": item}

    with scheduler:
        scheduler.run("step", ticks, [10, 20], unit="documents", total=30)
        state = json.loads((scheduler.stage.folder / "progress.json").read_text())
        assert (state["done"], state["total"], state["unit"]) == (30, 30, "documents") and state["mb_per_second"] > 0
