"""What holds for a whole run: the root of the configuration but for its stages."""

from dataclasses import dataclass, field

from fmtrain.schema.dedup import Dedup
from fmtrain.schema.fields import MISSING, TEMPLATE_DATE, outside
from fmtrain.schema.launch import Launch
from fmtrain.schema.limits import Count
from fmtrain.schema.rules import Filter
from fmtrain.schema.sources import Data
from fmtrain.schema.tokenizers import Tokenizer
from fmtrain.schema.training import Checkpoint, Model


@dataclass
class Common:
    recipe: str = MISSING  # what runs and jobs of it are called
    store: str = "./store"  # where artifacts, unfinished work and runs lie
    seed: Count = 1  # of what is drawn: examples, weights, the order of rows, samples
    template_date: str = TEMPLATE_DATE  # YYYY-MM-DD: today, to chat templates that ask for it
    plugins: list[str] = outside([])  # modules that add what is not ours: docs/corpus/plugins.md
    data: Data = field(default_factory=Data)  # documents or rows
    filter: Filter = field(default_factory=Filter)  # which documents stay
    dedup: Dedup = field(default_factory=Dedup)  # which are copies
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    model: Model = field(default_factory=Model)  # that a training starts from where no stage before makes one
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    launch: Launch = field(default_factory=Launch)  # where it runs
