"""Which documents are copies of another, and which of them stays: exact, normalised, url, minhash.

`deduplicate` runs the steps that `dedup.steps` names, each on what the one before left. Everything is sorted runs on
disk (`runs`), so that memory does not grow with the corpus beyond a bit a document, and depends on the documents alone,
so that neither the number of tasks nor the order of reading changes who stays.

    order       the order of preference, an ordinal for each document
    keys        copies by an equal key
    signatures  MinHash signatures of word n-grams
    near        candidates, their verification, and who of them goes
    result      all of it by row
"""

from data_pipelines.dedup import keys, near, order, result, signatures
from data_pipelines.dedup.keys import normalise, normalise_url
from data_pipelines.dedup.order import Corpus
from data_pipelines.dedup.result import Largest, Result
from data_pipelines.parts import Parts
from data_pipelines.schedule import Scheduler
from fmtrain.schema.dedup import Dedup

__all__ = ["Largest", "Result", "deduplicate", "normalise", "normalise_url"]


def deduplicate(scheduler: Scheduler, config: Dedup, parts: Parts, seed: int, words: str = "fast") -> Result:
    """Find the copies among the documents of `parts` that `config` looks for; `words` names the splitter."""
    corpus = _order(scheduler, config, parts)
    counts: dict[str, int] = {}
    removed: list[str] = []
    before = None
    for step in config.steps:
        if step in keys.FIELDS:
            found, bits = f"dedup-{step}", f"dedup-{step}-bits"
            counts[f"dedup.{step}"] = _equal(scheduler, corpus, step, before)
        elif step == "minhash":
            found = bits = f"dedup-{step}"
            counts |= _near(scheduler, config, corpus, seed, before, words)
        else:
            continue  # a step on parts of documents, which `spans` looks after
        removed.append(found)
        before = bits
    ends = result.ResultItem(tuple(removed), before, parts.rows)
    [done] = scheduler.run(result.RESULT_STEP, result.result_task, [ends])
    path = scheduler.parts / result.RESULT_STEP / "gone.rows"
    return Result(path, parts.rows, Largest(done["copies"], done["row"]), counts)


def _order(scheduler: Scheduler, config: Dedup, parts: Parts) -> Corpus:
    """The order of preference."""
    items, runs = [order.OrderItem(parts, config.keep)] * parts.tasks, f"{order.ORDER_STEP}-runs"
    found = scheduler.run(runs, order.order_runs_task, items, unit="documents", total=parts.rows)
    scheduler.run(order.ORDER_STEP, order.order_task, [runs], unit="documents", total=parts.rows)
    return Corpus(parts, sum(counts["earlier"] for counts in found))


def _equal(scheduler: Scheduler, corpus: Corpus, step: str, before: str | None) -> int:
    """Copies by an equal key; how many."""
    tasks = corpus.parts.tasks
    items = [keys.KeyItem(corpus, step, before)] * tasks
    scheduler.run(f"dedup-{step}-keys", keys.keys_task, items, unit="keys", total=corpus.parts.rows)
    scheduler.run(f"dedup-{step}", keys.equal_task, items, unit="removed")
    marks = [order.MarkItem(corpus.parts.rows, before, f"dedup-{step}")]
    [done] = scheduler.run(f"dedup-{step}-bits", order.mark_task, marks, unit="removed")
    return done["removed"]


def _near(
    scheduler: Scheduler, config: Dedup, corpus: Corpus, seed: int, before: str | None, words: str
) -> dict[str, int]:
    """Near copies; how many, and how many pairs were compared and found similar."""
    tasks, rows = corpus.parts.tasks, corpus.parts.rows
    shape = signatures.Shape(config.n_grams, config.bands, config.rows, seed, words)
    signed = [signatures.SignItem(corpus, shape, before)] * tasks
    scheduler.run(near.SIGNATURES, signatures.sign_task, signed, unit="documents", total=rows)
    scheduler.run(near.CANDIDATES, near.candidates_task, [corpus.earlier] * tasks, unit="edges")
    item = near.NearItem(corpus, shape, config.threshold, before, rows)
    verified = scheduler.run(near.VERIFIED, near.verify_task, [item] * tasks, unit="candidates")
    [done] = scheduler.run("dedup-minhash", near.cluster_task, [item], unit="removed")
    counts = {name: sum(c[name] for c in verified) for name in ("candidates", "verified")}
    return {"dedup.minhash": done["removed"], **counts}
