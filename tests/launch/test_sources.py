"""What a run reads: names do not depend on where files lie, patterns that match nothing are errors."""

from pathlib import Path

import pytest
import zstandard

from fmtrain.errors import ConfigError, InputError
from fmtrain.schema.sources import Local, Rows, Stdlib
from launch.compose import compose
from launch.sources import _names, forms, sources


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
    assert forms(data, sources(data)) == {"prompt_completion"}


def test_forms_of_rows(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(
        'bad\n{"prompt": "q", "completion": "a"}\n{"prompt": "q", "chosen": "a", "rejected": "b"}\n'
    )
    data = Rows(files=[str(tmp_path / "r.jsonl")])
    assert forms(data, sources(data)) == {"prompt_completion", "preference"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.max_bad_fraction=1.5", r"max_bad_fraction=1\.5: expected a share"),
        ("data.max_bad_fraction=-0.1", r"max_bad_fraction=-0\.1: expected 0 or more"),
        ("data.heldout_modulus=1", "heldout_modulus=1 sets every document apart"),
        ("data.heldout_modulus=-1", "heldout_modulus=-1: expected 0 or more"),
        ("data.max_line_mb=0", "max_line_mb=0: expected 1 or more"),
    ],
)
def test_values_out_of_range(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["data=local", override])


def test_no_document_need_be_held_out() -> None:
    assert compose(["data=hub", "data.path=x", "data.heldout_modulus=0"]).data.heldout_modulus == 0
