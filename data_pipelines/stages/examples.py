"""The examples stage: SFT rows and preference rows with their split, untokenized, from functions or from users' rows.

Knows the artifact's five files and how rows are sampled, set apart and counted; what a row is, is rows.py's affair, and
what a corruption is, corruptions.py's.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from data_pipelines.corpus_reader import Split, documents
from data_pipelines.corruptions import HELDOUT_KIND, TRAINED_KINDS, Corruptor, rank, words
from data_pipelines.functions import Function, LeftOut, extract
from data_pipelines.rows import Message, PreferenceRow, SftRow, Unfit, normalise
from data_pipelines.sources import is_heldout
from data_pipelines.stages.tokenizer import load
from fmtrain.artifacts.rows import Tally, read_rows
from fmtrain.artifacts.stage import Stage, write_inputs
from fmtrain.artifacts.worker import Progress, Result, tell
from fmtrain.errors import InputError
from fmtrain.kinds.examples import ExamplesJob, ExamplesStage
from fmtrain.schema.rows import forms_told
from fmtrain.schema.sources import Rows

SPLITS: tuple[Split, ...] = ("train", "heldout")
_UNFIT = 10_000  # named in unfit.jsonl; all are counted
R = TypeVar("R", SftRow, PreferenceRow)


@dataclass
class Examples:
    """What the stage writes, by split."""

    sft: dict[Split, list[SftRow]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    preference: dict[Split, list[PreferenceRow]] = field(default_factory=lambda: {s: [] for s in SPLITS})
    unfit: list[Unfit] = field(default_factory=list)


def run(stage: Stage) -> Result:
    """Rows of the user's where the data is rows, else examples from the functions of the corpus."""
    job = stage.job_as(ExamplesJob)
    if isinstance(job.data, Rows):
        examples, counts = from_rows(stage, job, job.data)
    else:
        examples, counts = from_functions(stage, job)
    for split in SPLITS:
        counts[f"sft_{split}"] = _write(stage.out / f"sft.{split}.jsonl", examples.sft[split])
        counts[f"preference_{split}"] = _write(stage.out / f"preference.{split}.jsonl", examples.preference[split])
    _write_lines(stage.out / "unfit.jsonl", examples.unfit)
    _tell(stage, examples, counts)
    return Result(counts=counts)


def _tell(stage: Stage, examples: Examples, counts: dict[str, Any]) -> None:
    """One line a kind of row: what became of all that was read."""
    if "read" in counts:
        given = {"unfit (unfit.jsonl says why)": counts["unfit"], "repeated": counts["repeated"]}
        for kind, name in (("SFT", "sft"), ("preference", "preference")):
            train, heldout = (counts[f"{name}_{split}"] for split in SPLITS)
            given[f"beyond stages.{stage.stage}.max_{name}_rows or max_heldout_rows"] = (
                counts[f"{name}_rows"] - train - heldout
            )
            given |= {f"{kind} rows held out": heldout, f"{kind} rows to train on": train}
        tell(stage, "rows", counts["read"], given)
        return
    left_out = {f"left out: {reason}": n for reason, n in counts["left_out"].items()}
    left_out |= {"repeated": counts["repeated"], "held out, but trained on elsewhere": counts["heldout_in_train"]}
    left_out |= {"held out": counts["functions_heldout"], "to train on": counts["functions_train"]}
    tell(stage, "functions", sum(left_out.values()), left_out)


def _write(path: Path, rows: Sequence[SftRow] | Sequence[PreferenceRow]) -> int:
    _write_lines(path, sorted(rows, key=lambda row: row.id))
    return len(rows)


def _write_lines(path: Path, rows: Iterable[SftRow | PreferenceRow | Unfit]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for row in rows:
            f.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def sample(rows: Sequence[R], limit: int | None, seed: int) -> list[R]:
    """At most `limit` rows, the first in the order of a hash of seed and id: independent of the order they came in."""
    return sorted(rows, key=lambda row: (rank(seed, "sample", row.id), row.id))[:limit]


# ---------------------------------------------------------------------------------------------- functions of a corpus


def from_functions(stage: Stage, job: ExamplesJob) -> tuple[Examples, dict[str, object]]:
    """SFT rows signature and docstring -> body, preference rows body against corruption; split as their documents."""
    examples, left_out = Examples(), Counter[str]()
    functions: dict[Split, list[Function]] = {}
    known: dict[str, frozenset[str]] = {}
    progress, read = Progress(stage, "documents"), 0
    for split in SPLITS:
        functions[split] = []
        for document in documents(stage.input("corpus"), split):
            read += 1
            progress.update(read)
            for found in extract(document, job.stage):
                if isinstance(found, LeftOut):
                    left_out[found.reason] += 1
                    examples.unfit.append(Unfit(found.document, found.line, found.reason))
                else:
                    functions[split].append(found)
                    known[document.id] = known.get(document.id) or words(document.text)
    if not functions["train"]:
        raise InputError(_no_function(stage, read, left_out, job.stage))
    repeated, in_train = _drop_repeats(functions)
    counts: dict[str, object] = {
        "documents": read,
        "functions_train": len(functions["train"]),
        "functions_heldout": len(functions["heldout"]),
        "left_out": dict(sorted(left_out.items())),
        "repeated": repeated,
        "heldout_in_train": in_train,
    }
    limits: dict[Split, int | None] = {"train": job.stage.max_sft_rows, "heldout": job.stage.max_heldout_rows}
    for split in SPLITS:
        examples.sft[split] = sample([_sft_row(f) for f in functions[split]], limits[split], job.seed)
    tokenizer = load(stage.input("tokenizer"))
    count = lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)  # noqa: E731
    pairs = {
        "train": _trained_pairs(functions["train"], known, job),
        "heldout": _heldout_pairs(functions["heldout"], known, job, count),
    }
    for split in SPLITS:
        examples.preference[split], counts[f"kind_not_applicable_{split}"] = pairs[split]
    # the name says what they are: corruptions that a program made, not what any person preferred
    counts["synthetic_corruptions"] = {
        split: dict(sorted(Counter(row.kind for row in examples.preference[split]).items())) for split in SPLITS
    }
    return examples, counts


def _no_function(stage: Stage, read: int, left_out: Counter[str], limits: ExamplesStage) -> str:
    reasons = "; ".join(f"{n} {reason}" for reason, n in left_out.most_common(5)) or "nothing was found in them"
    return (
        f"{stage.input('corpus')}: none of its {read} documents gives a Python function with a docstring to train on, "
        f"a prompt of {limits.min_prompt}-{limits.max_prompt} and a body of {limits.min_response}-"
        f"{limits.max_response} characters ({reasons}). Where the corpus is not Python, leave out what needs examples: "
        f"stages.{stage.stage}=null, and what descends from it"
    )


def _drop_repeats(functions: dict[Split, list[Function]]) -> tuple[int, int]:
    """Keep the first of identical (prompt, response), training split first; how many were dropped in a split, and how
    many held-out ones because the training split has them."""
    repeated = in_train = 0
    train: set[tuple[str, str]] = set()
    for split in SPLITS:
        seen: set[tuple[str, str]] = set()
        kept = []
        for function in sorted(functions[split], key=lambda f: f.id):
            key = (function.prompt, function.response)
            if key in train:
                in_train += 1
            elif key in seen:
                repeated += 1
            else:
                seen.add(key)
                kept.append(function)
        functions[split] = kept
        train = seen if split == "train" else train
    return repeated, in_train


def _sft_row(function: Function) -> SftRow:
    messages = (Message("user", function.prompt), Message("assistant", function.response))
    return SftRow(function.id, function.group, messages)


def _pair(function: Function, kind: str, corruptor: Corruptor) -> PreferenceRow | None:
    rejected = corruptor.corrupt(function, kind)
    if rejected is None:
        return None
    assert rejected != function.response, (function.id, kind)
    prompt = (Message("user", function.prompt),)
    return PreferenceRow(f"{function.id}:{kind}", function.group, kind, prompt, function.response, rejected)


def _by_hash(functions: list[Function], seed: int) -> Iterator[Function]:
    return iter(sorted(functions, key=lambda f: (rank(seed, "preference", f.id), f.id)))


def _trained_pairs(
    functions: list[Function], known: dict[str, frozenset[str]], job: ExamplesJob
) -> tuple[list[PreferenceRow], dict[str, int]]:
    """One pair a function, its kind drawn by hash; where that kind does not apply, the next one that does."""
    corruptor = Corruptor(functions, known, job.seed)
    rows: list[PreferenceRow] = []
    failed = Counter[str]()
    for function in _by_hash(functions, job.seed):
        if len(rows) == job.stage.max_preference_rows:
            break
        first = rank(job.seed, "kind", function.id)
        for i in range(len(TRAINED_KINDS)):
            kind = TRAINED_KINDS[(first + i) % len(TRAINED_KINDS)]
            if row := _pair(function, kind, corruptor):
                rows.append(row)
                break
            failed[kind] += 1
    return rows, dict(sorted(failed.items()))


def _heldout_pairs(
    functions: list[Function], known: dict[str, frozenset[str]], job: ExamplesJob, count: Callable[[str], int]
) -> tuple[list[PreferenceRow], dict[str, int]]:
    """Every kind that applies to a function, the held-out kind among them; `max_heldout_rows` is a limit a kind."""
    corruptor = Corruptor(functions, known, job.seed, count)
    rows: list[PreferenceRow] = []
    failed = Counter[str]()
    for kind in (*TRAINED_KINDS, HELDOUT_KIND):
        made = 0
        for function in _by_hash(functions, job.seed):
            if made == job.stage.max_heldout_rows:
                break
            if row := _pair(function, kind, corruptor):
                rows.append(row)
                made += 1
            else:
                failed[kind] += 1
    return rows, dict(sorted(failed.items()))


# -------------------------------------------------------------------------------------------------- rows of the user's


def from_rows(stage: Stage, job: ExamplesJob, data: Rows) -> tuple[Examples, dict[str, object]]:
    """The user's rows, normalised; identical ones collapse, unfit ones are named, none is lost without a count."""
    examples, tally, repeated = Examples(), Tally(), 0
    rows: dict[str, SftRow | PreferenceRow] = {}
    hashes = dict[str, str]()
    progress = Progress(stage, "rows")
    for source in sorted(stage.sources, key=lambda s: (s.name, s.stamp)):
        for number, given, reason in read_rows(source, data, hashes=hashes):
            tally.read += 1
            progress.update(tally.read)
            row = reason or normalise(given, data)
            if isinstance(row, str):
                tally.add_unfit(source.name, number, row, given)
                if tally.unfit <= _UNFIT:
                    examples.unfit.append(Unfit(source.name, number, row))
                elif not rows:
                    raise InputError(tally.none_usable(stage.sources, whole=False))
            elif row.id in rows:
                repeated += 1
            else:
                rows[row.id] = row
    if not rows:
        raise InputError(tally.none_usable(stage.sources))
    write_inputs(stage.out, stage.sources, hashes)
    if tally.unfit > data.max_bad_fraction * tally.read:
        raise InputError(_too_many_unfit(tally, data))
    sft = [row for row in rows.values() if isinstance(row, SftRow)]
    preference = [row for row in rows.values() if isinstance(row, PreferenceRow)]
    limits = job.stage
    heldout, by_group = _heldout_units([sft, preference], data.heldout_modulus), _by_group([sft, preference])

    def is_apart(row: SftRow | PreferenceRow) -> bool:
        return _unit(row, by_group) in heldout

    examples.sft = _split(sft, is_apart, limits.max_sft_rows, limits.max_heldout_rows, job.seed)
    examples.preference = _split(preference, is_apart, limits.max_preference_rows, limits.max_heldout_rows, job.seed)
    counts: dict[str, object] = {
        "read": tally.read,
        "repeated": repeated,
        "unfit": tally.unfit,
        "sft_rows": len(sft),
        "preference_rows": len(preference),
    }
    return examples, counts


def _heldout_units(kinds: Sequence[Sequence[SftRow] | Sequence[PreferenceRow]], modulus: int) -> frozenset[str]:
    """The units set apart, by their hash, once over SFT and preference rows: a prompt is on one side of both.

    Of two units or more of a kind one is always held out and one never, however few they are; a kind's only unit is
    never. The kinds with fewest units go first, and what a later one changes never undoes that. A modulus of 0 sets
    none apart.
    """
    if not modulus:
        return frozenset()
    by_group = _by_group(kinds)
    each = sorted(
        (u for rows in kinds if (u := {_unit(row, by_group) for row in rows})), key=lambda u: (len(u), min(u))
    )
    heldout = {unit for units in each for unit in units if is_heldout(unit, modulus)}
    for units in each:
        others = [o for o in each if o is not units]
        if units <= heldout:
            free = [u for u in units if not any(o & heldout == {u} and len(o) > 1 for o in others)]
            heldout.remove(max(free or units))
        elif len(units) > 1 and not units & heldout:
            heldout.add(min(u for u in units if not any(o - heldout == {u} for o in others)))
    return frozenset(heldout)


def _by_group(kinds: Sequence[Sequence[SftRow] | Sequence[PreferenceRow]]) -> bool:
    """Whether rows are set apart by group; by id only where all of them are of one group."""
    return len({row.group for rows in kinds for row in rows}) > 1


def _unit(row: SftRow | PreferenceRow, by_group: bool) -> str:
    return row.group if by_group else row.id


def _split(
    rows: Sequence[R], is_apart: Callable[[R], bool], max_train: int | None, max_heldout: int | None, seed: int
) -> dict[Split, list[R]]:
    return {
        "train": sample([row for row in rows if not is_apart(row)], max_train, seed),
        "heldout": sample([row for row in rows if is_apart(row)], max_heldout, seed),
    }


def _too_many_unfit(tally: Tally, data: Rows) -> str:
    share = tally.unfit / tally.read
    return (
        f"{tally.unfit} of {tally.read} rows are unusable ({share:.1%}), more than "
        f"data.max_bad_fraction={data.max_bad_fraction} allows; {tally.found()}. Mend the rows, or say that so many "
        f"may be left out: data.max_bad_fraction={math.ceil(1000 * share) / 1000}. "
        f"Expected one of the forms - {forms_told()}"
    )
