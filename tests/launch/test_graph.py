"""Which stage takes what: what stands already needs no corpus, and pins are checked in every case."""

from pathlib import Path

import pytest

from fmtrain.artifacts.sources import BESIDE, HUB
from fmtrain.artifacts.stage import Source
from fmtrain.artifacts.store import Store
from fmtrain.errors import ConfigError
from fmtrain.schema.load import identity
from launch.backends.inline import InlineBackend
from launch.compose import compose
from launch.driver import INLINE_BYTES, LEAST_TASKS, tasks_of
from launch.edges import Pin
from launch.graph import build, pinned
from launch.plan import plan

TOKENS = ["recipe=tokens", "data.modules=[json]"]


def parents(overrides: list[str]) -> dict[str, dict[str, object]]:
    return {node.stage: dict(node.parents) for node in build(compose(overrides)).nodes}


def test_a_corpus_is_needed_only_by_what_is_made_of_it(tmp_path: Path) -> None:
    for name in ("d.bin", "d.idx", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert parents(TOKENS)["tokens"] == {"corpus": "corpus", "tokenizer": "tokenizer"}
    taken = [*TOKENS, "tokenizer=hf", f"tokenizer.path={tmp_path}"]
    assert parents(taken)["tokenizer"] == {"corpus": "corpus"}  # to be measured on
    assert parents([*taken, "stages.corpus=null", "stages.tokens=null"]) == {"tokenizer": {}}
    megatron = f"stages.tokens.from_megatron={tmp_path}/d.*"
    assert parents([*taken, megatron])["tokens"] == {"tokenizer": "tokenizer"}
    assert parents([*taken, megatron, "stages.corpus=null"])["tokens"] == {"tokenizer": "tokenizer"}
    with pytest.raises(ConfigError, match="stages.tokenizer needs a corpus"):
        parents([*TOKENS, "stages.corpus=null"])


def test_an_earlier_corpus_is_a_pin_of_its_own() -> None:
    assert parents([*TOKENS, "dedup.against=corpus@v1"])["corpus"] == {
        "earlier": Pin("corpus@v1", ("corpus",), "dedup.against", None)
    }
    for against in ([], ["dedup.against=corpus@v1"]):
        with pytest.raises(ConfigError, match=r"stages\.corpus\.inputs\.model=a@v1: stage corpus takes"):
            parents([*TOKENS, *against, "stages.corpus.inputs.model=a@v1"])


def test_what_a_slurm_job_is_given_says_the_same(tmp_path: Path) -> None:
    """Commits and paths as planning found them, whatever characters are in a path."""
    folder, commit = tmp_path / "it's, $one", "0123456789" * 4
    folder.mkdir()
    (folder / "test.jsonl").write_text('{"q": "a"}\n')
    sets = ["openai/gsm8k@" + commit + ":main:test", f"{folder}:test"]
    quoted = ",".join("'" + entry.replace("'", "\\'") + "'" for entry in sets)
    given = ["recipe=corpus_web", "data=hub", "data.path=some/rows", f"data.revision={commit}"]
    given += ["filter.rules=[decontaminate]", f"filter.decontaminate.sets=[{quoted}]"]
    graph = build(compose(given))
    again = build(compose([*given, *pinned(graph)]))
    assert pinned(graph)[0] == f"data.revision='{commit}'"
    assert again.nodes[0].job == graph.nodes[0].job and again.nodes[0].sources == graph.nodes[0].sources
    assert again.nodes[0].job.filter.decontaminate.sets == sets
    assert pinned(build(compose(TOKENS))) == []


def test_inline_a_task_for_so_many_bytes_of_input() -> None:
    """A file is decompressed by every task that shares it; how much a data set on the hub holds is not known."""
    backend, [node] = InlineBackend(), build(compose(["recipe=corpus_web", "data=stdlib"])).nodes
    assert tasks_of(node, backend) == 1
    for sizes, tasks in (([INLINE_BYTES - 1], 1), ([INLINE_BYTES // 2] * 2, 2), ([100 * INLINE_BYTES], LEAST_TASKS)):
        node.sources = [Source(f"/{n}.gz", f"{n}.gz", size, "", "") for n, size in enumerate(sizes)]
        assert tasks_of(node, backend) == tasks
    node.sources = [Source("/model.bin", f"{BESIDE}filter.classifier.model:model.bin", 100 * INLINE_BYTES, "", "")]
    assert tasks_of(node, backend) == 1
    node.sources = [Source(f"{HUB}some/rows@0", "some/rows", 0, "0", "")]
    assert tasks_of(node, backend) >= LEAST_TASKS


def test_the_day_that_templates_are_told_belongs_to_what_is_rendered() -> None:
    """And the reference is of the same day as the DPO that it is for."""
    days = ("2026-01-01", "2026-01-02")
    one, other = (build(compose([f"template_date='{day}'"])).nodes for day in days)
    changed = {a.stage for a, b in zip(one, other, strict=True) if identity(a.job) != identity(b.job)}
    assert {"sft", "reference", "dpo", "evaluate"} <= changed
    assert not changed & {"corpus", "tokenizer", "tokens", "examples"}


def prints(tmp_path: Path, *overrides: str) -> dict[str, str]:
    """Stage -> fingerprint."""
    return {step.node.stage: step.fingerprint for step in plan(build(compose(list(overrides))), Store(tmp_path))}


def test_an_evaluation_is_of_models_by_their_names_and_of_no_other_names(tmp_path: Path) -> None:
    """Two trainings that change places change what its tables say; a reference under another name does not."""
    given = ["recipe=quickstart_tiny", "stages.reference=null", "stages.dpo=null", "stages.publish=null"]
    given += ["+stage@stages.b=sft", "stages.b.inputs.model=pretrain", "stages.b.epochs=null", "stages.b.steps=6"]
    given += ["stages.b.max_rows=48"]
    rates = ("stages.sft.optim.lr", "stages.b.optim.lr")
    one, other = (
        prints(tmp_path, *given, *(f"{key}={rate}" for key, rate in zip(rates, pair, strict=True)))
        for pair in (("1e-3", "1e-4"), ("1e-4", "1e-3"))
    )
    assert (one["sft"], one["b"]) == (other["b"], other["sft"]) and one["evaluate"] != other["evaluate"]
    implied = prints(tmp_path, "recipe=quickstart_tiny", "stages.reference=null")
    written = ["+stage@stages.scores=reference", "stages.scores.max_rows=32", "stages.scores.inputs.model=sft"]
    named = prints(tmp_path, "recipe=quickstart_tiny", "stages.reference=null", *written,
                   "stages.dpo.inputs.reference=scores")  # fmt: skip
    assert (implied["dpo_reference"], implied["evaluate"]) == (named["scores"], named["evaluate"])
