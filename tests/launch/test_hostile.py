"""`fmtrain plan` on input that was made to hurt: an answer within 10 s and 1 GB, never a traceback."""

import gzip
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SECONDS, BYTES = 10.0, 1_000_000_000
ROWS = b'{"prompt": "q", "completion": "a"}\n{"prompt": "r", "completion": "b"}\n'
MB = 1_000_000


def _gzip(pieces: Iterable[bytes]) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return b"".join(map(packer.compress, pieces)) + packer.flush()


def _zeros_zst(blocks: int) -> bytes:
    """Frames whose blocks each say 'one byte, 128 KiB times': 2 GB in 64 KB."""
    block = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b" "
    end = (1 | 1 << 1 | 1 << 3).to_bytes(3, "little") + b"\n"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * blocks + end


def _blown_up_parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = pyarrow.table({"text": pyarrow.nulls(20 * MB, pyarrow.string())})
    parquet.write_table(rows, folder / "rows.parquet", compression="zstd")
    (folder / "cut.parquet").write_bytes(b"PAR1" + (1 << 31).to_bytes(4, "little") + b"PAR1")


def _links(folder: Path) -> None:
    """Two links that lead back: through them there are 2 ** 40 ways down."""
    (folder / "rows.jsonl").write_bytes(ROWS)
    (folder / "x").symlink_to(folder)
    (folder / "y").symlink_to(folder)


def _model(folder: Path, **files: bytes) -> None:
    """A whole model with a row beside it: nothing but what a case put there is amiss."""
    whole = {
        "config_json": b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 4}',
        "tokenizer__config_json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}',
        "tokenizer_json": b'{"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}}, "added_tokens": []}',
        "model_safetensors": b"\x02\0\0\0\0\0\0\0{}",
        "rows_jsonl": ROWS,
    }
    for name, content in (whole | files).items():
        (folder / name.replace("__", "-").replace("_", ".").replace("-", "_")).write_bytes(content)


def _huge(path: Path, size: int) -> None:
    with open(path, "wb") as f:
        f.truncate(size)


CASES: dict[str, Callable[[Path], object]] = {
    "gzip of blank lines": lambda d: (d / "rows.jsonl.gz").write_bytes(_gzip([b"\n" * MB] * 8000)),
    "gzip of one line": lambda d: (d / "rows.jsonl.gz").write_bytes(_gzip([b"a" * MB] * 4000)),
    "gzip of rows of no form": lambda d: (d / "rows.jsonl.gz").write_bytes(
        _gzip(b'{"a":1}\n' * 99999 for _ in "a" * 999)
    ),
    "gzip members without content": lambda d: (d / "rows.jsonl.gz").write_bytes(gzip.compress(b"", mtime=0) * 999_999),
    "zst of one byte": lambda d: (d / "rows.jsonl.zst").write_bytes(_zeros_zst(MB)),
    "zst frames to skip": lambda d: (d / "rows.jsonl.zst").write_bytes(b"\x50\x2a\x4d\x18\0\0\0\0" * (2 * MB)),
    "a line of 300 MB": lambda d: (d / "rows.jsonl").write_bytes(b'{"prompt": "' + b"a" * 300 * MB),
    "a line of lists": lambda d: (d / "rows.jsonl").write_bytes(b"{" + b'"a":[' + b"[]," * (30 * MB) + b"0]}\n"),
    "a line of 15 MB of lists": lambda d: (d / "rows.jsonl").write_bytes(b'{"a":[' + b"[]," * (5 * MB) + b"0]}\n"),
    "deep nesting": lambda d: (d / "rows.jsonl").write_bytes((b"[" * 99999 + b"\n") * 20 + b'{"a":' * 99999 + b"\n"),
    "huge numbers": lambda d: (d / "rows.jsonl").write_bytes(b'{"prompt": ' + b"9" * 9 * MB + b"}\n"),
    "a FIFO": lambda d: os.mkfifo(d / "rows.jsonl"),
    "a device": lambda d: (d / "rows.jsonl").symlink_to("/dev/zero"),
    "a file that never ends": lambda d: (d / "rows.jsonl").symlink_to("/proc/kmsg"),
    "a link to itself": lambda d: (d / "rows.jsonl").symlink_to(d / "rows.jsonl"),
    "links that lead back": _links,
    "many names, none meant": lambda d: [(d / f"{n}.txt").touch() for n in range(20_000)],
    "many files": lambda d: [(d / f"{n}.txt").write_bytes(b"a") for n in range(3_000)],
    "a sparse file": lambda d: _huge(d / "rows.jsonl", 1 << 40),
    "Parquet": _blown_up_parquet,
    "a model's giant JSON": lambda d: (_model(d), _huge(d / "tokenizer.json", 1 << 40)),
    "a model's deep JSON": lambda d: _model(d, config_json=b'{"a":' * MB),
    "a model's huge numbers": lambda d: _model(d, config_json=b'{"num_hidden_layers": ' + b"9" * MB + b"}"),
    "a model's FIFO": lambda d: (_model(d), (d / "tokenizer.json").unlink(), os.mkfifo(d / "tokenizer.json")),
}


# In a process of its own: a child's ru_maxrss begins with what the process that forked it had held.
MEASURE = f"""
import resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_CPU, ({4 * SECONDS:.0f}, {4 * SECONDS:.0f}))
code = subprocess.run(sys.argv[1:], stdout=sys.stderr, timeout={12 * SECONDS}).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
"""


def plan(folder: Path, *words: str) -> tuple[int, str, float, int]:
    """Exit code, output, seconds of CPU and bytes of memory of a `plan`; it is ended where it takes far too long."""
    command = [sys.executable, "-m", "launch.cli", "plan", *words, f"store={folder / 'store'}"]
    ran = subprocess.run([sys.executable, "-S", "-c", MEASURE, *command], capture_output=True, cwd=REPOSITORY)
    said = ran.stderr.decode("utf-8", "replace")
    assert ran.returncode == 0, said
    code, seconds, size = ran.stdout.split()
    return int(code), said, float(seconds), int(size)


PATTERNS = {"links that lead back": "**/*.jsonl", "a link to itself": "rows.jsonl", "many names, none meant": "*.jsonl"}
PATTERNS |= dict.fromkeys(("a FIFO", "a device", "a file that never ends"), "rows.jsonl")


@pytest.mark.parametrize("case", CASES)
def test_plan_answers(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    CASES[case](folder)
    model = folder if case.startswith("a model") else tmp_path
    if model is tmp_path:
        _model(model)
        (model / "rows.jsonl").unlink()
    words = ["recipe=finetune", f"data.files={folder}/{PATTERNS.get(case, 'rows.*')}", f"model.path={model}"]
    if case in ("Parquet", "many files"):
        words = ["recipe=corpus_web", f"data.files={folder}/*.*"]
    code, said, seconds, size = plan(tmp_path, *words)
    print(f"{case}: exit {code}, {seconds:.1f} s, {size / MB:.0f} MB: {said.strip()[-300:]}")
    assert code == 0 or (code in (2, 3) and (str(folder) in said or "rows.jsonl" in said)), said
    assert "Traceback" not in said and "internal" not in said and said.strip(), said
    assert len(said) < 6000, said[:3000]
    assert seconds < SECONDS and size < BYTES, (seconds, size, said)
