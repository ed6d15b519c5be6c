"""The ledger of a corpus, `ledger.parquet`: a row a document that is not in it, and why; and the questions put to it.

    id, source, file, position    the document and where it was read
    url                           its address, where one is known
    rule                          RULE.REASON, e.g. gopher_quality.too_few_words, dedup.minhash
    value, threshold              what the rule measured and its limit, where these are numbers
    detail                        what it met, where that is a text
    kept                          of a copy: the id of the document that stays
    bytes                         of the text that was judged: as it came to the rule, after what earlier rules changed
    text                          that text itself, where the corpus was made with stages.corpus.keep_dropped

`python -m data_pipelines.ledger CORPUS why ID|URL | sample --rule R` is what `fmtrain corpus` runs. Rows are in the
order of the input, and are written and read a batch at a time.
"""

import argparse
import hashlib
import heapq
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines import corpus_reader
from data_pipelines.dedup.keys import normalise_url
from data_pipelines.lines import merge_sorted, order_key
from data_pipelines.parts import STEP, Parts
from data_pipelines.write import Survey, is_renamed, new_id, ordered
from fmtrain import show
from fmtrain.errors import ConfigError, StoreError

FILE = "ledger.parquet"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("file", pa.string()),
        ("position", pa.uint64()),
        ("url", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("detail", pa.string()),
        ("kept", pa.string()),
        ("bytes", pa.uint64()),
        ("text", pa.string()),
    ]
)
_BATCH = 5000


@dataclass(frozen=True)
class Copies:
    """What the rows of copies are made from; `limits` is the threshold of a reason, where it has one."""

    parts: Parts
    gone: Path
    reasons: Sequence[str]
    limits: dict[str, float]
    found: Survey
    files: list[str]
    keep_text: bool


def write(path: Path, copies: Copies) -> int:
    """All that was dropped, by rules and as copies, in the order of the input; the number of rows."""
    names = [f"{rank:05d}.dropped" for rank in range(copies.parts.tasks)]
    by_rules = ((key, _by_rule(row)) for key, row in merge_sorted(copies.parts.folder / STEP, names))
    rows = heapq.merge(by_rules, _copies(copies), key=lambda pair: pair[0])
    number = 0
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for batch in _batches(row for _, row in rows):
            writer.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
            number += len(batch)
    return number


def _by_rule(row: dict[str, Any]) -> dict[str, Any]:
    """A rule's numbers as numbers, its texts as one detail."""
    texts = [str(row[k]) for k in ("value", "threshold") if isinstance(row[k], str)]
    numbers = {k: float(row[k]) for k in ("value", "threshold") if isinstance(row[k], (int, float))}
    return {**row, "value": None, "threshold": None, **numbers, "detail": ", not ".join(texts) or None}


def _copies(copies: Copies) -> Iterator[tuple[int, dict[str, Any]]]:
    parts = copies.parts
    for places, index, verdict, rows in ordered(parts, copies.gone):
        went = np.flatnonzero(verdict["reason"])
        keepers = [int(k) for k in verdict["keeper"][went]]
        for n, document, row, keeper in zip(went, parts.fetch(rows[went]), keepers, parts.fetch(keepers), strict=True):
            key, reason = int(places["key"][n]), copies.reasons[int(verdict["reason"][n])]
            yield (
                key,
                {
                    "id": document["id"],
                    "source": document["source"],
                    "file": copies.files[int(index["file"][n])],
                    "position": int(index["line"][n]),
                    "url": document.get("url"),
                    "rule": reason,
                    "value": float(verdict["value"][n]),
                    "threshold": copies.limits.get(reason),
                    "detail": None,
                    "kept": _final_id(keeper["id"], row, copies),
                    "bytes": int(index["bytes"][n]),
                    "text": document["text"] if copies.keep_text else None,
                },
            )


def _final_id(given: str, row: int, copies: Copies) -> str:
    """A keeper's id as the corpus has it, where its id was given to another document before it."""
    if not len(copies.found.renamed):
        return given
    rank, number = copies.parts.place(row)
    record = copies.parts.index(rank)[number]
    key = order_key(int(record["file"]), int(record["line"]))
    return new_id(given, key) if not record["earlier"] and is_renamed(copies.found.renamed, key) else given


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def why(corpus: Path, asked: str) -> list[dict[str, Any]]:
    """The ledger's rows of an id or an address; several where several documents had it."""
    found = []
    for batch in _read(corpus):
        same = pc.equal(batch["id"], asked)
        if "url" in batch.schema.names:  # a ledger of before has none
            same = pc.or_kleene(same, pc.equal(batch["url"], asked))
        if pc.any(same).as_py():
            found += batch.filter(same).to_pylist()
    return found


def why_alike(corpus: Path, url: str) -> list[dict[str, Any]]:
    """The rows whose address is the same but for what `dedup.steps=[url]` leaves out: scheme, www., parameters."""
    wanted = normalise_url(url)
    return [
        row
        for batch in _read(corpus)
        if "url" in batch.schema.names
        for row in batch.filter(pc.is_valid(batch["url"])).to_pylist()
        if normalise_url(row["url"]) == wanted
    ]


def sample(corpus: Path, rule: str, number: int, seed: int) -> list[dict[str, Any]]:
    """`number` rows whose rule is `rule` or one of its reasons, those that hash lowest: the same for the same seed."""
    lowest: list[tuple[bytes, int, dict[str, Any]]] = []
    for batch in _read(corpus):
        mine = pc.or_(pc.equal(batch["rule"], rule), pc.starts_with(batch["rule"], f"{rule}."))
        for row in batch.filter(mine).to_pylist():
            digest = hashlib.sha256(f"{seed}\0{row['file']}\0{row['position']}".encode()).digest()
            lowest.append((digest, len(lowest), row))
        lowest = heapq.nsmallest(number, lowest)
    return [row for _, _, row in lowest]


def rules(corpus: Path) -> dict[str, int]:
    """Every rule of the ledger and its rows."""
    found: dict[str, int] = {}
    for batch in _read(corpus, ["rule"]):
        for pair in pc.value_counts(batch["rule"]).to_pylist():
            found[pair["values"]] = found.get(pair["values"], 0) + pair["counts"]
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _read(corpus: Path, columns: list[str] | None = None) -> Iterator[Any]:
    path = corpus / FILE
    if not path.is_file():
        raise StoreError(f"{path} is missing: {corpus} is no corpus with a ledger, or was made before there were any")
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(_BATCH, columns=columns)


def explain(row: dict[str, Any]) -> str:
    """A row in words."""
    said = f"{row['id']}: dropped by {row['rule']}"
    if row["kept"]:
        likeness = f", {row['value']:.2f} alike" if row["rule"] == "dedup.minhash" else ""
        said += f", a copy of {row['kept']}{likeness}"
    elif row["value"] is not None:
        said += f": {row['value']:.6g} against {row['threshold']:.6g}" if row["threshold"] is not None else ""
    if row["detail"]:
        said += f": {row['detail']}"
    url = f"{row['url']}, " if row.get("url") else ""
    place = f"({url}{row['file']}, position {row['position']}, {row['bytes']:,} bytes, source {row['source']})"
    return show.line(f"{said}  {place}")


def _kept(corpus: Path, asked: str) -> Iterator[tuple[str, corpus_reader.Document]]:
    """The documents of an id or an address that are in the corpus, each with its side."""
    url = normalise_url(asked) if _is_url(asked) else None
    for side in corpus_reader.SPLITS:
        for document in corpus_reader.documents(corpus, side):
            if document.id == asked or (url and document.url and normalise_url(document.url) == url):
                yield side, document


def _is_url(asked: str) -> bool:
    return "://" in asked


def _why(corpus: Path, asked: str, as_json: bool) -> int:
    found = why(corpus, asked)
    if not found and _is_url(asked):
        found = why_alike(corpus, asked)
    if as_json:
        print(json.dumps(found, indent=1))
        return 0
    for row in found:
        print(explain(row))
    # an id that was dropped is in no side; an address may stand in the corpus too, under another id
    kept = 0
    for side, document in _kept(corpus, asked) if not found or _is_url(asked) else ():
        kept += 1
        print(show.line(f"{document.id}: kept, in {side}"))
    if not found and not kept:
        raise ConfigError(
            f"no document has the id or address {asked!r}: it is neither in the corpus nor in its ledger. Ids are the "
            "input's; where a row has none FILE:POSITION, of a text file FILE, of a piece (data.split) either with #N "
            f"behind it; what could not be read is in {corpus / 'quarantine.jsonl.gz'}"
        )
    return 0


def _sample(corpus: Path, rule: str | None, number: int, seed: int, as_json: bool) -> int:
    known = rules(corpus)
    if rule is None:
        names = [show.line(name) for name in known]
        width = max(map(len, names), default=0)
        lines = [f"{name:<{width}}  {n:,}" for name, n in zip(names, known.values(), strict=True)]
        print("\n".join(lines) or "nothing was dropped")
        return 0
    if not any(name == rule or name.startswith(f"{rule}.") for name in known):
        raise ConfigError(f"--rule {rule}: nothing was dropped by it; there are {', '.join(known) or 'no rules'}")
    for row in sample(corpus, rule, number, seed):
        print(json.dumps(row) if as_json else explain(row))
        if row["text"] and not as_json:
            print("    " + row["text"][:500].replace("\n", "\n    "))
    return 0


@show.command
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.ledger")
    parser.add_argument("corpus", type=Path, help="the folder of a corpus artifact")
    verbs = parser.add_subparsers(dest="verb", required=True)
    asked = verbs.add_parser("why")
    asked.add_argument("asked", metavar="ID|URL")
    some = verbs.add_parser("sample")
    some.add_argument("--rule")
    some.add_argument("-n", type=int, default=5)
    some.add_argument("--seed", type=int, default=1)
    for verb in (asked, some):
        verb.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.verb == "why":
        return _why(args.corpus, args.asked, args.json)
    return _sample(args.corpus, args.rule, args.n, args.seed, args.json)


if __name__ == "__main__":
    sys.exit(main())
