"""The evaluate stage: every model that is given on every kind of data that is given, one evaluation out.

Models are loaded one after another, never two at once. What was not given is named in the notes, not made up.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import read_json, write_text
from fmtrain.artifacts.worker import Progress, Result, announce, tell
from fmtrain.data.ends import ends_of
from fmtrain.data.rows import PreferenceRow, preference_rows, told
from fmtrain.data.shards import read_index, token_counts
from fmtrain.data.templates import fix_date
from fmtrain.errors import InputError
from fmtrain.evaluate import masked, preference, records, report, responses, samples, text
from fmtrain.evaluate.curves import curves
from fmtrain.evaluate.inputs import (
    Document,
    PairText,
    SftText,
    by_hash,
    funnel,
    heldout_documents,
    limit_a_kind,
    pair_texts,
    reference_of,
    sft_texts,
    task_of,
    trained_kinds,
)
from fmtrain.evaluate.intervals import Bootstrap
from fmtrain.evaluate.records import Evaluation, ModelRecord, Sample
from fmtrain.evaluate.responses import Limits
from fmtrain.evaluate.scoring import numerics, row_length, text_tokens, use_all_cpus, window_length
from fmtrain.kinds.evaluate import EvaluateJob, EvaluateStage, Scored
from fmtrain.models import headless, load_model, load_tokenizer
from fmtrain.models.device import device

TEMPERATURE = 0.8  # of the sampled continuations
PROMPT_CHARACTERS = 160  # of a held-out document that a text sample continues
GAP_EVERY = 8  # tokens; a masked sample hides one in so many


@dataclass
class Data:
    """Everything models are evaluated on; empty where the input was not given."""

    template_date: str
    documents: list[Document] = field(default_factory=list)
    counts: NDArray[np.int64] | None = None  # of training tokens, (vocab,)
    marks: list[int] = field(default_factory=list)  # tokens that only mark documents
    examples: Path | None = None
    sft: dict[str, SftText] = field(default_factory=dict)
    pairs: list[PairText] = field(default_factory=list)
    pair_rows: dict[str, dict[str, PreferenceRow]] = field(default_factory=dict)  # model -> id -> tokens
    references: dict[str, dict[str, tuple[float, float]]] = field(
        default_factory=dict
    )  # model -> id -> chosen, rejected


@dataclass
class Work:
    """The running state: settings, data, what is found so far, and how far it is."""

    stage: Stage
    job: EvaluateStage
    bootstrap: Bootstrap
    data: Data
    found: Evaluation
    progress: Progress
    done: int = 0
    costs: list[text.Costs] = field(default_factory=list)
    columns: list[preference.Column] = field(default_factory=list)
    numerics: dict[str, Any] = field(default_factory=dict)

    def advance(self, n: int) -> None:
        """Progress is in bytes of held-out text and in rows weighted as ROW_BYTES of it."""
        self.done += n
        self.progress.update(self.done)

    def advance_rows(self, n: int) -> None:
        self.advance(n * ROW_BYTES)


ROW_BYTES = 1000  # what a row's scoring costs, in bytes of text


def run(stage: Stage) -> Result:
    """Write evaluation.json and report.html."""
    job = stage.job_as(EvaluateJob)
    threads = use_all_cpus()
    bodies = {model.name: name for model in job.models if (name := headless(stage.input(model.role)))}
    job.models = [model for model in job.models if model.name not in bodies]
    tasks = {model.name: task_of(stage.input(model.role)) for model in job.models}
    found = Evaluation(
        name=stage.name,
        fingerprint=stage.fingerprint,
        refs=dict(sorted(stage.refs.items())),
        settings={"seed": job.seed, **_betas(job), **_settings(job.stage)},
    )
    for name, architecture in bodies.items():
        found.notes.append(f"{name} is a {architecture}, which has no language model's head: it is not scored.")
        announce(stage, found.notes[-1])
    data = read_data(stage, job, tasks, found)
    found.funnel = funnel(stage.input("corpus")) if "corpus" in stage.inputs else []
    total = len(tasks) * (sum(d.bytes for d in data.documents) + ROW_BYTES * (len(data.sft) + 2 * len(data.pairs)))
    bootstrap = Bootstrap(job.stage.bootstrap, job.seed)
    work = Work(stage, job.stage, bootstrap, data, found, Progress(stage, "bytes scored", total or None))
    for model in job.models:
        one_model(work, model, stage, tasks[model.name])
    work.progress.update(total, force=True)
    text_table(work, job.models, stage)
    preference_tables(work)
    records.write(stage.out, found)
    write_text(stage.out / "report.html", report.render(found))
    return Result(
        found.counts, headline(found), {**work.numerics, "threads": threads, "zlib": zlib.ZLIB_RUNTIME_VERSION}
    )


def read_data(stage: Stage, job: EvaluateJob, tasks: dict[str, Literal["causal", "masked"]], found: Evaluation) -> Data:
    """All inputs but the models' weights; InputError where there is nothing to evaluate, or nothing to do it on."""
    if not tasks:
        raise InputError(
            f"stage {stage.stage} was given no model: nothing to evaluate; add a training stage, or leave this one "
            f"out: stages.{stage.stage}=null"
        )
    data = Data(job.template_date)
    if "corpus" in stage.inputs:
        data.documents = heldout_documents(stage.input("corpus"), job.stage.max_bytes)
        if not data.documents:
            found.notes.append("The corpus has no held-out document: no score of held-out text.")
    if "tokens" in stage.inputs:
        index = read_index(stage.input("tokens"))
        data.counts, data.marks = token_counts(stage.input("tokens")), [index.bos_token_id, index.eos_token_id]
    if "examples" in stage.inputs and "causal" in tasks.values():
        read_examples(stage, job, [m for m in job.models if tasks[m.name] == "causal"], data, found)
    if not (data.documents or data.sft or data.pairs):
        raise InputError(
            f"stage {stage.stage}: its inputs ({', '.join(sorted(stage.inputs))}) hold no held-out document, no "
            "held-out SFT row and no held-out preference row that fits: nothing to evaluate on. Give more data, or a "
            "smaller data.heldout_modulus so that more is held out"
        )
    found.counts |= {
        "documents": len(data.documents),
        "bytes": sum(d.bytes for d in data.documents),
        "sft_rows": len(data.sft),
        "preference_pairs": len(data.pairs),
    }
    return data


def read_examples(stage: Stage, whole: EvaluateJob, models: list[Scored], data: Data, found: Evaluation) -> None:
    """Rows as text, and the pairs that fit every model (and have a reference where there is one)."""
    job = whole.stage
    data.examples = stage.input("examples")
    data.sft = sft_texts(data.examples)
    pairs = pair_texts(data.examples)
    too_long: set[str] = set()
    for model in models:
        tokenizer = load_tokenizer(stage.input(model.role))
        fix_date(tokenizer, data.template_date)
        path = data.examples / "preference.heldout.jsonl"
        length = row_length(stage.input(model.role), job.example_length)
        usable = {row.id: row for row in preference_rows(path, tokenizer, length).rows}
        too_long |= set(pairs) - set(usable)
        data.pair_rows[model.name] = usable
    missing: set[str] = set()
    for model in models:
        if (folder := reference_of(stage, model)) is not None:
            data.references[model.name] = preference.reference_scores(folder)
            missing |= set(pairs) - set(data.references[model.name]) - too_long
    data.pairs = limit_a_kind([p for p in pairs.values() if p.id not in too_long | missing], job.max_rows)
    found.counts |= {"preference_too_long": len(too_long), "preference_no_reference": len(missing)}
    gone = {
        f"longer than example_length={job.example_length} or the positions, or refused, for one of the models": len(
            too_long
        ),
        "without a reference": len(missing),
        "not needed for max_rows": len(pairs) - len(too_long | missing) - len(data.pairs),
    }
    tell(stage, "held-out preference rows", len(pairs), gone | {"used": len(data.pairs)})
    kinds = {p.kind for p in data.pairs}
    found.heldout_kinds = sorted(kinds - trained_kinds(data.examples))
    found.synthetic = bool(kinds - {preference.GIVEN})


def one_model(work: Work, scored: Scored, stage: Stage, task: Literal["causal", "masked"]) -> None:
    """Everything that needs a model's weights."""
    name, folder, ref = scored.name, stage.input(scored.role), stage.refs.get(scored.role, "")
    tokenizer = load_tokenizer(folder)
    fix_date(tokenizer, work.data.template_date)
    model = load_model(folder, task, tokenizer, stage.pickled(scored.role)).to(device())
    work.numerics = numerics(model, 0, work.job.batch_size)
    training = read_json(folder / "training.json") if (folder / "training.json").is_file() else {}
    record = ModelRecord(name, ref, type(model).__name__, task, model.num_parameters(), training)
    work.found.models.append(record)
    work.found.curves += curves(name, folder)
    if task == "masked":
        masked_model(work, name, model, tokenizer)
        return
    job, data = work.job, work.data
    if data.documents:
        work.costs.append(
            text.model_costs(name, model, tokenizer, data.documents, job.sequence_length, job.batch_size, work.advance)
        )
    if data.examples and data.sft:
        response_score(work, name, folder, model, tokenizer)
    if data.pairs:
        rows = [data.pair_rows[name][p.id] for p in data.pairs]
        scores = preference.score_pairs(model, rows, job.batch_size, work.advance_rows)
        work.columns += preference.model_columns(name, scores, baseline=scored.beta is None)
        if name in data.references:
            columns = preference.implicit_reward(name, scores, [data.references[name][p.id] for p in data.pairs])
            work.columns.append(columns)
    work.found.samples += causal_samples(work, scored, model, tokenizer)


def response_score(
    work: Work, name: str, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Held-out SFT rows; those beyond example_length or the model's positions are counted as too long."""
    assert work.data.examples is not None
    limits = Limits(row_length(folder, work.job.example_length), work.job.max_rows, work.job.batch_size)
    selected = responses.select(work.data.examples, tokenizer, limits)
    work.found.counts[f"{name}_sft_too_long"] = selected.counts["too_long"]
    what = told(selected.counts, limits.example_length, "example_length")
    tell(work.stage, f"held-out SFT rows under {name}", sum(selected.counts.values()), what)
    scored = responses.score(name, model, selected, work.data.sft, limits, work.bootstrap, work.advance_rows)
    if scored is None:
        work.found.notes.append(f"No held-out SFT row fits {limits.example_length} tokens of the model {name}.")
    else:
        work.found.responses.append(scored)


def masked_model(work: Work, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Masked accuracy, and samples with gaps."""
    data, job = work.data, work.job
    if not data.documents:
        return
    if data.counts is None or len(data.counts) != len(tokenizer):
        work.found.notes.append(f"No training tokens of the model {name}'s tokenizer: no baseline of frequencies.")
    counts = data.counts if data.counts is not None and len(data.counts) == len(tokenizer) else None
    work.found.masked.append(
        masked.score(
            name, model, tokenizer, data.documents, counts, job.sequence_length, job.batch_size, work.bootstrap,
            work.advance,
        )
    )  # fmt: skip
    for document in by_hash(data.documents)[: job.samples]:
        ids = text_tokens(tokenizer, document.text[:PROMPT_CHARACTERS])[
            : window_length(model, 128) - ends_of(tokenizer).count
        ]
        ids[GAP_EVERY // 2 :: GAP_EVERY] = [tokenizer.mask_token_id] * len(ids[GAP_EVERY // 2 :: GAP_EVERY])
        prompt = tokenizer.decode(ids)
        filled, _ = samples.fill_masks(model, tokenizer, prompt)
        work.found.samples.append(Sample(name, "masked", "first guess", prompt, filled))


def causal_samples(
    work: Work, scored: Scored, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[Sample]:
    """Chats for models that saw chats (and for a base model where there are rows), else the start of documents."""
    job, data = work.job, work.data
    chat = bool(data.sft) and scored.chats
    if chat:
        room = window_length(model, job.example_length) - job.sample_tokens
        prompts, shown = chat_prompts(tokenizer, data.sft, room, job.samples)
    else:
        shown = [_start(d.text) for d in by_hash(data.documents)[: job.samples]]
        prompts = [samples.text_prompt(tokenizer, s) for s in shown]
    found = []
    for sampling, temperature in (("greedy", 0.0), (f"temperature {TEMPERATURE}", TEMPERATURE)):
        written = samples.continue_prompts(
            model, tokenizer, prompts, job.sample_tokens, temperature, work.bootstrap.seed
        )
        form = "chat" if chat else "text"
        found += [Sample(scored.name, form, sampling, p, c) for p, c in zip(shown, written, strict=True)]
    return found


def chat_prompts(
    tokenizer: PreTrainedTokenizerBase, rows: dict[str, SftText], room: int, wanted: int
) -> tuple[list[list[int]], list[str]]:
    """The ids and the last message of `wanted` prompts of at most `room` tokens; refused rows are passed over."""
    prompts: list[list[int]] = []
    shown: list[str] = []
    for row in by_hash(rows.values()):
        if len(prompts) >= wanted:
            break
        try:
            ids = samples.chat_prompt(tokenizer, row.messages[:-1])
        except InputError:  # of the chat template; such rows are counted and named where rows are selected
            continue
        if len(ids) <= room:
            prompts.append(ids)
            shown.append(row.messages[-2]["content"])
    return prompts, shown


def _start(document: str) -> str:
    """The first characters of a document, up to the end of a line where there is one."""
    start = document[:PROMPT_CHARACTERS]
    return start[: start.rfind("\n") + 1] or start


def text_table(work: Work, models: list[Scored], stage: Stage) -> None:
    """Models and baselines on held-out text, and the verdicts against gzip and xz."""
    data, found = work.data, work.found
    if not data.documents or not work.costs:
        return
    baselines = text.compressor_costs(data.documents)
    if data.counts is not None:
        fitting = (load_tokenizer(stage.input(model.role)) for model in models)
        tokenizer = next((t for t in fitting if len(t) == len(data.counts)), None)
        if tokenizer is not None:
            baselines.append(text.unigram_costs(data.counts, data.marks, tokenizer, data.documents))
    readers = {model.name for model in models if model.reads}
    found.text = [text.score(c, data.documents, work.bootstrap) for c in [*work.costs, *baselines]]
    found.verdicts += [
        text.verdict(costs, baseline, data.documents, work.bootstrap)
        for costs in work.costs
        if costs.name in readers
        for baseline in baselines[:2]
    ]


def preference_tables(work: Work) -> None:
    """Every scorer on every kind, and a verdict on each held-out kind (on all pairs where no kind is held out)."""
    data, found = work.data, work.found
    if not data.pairs:
        return
    columns = [*work.columns, *preference.trivial_columns(data.pairs)]
    kinds = sorted({p.kind for p in data.pairs})
    shown = kinds_shown(data.pairs)
    found.preferences = [preference.score(c, data.pairs, k, work.bootstrap) for k in shown for c in columns]
    found.counts |= {f"preference_pairs_{k}": sum(p.kind == k for p in data.pairs) for k in kinds}
    for ours in (c for c in columns if c.scorer.endswith(preference.IMPLICIT)):
        for kind in found.heldout_kinds or shown[-1:]:
            heldout = kind in found.heldout_kinds
            found.verdicts.append(preference.verdict(ours, columns, data.pairs, kind, heldout, work.bootstrap))


def kinds_shown(pairs: list[PairText]) -> list[str]:
    """The kinds, and all together last where there are several."""
    kinds = sorted({p.kind for p in pairs})
    return kinds if len(kinds) == 1 else [*kinds, preference.ALL]


def headline(found: Evaluation) -> dict[str, Any]:
    """The numbers a summary shows, flat."""
    metrics: dict[str, Any] = {}
    for score in found.text:
        key = score.name.replace(" -9", "").replace(" ", "_")
        metrics[f"{key}_bits_per_byte"] = score.bits_per_byte.value
        if score.nats_per_token is not None:
            metrics[f"{key}_nats_per_token"] = score.nats_per_token
    for m in found.masked:
        metrics[f"{m.name}_masked_accuracy"] = m.accuracy.value
        metrics[f"{m.name}_masked_loss"] = m.pseudo_loss
        if m.commonest_accuracy is not None:
            metrics[f"{m.name}_commonest_token_accuracy"] = m.commonest_accuracy.value
    for r in found.responses:
        metrics[f"{r.name}_response_nats_per_token"] = r.nats_per_token.value
    for p in found.preferences:
        if p.scorer.endswith(preference.IMPLICIT):
            name = p.scorer.removesuffix(preference.IMPLICIT)
            metrics[f"{name}_accuracy_{p.kind}"] = p.accuracy.value
            if found.heldout_kinds[:1] == [p.kind]:
                metrics[f"{name}_heldout_kind_accuracy"] = p.accuracy.value
    metrics["verdicts"] = [v.sentence for v in found.verdicts]
    return metrics


def _betas(job: EvaluateJob) -> dict[str, float]:
    betas = {model.name: model.beta for model in job.models if model.beta is not None}
    return {"beta" if len(betas) == 1 else f"beta of {name}": beta for name, beta in betas.items()}


def _settings(job: EvaluateStage) -> dict[str, Any]:
    names = ("sequence_length", "example_length", "max_bytes", "max_rows", "bootstrap", "sample_tokens")
    return {name: getattr(job, name) for name in names}
