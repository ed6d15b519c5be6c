"""Which documents are copies of another: exact ones by hash, near ones by datatrove's MinHash blocks, and who stays.

datatrove finds the clusters; the choice in each is ours, because the held-out split must win over order of reading: a
held-out document that has a copy in training is removed, never the reverse. It depends on the documents alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)

from data_pipelines.documents import Dropped, Entry, fetch
from data_pipelines.schedule import Counts, Scheduler, Task, quiet
from data_pipelines.words import WORDS
from fmtrain.schema.corpus import Dedup, MinhashDedup

EXACT, NEAR, HELDOUT = "exact_duplicate", "near_duplicate", "heldout_near_duplicate"
_PRIME = np.uint64((1 << 61) - 1)  # datatrove's modulus
_SHINGLES = 4096  # hashed at a time: datatrove takes a document whole, 0.9 kB a word
_SIGNATURES = 1000  # records read at a time; datatrove's default of 5 is for object stores


@dataclass
class Deduplicated:
    """What is left, what went, and the size of the largest cluster of near copies (an alarm where it is large)."""

    kept: list[Entry]
    dropped: list[Dropped]
    largest_cluster: int = 0


def deduplicate(scheduler: Scheduler, config: Dedup, seed: int, entries: list[Entry]) -> Deduplicated:
    """Remove the copies that `config` looks for."""
    if config.name == "none":
        return Deduplicated(entries, [])
    exact = choose(_same_text(entries))
    near: dict[Entry, Entry] = {}
    largest = 0
    if isinstance(config, MinhashDedup):
        clusters = near_copies(scheduler, config, seed, [e for e in entries if e not in exact])
        largest = max(map(len, clusters), default=0)
        near = choose(clusters)
    dropped = []
    for entry in entries:
        if entry in exact or entry in near:
            keeper = exact.get(entry, entry)
            keeper = near.get(keeper, keeper)
            reason = HELDOUT if entry.heldout and not keeper.heldout else EXACT if entry in exact else NEAR
            detail = f"duplicate of {keeper.id}"
            dropped.append(Dropped(entry.source, entry.line, entry.id, reason, detail, duplicate_of=keeper.id))
    return Deduplicated([e for e in entries if e not in exact and e not in near], dropped, largest)


def choose(clusters: Iterable[list[Entry]]) -> dict[Entry, Entry]:
    """Removed document -> the one of its cluster that stays: of training before held out, the longest, the first id."""
    removed = {}
    for cluster in clusters:
        keeper = min(cluster, key=lambda e: (e.heldout, -e.bytes, e.id))
        removed.update({entry: keeper for entry in cluster if entry is not keeper})
    return removed


def _same_text(entries: list[Entry]) -> list[list[Entry]]:
    by_digest = defaultdict(list)
    for entry in entries:
        by_digest[entry.digest].append(entry)
    return [cluster for cluster in by_digest.values() if len(cluster) > 1]


@dataclass(frozen=True)
class SignItem:
    """The documents that one task takes the signatures of; `file` is their number in datatrove's files."""

    config: MinhashConfig
    entries: list[Entry]


@dataclass(frozen=True)
class BucketItem:
    """The buckets that one task looks for equal signatures in."""

    config: MinhashConfig
    buckets: list[int]


def near_copies(scheduler: Scheduler, config: MinhashDedup, seed: int, entries: list[Entry]) -> list[list[Entry]]:
    """Clusters of near copies: connected by equal MinHash signatures in any bucket, whatever the order of documents."""
    minhash = MinhashConfig(
        n_grams=config.n_grams,
        num_buckets=config.num_buckets,
        hashes_per_bucket=config.hashes_per_bucket,
        seed=seed % (1 << 32),  # numpy's RandomState takes no more
    )
    by_rank: dict[int, list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda e: (e.rank, e.offset)):
        by_rank[entry.rank].append(entry)
    shards = [by_rank[rank] for rank in sorted(by_rank)]
    signed = [SignItem(minhash, shard) for shard in shards]
    scheduler.run("signatures", sign_task, signed, unit="documents", total=len(entries))
    groups = [list(range(i, config.num_buckets, len(shards))) for i in range(min(len(shards), config.num_buckets))]
    scheduler.run("buckets", bucket_task, [BucketItem(minhash, group) for group in groups], unit="buckets")
    scheduler.run("clusters", cluster_task, [minhash], unit="clusters")
    clusters: dict[int, list[Entry]] = defaultdict(list)
    for file, shard in enumerate(shards):
        path = scheduler.parts / "clusters" / f"{file:06d}.clusters"
        pairs = np.fromfile(path, dtype="<u4").reshape(-1, 2) if path.exists() else ()
        for document, cluster in pairs:
            clusters[int(cluster)].append(shard[int(document)])
    return list(clusters.values())


class _Signatures(MinhashDedupSignature):  # type: ignore[misc]
    """datatrove's signatures, bit for bit, in memory that does not grow with the document."""

    def get_signature(self, shingles: npt.NDArray[np.uint64]) -> list[list[int]]:
        """Shingles (n, 1) -> `num_buckets` lists of `hashes_per_bucket` minima over the shingles."""
        a, b = self.parameters
        low = np.full(self.num_hashes, _PRIME, dtype=np.uint64)
        for start in range(0, len(shingles), _SHINGLES):
            hashed = (shingles[start : start + _SHINGLES] * a + b) % _PRIME
            np.minimum(low, hashed.min(axis=0), out=low)
        return [part.tolist() for part in np.split(low, self.config.num_buckets)]


def sign_task(task: Task, item: SignItem) -> Counts:
    quiet()
    block = _Signatures(str(task.scratch), config=item.config, language=WORDS)
    block.run(_as_documents(task, item.entries), task.rank, task.world_size)
    return {"documents": len(item.entries)}


def _as_documents(task: Task, entries: list[Entry]) -> Iterator[Document]:
    for number, line in enumerate(fetch(task.parts, entries)):
        row = orjson.loads(line)
        yield Document(text=row["text"], id=row["id"])
        task.tick(number + 1)


def bucket_task(task: Task, item: BucketItem) -> Counts:
    quiet()
    for bucket in item.buckets:
        block = MinhashDedupBuckets(
            str(task.parts / "signatures"), str(task.scratch), config=item.config, lines_to_buffer=_SIGNATURES
        )
        block.run(None, bucket, item.config.num_buckets)
    return {"buckets": len(item.buckets)}


def cluster_task(task: Task, config: MinhashConfig) -> Counts:
    quiet()
    found: Path = task.parts / "buckets"
    block = MinhashDedupCluster(
        str(found), str(task.scratch), config=config, save_cluster_id=True, lines_to_buffer=_SIGNATURES
    )
    block.run(None, 0, 1)
    return {"clusters": 1}
