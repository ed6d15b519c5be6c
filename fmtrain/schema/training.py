"""Config of a training stage: model, objective, optimizer, schedule, ZeRO, batch and checkpoints."""

from dataclasses import dataclass, field
from typing import Annotated

from fmtrain.schema.corpus import Inputs
from fmtrain.schema.fields import MISSING, TEMPLATE_DATE, outside
from fmtrain.schema.limits import AboveZero, Count, Limits, NotNegative, Positive, RowLength, Share, Size


@dataclass
class Model:
    """A model to start from."""

    name: str = MISSING


@dataclass
class Llama(Model):
    """A Llama-style decoder from random weights; the vocabulary is the tokenizer's."""

    name: str = "llama"
    hidden_size: Size = 192
    intermediate_size: Size = 512
    num_hidden_layers: Size = 3
    num_attention_heads: Size = 6
    num_key_value_heads: Size = 6
    max_position_embeddings: Size = 512
    rope_theta: AboveZero = 10_000.0
    tie_word_embeddings: bool = True
    initializer_range: AboveZero = 0.02


@dataclass
class Bert(Model):
    """A BERT-style encoder from random weights; the vocabulary is the tokenizer's."""

    name: str = "bert"
    hidden_size: Size = 192
    intermediate_size: Size = 512
    num_hidden_layers: Size = 3
    num_attention_heads: Size = 6
    max_position_embeddings: Size = 512
    initializer_range: AboveZero = 0.02


@dataclass
class HuggingFace(Model):
    """Any Hugging Face folder on this machine, with its own tokenizer; identified by its files' content."""

    name: str = "hf"
    path: str = outside(MISSING)


@dataclass
class Objective:
    """What is learnt; `name` is a row of fmtrain.objectives' table."""

    name: str = MISSING


@dataclass
class Clm(Objective):
    """Next-token prediction."""

    name: str = "clm"


@dataclass
class Mlm(Objective):
    """Masked-token prediction (Devlin et al. 2019): of the chosen positions 80% masked, 10% random, 10% kept."""

    name: str = "mlm"
    mask_probability: Annotated[float, Limits(above=0, below=1)] = 0.15


@dataclass
class Sft(Objective):
    """Next-token prediction on the responses of a chat alone."""

    name: str = "sft"


@dataclass
class Dpo(Objective):
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7) against stored reference log-probabilities."""

    name: str = "dpo"
    beta: AboveZero = 0.1


@dataclass
class Optim:
    """An optimizer; `name` is a row of fmtrain.train.optim's table."""

    name: str = MISSING


@dataclass
class AdamW(Optim):
    """AdamW (Loshchilov and Hutter 2019). Matrices are decayed; norms, biases and embeddings' gains are not."""

    name: str = "adamw"
    lr: Annotated[float, Limits(above=0, greatest=10)] = 1e-3
    beta1: Annotated[float, Limits(least=0, below=1)] = 0.9
    beta2: Annotated[float, Limits(least=0, below=1)] = 0.95
    eps: Annotated[float, Limits(above=0, greatest=1)] = 1e-8
    weight_decay: NotNegative = 0.1
    max_grad_norm: NotNegative = 1.0  # 0: gradients are not clipped


@dataclass
class Schedule:
    """The learning rate over steps, as a factor of optim.lr: a linear warm-up, then what each option says."""

    name: str = MISSING
    warmup_steps: Count = 0  # where `epochs` make fewer steps, a tenth of these


@dataclass
class Cosine(Schedule):
    """A half cosine down to `final_factor`."""

    name: str = "cosine"
    warmup_steps: Count = 20
    final_factor: Share = 0.1


@dataclass
class Constant(Schedule):
    """The full rate to the end."""

    name: str = "constant"


@dataclass
class Zero:
    """DeepSpeed ZeRO (Rajbhandari et al. 2020); sizes in elements, None lets fmtrain choose by model size."""

    stage: Annotated[int, Limits(choices=(0, 1, 2, 3))] = outside(2)
    offload_optimizer: bool = outside(False)
    reduce_bucket_size: Positive | None = outside(None)
    overlap_comm: bool = outside(False)
    param_persistence_threshold: Count | None = outside(None)


@dataclass
class Checkpoint:
    """Step checkpoints of unfinished work; they never change the result."""

    every_steps: Count = outside(100)  # 0: only when asked to stop
    keep: Positive = outside(2)


@dataclass
class TrainStage:
    """One training run. Exactly one of `steps` and `epochs` is set; the batch is in rows over all ranks."""

    artifact: str = MISSING
    model: Model | None = None  # None: the input model, or the recipe's `model` where there is none
    objective: Objective = field(default_factory=Objective)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    zero: Zero = outside(Zero)
    steps: Positive | None = None
    epochs: AboveZero | None = None
    sequence_length: RowLength = 256
    global_batch_size: Size = 16
    micro_batch_size: Size = outside(8)
    precision: Annotated[str, Limits(choices=("fp32", "bf16"))] = "fp32"
    # none: a row an example; concat: documents run on, split every sequence_length tokens
    packing: Annotated[str, Limits(choices=("none", "concat"))] = "none"
    max_rows: Positive | None = None
    max_refused_fraction: Share = outside(0.1)  # of the rows; a chat template that refuses more stops the stage
    log_every: Positive = outside(10)
    inputs: Inputs = outside(Inputs)


@dataclass
class TrainJob:
    """The frozen slice of a training stage; `model` is None where it comes from the input model."""

    seed: Count
    stage: TrainStage
    model: Model | None = None
    checkpoint: Checkpoint = outside(Checkpoint)
    template_date: str = TEMPLATE_DATE
