"""Stage `corpus`: sources -> filtered, deduplicated documents, training and held out, with an account of the rest.

    read, rules (tasks) -> copies (tasks) -> survey -> shards (tasks) -> ledger, card

The held-out split is by group and comes before any rule. The result depends on the documents, the settings and the
versions recorded as numerics; not on the number of tasks, the executor, or how the input is split into files or in what
order these are named (but for the order of the documents, which is the input's). Only the files grow with the corpus.
"""

import gzip
import importlib.metadata
import platform
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from data_pipelines import card, evaluation_sets, ledger, write
from data_pipelines.account import Account, account_from, total
from data_pipelines.corpus_reader import SPLITS, shards
from data_pipelines.dedup import Result as Copies
from data_pipelines.dedup import deduplicate, spans
from data_pipelines.filters.datatrove_block import DatatroveBlock
from data_pipelines.lines import merge_sorted
from data_pipelines.parts import STEP, Parts
from data_pipelines.read import BRIEF, NAMED, SHOWN, ReadItem, bad, place_of, read_task, too_many
from data_pipelines.schedule import Scheduler, parts_key
from data_pipelines.sources import READERS, deal
from data_pipelines.words import version
from data_pipelines.write import Survey
from fmtrain import redact
from fmtrain.artifacts import estimate
from fmtrain.artifacts.remote import is_url, plain
from fmtrain.artifacts.sources import BESIDE
from fmtrain.artifacts.stage import Source, Stage, write_inputs
from fmtrain.artifacts.storage import read_json, write_json
from fmtrain.artifacts.worker import Result, announce, tell
from fmtrain.errors import ConfigError, InputError
from fmtrain.kinds.corpus import CorpusJob
from fmtrain.schema import blocks, plugins
from fmtrain.schema.fields import referenced
from fmtrain.schema.load import dump, identity, load
from fmtrain.schema.plugins import Plugin
from fmtrain.schema.sources import Local

MB = 1_000_000
_GONE = 0.1  # share of the text read from which a source that is gone whole is worth a warning


def run(stage: Stage) -> Result:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)  # a few a task
    plugins.verify(load(Plugin, p) for p in stage.job.get("plugins", []))  # before the job: they widen its schema
    job = stage.job_as(CorpusJob)
    tasks = _check(stage, job)
    versions = _versions(job)
    earlier = [p for s in SPLITS for p in shards(stage.input("earlier"), s)] if "earlier" in stage.inputs else []
    inputs = [s for s in stage.sources if not s.name.startswith(BESIDE)]
    known = sorted(s.identity for s in stage.sources)
    key = parts_key({"job": identity(job), "sources": known, "tasks": tasks, "versions": versions, "refs": stage.refs})
    with Scheduler(stage, key) as scheduler:
        parts, account = _read(scheduler, job, inputs, earlier, tasks)
        copies = deduplicate(scheduler, job.dedup, parts, job.dedup.seed, job.filter.words)
        copies, cuts = spans.cut(scheduler, job.dedup, parts, copies, job.filter.words)
        found = _survey(scheduler, job, parts, copies)
        _add_copies(account, job, copies, found)
        _check_balance(account, found)
        _check_sides(account, found, job)
        kept, sizes = write.write(scheduler, parts, copies.gone, cuts, found)
        account.add(kept)
        scheduler.check("shards", whole=True)
        for shard in found.shards:
            target = stage.out / shard.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(scheduler.parts / "shards" / shard.name, target)
        names = [s.name for s in sorted(inputs, key=lambda s: s.name)]
        limits = {"dedup.minhash": job.dedup.threshold}
        about = ledger.Copies(parts, copies.gone, copies.reasons, limits, found, names, job.stage.keep_dropped)
        rows = ledger.write(stage.out / ledger.FILE, about)
        quarantined = _quarantine(stage.out / "quarantine.jsonl.gz", parts)
    alarms = _alarms(account, job, copies)
    for alarm in alarms:
        announce(stage, f"warning: {alarm}")
    _write_account(stage, job, account, copies, alarms, inputs)
    _tell(stage, account, found)
    return Result(_counts(account, found, sizes, rows, quarantined), _metrics(account, found, copies), versions)


def _check(stage: Stage, job: CorpusJob) -> int:
    """The number of tasks, once the stage is known to be workable."""
    if job.data.name not in READERS:
        raise ConfigError(f"data.name: {job.data.name!r} holds no documents; give one of {', '.join(sorted(READERS))}")
    if not stage.sources:
        raise InputError("the corpus has no input file; give some with data.files=[PATH,..], or data=stdlib")
    for block in blocks.chosen(job.filter.rules):  # made here once, so that what one lacks is said before any is read
        DatatroveBlock(block, job.filter.datatrove.get(block, {}), job.key("filter"))
    return max(1, int(stage.resources.get("tasks", 1)))


def _versions(job: CorpusJob) -> dict[str, str]:
    """What the result's bytes depend on beside the configuration."""
    packages = ["datatrove", "xxhash", "numpy", "numba", "zstandard", "orjson", "pyarrow", "warcio"]
    packages += [package for _, rule in job.filter.applied() for package in rule.packages]
    sets = any(one.is_data_set for _, rule in job.filter.applied() for one in referenced(rule))
    packages += ["datasets"] if job.data.name == "hub" or sets else []
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), "words": version(job.filter.words), **found}


def _read(
    scheduler: Scheduler, job: CorpusJob, inputs: list[Source], earlier: list[Path], tasks: int
) -> tuple[Parts, Account]:
    """The read step and its account; InputError where too much cannot be read."""
    job = replace(job, filter=evaluation_sets.fetch(job.filter, scheduler.parts / "sets", job.key("filter")))
    files = {s.name: n for n, s in enumerate(sorted(inputs, key=lambda s: s.name))}
    expected = len(inputs) if job.data.name == "stdlib" else None
    if isinstance(job.data, Local) and job.data.split == "none":
        expected = estimate.records(inputs)
    items = [ReadItem(job, units, files, expected) for units in deal(job.data, inputs, tasks)]
    items += [ReadItem(job, [], files, None, tuple(earlier[n::tasks])) for n in range(min(tasks, len(earlier)))]
    scheduler.run(STEP, read_task, items, unit="documents", total=expected)
    parts = Parts(scheduler.parts, len(items))
    account = total(account_from(read_json(parts.path(rank, "account.json"))) for rank in range(len(items)))
    if bad(account) > job.data.max_bad_fraction * max(account.records, 1):
        places = [place_of(fault) for fault, _ in zip(_faults(parts), range(5), strict=False)]
        raise InputError(too_many(account, job.data.max_bad_fraction, places))
    return parts, account


def _faults(parts: Parts) -> Iterator[dict[str, Any]]:
    names = [f"{rank:05d}.quarantine" for rank in range(parts.tasks)]
    return (row for _, row in merge_sorted(parts.folder / STEP, names))


def _survey(scheduler: Scheduler, job: CorpusJob, parts: Parts, copies: Copies) -> Survey:
    names = [read_json(parts.path(rank, "sources.json")) for rank in range(parts.tasks)]
    scratch = scheduler.parts / "survey"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    return write.survey(parts, copies.gone, names, job.stage.shard_mb * MB, scratch)


def _add_copies(account: Account, job: CorpusJob, copies: Copies, found: Survey) -> None:
    """The levels of deduplication, below those of the rules."""
    documents, size = (sum(n[i] for n in [*found.kept.values(), *found.reasons.values()]) for i in (0, 1))
    for step in job.dedup.steps:
        level = account.level(f"dedup.{step}")
        level.documents_in, level.bytes_in = documents, size
        for code, (gone, gone_bytes) in found.reasons.items():
            if copies.reasons[code] == level.name:
                documents, size = documents - gone, size - gone_bytes
                level.reasons[level.name] = gone
        size -= copies.counts.get(f"{step}.cut_bytes", 0)
        level.documents_out, level.bytes_out = documents, size
    for name, number in found.copies.items():
        account.source(name).copies += number
        account.source(name).dropped += number


def _check_balance(account: Account, found: Survey) -> None:
    """in = kept + dropped + quarantined; what does not add up is our fault and stops the stage."""
    kept = sum(documents for documents, _ in found.kept.values())
    copies = sum(documents for documents, _ in found.reasons.values())
    ruled = sum(level.reasons.total() for level in account.levels if not level.name.startswith("dedup."))
    quarantined = account.faults.total()
    if account.records != kept + copies + ruled + quarantined or account.documents != kept + copies + ruled:
        raise AssertionError(
            f"{account.records} records were read, but {kept} kept, {ruled} dropped by rules, {copies} as copies "
            f"and {quarantined} quarantined"
        )


def _check_sides(account: Account, found: Survey, job: CorpusJob) -> None:
    """InputError where a side is empty: the user's to mend."""
    train, heldout = found.kept[False][0], found.kept[True][0]
    if train and (heldout or not job.data.heldout_modulus):
        return
    if not account.documents:
        faults = ", ".join(f"{reason} {n}" for reason, n in account.faults.most_common())
        raise InputError(
            f"the input holds no document: {account.records} records{f', {faults}' if faults else ''}. Give other "
            f"files with {job.key('data')}.files, or look at what they hold"
        )
    reasons = Counter({r: n for level in account.levels for r, n in level.reasons.items()}).most_common()
    dropped = ", ".join(f"{reason} {n}" for reason, n in reasons) or "nothing"
    rules, key = ", ".join(job.filter.rules), job.key("filter")
    mend = "Give more documents"
    if isinstance(job.data, Local) and job.data.split == "none" and account.documents < job.data.heldout_modulus:
        mend = f"Give more documents, or cut these into more: {job.key('data')}.split=paragraphs"
    mend += f", or rules that fit them ({key}.rules=[{rules}] now; [] keeps all)" if rules else ""
    if job.data.heldout_modulus:
        raise InputError(
            f"of {account.records} records {train} are left for training and {heldout} held out; both are needed. "
            f"Dropped: {dropped}. {mend}, or another share held out: "
            f"{job.key('data')}.heldout_modulus={job.data.heldout_modulus} now; 0 holds out none, and "
            "leaves nothing to evaluate on"
        )
    raise InputError(f"of {account.records} records none is left. Dropped: {dropped}. {mend}")


def _quarantine(path: Path, parts: Parts) -> int:
    """The first unreadable records of each reason, in the input's order; how many there are in the file."""
    met = Counter[str]()
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        for fault in _faults(parts):
            met[fault["reason"]] += 1
            if met[fault["reason"]] > NAMED:
                continue
            if met[fault["reason"]] > SHOWN:
                fault["bytes"] = fault["bytes"][: 4 * BRIEF // 3]
            packed.write(orjson.dumps(fault) + b"\n")
    return sum(min(number, NAMED) for number in met.values())


def _alarms(account: Account, job: CorpusJob, copies: Copies) -> list[str]:
    """What looks like deduplication gone wrong (a whole source chained together, a boilerplate cluster)."""
    found = []
    if copies.largest.copies > job.dedup.alarm_cluster:
        found.append(
            f"one document has {copies.largest.copies} copies, more than "
            f"dedup.alarm_cluster={job.dedup.alarm_cluster}: look at them with `fmtrain corpus sample --rule dedup`"
        )
    for name, source in sorted(account.sources.items()):
        if (read := source.bytes / max(account.bytes, 1)) >= _GONE and not source.kept:
            found.append(
                f"nothing of the source {name} is left, {read:.0%} of the text that was read ({source.documents} "
                "documents): see `fmtrain corpus sample`"
            )
        share = source.copies / max(source.documents, 1)
        if share > job.dedup.alarm_source_share and source.copies > 1:
            found.append(
                f"{share:.0%} of the source {name} went as copies ({source.copies} of {source.documents} documents), "
                f"more than dedup.alarm_source_share={job.dedup.alarm_source_share}"
            )
    return found


def _write_account(
    stage: Stage, job: CorpusJob, account: Account, copies: Copies, alarms: list[str], inputs: list[Source]
) -> None:
    data = {
        "corpus": stage.name,
        "fingerprint": stage.fingerprint,
        **account.as_json(),
        "copies": {"largest": copies.largest.copies, "counts": copies.counts},
        "alarms": alarms,
        "config": _published(job),
    }
    hashes = data.pop("hashes")
    write_inputs(stage.out, inputs, hashes)
    write_json(stage.out / "card.json", data)
    card.write(stage.out, data)


def _tell(stage: Stage, account: Account, found: Survey) -> None:
    """One line: what became of all records."""
    named = {"blank_line": "blank lines"}
    gone = {named.get(reason, f"unreadable: {reason}"): n for reason, n in sorted(account.faults.items())}
    gone |= {f"dropped by {level.name}": level.reasons.total() for level in account.levels}
    tell(stage, "records", account.records, gone | {"held out": found.kept[True][0], "kept": found.kept[False][0]})


def _published(job: CorpusJob) -> dict[str, Any]:
    """The configuration without what may be secret in it: the signature of a URL."""
    config: dict[str, Any] = redact.shown_in(dump(job))
    del config["keys"]
    if "files" in config["data"]:
        config["data"]["files"] = [plain(path) if is_url(path) else path for path in config["data"]["files"]]
    return config


def _counts(account: Account, found: Survey, sizes: dict[bool, int], rows: int, quarantined: int) -> dict[str, Any]:
    """The manifest's numbers; bytes as written, after what was cut."""
    train, heldout = found.kept[False][0], found.kept[True][0]
    return {
        "read": account.records,
        "bytes_read": account.bytes,
        "kept": train + heldout,
        "kept_bytes": sizes[False] + sizes[True],
        "train_documents": train,
        "train_bytes": sizes[False],
        "heldout_documents": heldout,
        "heldout_bytes": sizes[True],
        "quarantined": quarantined,
        "unreadable": account.faults.total(),
        "dropped_documents": rows,
        "dropped": {r: n for level in account.levels for r, n in sorted(level.reasons.items()) if n},
        "heldout_copies": found.heldout_copies,
    }


def _metrics(account: Account, found: Survey, copies: Copies) -> dict[str, float]:
    passed = sum(n for n, _ in [*found.kept.values(), *found.reasons.values()])
    kept_bytes = sum(source.kept_bytes for source in account.sources.values())
    return {
        "kept_byte_share": kept_bytes / max(account.bytes, 1),
        "duplicate_share": sum(n for n, _ in found.reasons.values()) / max(passed, 1),
        "largest_cluster": float(copies.largest.copies),
    }
