"""A training stage from its inputs to its model folder: what one rank does, in order."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.worker import Progress, Result, announce, rank, tell
from fmtrain.data.rows import told
from fmtrain.data.templates import fix_date
from fmtrain.errors import ConfigError
from fmtrain.kinds.train import TrainJob
from fmtrain.models import (
    Task,
    base,
    build_model,
    check_fits,
    headless,
    load_body,
    load_model,
    load_tokenizer,
    save_model,
)
from fmtrain.models.device import device
from fmtrain.objectives import CollateContext, objective
from fmtrain.train.distributed import keep_memory, set_threads, start
from fmtrain.train.engine import DeepSpeedEngine
from fmtrain.train.loop import Loop
from fmtrain.train.metrics import FILE, MetricsFile, Row, summarise
from fmtrain.train.report import Trained, numerics, write_report
from fmtrain.train.resume import FOLDER, Saver
from fmtrain.train.settings import Settings, shorter_warmup, total_steps, within
from fmtrain.train.signals import STOP


def train(stage: Stage, job: TrainJob, settings: Settings) -> Result:
    """Train, resuming where an earlier attempt stopped, and write the model to `stage.out` (first rank)."""
    where, threads = device(), set_threads()
    keep_memory(where)
    group = start(where)
    saver = Saver(stage.work_dir / FOLDER, job.checkpoint, job.stage, stage.stage, stage.fingerprint, group)
    found = saver.find()
    torch.manual_seed(job.seed)
    tokenizer = load_tokenizer(stage.input("tokenizer" if "tokenizer" in stage.inputs else "model"))
    fix_date(tokenizer, job.template_date)
    learnt = objective(job.stage.objective.name)
    rows = learnt.rows(stage, job, tokenizer)
    model = starting_model(stage, job, tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    engine = DeepSpeedEngine(model, job.stage, settings, where)
    begin = 0
    if found is not None:
        engine.load(found.path, found.manifest.step)
        begin = found.manifest.step
    steps = total_steps(job.stage, len(rows))
    cfg = replace(job.stage, schedule=within(job.stage.schedule, steps))
    context = CollateContext.of(tokenizer, job.stage.objective, job.seed)
    loop = Loop(engine, group, learnt, rows, context, cfg, settings, steps, where, lambda: STOP.requested)
    metrics = MetricsFile(stage.work_dir / FILE) if group.rank == 0 else None
    if metrics is not None:
        metrics.resume(begin, found.path if found is not None else None)
        print(f"{parameters:,} parameters, {len(rows):,} rows, steps {begin} to {steps}", flush=True)
        if "too_long" in rows.counts:
            tell(stage, "rows", sum(rows.counts.values()), told(rows.counts, job.stage.sequence_length))
        if cfg.schedule != job.stage.schedule:
            announce(stage, shorter_warmup(job.stage, stage.stage, steps, len(rows)))
    STOP.in_loop = True
    loop.run(begin, recorder(stage, job, metrics, begin, steps), saving(saver, engine, metrics))
    weights = engine.weights()
    if metrics is None:
        return Result()
    metrics.close()
    save_model(model, tokenizer, stage.out, weights)
    base.write(stage.out, base.of_input(stage))
    made_by = numerics(job, group, where, threads)
    if saver.earlier:
        made_by["resumed_under"] = saver.earlier
    return write_report(
        stage, job, metrics, Trained(settings, rows.counts, steps, parameters, made_by, summarise(metrics.rows()))
    )


def starting_model(stage: Stage, job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The input model, or one from random weights, in training mode."""
    task = objective(job.stage.objective.name).task
    if "model" in stage.inputs:
        model = _given(stage, job, task, tokenizer)
    elif job.model is not None:
        model = build_model(job.model, tokenizer, job.seed, task)
    else:
        raise ConfigError(
            f"stages.{stage.stage} has no model to start from: give model=..., or "
            f"stages.{stage.stage}.inputs.model=NAME@vN"
        )
    check_fits(model, tokenizer, job.stage.sequence_length)
    return model.train()


def _given(stage: Stage, job: TrainJob, task: Task, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The input model. One without a head gets one from the seed, where the objective is to learn such anyway."""
    folder = stage.input("model")
    if not job.stage.objective.blank or (architecture := headless(folder)) is None:
        return load_model(folder, task, tokenizer, stage.pickled("model"))
    model, drawn = load_body(folder, task, tokenizer, job.seed, stage.pickled("model"))
    if drawn and rank() == 0:
        announce(
            stage,
            f"{stage.refs.get('model', folder)} is a {architecture}, without the head of a {task} language model: "
            f"{len(drawn)} of its weights are drawn at random (seed {job.seed}), {drawn[0]} first",
        )
    return model


def recorder(stage: Stage, job: TrainJob, metrics: MetricsFile | None, begin: int, steps: int) -> Callable[[Row], None]:
    """What happens with a step's row: the first rank writes it, shows progress, and logs every `log_every` steps."""
    progress = Progress(stage, "steps", steps)
    progress.begin(begin)

    def record(row: Row) -> None:
        if metrics is None:
            return
        metrics.append(row)
        done = int(row["step"]) + 1
        progress.update(done, force=done == steps, loss=row["loss"], tokens_per_second=row["tokens_per_second"])
        if done % max(1, job.stage.log_every) == 0 or done == steps:
            print(
                f"step {done}/{steps} loss {row['loss']:.4f} lr {row['lr']:.3g} grad_norm {row['grad_norm']:.3f} "
                f"{row['tokens_per_second']:,.0f} tokens/s",
                flush=True,
            )

    return record


def saving(saver: Saver, engine: DeepSpeedEngine, metrics: MetricsFile | None) -> Callable[[int, bool], None]:
    """What the loop calls between two steps: a save where one is due or asked for."""

    def save(step: int, must: bool) -> None:
        if must or saver.due(step):
            begun = time.perf_counter()
            saver.save(engine, step, metrics)
            if metrics is not None:
                print(f"step {step}: checkpoint saved in {time.perf_counter() - begun:.2f} s", flush=True)

    return save
