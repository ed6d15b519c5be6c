"""Documents by their address: domains, addresses and words in it, as FineWeb filters (Penedo et al. 2024, section 3.1).

The lists that datatrove carries (the UT1 adult list among them) are read from its package, nothing is fetched. A domain
is looked up with all its parents, so no list of public suffixes is needed: a listed domain counts for every subdomain.
4.6 million domains are kept as sorted 64-bit hashes, 37 MB a process.
"""

import functools
import io
import re
import tarfile
from importlib.resources import files
from typing import IO, Any
from urllib.parse import urlsplit

import numba
import numpy as np
import numpy.typing as npt

from data_pipelines.document import Document
from data_pipelines.filters.base import Drop
from data_pipelines.filters.texts import entries
from data_pipelines.words import mix
from fmtrain.schema import rules

SOFT_WORDS = 2  # a soft word alone proves nothing (RefinedWeb, Penedo et al. 2023, appendix G.1)
_ARCHIVE = "url_filterblacklistsv0_3_0.tar.gz"
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_SCHEME = re.compile(r"^[a-z][a-z0-9+.\-]*://")

Hashes = npt.NDArray[np.uint64]


class Url:
    """Drops a document whose address is listed: its domain, itself, or a word in it."""

    def __init__(self, config: rules.Url) -> None:
        self.config = config
        own = [host(entry.lower()).removeprefix("www.") for file in config.domains for entry in entries(file)]
        self._domains = [hashed("\n".join(own).encode())]
        own = [address(entry) for file in config.urls for entry in entries(file)]
        self._urls = [hashed("\n".join(own).encode())]
        self._words = {_joined(word) for file in config.words for word in entries(file)}
        self._soft: frozenset[str] = frozenset()
        self._parts: tuple[str, ...] = ()
        if config.bundled:
            domains, urls = bundled_addresses()
            self._domains.append(domains)
            self._urls.append(urls)
            hard, self._soft, self._parts = bundled_words()
            self._words |= hard

    def __call__(self, doc: Document) -> Drop | None:
        given = doc.meta.get("url")
        if not given or not isinstance(given, str):
            return Drop("url.unknown") if self.config.unknown == "drop" else None
        url = given.strip().lower()
        for domain in parents(host(url)):
            if _among(self._domains, domain):
                return Drop("url.domain", domain)
        if _among(self._urls, address(url)):
            return Drop("url.address", url)
        words = set(_SEPARATORS.split(url))
        if found := words & self._words:
            return Drop("url.word", min(found))
        if len(found := words & self._soft) >= SOFT_WORDS:
            return Drop("url.word", " ".join(sorted(found)), SOFT_WORDS)
        joined = _SEPARATORS.sub("", url)
        if part := next((part for part in self._parts if part in joined), None):
            return Drop("url.word", part)
        return None


def host(url: str) -> str:
    """The host of a lower-case address, with or without scheme; empty where there is none."""
    try:
        name = urlsplit(url if _SCHEME.match(url) else f"//{url.removeprefix('//')}").hostname or ""
    except ValueError:  # a bracket without its other, say
        return ""
    return name.rstrip(".")


def parents(name: str) -> list[str]:
    """a.b.example.com, b.example.com, example.com, com; an IPv4 address has no parents."""
    if name.replace(".", "").isdigit():
        return [name]
    labels = name.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))] if name else []


def address(url: str) -> str:
    """An address as lists write it: lower case, without scheme, www., fragment and last slash."""
    return _SCHEME.sub("", url.strip().lower()).removeprefix("www.").partition("#")[0].rstrip("/")


def hashed(lines: bytes) -> Hashes:
    """The sorted hashes of the lines that are neither empty nor comments."""
    out = np.empty(lines.count(b"\n") + 1, np.uint64)
    return np.sort(out[: _hash_lines(np.frombuffer(lines, np.uint8), out)])  # np.unique is 15 times slower


def _among(lists: list[Hashes], item: str) -> bool:
    data = item.encode("utf-8", "surrogatepass")
    if not data:
        return False
    wanted = np.uint64(_hash(np.frombuffer(data, np.uint8), 0, len(data)))
    for hashes in lists:
        at = int(np.searchsorted(hashes, wanted))
        if at < len(hashes) and hashes[at] == wanted:
            return True
    return False


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hash(data: Any, start: int, end: int) -> Any:
    """FNV-1a over bytes, then murmur3's finaliser."""
    h = np.uint64(0xCBF29CE484222325)
    for i in range(start, end):
        h = (h ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return mix(h)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hash_lines(data: Any, out: Any) -> int:
    n, start = 0, 0
    for i in range(len(data) + 1):
        if i == len(data) or data[i] == 10:
            if i > start and data[start] != 35:  # neither empty nor a comment
                out[n] = _hash(data, start, i)
                n += 1
            start = i + 1
    return n


def _joined(word: str) -> str:
    return _SEPARATORS.sub("", word.lower())


@functools.cache
def bundled_addresses() -> tuple[Hashes, Hashes]:
    """(domains, addresses) that datatrove's package blocks."""
    with tarfile.open(fileobj=io.BytesIO((files("datatrove") / "assets" / _ARCHIVE).read_bytes())) as archive:
        domains, urls = (archive.extractfile(name) for name in ("domains", "urls"))
        assert domains is not None and urls is not None
        listed = "\n".join(address(line) for line in urls.read().decode().splitlines())
        return _hashed_stream(domains), hashed(listed.encode())


def _hashed_stream(stream: IO[bytes], size: int = 1 << 24) -> Hashes:
    """`hashed` of a long list, read in pieces."""
    parts, rest = [], b""
    while piece := stream.read(size):
        head, end, rest = (rest + piece).rpartition(b"\n")
        parts.append(hashed(head + end))
    return np.sort(np.concatenate([*parts, hashed(rest)]))


@functools.cache
def bundled_words() -> tuple[frozenset[str], frozenset[str], tuple[str, ...]]:
    """(words that decide, words that decide in twos, parts that decide anywhere) of datatrove's package."""
    kinds = []
    for name in ("banned_words.txt", "soft_banned_words.txt", "banned_subwords.txt"):
        lines = (files("datatrove") / "assets" / name).read_text("utf-8").splitlines()
        kinds.append(sorted({_joined(line) for line in lines if line and not line.startswith("#")} - {""}))
    return frozenset(kinds[0]), frozenset(kinds[1]), tuple(kinds[2])
