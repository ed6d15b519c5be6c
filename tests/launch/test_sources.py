"""What a run reads: names do not depend on where files lie, patterns that match nothing are errors."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from fmtrain.artifacts.rows import look
from fmtrain.errors import ConfigError, InputError
from fmtrain.schema.sources import Local, Rows, Stdlib
from launch.compose import compose
from launch.graph import build
from launch.sources import _names, sources


def test_names_are_relative_to_what_files_share(tmp_path: Path) -> None:
    for name in ("x/a.jsonl", "x/deep/b.jsonl", "x/deep/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    found = sources(Local(files=[f"{tmp_path}/x/**/*", f"{tmp_path}/x/a.jsonl", f"file://{tmp_path}/x/a.jsonl"]))
    assert [s.name for s in found] == ["a.jsonl", "deep/b.jsonl", "deep/c.txt"]
    (one,) = sources(Local(files=[f"{tmp_path}/x/deep/c.txt"]))
    assert one.name == "c.txt" and one.path == str(tmp_path / "x/deep/c.txt")


def test_names_of_urls() -> None:
    assert _names({"s3://b/d/a.jsonl", "s3://b/d/e/c.gz"}) == {
        "s3://b/d/a.jsonl": "a.jsonl",
        "s3://b/d/e/c.gz": "e/c.gz",
    }
    assert _names({"s3://b/a", "s3://c/a"}) == {"s3://b/a": "b/a", "s3://c/a": "c/a"}
    assert _names({"https://h/a?k=1"}) == {"https://h/a?k=1": "a"}
    mixed = _names({"s3://b/a", "/x/y/a", "/x/z"})
    assert mixed == {"s3://b/a": "s3://b/a", "/x/y/a": "y/a", "/x/z": "z"}


def test_two_inputs_of_one_name_are_refused() -> None:
    """Before anything is asked of the servers; what the queries hold is not shown."""
    urls = ["https://h/get?file=a.jsonl&sig=secret", "https://h/get?file=b.jsonl&sig=secret", "https://h/x/other.jsonl"]
    with pytest.raises(InputError, match=r"https://h/get and https://h/get \(they differ in the query's file\)") as e:
        sources(Local(files=urls))
    assert "both named 'get'" in str(e.value) and "different names" in str(e.value) and "secret" not in str(e.value)
    with pytest.raises(InputError, match=r"s3://b/x/a and s3://b/x//a are both named|s3://b/x//a and s3://b/x/a are"):
        sources(Local(files=["s3://b/x/a", "s3://b/x//a"]))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.files is empty"):
        sources(Local())
    for pattern in (f"{tmp_path}/none.jsonl", f"{tmp_path}/*.jsonl"):
        with pytest.raises(InputError, match="no file matches"):
            sources(Local(files=[pattern]))
    with pytest.raises(InputError, match=r"is a folder; name its files, e\.g\. data\.files='.*/\*\*/\*\.jsonl'"):
        sources(Local(files=[str(tmp_path)]))
    for name in ("a.zip", "a.parquet.gz", "a", "a.gz"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(
            InputError, match=rf"{name}: data\.files takes \.jsonl, .*, each also as \.gz and \.zst, and"
        ):
            sources(Local(files=[str(tmp_path / name)]))
    with pytest.raises(InputError, match="none of these is in the standard library"):
        sources(Stdlib(modules=["nosuch"]))


@pytest.mark.parametrize("name", ["a.jsonl", "*.jsonl", "deep/**/*.jsonl"])
def test_a_folder_that_does_not_let_this_user_look(name: str, tmp_path: Path) -> None:
    """No "no file" alone, where nobody knows: for root too, once it is without its capabilities."""
    (tmp_path / "closed").mkdir(mode=0)
    as_anybody = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    code = f"from launch.paths import files; files({f'{tmp_path}/closed/{name}'!r}, 'data.files')"
    done = subprocess.run([*as_anybody, sys.executable, "-c", code], capture_output=True, text=True)
    assert f"Its folder {tmp_path}/closed does not let you look: ask its owner" in done.stderr


def test_the_standard_library_is_known_by_content() -> None:
    found = sources(Stdlib(modules=["json", "this"]))
    assert {"json/__init__.py", "this.py"} <= {s.name for s in found}
    assert all(s.sha256 and s.size for s in found)


def test_forms_of_rows_behind_a_long_window(tmp_path: Path) -> None:
    params = zstandard.ZstdCompressionParameters.from_level(3, window_log=31)
    packer = zstandard.ZstdCompressor(compression_params=params).compressobj()
    packed = packer.compress(b'{"prompt": "q", "completion": "a"}\n') + packer.flush()
    (tmp_path / "r.jsonl.zst").write_bytes(packed)
    data = Rows(files=[str(tmp_path / "r.jsonl.zst")])
    assert look(data, sources(data)).forms == {"prompt_completion"}


def test_forms_of_rows(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        'bad\n{"prompt": "q", "completion": "a"}\n{"prompt": "q", "chosen": "a", "rejected": "b"}\n'
    )
    data = Rows(files=[str(tmp_path / "r.jsonl")])
    found = look(data, sources(data))
    assert found.forms == {"prompt_completion", "preference"} and found.several and found.whole


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.GZ", "rows.Zst"])
def test_a_preference_row_behind_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    """The only row of its kind is seen, or its stages would be left out."""
    row = b'\xef\xbb\xbf{"prompt": "q", "chosen": "a", "rejected": "b"}\n{"prompt": "q", "completion": "a"}\n'
    pack = {"l": bytes, "Z": gzip.compress, "t": zstandard.compress}[name[-1]]
    (tmp_path / name).write_bytes(pack(row))
    data = Rows(files=[str(tmp_path / name)])
    assert look(data, sources(data)).forms == {"prompt_completion", "preference"}


def test_of_many_rows_the_plan_looks_at_a_part(tmp_path: Path) -> None:
    """The same part on every machine; what it has not seen it says."""
    many = b"".join(b'{"prompt": "q%d", "completion": "a"}\n' % n for n in range(10_000))
    (tmp_path / "a.jsonl").write_bytes(many + b'{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"messages": [{"role": "user", "content": "q"}]}\n')
    data = Rows(files=[str(tmp_path / "*.jsonl")])
    part, whole = look(data, sources(data), most=4 << 20), look(data, sources(data))
    assert part.forms == {"prompt_completion", "messages"} and not part.whole
    assert whole.forms == {"prompt_completion", "preference"} and whole.whole


def _model(folder: Path) -> None:
    """As much of a base model as the plan asks for."""
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_text("{}")


def test_what_is_evaluated_on_is_known_at_plan(tmp_path: Path) -> None:
    _model(tmp_path)
    rows = tmp_path / "rows.jsonl"
    base = ["recipe=finetune", f"model.path={tmp_path}", f"data.files={rows}"]
    rows.write_text('{"prompt": "q", "completion": "a"}\n' * 3)
    with pytest.raises(InputError, match=r"hold one row .*nothing is left to evaluate on.*stages\.evaluate=null"):
        build(compose(base))
    build(compose([*base, "stages.evaluate=null"]))
    rows.write_text('{"prompt": "q", "completion": "a"}\n{"prompt": "q", "completion": "b"}\n')
    build(compose(base))
    with pytest.raises(ConfigError, match=r"heldout_modulus=0 holds nothing out.*stages\.evaluate=null"):
        compose([*base, "data.heldout_modulus=0"])
    compose([*base, "data.heldout_modulus=0", "stages.evaluate=null"])


def test_what_the_plan_did_not_see_is_said_and_may_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "__defaults__", (1000,))
    monkeypatch.setattr("fmtrain.artifacts.rows._LEAST", 1000)
    _model(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "q{n}", "completion": "a"}}\n' for n in range(100)))
    base = ["recipe=finetune", f"model.path={tmp_path}", f"data.files={tmp_path}/rows.jsonl"]
    graph = build(compose(base))
    assert "dpo" not in [n.stage for n in graph.nodes]
    assert "data.forms=[preference,prompt_completion]" in graph.left_out[1]
    graph = build(compose([*base, "data.forms=[preference,prompt_completion]"]))
    assert "dpo" in [n.stage for n in graph.nodes] and not graph.left_out
    with pytest.raises(ConfigError, match=r"data\.forms"):
        compose([*base, "data.forms=[preferences]"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.max_bad_fraction=1.5", r"max_bad_fraction: 1\.5 is not a number from 0 to 1"),
        ("data.max_bad_fraction=-0.1", r"max_bad_fraction: -0\.1 is not a number from 0"),
        ("data.heldout_modulus=1", "heldout_modulus=1 sets every document apart"),
        ("data.heldout_modulus=-1", "heldout_modulus: -1 is not a number of at least 0"),
        ("data.max_line_mb=0", "max_line_mb: 0 is not a number from 1"),
    ],
)
def test_values_out_of_range(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["data=local", override])


def test_no_document_need_be_held_out() -> None:
    assert compose(["recipe=corpus_web", "data=hub", "data.path=x", "data.heldout_modulus=0"]).data.heldout_modulus == 0


def test_names_that_are_none(tmp_path: Path) -> None:
    """Brackets that are letters, a folder of every name, and bytes that are no UTF-8, each with its mend."""
    (tmp_path / "[v2] x").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "[v2] x" / name).write_text("{}")
    with pytest.raises(InputError, match=r"stands for one of the letters within; for the bracket itself write") as e:
        sources(Local(files=[f"{tmp_path}/[v2] x/*.jsonl"]))
    advised = str(e.value).rpartition(": '")[2].rstrip("'")
    assert [s.name for s in sources(Local(files=[advised]))] == ["a.jsonl", "b.jsonl"]
    assert [s.name for s in sources(Local(files=[f"{tmp_path}/[v2] x/a.jsonl"]))] == ["a.jsonl"]
    with pytest.raises(ConfigError, match=r"^data\.files: an empty name; give a path") as e:
        sources(Local(files=[""]))
    assert "**" not in str(e.value)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl")
    Path(odd).write_text("{}")
    with pytest.raises(InputError, match=r"the name is no UTF-8.*rename the file"):
        sources(Local(files=[f"{tmp_path}/*.jsonl"]))
    with pytest.raises(ConfigError, match="a name that is no UTF-8"):
        compose(["data=local", f"data.files={odd}"])


def test_a_folder_is_entered_once_through_whatever_links(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "r.jsonl").write_text("{}")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "beside").symlink_to(tmp_path / "a" / "b")
    found = sources(Local(files=[f"{tmp_path}/a/**/*.jsonl", f"{tmp_path}/**/b/*.jsonl"]))
    assert [s.name for s in found] == ["r.jsonl"]
    assert [s.name for s in sources(Local(files=[f"{tmp_path}/beside/**/*"]))] == ["r.jsonl"]
