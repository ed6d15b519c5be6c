"""The corpus stage end to end, on planted documents and on the standard library."""

import base64
import gzip
import json
import os
import random
import re
import signal
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.sources import is_heldout
from fmtrain.artifacts.storage import read_json
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.corpus import CorpusJob, CorpusStage
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.rules import Decontaminate, Filter, Length
from fmtrain.schema.sources import Local, Rows, Stdlib

MINHASH, EXACT, NONE = (
    Dedup("minhash", ["exact", "minhash"]),
    Dedup("exact", ["exact"]),
    Dedup("none", []),
)
NO_RULES, CODE = Filter("none", []), Filter("code", ["code"])
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
    return CorpusJob(**{"data": Local(), "filter": NO_RULES, "dedup": MINHASH, **parts})


def test_planted_copies(make_corpus: Any, tmp_path: Path) -> None:
    documents = planted()
    run = make_corpus(job(), [write(tmp_path / "a.jsonl.gz", documents)], tmp_path)
    counts = run.run().counts
    gone = {row["id"]: (row["rule"], row["kept"]) for row in run.ledger()}
    near_held = sorted([HELD[0], HELD[6]], key=lambda i: (-len(dict(documents)[i].encode()), i))
    kept_exact = next(i for i in (TRAIN[0], TRAIN[40], TRAIN[41]) if i not in gone)
    exact = {TRAIN[0], TRAIN[40], TRAIN[41]} - {kept_exact}
    assert gone == {
        **{i: ("dedup.exact", kept_exact) for i in exact},
        TRAIN[1]: ("dedup.minhash", TRAIN[42]),
        HELD[4]: ("dedup.minhash", TRAIN[2]),
        HELD[5]: ("dedup.exact", TRAIN[3]),
        near_held[1]: ("dedup.minhash", near_held[0]),
    }
    assert counts["heldout_copies"] == 2 and counts["read"] == len(documents)
    assert counts["train_documents"] == len(run.rows("train")) == 30
    assert counts["heldout_documents"] == len(run.rows("heldout")) == 4
    assert counts["train_bytes"] == sum(len(r["text"].encode()) for r in run.rows("train"))
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values()) + counts["quarantined"]
    order = [i for i, _ in documents]
    assert run.ids("train") == sorted(run.ids("train"), key=order.index)
    assert set(run.rows("train")[0]) == {"id", "text", "group", "source"}
    near = next(row for row in run.ledger() if row["id"] == TRAIN[1])
    assert 0.9 < near["value"] < 1 and near["file"] == "a.jsonl.gz"


def test_the_number_of_tasks_changes_no_byte(make_corpus: Any, tmp_path: Path) -> None:
    documents = planted() * 2
    paths = [write(tmp_path / f"{n}.jsonl.gz", documents[n::3]) for n in range(3)]
    results = []
    for tasks in (1, 2, 5):
        run = make_corpus(job(), paths[:: -1 if tasks == 2 else 1], tmp_path, tasks=tasks, name=f"run{tasks}")
        run.run()
        results.append({k: v for k, v in run.files().items() if not k.startswith("inputs")})
    assert all(result == results[0] for result in results[1:])


def test_order_and_split_of_files_change_no_document(make_corpus: Any, tmp_path: Path) -> None:
    documents = planted()
    kept = []
    for tasks, files in ((1, 1), (2, 3), (3, 7)):
        random.Random(tasks).shuffle(documents)
        root = tmp_path / f"{files}"
        paths = [write(root / f"{n}.jsonl.gz", documents[n::files]) for n in range(files)]
        run = make_corpus(job(), paths[::-1], root, tasks=tasks, name=f"run{files}")
        run.run()
        kept.append({side: sorted((r["id"], r["text"]) for r in run.rows(side)) for side in ("train", "heldout")})
    assert all(result == kept[0] for result in kept[1:])


def test_exact_and_none(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    exact = make_corpus(job(dedup=EXACT), [file], tmp_path, name="exact")
    assert exact.run().counts["dropped"] == {"dedup.exact": 3}
    none = make_corpus(job(dedup=NONE), [file], tmp_path, name="none")
    assert none.run().counts["dropped"] == {} and none.ledger() == []


def test_repeated_ids_are_told_apart(make_corpus: Any, tmp_path: Path) -> None:
    documents = [(HELD[0], "held out"), ("a", "one"), ("a", "two"), ("a", ""), ("b", "four"), ("a", "five")]
    run = make_corpus(job(), [write(tmp_path / "x.jsonl.gz", documents)], tmp_path, tasks=3)
    run.run()
    ids = {row["text"]: row["id"] for row in run.rows("train")}
    assert ids["one"] == "a" and ids["four"] == "b" and len(set(ids.values())) == 4
    assert ids["two"].startswith("a#0:") and ids["five"].startswith("a#0:")  # file number and position
    assert {row["group"] for row in run.rows("train")} == {"a", "b"}
    assert [(r["id"], r["rule"]) for r in run.ledger()] == [("a", "empty.white_space")]


def test_nothing_held_out(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted()[:5])
    run = make_corpus(job(data=Local(heldout_modulus=0)), [file], tmp_path)
    counts = run.run().counts
    assert counts["train_documents"] == 5 and counts["heldout_documents"] == 0 and run.rows("heldout") == []


def test_what_cannot_be_read_is_quarantined_and_counted(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    file.write_bytes(file.read_bytes() + gzip.compress(b'{"text": 1}\nnonsense\n'))
    run = make_corpus(job(data=Local(max_bad_fraction=0.1)), [file], tmp_path)
    counts = run.run().counts
    faults = run.rows("quarantine")
    assert counts["quarantined"] == len(faults) == 2
    assert [base64.b64decode(f["bytes"]) for f in faults] == [b'{"text": 1}', b"nonsense"]
    assert {f["reason"] for f in faults} == {"text_not_a_string", "not_json"}
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values()) + 2
    strict = make_corpus(job(), [file], tmp_path, name="strict")
    with pytest.raises(InputError, match=r"(?s)2 of \d+ records .*max_bad_fraction=0.001 .*a\.jsonl\.gz.*=0.05"):
        strict.run()


def test_a_cut_file_gives_what_it_has(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    other = write(tmp_path / "b.jsonl.gz", [(f"x{n}", " ".join(words(5000 + n))) for n in range(40)])
    file.write_bytes(file.read_bytes()[:-20])
    run = make_corpus(job(data=Local(max_bad_fraction=0.1)), [file, other], tmp_path)
    counts = run.run().counts
    assert [f["reason"] for f in run.rows("quarantine")] == ["truncated"]
    assert {f"x{n}" for n in range(40)} <= {*run.ids("train"), *run.ids("heldout")}
    assert counts["read"] == counts["kept"] + sum(counts["dropped"].values()) + 1


def test_an_empty_side_is_an_error_with_the_account(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    with pytest.raises(InputError, match=r"0 are left for training .*code.mean_line \d+.*filter.rules=.code. now"):
        make_corpus(job(filter=CODE), [file], tmp_path).run()
    few = write(tmp_path / "b.jsonl.gz", planted()[:5])
    with pytest.raises(InputError, match=r"5 are left for training and 0 held out.*heldout_modulus=20"):
        make_corpus(job(), [few], tmp_path, name="few").run()
    nothing = tmp_path / "c.jsonl"
    nothing.write_text("\n")
    with pytest.raises(InputError, match="holds no document: 1 records, blank_line 1"):
        make_corpus(job(), [nothing], tmp_path, name="blank").run()
    with pytest.raises(InputError, match="no input file"):
        make_corpus(job(), [], tmp_path, name="nothing").run()
    with pytest.raises(ConfigError, match="holds no documents"):
        make_corpus(job(data=Rows()), [file], tmp_path, name="rows").run()


def test_a_missing_file_ends_the_process_with_its_code(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    run = make_corpus(job(), [file], tmp_path)
    file.unlink()
    process = run.start()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 3 and "Traceback" not in said
    assert str(file) in read_json(run.folder / "error.json")["message"]


def test_files_of_settings_are_no_input_and_must_not_change(make_corpus: Any, tmp_path: Path) -> None:
    file, words = write(tmp_path / "filter.jsonl.gz", planted()), tmp_path / "words.txt"
    words.write_text("one\n")
    run = make_corpus(job(), [file], tmp_path, beside=words)
    assert run.run().counts["read"] == len(planted())  # whatever the data's own file is called
    words.write_text("two\n")
    with run.start() as worker:
        said = worker.communicate()[1]
    assert worker.returncode == 3 and "words.txt has changed since this run was planned" in said


def test_an_evaluation_set_by_name(make_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (folder := tmp_path / "ours").mkdir()
    row = planted()[3][1]
    (folder / "test.jsonl").write_text(json.dumps({"question": "one", "n": 1}) + "\n" + json.dumps({"question": row}))
    rule = Decontaminate(sets=[f"{folder}:test"])
    wanted = job(filter=Filter("none", ["decontaminate"], decontaminate=rule))
    file = write(tmp_path / "a.jsonl.gz", planted())
    run = make_corpus(wanted, [file], tmp_path, beside=folder)
    run.run()
    gone = {r["id"]: r["detail"] for r in run.ledger() if r["rule"] == "decontaminate.n_gram"}
    assert gone[planted()[3][0]] == "ours:test.jsonl:2"
    card = (run.out / "card.md").read_text()
    assert f"{folder}:test" in card and "ours:test.jsonl:2" in card
    written = (folder / "test.jsonl").stat()
    (folder / "test.jsonl").write_text(json.dumps({"question": planted()[4][1]}))
    os.utime(folder / "test.jsonl", ns=(written.st_atime_ns, written.st_mtime_ns))
    again = make_corpus(wanted, [file], tmp_path, beside=folder, name="again")
    again.run()
    assert [r["detail"] for r in again.ledger() if r["id"] == planted()[4][0]] == ["ours:test.jsonl:1"]
    nosuch = replace(wanted, filter=replace(wanted.filter, decontaminate=Decontaminate(sets=[f"{folder}:dev"])))
    with pytest.raises(InputError, match=r"filter\.decontaminate\.sets: .*dev.* Check the configuration and the split"):
        make_corpus(nosuch, [file], tmp_path, name="other").run()


def test_copies_of_an_earlier_corpus_go(make_corpus: Any, tmp_path: Path) -> None:
    documents = planted()[:20] + planted()[30:34]
    first = make_corpus(job(), [write(tmp_path / "1.jsonl.gz", documents)], tmp_path, name="first")
    first.run()
    new = [(f"n{n}", " ".join(words(7000 + n))) for n in range(60)]
    again = [("again", documents[3][1]), ("nearly", edited(words(4)))]
    run = make_corpus(
        job(), [write(tmp_path / "2.jsonl.gz", [*again, *new])], tmp_path, name="second", earlier=first.out
    )
    counts = run.run().counts
    assert {r["id"]: (r["rule"], r["kept"]) for r in run.ledger()} == {
        "again": ("dedup.exact", documents[3][0]), "nearly": ("dedup.minhash", documents[4][0])
    }  # fmt: skip
    assert counts["read"] == 62 and counts["kept"] == 60


def test_dropped_text_is_kept_where_asked(make_corpus: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl.gz", planted())
    run = make_corpus(job(stage=CorpusStage(keep_dropped=True)), [file], tmp_path)
    run.run()
    assert all(r["text"] == dict(planted())[r["id"]] for r in run.ledger())


def test_the_card_adds_up(make_corpus: Any, tmp_path: Path) -> None:
    rows = [
        {"id": i, "text": t, "source": "ab"[n % 2], "license": ["MIT", None][n % 2]}
        for n, (i, t) in enumerate(planted())
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = make_corpus(job(), [file], tmp_path)
    counts = run.run().counts
    card = read_json(run.out / "card.json")
    assert set(card["sources"]) == {"a", "b"}
    assert sum(s["kept"] for s in card["sources"].values()) == counts["kept"]
    assert sum(s["licenses"].get("MIT", 0) for s in card["sources"].values()) > 0
    assert card["levels"][-1]["documents_out"] == counts["kept"]
    shown = (run.out / "card.md").read_text()
    assert "| `a` |" in shown and "MIT" in shown and "dedup.exact" in shown and '"n_grams": 5' in shown
    assert "Not looked for: no `pii` among filter.rules" in shown and "`decontaminate` among" in shown
    assert (run.out / "card.html").read_text().count("<rect") == 2 * (2 + len(card["levels"]))
    inputs = read_json(run.out / "inputs.json")
    assert len(inputs) == 1 and len(inputs[0]["sha256"]) == 64


def test_kill_and_run_again(make_corpus: Any) -> None:
    """kill -9 at several moments of the same work, then to the end: the bytes of an uninterrupted run."""
    config = job(data=Stdlib(heldout_modulus=5), filter=CODE)
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
    config = job(data=Stdlib(heldout_modulus=5), filter=CODE)
    files = stdlib_files("asyncio", "email", "json", "http")
    inline = make_corpus(config, files, STDLIB, tasks=2, name="inline")
    inline.run()
    ray = make_corpus(config, files, STDLIB, tasks=3, executor="ray", name="ray")
    process = ray.start(**ray_env)
    *tasks, told = process.communicate(timeout=120)[1].splitlines()
    assert process.returncode == 0
    assert all(line.startswith("task corpus:") and " done on " in line for line in tasks), tasks
    assert re.fullmatch(r"\d+ records: .* held out, \d+ kept", told)
    assert ray.files() == inline.files()


def test_the_standard_library_keeps_its_bytes(make_corpus: Any) -> None:
    data = Stdlib()
    files = sorted(p for p in STDLIB.rglob("*.py") if not set(data.exclude) & set(p.relative_to(STDLIB).parts))
    run = make_corpus(job(data=data, filter=CODE), files, STDLIB, tasks=4)
    result = run.run()
    assert result.metrics["kept_byte_share"] >= 0.75
    assert result.counts["quarantined"] == 0
    assert {r["group"] for r in run.rows("heldout")}.isdisjoint(r["group"] for r in run.rows("train"))


def test_what_is_quarantined_is_bounded_and_counted(
    make_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of each reason, whatever the number of tasks: 20 kB of gzipped blank lines left 969 MB."""
    for module in ("data_pipelines.read", "data_pipelines.stages.corpus"):
        monkeypatch.setattr(f"{module}.NAMED", 50)
        monkeypatch.setattr(f"{module}.SHOWN", 5)
    rows = "".join(f'{{"id": "{n}", "text": "document {n} says {n * 7919} things"}}\n' for n in range(60))
    bad = ('{"text": 5, "x": "' + "y" * 2000 + '"}\n') * 200
    (tmp_path / "a.jsonl").write_text(rows + "\n" * 3000 + bad)
    (tmp_path / "b.jsonl").write_text("\n" * 3000 + bad)
    found = []
    for tasks in (1, 3):
        data = Local(max_bad_fraction=1, heldout_modulus=0)
        files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
        run = make_corpus(job(data=data, dedup=NONE), files, tmp_path, name=str(tasks), tasks=tasks)
        counts = run.run().counts
        assert (counts["quarantined"], counts["unreadable"], counts["read"]) == (100, 6400, 6460)
        found.append((run.stage.out / "quarantine.jsonl.gz").read_bytes())
    assert found[0] == found[1]
    shown = [len(base64.b64decode(f["bytes"])) for f in run.rows("quarantine") if f["reason"] == "text_not_a_string"]
    assert shown == [2020] * 5 + [1023] * 45
    assert (run.stage.folder / "said.txt").read_text() == (
        "6,460 records: 6,000 blank lines, 400 unreadable: text_not_a_string, 60 kept\n"
    )


def test_a_source_of_which_nothing_is_left_is_a_warning(make_corpus: Any, tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "text": f"short {n}", "source": "small"} for n in range(60)]
    rows.append({"id": "book", "text": "word " * 3000, "source": "book"})
    (file := tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = Filter("none", ["length"], length=Length(max_words=100))
    run = make_corpus(CorpusJob(Local(heldout_modulus=0), rules, NONE), [file], tmp_path)
    run.run()
    (alarm,) = read_json(run.out / "card.json")["alarms"]
    assert alarm.startswith("nothing of the source book is left, 97% of the text that was read (1 documents)")
