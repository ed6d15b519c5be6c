"""The stage `corpus` from end to end, on planted documents and on the standard library."""

import gzip
import json
import random
import signal
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.sources import is_heldout
from fmtrain.errors import ConfigError, InputError
from fmtrain.run.storage import read_json
from fmtrain.schema.corpus import (
    CodeFilter,
    CorpusJob,
    ExactDedup,
    Local,
    MinhashDedup,
    NoDedup,
    NoFilter,
    Rows,
    Stdlib,
)

STDLIB = Path(sysconfig.get_paths()["stdlib"])
HELD = [f"h{i}" for i in range(200) if is_heldout(f"h{i}", 20)]
TRAIN = [f"t{i}" for i in range(200) if not is_heldout(f"t{i}", 20)]


def words(seed: int, n: int = 300) -> list[str]:
    numbers = random.Random(seed)
    return [f"{numbers.choice('bcdfg')}{numbers.choice('aeiou')}{chr(97 + numbers.randrange(26))}" for _ in range(n)]


def edited(text: list[str]) -> str:
    """Two words of three hundred replaced: a near copy that 14 bands of 8 find (estimated Jaccard .94)."""
    return " ".join([*text[:100], "changed", *text[101:200], "altered", *text[201:]])


def write(path: Path, documents: list[tuple[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in documents).encode()))
    return path


def stdlib_files(*modules: str) -> list[Path]:
    files = [
        p
        for m in modules
        for p in ([STDLIB / f"{m}.py"] if (STDLIB / f"{m}.py").exists() else (STDLIB / m).rglob("*.py"))
    ]
    return sorted(p for p in files if not {"test", "tests", "__pycache__"} & set(p.parts))


def planted() -> list[tuple[str, str]]:
    """Documents of their own, exact copies, near copies, and held-out copies of training documents."""
    documents = [(id_, " ".join(words(n))) for n, id_ in enumerate(TRAIN[:30])]
    documents += [(id_, " ".join(words(1000 + n))) for n, id_ in enumerate(HELD[:4])]
    documents += [(TRAIN[40], documents[0][1]), (TRAIN[41], documents[0][1])]  # exact copies
    documents += [(TRAIN[42], edited(words(1)) + " and longer")]  # a near copy, longer than its original
    documents += [
        (HELD[4], edited(words(2))),
        (HELD[5], documents[3][1]),
    ]  # held out: near and exact copies of training
    documents += [(HELD[6], edited(words(1000)))]  # near copy among the held out
    return documents


def job(**parts: Any) -> CorpusJob:
    return CorpusJob(**{"seed": 1, "data": Local(), "filter": NoFilter(), "dedup": MinhashDedup(), **parts})


def test_planted_copies(make_corpus: Any, tmp_path: Path) -> None:
    documents = planted()
    run = make_corpus(job(), [write(tmp_path / "a.jsonl.gz", documents)], tmp_path)
    counts = run.run().counts
    gone = {row["id"]: (row["reason"], row["duplicate_of"]) for row in run.rows("dropped")}
    near_held = sorted([HELD[0], HELD[6]], key=lambda i: (-len(dict(documents)[i].encode()), i))
    assert gone == {
        TRAIN[40]: ("exact_duplicate", TRAIN[0]),
        TRAIN[41]: ("exact_duplicate", TRAIN[0]),
        TRAIN[1]: ("near_duplicate", TRAIN[42]),
        HELD[4]: ("heldout_near_duplicate", TRAIN[2]),
        HELD[5]: ("heldout_near_duplicate", TRAIN[3]),
        near_held[1]: ("near_duplicate", near_held[0]),
    }
    assert counts["heldout_near_duplicates"] == 2 and counts["read"] == len(documents)
    assert counts["train_documents"] == len(run.rows("train")) == 30
    assert counts["heldout_documents"] == len(run.rows("heldout")) == 4
    assert counts["train_bytes"] == sum(len(r["text"].encode()) for r in run.rows("train"))
    assert counts["read"] == counts["train_documents"] + counts["heldout_documents"] + sum(counts["dropped"].values())
    assert run.ids("train") == sorted(run.ids("train")) and set(run.rows("train")[0]) == {"id", "text", "group"}


def test_result_is_independent_of_tasks_and_files(make_corpus: Any, tmp_path: Path) -> None:
    documents = planted()
    results = []
    for tasks, files in ((1, 1), (2, 3), (5, 2), (3, 7)):
        random.Random(tasks).shuffle(documents)
        root = tmp_path / f"{tasks}"
        paths = [write(root / f"{n}.jsonl.gz", documents[n::files]) for n in range(files)]
        run = make_corpus(job(), paths[::-1], root, tasks=tasks, name=f"run{tasks}")
        run.run()
        results.append(run.files())
    assert all(result == results[0] for result in results[1:])


def test_exact_and_none(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    exact = make_corpus(job(dedup=ExactDedup()), [file], tmp_path, name="exact")
    assert exact.run().counts["dropped"] == {"exact_duplicate": 2, "heldout_near_duplicate": 1}
    none = make_corpus(job(dedup=NoDedup()), [file], tmp_path, name="none")
    assert none.run().counts["dropped"] == {} and none.ids("dropped") == []


def test_repeated_ids_are_told_apart(make_corpus: Any, tmp_path: Path) -> None:
    documents = [(HELD[0], "held out"), ("a", "one"), ("a", "two"), ("a#2", "three"), ("a", ""), ("b", "four")]
    run = make_corpus(job(), [write(tmp_path / "x.jsonl.gz", documents)], tmp_path, tasks=3)
    run.run()
    assert {r["id"]: (r["text"], r["group"]) for r in run.rows("train")} == {
        "a": ("one", "a"), "a#3": ("two", "a"), "a#2": ("three", "a#2"), "b": ("four", "b")
    }  # fmt: skip
    assert run.ids("dropped") == ["a#4"]


def test_unreadable_lines_are_counted_and_named(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    file.write_bytes(file.read_bytes() + gzip.compress(b'{"text": 1}\nnonsense\n'))
    run = make_corpus(job(), [file], tmp_path)
    counts = run.run().counts
    named = {r["id"]: r["reason"] for r in run.rows("dropped") if r["reason"].startswith("unreadable: ")}
    assert counts["unreadable"] == counts["dropped"]["unreadable"] == len(named) == 2
    assert "not a string" in named[f"a.jsonl.gz:{len(planted()) + 1}"]
    strict = make_corpus(job(data=Local(max_bad_rows=1)), [file], tmp_path, name="strict")
    with pytest.raises(InputError, match=r"(?s)max_bad_rows=1 .*a\.jsonl\.gz:\d+: .*max_bad_rows=N"):
        strict.run()


def test_an_empty_side_is_an_error_with_the_account(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    with pytest.raises(InputError, match=r"0 are left for training .*code_mean_line \d+.*filter=code now"):
        make_corpus(job(filter=CodeFilter()), [file], tmp_path).run()
    few = write(tmp_path / "b.jsonl.gz", planted()[:5])
    with pytest.raises(InputError, match=r"5 are left for training and 0 held out.*heldout_modulus=20"):
        make_corpus(job(), [few], tmp_path, name="few").run()
    with pytest.raises(InputError, match="no input file"):
        make_corpus(job(), [], tmp_path, name="nothing").run()
    with pytest.raises(ConfigError, match="holds no documents"):
        make_corpus(job(data=Rows()), [file], tmp_path, name="rows").run()


def test_a_damaged_file_ends_the_process_with_its_code(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    file.write_bytes(file.read_bytes()[:-20])
    run = make_corpus(job(), [file], tmp_path)
    process = run.start()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 3 and f"{file} is cut short" in said and "Traceback" not in said
    file.unlink()
    (run.folder / "error.json").unlink()
    process = run.start()
    assert process.communicate(timeout=60) and process.returncode == 3
    assert read_json(run.folder / "error.json")["message"].startswith(f"{file} cannot be read")


def test_kill_and_run_again(make_corpus: Any) -> None:
    """kill -9 at several moments of the same work, then to the end: the bytes of an uninterrupted run."""
    config = job(data=Stdlib(heldout_modulus=5), filter=CodeFilter())
    files = stdlib_files("asyncio", "email", "json", "xml", "http", "wsgiref", "logging")
    whole = make_corpus(config, files, STDLIB, tasks=6, name="whole")
    whole.run()
    killed = make_corpus(config, files, STDLIB, tasks=6, name="killed")
    kills, seen = 0, set()
    for marker in ("read/.done/00001.json", "read/.done/00004.json", "signatures/.done/00002.json"):
        process = killed.start()
        while process.poll() is None and not list(killed.stage.work_dir.glob(f"parts/*/{marker}")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        done = set(killed.stage.work_dir.glob("parts/*/*/.done/*.json"))
        assert seen <= done
        seen = done
    assert kills >= 2
    times = {p: p.stat().st_mtime_ns for p in seen}
    assert killed.start().wait(timeout=120) == 0
    assert {p: p.stat().st_mtime_ns for p in seen} == times  # finished tasks were not run again
    assert killed.files() == whole.files()
    assert read_json(killed.stage.work_dir / "result.json")["counts"]["train_documents"] > 50


def test_ray_gives_the_same_bytes(make_corpus: Any, ray_env: dict[str, str]) -> None:
    config = job(data=Stdlib(heldout_modulus=5), filter=CodeFilter())
    files = stdlib_files("asyncio", "email", "json", "http")
    inline = make_corpus(config, files, STDLIB, tasks=2, name="inline")
    inline.run()
    ray = make_corpus(config, files, STDLIB, tasks=3, executor="ray", name="ray")
    process = ray.start(**ray_env)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0
    assert all(line.startswith("task corpus:") and " done on " in line for line in said.splitlines()), said
    assert ray.files() == inline.files()


def test_the_standard_library_keeps_its_bytes(make_corpus: Any) -> None:
    data = Stdlib()
    files = sorted(p for p in STDLIB.rglob("*.py") if not set(data.exclude) & set(p.relative_to(STDLIB).parts))
    run = make_corpus(job(data=data, filter=CodeFilter(), dedup=MinhashDedup()), files, STDLIB, tasks=4)
    result = run.run()
    assert result.metrics["kept_byte_share"] >= 0.80
    assert result.counts["unreadable"] == 0
    assert {r["group"] for r in run.rows("heldout")}.isdisjoint(r["group"] for r in run.rows("train"))
