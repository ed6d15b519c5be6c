"""The stage graph: from a checked configuration to nodes with inputs and frozen slices. A stage is a row of SPECS.

Knows which stage needs what; knows nothing of the store, of processes or of what a stage does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmtrain.errors import ConfigError, InputError
from fmtrain.run.model_folder import model_files
from fmtrain.run.rows import LOOKED_AT, look
from fmtrain.run.sources import BESIDE, HUB
from fmtrain.run.stage import Source
from fmtrain.schema import plugins
from fmtrain.schema.corpus import CorpusJob, ExamplesJob, Existing, TokenizerJob, TokensJob
from fmtrain.schema.evaluation import EvaluateJob, PublishJob, ReferenceJob
from fmtrain.schema.root import Root
from fmtrain.schema.sources import Local, Rows, Stdlib
from fmtrain.schema.training import Dpo, HuggingFace, Mlm, TrainJob
from launch.base import base_files, check_base
from launch.references import absolute, referenced_files
from launch.sources import sources


@dataclass(frozen=True)
class Spec:
    """What every run of a stage has in common; raise `revision` when the same input shall give another output."""

    kind: str  # of the artifact it makes
    worker: str  # module started with the stage's folder
    code: tuple[str, ...]  # modules whose imports are the stage's source
    revision: int
    ranks: bool = False  # one process a rank, rather than one in all
    pool: bool = False  # fans out tasks over the backend's processors


_TRAIN = ("fmtrain.train.__main__",)
SPECS: dict[str, Spec] = {
    "corpus": Spec("corpus", "data_pipelines", ("data_pipelines.stages.corpus",), 5, pool=True),
    "tokenizer": Spec("tokenizer", "data_pipelines", ("data_pipelines.stages.tokenizer",), 2),
    "tokens": Spec("tokens", "data_pipelines", ("data_pipelines.stages.tokens",), 3),
    "examples": Spec("examples", "data_pipelines", ("data_pipelines.stages.examples",), 3),
    "pretrain": Spec("model", "fmtrain.train", _TRAIN, 3, ranks=True),
    "sft": Spec("model", "fmtrain.train", _TRAIN, 3, ranks=True),
    "reference": Spec("reference", "fmtrain.evaluate", ("fmtrain.evaluate.reference",), 2),
    "dpo": Spec("model", "fmtrain.train", _TRAIN, 3, ranks=True),
    "evaluate": Spec("evaluation", "fmtrain.evaluate", ("fmtrain.evaluate.__main__",), 4),
    "publish": Spec("published", "fmtrain.publish", ("fmtrain.publish.__main__",), 2),
}


@dataclass
class Folder:
    """An input that is no artifact of ours: a Hugging Face folder, known by its files."""

    path: str
    files: list[Source]


@dataclass
class Node:
    """One stage of this run. `parents` maps a role to a stage of this run, to a pin (`NAME@vN`) or to a Folder."""

    stage: str
    spec: Spec
    name: str
    job: Any
    parents: dict[str, "str | Pin | Folder"] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)


@dataclass(frozen=True)
class Pin:
    """An input that the configuration names: `stages.sft.inputs.model=pretrain@v1`."""

    ref: str
    role: str
    key: str  # the configuration key that holds it
    stage: str | None  # the stage of this run that it replaces, if there is one


@dataclass
class Graph:
    """The nodes in the order they run, and what was left out and why."""

    nodes: list[Node]
    left_out: list[str]


def pinned(graph: Graph) -> list[str]:
    """Overrides that say the commits found on the hub: a Slurm job plans again, later and maybe with no way there."""
    found = []
    for node in graph.nodes:
        for source in node.sources:
            if source.path.startswith(HUB) and not source.name.startswith(BESIDE):
                found.append(f"data.revision='{source.stamp}'")
        sets = node.job.filter.decontaminate.sets if isinstance(node.job, CorpusJob) else []
        if sets:
            quoted = ("'" + entry.replace("'", "\\'") + "'" for entry in sets)
            found.append(f"filter.decontaminate.sets=[{','.join(quoted)}]")
    return found


def build(root: Root) -> Graph:
    """The run's stages with their inputs; reads and hashes the source files."""
    return _Builder(root).build()


class _Builder:
    def __init__(self, root: Root) -> None:
        self.root = root
        self.left_out: list[str] = []
        self.on = {name: stage for name, stage in vars(root.stages).items() if stage is not None}
        made_of = isinstance(root.data, (Rows, Stdlib))  # what examples are made of; others leave that stage out
        self.data = sources(root.data) if "corpus" in self.on or ("examples" in self.on and made_of) else []
        self.base = self._base()

    def build(self) -> Graph:
        self._leave_out()
        jobs: dict[str, Callable[[], Any]] = {
            "corpus": lambda: CorpusJob(
                self.root.seed,
                self.root.data,
                plugins.narrowed(absolute(self.root.filter, "filter")),
                self.root.dedup,
                plugins.used(self.root.filter.rules, self._read_by_name()),
                self.on["corpus"],
            ),
            "tokenizer": lambda: TokenizerJob(absolute(self.root.tokenizer, "tokenizer"), self.on["tokenizer"]),
            "tokens": lambda: TokensJob(absolute(self.on["tokens"], "stages.tokens")),
            "examples": lambda: ExamplesJob(self.root.seed, self.root.data, self.on["examples"]),
            "reference": lambda: ReferenceJob(self.on["reference"], self.root.template_date),
            "evaluate": lambda: EvaluateJob(self.root.seed, self.on["evaluate"], self._beta(), self.root.template_date),
            "publish": lambda: PublishJob(self.on["publish"]),
        }
        nodes = []
        for stage in self.on:
            job = jobs[stage]() if stage in jobs else self._train_job(stage)
            node = Node(stage, SPECS[stage], self.on[stage].artifact, job, self._parents(stage))
            node.sources = self._sources(job)
            nodes.append(node)
        return Graph(nodes, self.left_out)

    def _read_by_name(self) -> list[str]:
        """The files whose reader is chosen by their names, of a plug-in maybe."""
        return [source.name for source in self.data] if isinstance(self.root.data, Local) else []

    def _base(self) -> Folder | None:
        """The Hugging Face folder that the first training stage starts from."""
        first = next((s for s in ("pretrain", "sft", "dpo") if s in self.on), None)
        if first is None or self.on[first].inputs.model is not None:
            return None
        model = self.on[first].model or self.root.model
        if not isinstance(model, HuggingFace):
            return None
        files = base_files(model.path)
        asking = [s for s in ("pretrain", "sft", "reference", "dpo") if s in self.on]
        lengths = [(f"stages.{stage}.sequence_length", self.on[stage].sequence_length) for stage in asking]
        check_base(model.path, lengths, "masked" if isinstance(self.on[first].objective, Mlm) else "causal")
        return Folder(model.path, files)

    def _sources(self, job: Any) -> list[Source]:
        """The files that a stage reads beside its parents: the data's, and those that its settings name."""
        if isinstance(job, CorpusJob):
            return [*self.data, *referenced_files("filter", job.filter, job.filter.rules)]
        if isinstance(job, ExamplesJob) and isinstance(job.data, Rows):
            return self.data
        if isinstance(job, TokenizerJob):
            if isinstance(job.tokenizer, Existing) and job.tokenizer.path and Path(job.tokenizer.path).is_dir():
                model_files(Path(job.tokenizer.path))
            return referenced_files("tokenizer", job.tokenizer)
        return referenced_files("stages.tokens", job.stage) if isinstance(job, TokensJob) else []

    def _leave_out(self) -> None:
        """Take out the stages that this data has nothing for, and say so."""
        if "examples" not in self.on or isinstance(self.root.data, Stdlib):
            return
        if isinstance(self.root.data, Rows):
            self._leave_out_forms(self.root.data)
            return
        self._drop("examples sft reference dpo", f"data={self.root.data.name} holds no functions to make examples from")

    def _leave_out_forms(self, data: Rows) -> None:
        """Take out the stages that no row is for, by what the beginnings of the files hold."""
        known = look(data, self.data)
        found = set(data.forms) or known.forms
        if found == {"preference"}:
            self._drop("sft", "the rows are preferences only")
        if "preference" not in found:
            self._drop("reference dpo", "no row has the preference form (prompt, chosen, rejected)")
        if not known.whole and not data.forms:
            self.left_out.append(
                f"of the rows {LOOKED_AT >> 20} MiB were looked at ({', '.join(sorted(found))}); where later ones have "
                f"another form say so: data.forms=[{','.join(sorted({*found, 'preference'}))}]"
            )
        if "evaluate" in self.on and known.whole and not known.several and not self._pins_rows():
            raise InputError(
                "data.files hold one row (or the same one several times), which is trained on: nothing is left to "
                "evaluate on. Give more rows, or leave the evaluation out: stages.evaluate=null"
            )

    def _pins_rows(self) -> bool:
        pins = self.on["evaluate"].inputs
        return pins.examples is not None or pins.corpus is not None

    def _drop(self, stages: str, why: str) -> None:
        gone = [s for s in stages.split() if self.on.pop(s, None) is not None]
        if gone:
            self.left_out.append(f"{', '.join(gone)}: left out, {why}")

    def _train_job(self, stage: str) -> TrainJob:
        has_input = "model" in self._parents(stage)
        config = self.on[stage]
        return TrainJob(
            self.root.seed,
            config,
            None if has_input else config.model or self.root.model,
            self.root.checkpoint,
            self.root.template_date,
        )

    def _beta(self) -> float | None:
        objective = self.on["dpo"].objective if "dpo" in self.on else None
        return objective.beta if isinstance(objective, Dpo) else None

    def _parents(self, stage: str) -> dict[str, "str | Pin | Folder"]:
        wanted = self._wanted(stage)
        pins = {role: ref for role, ref in vars(self.on[stage].inputs).items() if ref is not None}
        for role, ref in pins.items():
            key = f"stages.{stage}.inputs.{role}"
            if role not in wanted and not (role == "model" and stage == "pretrain"):
                raise ConfigError(f"{key}={ref}: stage {stage} takes {', '.join(wanted) or 'no inputs'}, not {role}")
            origin = wanted.get(role)
            wanted[role] = Pin(ref, role, key, origin if isinstance(origin, str) else None)
        found: dict[str, str | Pin | Folder] = {}
        for role, origin in wanted.items():
            if origin is None:
                raise ConfigError(
                    f"stages.{stage} needs a {role}, and no stage of this run makes one; "
                    f"pin one: stages.{stage}.inputs.{role}=NAME@vN"
                )
            found[role] = origin
        return found

    def _wanted(self, stage: str) -> "dict[str, str | Pin | Folder | None]":
        """Role -> the stage of this run that makes it, or None where none does."""

        def made(*names: str) -> str | None:
            return next((n for n in names if n in self.on), None)

        if stage == "corpus":
            against = self.root.dedup.against
            return {} if against is None else {"earlier": Pin(against, "corpus", "dedup.against", None)}
        if stage == "examples" and isinstance(self.root.data, Rows):
            return {}
        if stage == "tokenizer":
            needless = isinstance(self.root.tokenizer, Existing) and "corpus" not in self.on
            return {} if needless else {"corpus": made("corpus")}
        if stage == "tokens" and self.on["tokens"].from_megatron:
            return {"tokenizer": made("tokenizer")}
        if stage in ("tokens", "examples"):
            return {"corpus": made("corpus"), "tokenizer": made("tokenizer")}
        if stage == "pretrain":
            base: dict[str, str | Pin | Folder | None] = {"model": self.base} if self.base else {}
            return {"tokens": made("tokens"), "tokenizer": made("tokenizer"), **base}
        if stage == "sft":
            return {"examples": made("examples"), "model": made("pretrain") or self.base}
        if stage == "reference":
            return {"examples": made("examples"), "model": made("sft", "pretrain") or self.base}
        if stage == "dpo":
            model = made("sft", "pretrain") or self.base
            return {"examples": made("examples"), "model": model, "reference": made("reference")}
        models: dict[str, str | Pin | Folder | None] = {s: s for s in ("pretrain", "sft", "dpo") if s in self.on}
        if stage == "publish":
            evaluation: dict[str, str | Pin | Folder | None] = (
                {"evaluation": made("evaluate")} if made("evaluate") else {}
            )
            return {"model": next(reversed(models), None) or self.base, **evaluation}
        found: dict[str, str | Pin | Folder | None] = {
            role: role for role in ("corpus", "tokens", "examples", "reference") if role in self.on
        }
        if self.base:
            found["base"] = self.base
        return found | models
