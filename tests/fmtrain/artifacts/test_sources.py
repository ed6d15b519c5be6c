"""What an input is known by: small files by content, large ones by their ends and the time of their change."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmtrain.artifacts.sources import check_unchanged, identify, identify_folder
from fmtrain.artifacts.stage import Source, Stage, read_stage, write_stage
from fmtrain.errors import InputError

MIB = 1 << 20


def write(path: Path, content: bytes, seconds: int = 1_700_000_000) -> Path:
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    return path


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB])
def test_a_small_file_is_its_content(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    one = identify(str(write(tmp_path / "a", content)), "n")
    assert (one.name, one.size, one.sha256) == ("n", size, hashlib.sha256(content).hexdigest())
    later = identify(str(write(tmp_path / "b", content, 1_800_000_000)), "n")
    assert (later.stamp, later.sha256) == (one.stamp, one.sha256)
    if size:
        for at in {0, size // 2, size - 1}:
            other = bytearray(content)
            other[at] ^= 1
            assert identify(str(write(tmp_path / "c", bytes(other))), "n").stamp != one.stamp


def test_a_large_file_is_its_ends_and_its_time(tmp_path: Path) -> None:
    content = bytes(3 * MIB)
    one = identify(str(write(tmp_path / "a", content)), "n")
    assert one.sha256 == "" and one.identity == ["n", 3 * MIB, one.stamp]
    assert identify(str(write(tmp_path / "b", content)), "n").stamp == one.stamp
    assert identify(str(write(tmp_path / "b", content, 1_700_000_001)), "n").stamp != one.stamp
    for at, differs in ((0, True), (MIB - 1, True), (MIB, False), (2 * MIB - 1, False), (2 * MIB, True), (-1, True)):
        other = bytearray(content)
        other[at] = 1
        assert (identify(str(write(tmp_path / "c", bytes(other))), "n").stamp != one.stamp) == differs


def test_a_model_file_is_its_whole_content(tmp_path: Path) -> None:
    content = bytes(3 * MIB)
    one = identify(str(write(tmp_path / "a", content)), "n", full=True)
    assert one.sha256 == hashlib.sha256(content).hexdigest() and one.identity == ["n", 3 * MIB, one.sha256]


def test_a_change_is_found(tmp_path: Path) -> None:
    source = identify(str(write(tmp_path / "a", b"abc")), "a")
    check_unchanged(source)
    write(tmp_path / "a", b"abd")
    with pytest.raises(InputError, match="has changed since this run was planned"):
        check_unchanged(source)
    (tmp_path / "a").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        check_unchanged(source)


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "b", b"x")
    one = identify_folder(str(tmp_path), "set")
    write(tmp_path / "d" / ".hidden", b"y")
    assert identify_folder(str(tmp_path), "set") == one
    (tmp_path / "d" / "b").rename(tmp_path / "d" / "c")
    assert identify_folder(str(tmp_path), "set").stamp != one.stamp


def test_urls_stay_as_they_are_in_a_stage(tmp_path: Path) -> None:
    sources = [Source(p, "n", 1, "s", "") for p in ("s3://b/a", "hf://datasets/a/b@0", str(tmp_path / "local"))]
    folder = tmp_path / "stage"
    write_stage(folder, Stage("s", "k", "n", "f", "r", {}, {}, {}, sources, str(tmp_path / "work")))
    folder.rename(tmp_path / "moved")
    read = read_stage(tmp_path / "moved").sources
    assert [s.path for s in read] == ["s3://b/a", "hf://datasets/a/b@0", str(tmp_path / "local")]


def test_local_files_need_no_fsspec(tmp_path: Path) -> None:
    code = f"""
import sys
from launch.sources import sources
from fmtrain.schema.sources import Local
sources(Local(files=[{str(write(tmp_path / "a.jsonl", b"{}"))!r}]))
assert not {{"fsspec", "s3fs", "huggingface_hub", "datasets", "pyarrow"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
