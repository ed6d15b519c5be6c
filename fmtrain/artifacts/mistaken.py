"""What a file is that was given as JSON lines and is none, by its first bytes, and the command that makes it some."""

import codecs
import re
import shlex
import sys

START = 4096  # bytes of the content that are looked at
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard"}
_ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"7z\xbc\xaf": "a 7z archive",
}
_WIDE = {  # a byte order mark -> its encoding; UTF-32's begins as UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_NAME = re.compile(r'\s*"?[\w .:/-]{1,60}"?\s*')
_ARRAY = "import sys, json; [print(json.dumps(row)) for row in json.load(open(sys.argv[1], encoding='utf-8-sig'))]"
_OBJECT = "import sys, json; print(json.dumps(json.load(open(sys.argv[1], encoding='utf-8-sig'))))"
_CSV = (
    "import sys, csv, json; [print(json.dumps(row)) for row in "
    "csv.DictReader(open(sys.argv[1], encoding='utf-8-sig', newline=''), delimiter={delimiter!r})]"
)


def mistaken(start: bytes, path: str, packed: bool = False) -> str | None:
    """What the file is instead and how to mend it, or None where it may be JSON lines.

    `start` is the beginning of its content, decompressed; `packed`: commands would have to decompress it first.
    """
    for mark, name in _WIDE.items():
        if start.startswith(mark):
            return _made_by(f"is {name}, and UTF-8 is expected", _iconv(name, path), packed)
    if re.match(rb"\s*[\[{]\0|\0\s*[\[{]", start):
        name = "UTF-16LE" if start[:1] != b"\0" else "UTF-16BE"
        return _made_by(f"is {name}, and UTF-8 is expected", _iconv(name, path), packed)
    for magic, name in _PACKED.items():
        if start.startswith(magic):
            ending = ".gz" if name == "gzip" else ".zst"
            return f"is {name} data and its name does not say so: give it the ending {ending}"
    for magic, name in _ARCHIVES.items():
        if start.startswith(magic):
            return f"is {name}: unpack it, or pack it as .gz or .zst"
    if start.startswith(b"PAR1"):
        return "is Parquet and its name does not say so: give it the ending .parquet"
    if start.startswith(b"version https://git-lfs"):
        return "is the pointer of Git LFS to a file, not the file: fetch it with git lfs pull"
    return _text(start.removeprefix(codecs.BOM_UTF8).lstrip(), path, packed)


def _text(start: bytes, path: str, packed: bool) -> str | None:
    first, _, rest = start.partition(b"\n")
    if start.startswith(b"["):
        return _made_by("is a JSON array, and an object is expected on each line", _python(_ARRAY, path), packed)
    if first.strip() == b"{":
        return _made_by("is one JSON object over many lines; each stands on one line", _python(_OBJECT, path), packed)
    if start.startswith(b"<"):
        return "is HTML or XML, as a server's page in the place of a file is; fetch the file again"
    if start.startswith(b"{") or rest.lstrip().startswith(b"{"):
        return None
    header = first.decode("utf-8", "replace")
    for delimiter in ("\t", ",", ";"):
        columns = header.rstrip("\r").split(delimiter)
        if len(columns) > 1 and all(map(_NAME.fullmatch, columns)):
            what = "tab-separated values" if delimiter == "\t" else "CSV"
            command = _python(_CSV.format(delimiter=delimiter), path)
            return _made_by(f"looks like {what}, and a JSON object is expected on each line", command, packed)
    return None


def _made_by(what: str, command: str, packed: bool) -> str:
    return f"{what}. {'Unpack it, then convert' if packed else 'Convert'} it: {command} > rows.jsonl"


def _python(code: str, path: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {shlex.quote(path)}"


def _iconv(name: str, path: str) -> str:
    return f"iconv -f {name} -t UTF-8 {shlex.quote(path)}"
