"""Which files a run reads, by content: the standard library, globs of local files, a Hugging Face folder."""

import glob
import gzip
import io
import os
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

import orjson
import zstandard

from fmtrain.errors import ConfigError, InputError
from fmtrain.run.stage import Source
from fmtrain.run.storage import sha256_file
from fmtrain.schema.corpus import Data, Local, Rows, Stdlib
from fmtrain.schema.rows import Form, form_of

_MODEL_FILES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken")


def sources(data: Data) -> list[Source]:
    """The input files of `data`, sorted by name; InputError where there is none."""
    if isinstance(data, Stdlib):
        return _stdlib(data)
    assert isinstance(data, (Local, Rows))
    return _files(data.files)


def model_files(folder: str) -> list[Source]:
    """The files of a Hugging Face folder that make the model and its tokenizer."""
    root = Path(folder).expanduser().absolute()
    if not (root / "config.json").is_file():
        raise InputError(
            f"model.path={folder}: no config.json there; expected a Hugging Face model folder on this machine"
        )
    files = sorted(p for p in root.iterdir() if p.is_file() and p.suffix in _MODEL_FILES)
    return [_source(p, p.name) for p in files if p.name not in ("manifest.json", "lineage.json")]


def forms(data: Rows, files: list[Source]) -> set[Form]:
    """Which forms of row the files hold; reading ends as soon as both SFT and preference rows are seen."""
    seen: set[Form] = set()
    for source in files:
        for line in _lines(source):
            try:
                form = form_of(orjson.loads(line), data)
            except orjson.JSONDecodeError:
                continue
            if form is not None:
                seen.add(form)
            if "preference" in seen and len(seen) > 1:
                return seen
    return seen


def _lines(source: Source) -> Iterator[bytes]:
    """The raw lines of a file, decompressed. A damaged file ends early here; the examples stage names the damage."""
    path = source.path
    try:
        with open(path, "rb") as raw:
            if path.endswith(".gz"):
                yield from gzip.GzipFile(fileobj=raw)
            elif path.endswith(".zst"):
                with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
                    yield from io.BufferedReader(stream)
            else:
                yield from raw
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return


def _stdlib(data: Stdlib) -> list[Source]:
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n not in data.exclude]
        for file in files:
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            if file.endswith(".py") and (not data.modules or name.split("/")[0].removesuffix(".py") in data.modules):
                found.append(path)
    if not found:
        raise InputError(f"data.modules={data.modules}: none of these is in the standard library at {root}")
    return [_source(p, p.relative_to(root).as_posix()) for p in sorted(found)]


def _files(patterns: list[str]) -> list[Source]:
    if not patterns:
        raise ConfigError("data.files is empty; e.g. data.files=corpus.jsonl or data.files=[a.jsonl.gz,'more/*.jsonl']")
    paths: set[str] = set()
    for pattern in patterns:
        full = os.path.abspath(os.path.expanduser(pattern))
        hits = [full] if os.path.isfile(full) else [p for p in glob.glob(full, recursive=True) if os.path.isfile(p)]
        if not hits:
            raise InputError(f"data.files: no file matches {pattern!r} (looked for {full})")
        paths.update(hits)
    base = os.path.commonpath([os.path.dirname(p) for p in paths])
    return [_source(Path(path), os.path.relpath(path, base)) for path in sorted(paths)]


def _source(path: Path, name: str) -> Source:
    try:
        return Source(str(path), name, sha256_file(path))
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}") from e
