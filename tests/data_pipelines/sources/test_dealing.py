"""How files are dealt to tasks and set apart, signs of life; a peer's documents, a plug-in's reader, the page."""

import gzip
import hashlib
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xxhash

from data_pipelines import sources
from data_pipelines.document import Document
from data_pipelines.sources import Fault, Unit, local
from data_pipelines.sources.stream import Input
from fmtrain.artifacts.sources import identify
from fmtrain.artifacts.stage import Source
from fmtrain.schema import plugins
from fmtrain.schema.formats import FORMATS
from fmtrain.schema.sources import Hub, Local, Stdlib
from tests.data_pipelines.sources.test_reading import faults, lines_of, read, source, texts


@pytest.mark.parametrize("name", ["local", "stdlib", "hub"])
def test_dealing_covers_every_part_once(name: str) -> None:
    data = {"local": Local(), "stdlib": Stdlib(), "hub": Hub(path="x")}[name]
    files = [Source(str(i), f"f{i}.jsonl", 10 ** (2 + 2 * i), "0", "") for i in range(5)]
    for tasks in (1, 2, 7):
        dealt = sources.deal(data, files, tasks)
        assert len(dealt) == tasks
        units = [u for part in dealt for u in part]
        for file in files:
            mine = [u for u in units if u.source == file]
            assert sorted(u.offset for u in mine) == list(range(mine[0].stride)) and len(mine) == mine[0].stride
            assert name != "local" or mine[0].stride <= max(1, file.size >> 20)  # no part smaller than a MiB
    assert sources.deal(data, files, 3) == sources.deal(data, files[::-1], 3)


def test_heldout_is_by_group() -> None:
    groups = [f"module{i}" for i in range(2000)]
    held = [g for g in groups if sources.is_heldout(g, 20)]
    assert held == [g for g in groups if int(hashlib.sha256(g.encode()).hexdigest(), 16) % 20 == 0]
    assert 60 < len(held) < 140
    assert not any(sources.is_heldout(g, 0) for g in groups)


def test_the_group_of_a_document_without_id_is_its_text(tmp_path: Path) -> None:
    """Not its file: the same text is held out or not wherever it lies."""
    first = read(Local(), source(tmp_path / "a.jsonl", b'{"text": "x"}\n{"text": "\xc3\xa4"}\n'))
    second = read(Local(), source(tmp_path / "b.jsonl", b'{"text": "\xc3\xa4", "id": ""}\n{"text": "y", "id": 5}\n'))
    groups = [r.group for r in (*first, *second) if isinstance(r, Document)]
    assert groups[1] == groups[2] == xxhash.xxh3_128_hexdigest("ä".encode()) != groups[0] and groups[3] == "5"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt", "a.warc", "a.py"])
def test_reading_gives_signs_of_life(tmp_path: Path, name: str) -> None:
    """Once a chunk, also where the rest of the file is only hashed: the second of two tasks has no record there."""
    content = lines_of(10_000)
    content = b"# " + content.replace(b"\n", b" ") if name == "a.py" else content
    signs: list[int] = []
    src = source(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    unit = Unit(src, 1 if name == "a.py" else 2, 0 if name == "a.py" else 1, 0)
    watched = replace(unit, alive=lambda: signs.append(1))
    records = list(sources.read(Stdlib() if name == "a.py" else Local(max_line_mb=1), watched))
    assert len(signs) >= max(src.size >> 18, 1) and len(records) in (0, 1, 5000)
    assert watched == unit and pickle.loads(pickle.dumps(unit)) == unit


def test_an_input_is_read_once_for_its_hash(tmp_path: Path) -> None:
    content = lines_of(20_000)
    with Input(source(tmp_path / "a", content)) as file:
        next(file.raw())
        assert file.finish() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "name", ["pretrain/peps.jsonl.gz", "web/c4_demo/c4_demo.jsonl.gz", "multilingual/udhr.jsonl.gz"]
)
def test_the_documents_are_datatroves(shared_data: Path, name: str) -> None:
    """On good files: the same texts in the same order; it leaves out empty ones, which we give on."""
    from datatrove.pipeline.readers import JsonlReader

    path = shared_data / name
    theirs = [d.text for d in JsonlReader(str(path.parent), glob_pattern=path.name, doc_progress=False).run()]
    records = list(sources.read(Local(), Unit(identify(str(path), path.name), 1, 0, 0)))
    assert [t for t in texts(records) if t] == theirs and not faults(records)


def test_a_plug_ins_reader_adds_an_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(data: Local, unit: Unit, on_hash: Any) -> Any:
        with Input(unit.source) as file:
            for n, line in enumerate(b"".join(file.raw()).decode().splitlines()):
                yield Document(f"{unit.source.name}:{n}", line, file=unit.source.name, line=n)
            on_hash(unit.source.name, file.finish())

    monkeypatch.setitem(plugins.READERS, ".rows.csv", rows)
    src = source(tmp_path / "a.rows.csv", b"x\ny\n")
    (units,) = sources.deal(Local(), [src], 1)
    assert texts(list(sources.read(Local(), units[0]))) == ["x", "y"]


def test_the_page_says_what_the_reader_does(tmp_path: Path) -> None:
    """Every example in the table of reasons gives its reason, and every reason of ours stands there."""
    root = Path(__file__).resolve().parents[3]
    page = (root / "docs" / "corpus" / "sources.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| `")
    ]
    examples = {row[0].strip("`"): row[-1].strip("| ").strip("`") for row in rows if len(row) == 3}
    for reason in ("not_utf8", "not_json", "not_an_object", "no_text", "text_not_a_string", "bad_id"):
        line = examples[reason].encode().decode("unicode_escape").encode("latin-1")
        (fault,) = read(Local(), source(tmp_path / "a.jsonl", line))
        assert isinstance(fault, Fault) and fault.reason == reason
    code = "".join(p.read_text() for p in (root / "data_pipelines" / "sources").glob("*.py"))
    found = re.findall(r'(?:[Ff]ault\((?:[^()"]*, )?|Damage\(|return )"([a-z]+_[a-z0-9_]+|truncated|damaged)"', code)
    assert len(set(found)) >= 12
    for reason in found:
        assert f"| `{reason}` |" in page, reason


def test_the_reader_on_the_page_of_plug_ins_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "corpus" / "plugins.md").read_text()
    code, *others = re.findall(r"```python\n(.*?)```", page, re.DOTALL)  # the others run in test_open_plugins
    assert [compile(other, "plugins.md", "exec") for other in others]
    module: dict[str, Any] = {}
    exec(code, module)
    (tmp_path / "a.csv").write_bytes(b"one\n\xff\ntwo\n")
    where, hashes = identify(str(tmp_path / "a.csv"), "a.csv"), dict[str, str]()
    found = [r for n in range(2) for r in module["read"](None, Unit(where, 2, n, 0), hashes.__setitem__)]
    assert sorted(r.text for r in found if isinstance(r, Document)) == ["one", "two"]
    assert [(f.reason, f.offset) for f in found if isinstance(f, Fault)] == [("not_utf8", 4)]
    assert hashes == {"a.csv": where.sha256}


def test_every_format_that_the_planner_takes_has_a_reader() -> None:
    assert tuple(local._READERS) == FORMATS
