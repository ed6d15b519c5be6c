"""Config of a training stage: model, objective, optimizer, schedule, ZeRO, batch and checkpoints."""

from dataclasses import dataclass, field

from fmtrain.schema.corpus import Inputs
from fmtrain.schema.fields import MISSING, outside


@dataclass
class Model:
    """A model to start from."""

    name: str = MISSING


@dataclass
class Llama(Model):
    """A Llama-style decoder from random weights; the vocabulary is the tokenizer's."""

    name: str = "llama"
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 3
    num_attention_heads: int = 6
    num_key_value_heads: int = 6
    max_position_embeddings: int = 512
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02


@dataclass
class Bert(Model):
    """A BERT-style encoder from random weights; the vocabulary is the tokenizer's."""

    name: str = "bert"
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 3
    num_attention_heads: int = 6
    max_position_embeddings: int = 512
    initializer_range: float = 0.02


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
    mask_probability: float = 0.15


@dataclass
class Sft(Objective):
    """Next-token prediction on the responses of a chat alone."""

    name: str = "sft"


@dataclass
class Dpo(Objective):
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7) against stored reference log-probabilities."""

    name: str = "dpo"
    beta: float = 0.1


@dataclass
class Optim:
    """An optimizer; `name` is a row of fmtrain.train.optim's table."""

    name: str = MISSING


@dataclass
class AdamW(Optim):
    """AdamW (Loshchilov and Hutter 2019). Matrices are decayed; norms, biases and embeddings' gains are not."""

    name: str = "adamw"
    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0


@dataclass
class Schedule:
    """The learning rate over steps, as a factor of optim.lr."""

    name: str = MISSING


@dataclass
class Cosine(Schedule):
    """Linear warm-up over `warmup_steps`, then a half cosine down to `final_factor`."""

    name: str = "cosine"
    warmup_steps: int = 20
    final_factor: float = 0.1


@dataclass
class Constant(Schedule):
    """Linear warm-up over `warmup_steps`, then constant."""

    name: str = "constant"
    warmup_steps: int = 0


@dataclass
class Zero:
    """DeepSpeed ZeRO (Rajbhandari et al. 2020); sizes in elements, None lets fmtrain choose by model size."""

    stage: int = outside(2)
    offload_optimizer: bool = outside(False)
    reduce_bucket_size: int | None = outside(None)
    overlap_comm: bool = outside(False)
    param_persistence_threshold: int | None = outside(None)


@dataclass
class Checkpoint:
    """Step checkpoints of unfinished work; they never change the result."""

    every_steps: int = outside(100)
    keep: int = outside(2)


@dataclass
class TrainStage:
    """One training run. Exactly one of `steps` and `epochs` is set; the batch is in rows over all ranks."""

    artifact: str = MISSING
    model: Model | None = None  # None: the input model, or the recipe's `model` where there is none
    objective: Objective = field(default_factory=Objective)
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    zero: Zero = outside(Zero)
    steps: int | None = None
    epochs: float | None = None
    sequence_length: int = 256
    global_batch_size: int = 16
    micro_batch_size: int = outside(8)
    precision: str = "fp32"
    packing: str = "none"  # none: a row an example; concat: documents run on, split every sequence_length tokens
    max_rows: int | None = None
    log_every: int = outside(10)
    inputs: Inputs = outside(Inputs)


@dataclass
class TrainJob:
    """The frozen slice of a training stage; `model` is None where it comes from the input model."""

    seed: int
    stage: TrainStage
    model: Model | None = None
    checkpoint: Checkpoint = outside(Checkpoint)
