"""The whole configuration of a run, and the table of the options behind each polymorphic field."""

from dataclasses import dataclass, field

from fmtrain.schema import corpus as c
from fmtrain.schema import evaluation as e
from fmtrain.schema import launch as l
from fmtrain.schema import training as t
from fmtrain.schema.dedup import Dedup
from fmtrain.schema.fields import MISSING, TEMPLATE_DATE, outside
from fmtrain.schema.limits import Count
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Data, Hub, Local, Rows, Stdlib


@dataclass
class Stages:
    """One optional field a stage, in the order they run; None leaves the stage out."""

    corpus: c.CorpusStage | None = None
    tokenizer: c.TokenizerStage | None = None
    tokens: c.TokensStage | None = None
    examples: c.ExamplesStage | None = None
    pretrain: t.TrainStage | None = None
    sft: t.TrainStage | None = None
    reference: e.ReferenceStage | None = None
    dpo: t.TrainStage | None = None
    evaluate: e.EvaluateStage | None = None
    publish: e.PublishStage | None = None


@dataclass
class Root:
    recipe: str = MISSING
    store: str = "./store"
    seed: Count = 1
    template_date: str = TEMPLATE_DATE  # YYYY-MM-DD: today, to chat templates that ask for it
    plugins: list[str] = outside([])  # modules that register rules and readers; what they are is in CorpusJob.plugins
    data: Data = field(default_factory=Data)
    filter: Filter = field(default_factory=Filter)
    dedup: Dedup = field(default_factory=Dedup)
    tokenizer: c.Tokenizer = field(default_factory=c.Tokenizer)
    model: t.Model = field(default_factory=t.Model)
    checkpoint: t.Checkpoint = field(default_factory=t.Checkpoint)
    launch: l.Launch = field(default_factory=l.Launch)
    stages: Stages = field(default_factory=Stages)


# base class -> name -> the class whose fields that name has. The names are the Hydra options' `name` values.
KINDS: dict[type, dict[str, type]] = {
    Data: {"stdlib": Stdlib, "local": Local, "hub": Hub, "rows": Rows},
    Filter: dict.fromkeys(("none", "code", "gopher", "c4", "fineweb"), Filter),
    Dedup: dict.fromkeys(("none", "exact", "minhash", "web"), Dedup),
    c.Tokenizer: {"bpe": c.Bpe, "unigram": c.Unigram, "wordpiece": c.WordPiece, "hf": c.Existing},
    t.Model: {"llama": t.Llama, "bert": t.Bert, "hf": t.HuggingFace},
    t.Objective: {"clm": t.Clm, "mlm": t.Mlm, "sft": t.Sft, "dpo": t.Dpo},
    t.Optim: {"adamw": t.AdamW},
    t.Schedule: {"cosine": t.Cosine, "constant": t.Constant},
    l.Launch: {"inline": l.Inline, "local": l.LocalRay, "slurm": l.Slurm},
}
