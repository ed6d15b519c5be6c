"""What the benchmarks of deduplication share: documents of real text, planted copies, ours and the peers.

A peer gets the words of our splitter where it lets us choose, and the band shape that the caller names.
"""

import gzip
import json
import os
import random
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from data_pipelines.dedup import deduplicate  # noqa: E402
from data_pipelines.dedup.near import jaccard  # noqa: E402
from data_pipelines.dedup.signatures import Shape, Signer  # noqa: E402
from data_pipelines.parts import Parts  # noqa: E402
from data_pipelines.schedule import quiet  # noqa: E402
from data_pipelines.words import PATTERN  # noqa: E402
from fmtrain.schema.dedup import Dedup  # noqa: E402
from tests.data_pipelines.datatrove_words import OUR_WORDS  # noqa: E402
from tests.data_pipelines.made_parts import Made, make_parts, make_scheduler  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
NAMES = ("peps", "rust_rfcs", "gutenberg")
N_GRAMS, BANDS, ROWS = 5, 20, 5
_WORD = re.compile(r"\w+(?:['’.\-]\w+)*")  # those of our splitter that are no punctuation
_NOT_A_WORD = re.compile(r"\W")
Removed = dict[int, int | None]  # number of a document -> of the one that it went in favour of, where that is known


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def pretrain(megabytes: float) -> list[str]:
    """Texts of shared data's pretrain folder, of all three sources in turn, up to so much; empty without the folder."""
    sources = [[row["text"] for row in read(DATA / "pretrain" / f"{name}.jsonl.gz")] for name in NAMES]
    texts, size = [], 0
    for at in range(max(map(len, sources))):
        for source in sources:
            if at < len(source) and size < megabytes * 1e6:
                texts.append(source[at])
                size += len(source[at].encode())
    return texts


def passages(texts: Sequence[str], words: int = 600) -> list[str]:
    """The texts cut into pieces of 200 to `words` words at white space, as web pages have them."""
    numbers = random.Random(0)
    pieces = []
    for text in texts:
        cut = text.split(" ")
        while len(cut) >= 200:
            size = numbers.randrange(200, words)
            pieces.append(" ".join(cut[:size]))
            cut = cut[size:]
    return pieces


def edit(text: str, share: float, numbers: random.Random, vocabulary: Sequence[str]) -> str:
    """`share` of the words replaced by others of the corpus; what stands between words stays."""
    words = list(_WORD.finditer(text))
    places = numbers.sample(range(len(words)), round(share * len(words)))
    some = {words[at].span(): numbers.choice(vocabulary) for at in places}
    pieces, done = [], 0
    for start, end in sorted(some):
        pieces += [text[done:start], some[start, end]]
        done = end
    return "".join(pieces) + text[done:]


def white_space(text: str, numbers: random.Random) -> str:
    return "\n".join(word + " " * numbers.randrange(3) for word in text.split(" "))


def frame(text: str, numbers: random.Random, vocabulary: Sequence[str]) -> str:
    """Another header and footer: a dozen words before, as many after."""
    head, foot = (" ".join(numbers.choices(vocabulary, k=12)) for _ in range(2))
    return f"{head}\n\n{text}\n\n{foot}"


KINDS = ("exact", "white space", "case", "1%", "3%", "5%", "10%", "header, footer")


def plant(pieces: Sequence[str], seed: int = 1) -> tuple[list[str], list[int], list[str]]:
    """Every second piece with one copy, of each kind in turn: texts, each one's family, its kind ("" an original)."""
    numbers = random.Random(seed)
    vocabulary = [word for piece in pieces[::50] for word in _WORD.findall(piece)]
    rows: list[tuple[str, int, str]] = []
    for family, piece in enumerate(pieces):
        rows.append((piece, family, ""))
        if family % 2:
            continue
        kind = KINDS[family // 2 % len(KINDS)]
        if kind == "exact":
            copy = piece
        elif kind == "white space":
            copy = white_space(piece, numbers)
        elif kind == "case":
            copy = piece.upper()
        elif kind == "header, footer":
            copy = frame(piece, numbers, vocabulary)
        else:
            copy = edit(piece, float(kind.rstrip("%")) / 100, numbers, vocabulary)
        rows.append((copy, family, kind))
    numbers.shuffle(rows)
    return [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]


def sets(texts: Sequence[str]) -> list[npt.NDArray[np.uint64]]:
    """Exact sets of word n-grams."""
    signer = Signer(Shape(N_GRAMS, BANDS, ROWS, 0))
    return [signer.shingle_set(text) for text in texts]


def similarity(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> float:
    return float(jaccard(one, other, 0.0)) if len(one) and len(other) else 0.0


@contextmanager
def laid(texts: Sequence[str], tasks: int = 2) -> Iterator[Parts]:
    """The texts as the read step leaves them; an id is a text's number."""
    with tempfile.TemporaryDirectory() as folder:
        yield make_parts(Path(folder), [Made(str(i), text) for i, text in enumerate(texts)], tasks)


def ours(texts: Sequence[str], threshold: float = 0.5, parts: Parts | None = None) -> Removed:
    """Exact and near copies; `parts` where the texts are laid already."""
    if parts is None:
        with laid(texts) as parts:
            return ours(texts, threshold, parts)
    with tempfile.TemporaryDirectory() as folder, make_scheduler(Path(folder)) as scheduler:
        config = Dedup(name="bench", steps=["exact", "minhash"], threshold=threshold)
        gone = deduplicate(scheduler, config, parts, 1).open().tolist()
    numbers = [int(document["id"]) for rank in range(parts.tasks) for document in parts.documents(rank)]
    return {numbers[row]: numbers[keeper] for row, (reason, keeper, _) in enumerate(gone) if reason}


def datatrove_stages(texts: Sequence[str], folder: Path, language: Any, bands: int, rows: int) -> list[Any]:
    """Callables, one a stage of datatrove's MinHash: signatures, buckets, clusters, filter, which gives the removed."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )

    quiet()
    config = MinhashConfig(n_grams=N_GRAMS, num_buckets=bands, hashes_per_bucket=rows)

    def documents() -> Iterator[Any]:
        return (Document(text=text, id=str(i)) for i, text in enumerate(texts))

    def sign() -> None:
        MinhashDedupSignature(str(folder / "s"), config=config, language=language).run(documents(), 0, 1)

    def bucket() -> None:
        for band in range(bands):
            block = MinhashDedupBuckets(str(folder / "s"), str(folder / "b"), config=config, lines_to_buffer=1000)
            block.run(None, band, bands)

    def cluster() -> None:
        MinhashDedupCluster(str(folder / "b"), str(folder / "c"), config=config, save_cluster_id=True).run(None, 0, 1)

    def remove() -> Removed:
        block = MinhashDedupFilter(str(folder / "c"))
        kept = {int(document.id) for document in block.run(documents(), 0, 1)}
        path = folder / "c" / "000000.clusters"
        pairs = np.fromfile(path, dtype="<u4").reshape(-1, 2).tolist() if path.exists() else []
        keeper = {cluster: document for document, cluster in pairs if document in kept}
        return {document: keeper.get(cluster) for document, cluster in pairs if document not in kept}

    return [sign, bucket, cluster, remove]


def datatrove(texts: Sequence[str], bands: int = BANDS, rows: int = ROWS, language: Any = OUR_WORDS) -> Removed:
    with tempfile.TemporaryDirectory() as folder:
        result: Removed = {}
        for stage in datatrove_stages(texts, Path(folder), language, bands, rows):
            result = stage()
        return result


def shingles(text: str) -> list[str]:
    """Word n-grams as strings, which is what rensa and datasketch take."""
    words = [w for w in PATTERN.findall(text.lower()) if w[0].isalnum() or w[0] == "_"]
    return [" ".join(words[i : i + N_GRAMS]) for i in range(max(1, len(words) - N_GRAMS + 1))]


def rensa(texts: Sequence[str], threshold: float = 0.5, bands: int = BANDS, rows: int = ROWS) -> Removed:
    """A document goes where one that stays shares a band and its estimated similarity is `threshold` or more."""
    from rensa import RMinHash, RMinHashLSH

    index = RMinHashLSH(threshold, bands * rows, bands)
    kept, removed = [], {}
    for number, text in enumerate(texts):
        signature = RMinHash(bands * rows, 1)
        signature.update(shingles(text))
        found = [k for k in index.query(signature) if signature.jaccard(kept[k][1]) >= threshold]
        if found:
            removed[number] = kept[found[0]][0]
        else:
            index.insert(len(kept), signature)
            kept.append((number, signature))
    return removed


def alike(texts: Sequence[str], least: float) -> dict[tuple[int, int], float]:
    """All pairs (i < j) with exact Jaccard of `least` or more: those that share a shingle, each compared in full."""
    found, owners = sets(texts), defaultdict(list)
    for number, some in enumerate(found):
        for value in some.tolist():
            owners[value].append(number)
    pairs = {(i, j) for o in owners.values() if len(o) > 1 for at, j in enumerate(o) for i in o[:at]}
    return {p: s for p in sorted(pairs) if (s := similarity(found[p[0]], found[p[1]])) >= least}


def text_dedup(texts: Sequence[str], bands: int = BANDS, rows: int = ROWS) -> Removed:
    """text-dedup's MinHash (its `embed_func`, tables and union-find, version 0.3) in one process.

    The package itself needs Python 3.12 (0.4), or pins versions that exclude ours (before): its algorithm stands here.
    """
    import xxhash

    prime, most = np.uint64((1 << 61) - 1), np.uint64((1 << 64) - 1)
    numbers = np.random.RandomState(1)
    a, b = (numbers.randint(low, int(prime), bands * rows, dtype=np.uint64) for low in (1, 0))
    tables: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(bands)]
    for number, text in enumerate(texts):
        words = [w for w in _NOT_A_WORD.split(text.lower()) if w]
        grams = {" ".join(words[i : i + N_GRAMS]).encode() for i in range(max(1, len(words) - N_GRAMS + 1))}
        hashed = np.array([xxhash.xxh3_64_intdigest(gram) for gram in grams], np.uint64).reshape(-1, 1)
        low = np.bitwise_and((hashed * a + b) % prime, most).min(axis=0)
        for band, table in enumerate(tables):
            table[low[band * rows : (band + 1) * rows].byteswap().tobytes()].append(number)
    above = list(range(len(texts)))

    def root(number: int) -> int:
        while above[number] != number:
            above[number] = number = above[above[number]]
        return number

    for table in tables:
        for cluster in table.values():
            for number in cluster[1:]:
                one, other = root(cluster[0]), root(number)
                above[max(one, other)] = min(one, other)
    return {number: root(number) for number in range(len(texts)) if root(number) != number}
