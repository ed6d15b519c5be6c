"""Config of what a training is made of: model, optimizer, schedule, ZeRO, checkpoints."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fmtrain.schema.fields import MISSING, outside, place
from fmtrain.schema.limits import AboveZero, Count, Limits, NotNegative, Positive, Share, Size
from fmtrain.schema.options import options


@dataclass(frozen=True)
class Shape:
    """A model as far as planning needs it."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int = 0

    def activations(self, rows: int, length: int, width: int) -> float:
        """Bytes kept for the backward pass of so many rows (Korthikanti et al. 2022, eq. 1, without the attention's
        square, which sdpa does not keep), `width` bytes a number; and three of the logits' size, in fp32."""
        tokens = rows * length
        return tokens * (self.layers * self.hidden * 17.0 * width + self.vocabulary * 12.0)

    def flops(self, length: int) -> float:
        """Of a token in training, forward and backward, in rows of `length` (Chowdhery et al. 2022, appendix B)."""
        return 6.0 * self.parameters + 12.0 * self.layers * self.hidden * length


@dataclass
class Model:
    """A model to start from. What a plug-in draws at random is a class of its own, with a default `name`."""

    task: ClassVar[str] = "causal"  # of its head: causal or masked
    given: ClassVar[bool] = False  # whether it is there already, with a tokenizer of its own
    pickle = False  # whether its weights may be pickled ones

    name: str = MISSING

    def shape(self, vocabulary: int) -> Shape | None:
        """Of one from random weights with so many tokens; None where it is not known."""
        return None

    @property
    def folder(self) -> str | None:
        """Where its weights are; None where they are drawn at random."""
        return None


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

    def shape(self, vocabulary: int) -> Shape:
        hidden, layers = self.hidden_size, self.num_hidden_layers
        keys = hidden // self.num_attention_heads * self.num_key_value_heads
        layer = 2 * hidden * (hidden + keys) + 3 * hidden * self.intermediate_size + 2 * hidden
        embeddings = vocabulary * hidden * (1 if self.tie_word_embeddings else 2)
        return Shape(embeddings + layers * layer + hidden, layers, hidden, vocabulary)


@dataclass
class Bert(Model):
    """A BERT-style encoder from random weights; the vocabulary is the tokenizer's."""

    task = "masked"

    name: str = "bert"
    hidden_size: Size = 192
    intermediate_size: Size = 512
    num_hidden_layers: Size = 3
    num_attention_heads: Size = 6
    max_position_embeddings: Size = 512
    initializer_range: AboveZero = 0.02

    def shape(self, vocabulary: int) -> Shape:
        hidden, inner, layers = self.hidden_size, self.intermediate_size, self.num_hidden_layers
        layer = 4 * hidden * (hidden + 1) + 2 * hidden * inner + inner + hidden + 4 * hidden
        embeddings = (vocabulary + self.max_position_embeddings + 2 + 2) * hidden  # two kinds of token, a norm
        head = hidden * (hidden + 1) + 2 * hidden + vocabulary
        return Shape(embeddings + layers * layer + head, layers, hidden, vocabulary)


@dataclass
class HuggingFace(Model):
    """A Hugging Face model with its own tokenizer, identified by its files' content: a folder on this machine, one on
    the hub, or a version in the store."""

    given = True

    name: str = "hf"
    path: str = place(MISSING)  # DIR, OWNER/NAME[@REVISION] of the hub, NAME@vN of the store
    pickle: bool = outside(False)  # read pytorch_model.bin, as tensors alone, where there are no safetensors

    @property
    def folder(self) -> str:
        return self.path


@dataclass
class Optim:
    """An optimizer; `name` is a row of fmtrain.train.optim's table, or a plug-in's."""

    whole: ClassVar[bool] = False  # whether it must see parameters in their shape; ZeRO shows it flat parts of them

    name: str = MISSING
    lr: Annotated[float, Limits(above=0, greatest=10)] = 1e-3  # the learning rate at its highest
    max_grad_norm: NotNegative = 1.0  # 0: gradients are not clipped


@dataclass
class AdamW(Optim):
    """AdamW (Loshchilov and Hutter 2019). Matrices are decayed; norms, biases and embeddings' gains are not."""

    name: str = "adamw"
    beta1: Annotated[float, Limits(least=0, below=1)] = 0.9  # of the running mean of gradients
    beta2: Annotated[float, Limits(least=0, below=1)] = 0.95  # of the running mean of their squares
    eps: Annotated[float, Limits(above=0, greatest=1)] = 1e-8  # added to the root in the denominator
    weight_decay: NotNegative = 0.1  # decoupled; of matrices alone


@dataclass
class Schedule:
    """The learning rate over steps, as a factor of optim.lr: a linear warm-up, then what each option says."""

    name: str = MISSING
    warmup_steps: Count = 0  # where `epochs` make fewer steps, a tenth of these


@dataclass
class Cosine(Schedule):
    """A half cosine down to `final_factor`."""

    name: str = "cosine"
    warmup_steps: Count = 20  # from 0 to optim.lr; where `epochs` make fewer steps, a tenth of these
    final_factor: Share = 0.1  # of optim.lr, at the last step


@dataclass
class Constant(Schedule):
    """The full rate to the end."""

    name: str = "constant"


@dataclass
class Zero:
    """DeepSpeed ZeRO (Rajbhandari et al. 2020); sizes in elements, None lets fmtrain choose by model size."""

    # parted over the ranks: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too
    stage: Annotated[int, Limits(choices=(0, 1, 2, 3))] = outside(2)
    offload_optimizer: bool = outside(False)  # its state in the host's memory
    reduce_bucket_size: Positive | None = outside(None)  # gradients that are summed over ranks at a time
    overlap_comm: bool = outside(False)  # sum them while the backward pass goes on
    param_persistence_threshold: Count | None = outside(None)  # stage 3: smaller parameters stay whole on every rank

    def bytes(self, parameters: int, ranks: int, width: int) -> float:
        """Of a rank's weights and gradients, `width` bytes a number, and of AdamW's fp32 state: its two means, and from
        stage 1 on the weights again (Rajbhandari et al. 2020, section 3.1)."""
        weights = parameters * width / (ranks if self.stage == 3 else 1)
        gradients = parameters * width / (ranks if self.stage >= 2 else 1)
        state = parameters * (12 if self.stage else 8) / (ranks if self.stage else 1)
        return weights + gradients + (0 if self.offload_optimizer else state)


@dataclass
class Checkpoint:
    """Step checkpoints of unfinished work; they never change the result."""

    every_steps: Count = outside(100)  # 0: only when asked to stop
    keep: Positive = outside(2)  # the newest so many


options(Model, llama=Llama, bert=Bert, hf=HuggingFace)
options(Optim, adamw=AdamW)
options(Schedule, cosine=Cosine, constant=Constant)
