"""The reference stage: log-probabilities of the preference rows under the model that DPO starts from, computed once.

Takes the rows that DPO will take, by the same function; held-out rows are all taken, for evaluation.
"""

import json

from fmtrain.artifacts.stage import Stage
from fmtrain.artifacts.storage import write_text
from fmtrain.artifacts.worker import Progress, Result, tell
from fmtrain.data.rows import PreferenceRow, check_refused, preference_rows, told
from fmtrain.data.templates import fix_date
from fmtrain.errors import ConfigError, InputError
from fmtrain.evaluate.preference import score_pairs
from fmtrain.evaluate.scoring import numerics, row_length, use_all_cpus
from fmtrain.kinds.reference import ReferenceJob
from fmtrain.models import load_model, load_tokenizer
from fmtrain.models.device import device

FILE = "reference.jsonl"


def run(stage: Stage) -> Result:
    """Write reference.jsonl, sorted by id: sums in nats of response and end token, given the prompt."""
    whole = stage.job_as(ReferenceJob)
    job = whole.stage
    threads = use_all_cpus()
    folder = stage.input("model")
    tokenizer = load_tokenizer(folder)
    fix_date(tokenizer, whole.template_date)
    longest = row_length(folder, job.sequence_length)
    if longest < job.sequence_length:
        raise ConfigError(
            f"stages.{stage.stage}.sequence_length={job.sequence_length} is beyond the model's positions, which hold "
            f"rows of at most {longest} tokens (padded to a multiple of 8); lower it, and that of its training"
        )
    model = load_model(folder, "causal", tokenizer, stage.pickled("model")).to(device())
    rows: list[PreferenceRow] = []
    counts: dict[str, int] = {}
    for split, limit in (("train", job.max_rows), ("heldout", None)):
        path = stage.input("examples") / f"preference.{split}.jsonl"
        found = preference_rows(path, tokenizer, job.sequence_length, limit)
        rows += found.rows
        counts |= {f"{split}_{name}": n for name, n in found.counts.items()}
        tell(stage, f"{split} rows", sum(found.counts.values()), told(found.counts, job.sequence_length))
        check_refused(found, job.max_refused_fraction, f"stages.{stage.stage}.max_refused_fraction")
    if not rows:
        raise InputError(
            f"{stage.input('examples')} gives no preference row of at most stages.{stage.stage}.sequence_length="
            f"{job.sequence_length} tokens ({counts['train_too_long'] + counts['heldout_too_long']} are longer); "
            f"give a larger one or other rows, or leave it and its training out: stages.{stage.stage}=null"
        )
    progress = Progress(stage, "responses", 2 * len(rows))
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        progress.update(done)

    scores = score_pairs(model, rows, job.batch_size, advance)
    progress.update(done, force=True)
    lines = {
        row.id: json.dumps(
            {
                "id": row.id,
                "chosen": chosen.logprob,
                "rejected": rejected.logprob,
                "chosen_tokens": chosen.tokens,
                "rejected_tokens": rejected.tokens,
            },
            ensure_ascii=False,
        )
        for row, chosen, rejected in zip(rows, scores.chosen, scores.rejected, strict=True)
    }
    if len(lines) < len(rows):
        raise InputError(
            f"{stage.input('examples')}: {len(rows) - len(lines)} preference rows share an id; make it again"
        )
    write_text(stage.out / FILE, "".join(lines[i] + "\n" for i in sorted(lines)))
    counts |= {"rows": len(rows), "too_long": counts["train_too_long"] + counts["heldout_too_long"]}
    return Result(counts=counts, numerics=numerics(model, threads, job.batch_size))
